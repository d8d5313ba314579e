"""Three ways to write short answers to the same prompts: tokka, transformers, llama.cpp's server.

    python generate_contestants.py tokka|transformers|llamacpp JOB.json FOUND.json

Job: `model` (folder), `dtype`, `prompts` (token ids), `max_tokens`, `batch`; for llama.cpp `gguf`
and `threads`. All are greedy and end an answer alike: at EOS, at the first line break after
something visible, or after `max_tokens`. Tokens are counted up to there, so nobody is paid for what
is thrown away. The clock runs from the token ids to the last text, without loading the model.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Facts, Timed, contestant, tell, timed

from tokka.models.batches import answer_end
from tokka.models.opening import open_model, open_renderer

STOP = ("\n",)


@dataclass(frozen=True)
class Written:
    text: str
    tokens: int


def tokka(job: Facts) -> Facts:
    from tokka.models.protocol import GenerateRequest, Prompt

    with open_model(job["model"], root=Path(), language="ja", dtype=job["dtype"]) as model:
        requests = [
            GenerateRequest(Prompt(tuple(ids), (), "", "tokens"), job["max_tokens"], stop=STOP)
            for ids in job["prompts"]
        ]
        run = timed(lambda: list(model.generate(requests)))
    written = [Written(result.text, result.tokens_out) for result in run.value]
    return _found(run, written, [result.tokens_in for result in run.value])


def transformers(job: Facts) -> Facts:
    """`generate` on left-padded batches in the order of the prompts; a batch ends when all its rows
    have."""
    import torch

    from tokka.models.torch_model import load_module

    module = load_module(Path(job["model"]), job["dtype"]).eval()
    renderer = open_renderer(Path(job["model"]), "ja")
    ends = sorted(renderer.stop_ids)
    prompts, size = job["prompts"], job["batch"]

    def batch(rows: Sequence[list[int]]) -> list[list[int]]:
        width = max(map(len, rows))
        padded = [[0] * (width - len(row)) + row for row in rows]
        seen = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = module.get_input_embeddings().weight.device
        out = module.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(seen, device=device),
            do_sample=False,
            top_k=None,
            top_p=None,
            max_new_tokens=job["max_tokens"],
            eos_token_id=ends,
            pad_token_id=ends[0],
            stopping_criteria=[_said(renderer, width)],
        )
        return [row[width:] for row in out.tolist()]

    def whole() -> list[list[int]]:
        spoken = []
        for start in range(0, len(prompts), size):
            spoken += batch(prompts[start : start + size])
            tell(f"{len(spoken)} of {len(prompts)}")
        return spoken

    run = timed(whole)
    written = [_cut(ids, renderer) for ids in run.value]
    return _found(run, written, [len(ids) for ids in prompts])


def _said(renderer: Any, width: int) -> Any:
    """A stopping criterion: which rows have reached the end of their answer. A row stays ended."""
    import torch

    ended: set[int] = set()

    def criterion(ids: Any, scores: Any, **_: Any) -> Any:
        for row, spoken in enumerate(ids[:, width:].tolist()):
            if row not in ended and answer_end(renderer.decode(spoken), STOP) is not None:
                ended.add(row)
        return torch.tensor([row in ended for row in range(len(ids))], device=ids.device)

    return criterion


def _cut(ids: Sequence[int], renderer: Any) -> Written:
    """An answer up to its end, and how many tokens it took to get there (EOS not counted)."""
    for count, token in enumerate(ids):
        if token in renderer.stop_ids:
            return Written(renderer.decode(ids[:count]), count)
        text = renderer.decode(ids[: count + 1])
        if (end := answer_end(text, STOP)) is not None:
            return Written(text[:end], count + 1)
    return Written(renderer.decode(ids), len(ids))


def llamacpp(job: Facts) -> Facts:
    """llama.cpp's server with as many slots as a batch has rows, and as many waiting clients.

    The answers are streamed and given up at their end: a stop string would also end those that
    begin with a line break.
    """
    import httpx
    import xllamacpp

    prompts, slots = job["prompts"], job["batch"]
    width = -(-(max(map(len, prompts)) + job["max_tokens"] + 8) // 256) * 256
    params = xllamacpp.CommonParams()
    params.model.path = job["gguf"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = slots * width
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    # No prompt comes twice, so keeping old ones would only cost time.
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    params.fit_params = False
    params.ui = False
    params.offline = True
    server = xllamacpp.Server(params)
    written: list[Written | None] = [None] * len(prompts)
    lengths = [0] * len(prompts)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    failures: list[BaseException] = []
    for index in range(len(prompts)):
        waiting.put(index)

    def client() -> None:
        try:
            with httpx.Client(base_url=server.listening_address, timeout=None) as http:
                while True:
                    index = waiting.get_nowait()
                    written[index], lengths[index] = _stream(http, prompts[index], job)
        except queue.Empty:
            return
        except BaseException as error:
            failures.append(error)

    def whole() -> None:
        clients = [threading.Thread(target=client) for _ in range(slots)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()

    run = timed(whole)
    if failures:
        raise failures[0]
    return _found(run, [answer for answer in written if answer is not None], lengths)


def _stream(http: Any, ids: list[int], job: Facts) -> tuple[Written, int]:
    """The answer, and how many prompt tokens the server counted."""
    body = {
        "prompt": ids,
        "n_predict": job["max_tokens"],
        "samplers": ["top_k"],
        "top_k": 1,
        "stream": True,
        "return_tokens": True,
        "timings_per_token": True,
    }
    text, count, length = "", 0, 0
    with http.stream("POST", "/completion", json=body) as reply:
        reply.raise_for_status()
        for line in reply.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            text += event["content"]
            count += len(event["tokens"])
            if timings := event.get("timings"):
                length = timings["prompt_n"] + timings["cache_n"]
            if event["stop"] or (end := answer_end(text, STOP)) is not None:
                break
    end = answer_end(text, STOP)
    return Written(text if end is None else text[:end], count), length


def _found(run: Timed, written: Sequence[Written], lengths: Sequence[int]) -> Facts:
    return {
        "seconds": run.seconds,
        "peak_bytes": run.peak_bytes,
        "texts": [answer.text for answer in written],
        "tokens": [answer.tokens for answer in written],
        "prompt_tokens": list(lengths),
    }


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the `tokka` command does
    contestant({"tokka": tokka, "transformers": transformers, "llamacpp": llamacpp}[sys.argv[1]])
