"""Scoring options and LoRA training on a model of Gemma 3 270M's shape with random weights.

    python benchmarks/engine.py [--questions 16] [--small]

Speed does not depend on what the weights say, so none are needed: this runs anywhere, with a GPU
where there is one. The peer is the usual way, one request at a time through the model with all
logits. Both must give the same log-likelihoods (float32, 1e-4 a token). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from tokka.models.protocol import ScoreRequest
from tokka.models.torch_model import TorchModel
from tokka.records import FinetuneSpec
from tokka.training.lessons import Lesson
from tokka.training.start import Start
from tokka.training.training import train


class Words:
    """A renderer for ids without text."""

    chat_template = False
    stop_ids = frozenset({1})
    stop = ()

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))


def make(small: bool) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 4096, "num_hidden_layers": 6} if small else {"num_hidden_layers": 18}
    config = Gemma3TextConfig(
        **{"vocab_size": 262_144, **shape},
        hidden_size=640,
        intermediate_size=2048,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        sliding_window=512,
        tie_word_embeddings=True,
    )
    return Gemma3ForCausalLM(config)


def requests(count: int, vocabulary: int) -> list[ScoreRequest]:
    """Five shots shared by all (400 tokens), a question of 30–90, five options of 2–8."""
    draw = random.Random(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(10, vocabulary) for _ in range(n))

    shots = (2, *ids(399))
    return [
        ScoreRequest(
            shots + ids(draw.randint(30, 90)), tuple(ids(draw.randint(2, 8)) for _ in range(5))
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def one_at_a_time(module: Any, asked: list[ScoreRequest]) -> list[list[float]]:
    device = module.get_input_embeddings().weight.device
    values = []
    for request in asked:
        row = []
        for option in request.options:
            ids = torch.tensor([request.prompt + option], device=device)
            logits = module(input_ids=ids, use_cache=False).logits[0].float()
            start = len(request.prompt) - 1
            chosen = torch.log_softmax(logits[start:-1], dim=-1)
            target = torch.tensor(option, device=device)[:, None]
            row.append(float(chosen.gather(1, target).sum()))
        values.append(row)
    return values


def timed(work: Any) -> tuple[Any, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--questions", type=int, default=16)
    options.add_argument("--small", action="store_true", help="a fraction of the layers and words")
    given = options.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    asked = requests(given.questions, 4096 if given.small else 262_144)
    exact = make(given.small).to(device).eval()
    few = asked[:4]
    ours = TorchModel(exact, Words(), name="random", digest="random")  # type: ignore[arg-type]
    truth = one_at_a_time(exact, few)
    worst = max(
        abs(a - b) / len(option)
        for result, row, request in zip(ours.score(few), truth, few, strict=True)
        for a, b, option in zip(result.loglikelihoods, row, request.options, strict=True)
    )
    module = exact.to(torch.bfloat16)
    ours = TorchModel(module, Words(), name="random", digest="random")  # type: ignore[arg-type]
    one_at_a_time(module, asked[:2]), list(ours.score(asked[:8]))  # warm up
    _, peer_seconds = timed(lambda: one_at_a_time(module, asked))
    _, own_seconds = timed(lambda: list(ours.score(asked)))
    print(
        f"{name}: {len(asked)} questions of 5 options, bf16: one at a time {peer_seconds:.2f} s, "
    )
    print(f"ours {own_seconds:.2f} s; float32 differs by {worst:.1e} a token at most")
    draw = random.Random(1)
    lessons = [
        Lesson(str(i), tuple(draw.randrange(10, 4096) for _ in range(160)), ((128, 160),))
        for i in range(256)
    ]
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(f"{folder}/base")
        spec = FinetuneSpec(data="-", epochs=1, batch_examples=32, batch_tokens=8192)
        if device == "cpu":
            spec = spec.model_copy(update={"max_train_tokens": 8192, "batch_tokens": 1024})
        clock: list[tuple[float, int]] = []
        Path(f"{folder}/adapter").mkdir()
        train(
            Path(f"{folder}/adapter"),
            Start(Path(f"{folder}/base"), "random"),
            lessons,
            spec,
            progress=lambda n, _: clock.append((time.perf_counter(), n)),
        )
    seconds = clock[-1][0] - clock[0][0]
    speed = sum(n for _, n in clock[1:]) / seconds
    print(f"LoRA r={spec.rank}: {speed:,.0f} tokens/s after the first step")
    print(
        json.dumps(
            {
                "ratio": round(peer_seconds / own_seconds, 2),
                "device": name,
                "questions": len(asked),
                "float32_difference_per_token": worst,
                "train_tokens_per_second": round(speed),
            }
        )
    )


if __name__ == "__main__":
    main()
