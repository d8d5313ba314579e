"""Tiny random models of each architecture, and the slow obvious computation to hold others against.

Family name → module, from configuration alone: nothing is downloaded, the weights follow from the
name. Every weight is random, norms and biases too, so that whatever is left out of a computation
shows in its result. What a family is there for stands in `FAMILIES`: windows shorter than the
prompts, layers of two kinds, rope by halves or by length, experts, heads that bend their logits.

>>> subject, reference = make("qwen3"), make("qwen3")
>>> naive_score(reference, prompt, option)
"""

from __future__ import annotations

import functools
import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokka.models.protocol import Prompt, ScoreRequest
from tokka.models.rendering import hash_ids

WINDOW = 16
CONTEXT = 160
VOCABULARY = 211
BOS = 3
TOLERANCE = 1e-4  # nats an option, float32
Ids = tuple[int, ...]

TWO_KINDS = ["sliding_attention", "full_attention"]
GROUPED = {"num_key_value_heads": 2}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}


@dataclass(frozen=True, slots=True)
class Family:
    """`known`: its prompts must share their work. `window`: beyond it, some layer sees nothing."""

    architecture: str
    settings: dict[str, Any] = field(default_factory=dict)
    known: bool = True
    window: int | None = None
    attention: str = "sdpa"
    embedding: float = 0.3  # its spread; too wide, and a tied random model repeats its last token


FAMILIES: dict[str, Family] = {
    "gemma3": Family(
        "gemma3_text",
        {
            "tie_word_embeddings": True,
            "head_dim": 16,
            "num_key_value_heads": 1,
            "query_pre_attn_scalar": 24,
            "sliding_window": WINDOW,
            "layer_types": [*TWO_KINDS, "sliding_attention"],
            "num_hidden_layers": 3,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            },
        },
        window=WINDOW,
        embedding=0.12,
    ),
    "llama": Family(
        "llama",
        {
            **GROUPED,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 40,
            },
        },
    ),
    "smollm2": Family("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "qwen2": Family("qwen2", GROUPED),
    "qwen2-window": Family(
        "qwen2",
        {
            **GROUPED,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 1,
            "num_hidden_layers": 3,
        },
        window=WINDOW,
    ),
    "qwen3": Family("qwen3", {**GROUPED, "head_dim": 16}),
    "mistral": Family("mistral", {**GROUPED, "sliding_window": None}),
    "mistral-window": Family("mistral", {**GROUPED, "sliding_window": WINDOW}, window=WINDOW),
    "phi3": Family(
        "phi3",
        {
            **GROUPED,
            "sliding_window": WINDOW,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
            },
        },
        window=WINDOW,
    ),
    # Rope by the length of the text: a prompt beyond 40 tokens turns all its positions otherwise.
    "phi3-longrope": Family(
        "phi3",
        {
            **GROUPED,
            "original_max_position_embeddings": 40,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 1.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0],
            },
        },
        known=False,
    ),
    "mixtral": Family("mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": Family(
        "qwen3_moe",
        {**GROUPED, **EXPERTS, "head_dim": 16, "num_experts": 4, "norm_topk_prob": True},
    ),
    "qwen2-moe": Family(
        "qwen2_moe",
        {
            **GROUPED,
            **EXPERTS,
            "num_experts": 4,
            "shared_expert_intermediate_size": 32,
            "mlp_only_layers": [0],
        },
    ),
    "gemma2": Family(
        "gemma2",
        {
            "head_dim": 16,
            "num_key_value_heads": 2,
            "query_pre_attn_scalar": 24,
            "sliding_window": WINDOW,
            "layer_types": TWO_KINDS,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        known=False,
        window=WINDOW,
        attention="eager",
    ),
    "granite": Family(
        "granite",
        {
            **GROUPED,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.7,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
        },
        known=False,
    ),
    "cohere": Family(
        "cohere", {**GROUPED, "logit_scale": 0.5, "tie_word_embeddings": True}, known=False
    ),
    "gpt2": Family(
        "gpt2",
        {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "n_inner": 64},
        known=False,
    ),
    "falcon": Family("falcon", {"ffn_hidden_size": 64, "bias": True}, known=False),
    "bloom": Family(
        "bloom",
        {"n_layer": 2, "n_head": 4, "seq_length": CONTEXT},
        known=False,
        attention="eager",
    ),
}
ALL = tuple(FAMILIES)
KNOWN = tuple(name for name in ALL if FAMILIES[name].known)
WINDOWED = tuple(name for name in ALL if FAMILIES[name].window)
UNKNOWN = ("gpt2", "falcon", "bloom")
# A few that differ in what their masks and heads need, for cases that the others only repeat.
VARIED = ("gemma3", "llama", "phi3", "qwen3-moe", "gpt2")
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def make(name: str, **changes: Any) -> Any:
    """A new float32 module of the family, the same weights each time; `changes` go to its config
    and leave the weights of equal shape as they are."""
    import torch
    import transformers

    family = FAMILIES[name]
    config = transformers.AutoConfig.for_model(
        family.architecture, **{**SHAPE, **family.settings, **changes}
    )
    module = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=family.attention, dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for label, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:  # norms about what they are, biases about nothing
                weight.add_(0.2 * noise)
            elif "embed" in label or label.endswith(("wte.weight", "wpe.weight", "lm_head.weight")):
                weight.copy_(family.embedding * noise)
            else:
                weight.copy_(1.5 * noise / weight.shape[-1] ** 0.5)
    return module.eval()


@functools.cache
def reference(name: str) -> Any:
    """A module that nobody else changes, for the naive computations."""
    return make(name)


# ---- the slow obvious way -----------------------------------------------------------------------


def naive_score(module: Any, prompt: Ids, option: Ids) -> float:
    """log p(option | prompt) in nats: one whole forward, all logits, float32."""
    import torch

    ids = torch.tensor([(prompt + option)[:-1]])
    with torch.inference_mode():
        logits = module(input_ids=ids, use_cache=False).logits[0].float()
    steps = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 :]
    return float(steps.gather(1, torch.tensor(option)[:, None]).double().sum())


@functools.cache
def score_of(name: str, prompt: Ids, option: Ids) -> float:
    return naive_score(reference(name), prompt, option)


def cut(prompt: Ids, room: int) -> Ids:
    """BOS and the end of a prompt, `room` tokens in all."""
    return prompt if len(prompt) <= room else (prompt[0], *prompt[len(prompt) - room + 1 :])


def scores_of(name: str, prompt: Ids, options: Sequence[Ids]) -> tuple[float, ...]:
    """Each option alone, after what of the prompt leaves room for the longest of them."""
    kept = cut(prompt, CONTEXT - max(map(len, options)) + 1)  # the last token is never fed
    return tuple(score_of(name, kept, option) for option in options)


def greedily(module: Any, prompt: Ids, tokens: int) -> tuple[Ids, float]:
    """`tokens` ids, each the largest logit of a whole forward, and the smallest lead that one of
    them had over the next: where it is tiny, no computation can be told from another."""
    import torch

    ids, lead = list(prompt), float("inf")
    for _ in range(tokens):
        with torch.inference_mode():
            logits = module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()
        (best, second), (token, _) = (part.tolist() for part in logits.topk(2))
        lead = min(lead, best - second)
        ids.append(token)
    return tuple(ids[len(prompt) :]), lead


@functools.cache
def greedy_of(name: str, prompt: Ids, tokens: int) -> tuple[Ids, float]:
    return greedily(reference(name), prompt, tokens)


# ---- what is asked ------------------------------------------------------------------------------


def some_ids(draw: random.Random, length: int) -> Ids:
    return tuple(draw.randrange(5, VOCABULARY) for _ in range(length))


def some_options(draw: random.Random) -> tuple[Ids, ...]:
    """1 to 12 options of 1 to 5 tokens; some begin alike, some end where another goes on."""
    stem = some_ids(draw, draw.randint(1, 3))
    kinds: list[Callable[[], Ids]] = [
        lambda: some_ids(draw, 1),
        lambda: some_ids(draw, draw.randint(2, 5)),
        lambda: stem,
        lambda: stem + some_ids(draw, draw.randint(1, 2)),
    ]
    return tuple(draw.choice(kinds)() for _ in range(draw.choice((1, 2, 4, 5, 12))))


SHAPES = ("apart", "short start", "long start", "passages")


def some_questions(shape: str, seed: int = 0) -> list[ScoreRequest]:
    """Prompts that share nothing but BOS, a start of 5 or of 40 tokens, or a start and, three by
    three, a passage; questions of 1 to 30 tokens, one twice and one that another goes on from."""
    draw = random.Random(f"{shape} {seed}")
    start = (BOS, *some_ids(draw, {"apart": 0, "short start": 4}.get(shape, 39)))
    passages = [some_ids(draw, n) for n in (24, 9, 30)] if shape == "passages" else [()]
    prompts = []
    for passage in passages:
        for length in (1, 8, 30) if len(passages) > 1 else (1, 3, 12, 19, 30):
            prompts.append(start + passage + some_ids(draw, length))
    prompts += [prompts[1], prompts[1] + some_ids(draw, 6)]
    draw.shuffle(prompts)
    return [ScoreRequest(prompt, some_options(draw)) for prompt in prompts]


def some_prompts(shape: str, seed: int = 0) -> list[Prompt]:
    return [prompt_of(request.prompt) for request in some_questions(shape, seed)]


def prompt_of(ids: Ids) -> Prompt:
    return Prompt(ids, (), hash_ids(ids), "tokens")


@dataclass(frozen=True)
class Words:
    """A renderer for ids without text: each id is shown as its number."""

    stop_ids: frozenset[int] = frozenset({1})
    stop: tuple[str, ...] = ()
    chat_template: bool = False
    show: Callable[[Sequence[int]], str] = lambda ids: " ".join(map(str, ids))

    def decode(self, ids: Sequence[int]) -> str:
        return self.show(ids)


class Shelf(dict[str, str]):
    """A memo in memory, through JSON as the real one."""

    def get(self, key: str) -> Any | None:  # type: ignore[override]
        return json.loads(self[key]) if key in self else None

    def put(self, key: str, value: Any) -> None:
        self[key] = json.dumps(value)


def opened(name: str, renderer: Any = None, module: Any = None, **how: Any) -> Any:
    """The engine over a fresh module of the family."""
    from tokka.models.torch_model import TorchModel

    named = {"name": name, "digest": name, **how}
    return TorchModel(module or make(name), renderer or Words(), **named)


def scored(model: Any, asked: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
    return [result.loglikelihoods for result in model.score(asked)]
