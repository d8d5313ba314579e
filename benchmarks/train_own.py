"""tokka trains on the same lessons, as `tokka run` would: a contestant.

Job: as for `train_peer`, without `setup`. The clock runs from the end of
the first step to the end of the last; checkpoints that are written on the way are inside.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from measuring import Facts, contestant, peak_bytes, tell

from tokka.records import FinetuneSpec, PretrainSpec, TrainingSpec
from tokka.training.lessons import Lesson
from tokka.training.start import Start
from tokka.training.training import train


def work(job: Facts) -> Facts:
    lessons = [
        Lesson(str(number), tuple(ids), ((start, len(ids)),))
        for number, (ids, start) in enumerate(job["lessons"])
    ]
    started = time.perf_counter()
    ends: list[float] = []
    cpu_ends: list[float] = []
    tokens: list[int] = []

    def progress(done: int, note: str) -> None:
        ends.append(time.perf_counter() - started)
        cpu_ends.append(time.process_time())
        tokens.append(done)
        if len(ends) % 4 == 1:
            tell(f"tokka: step {len(ends)}, {sum(tokens):,} tokens, {note}")

    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    train(
        folder,
        Start(Path(job["model"]), "benchmark"),
        lessons,
        spec(job),
        progress=progress,
        dtype=job["dtype"],
        place=job["method"],
    )
    seconds = time.perf_counter() - started
    told = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return {
        "ends": ends,
        "cpu_ends": cpu_ends,
        "tokens": tokens,
        "learnt_in_all": told["supervised_tokens"],
        "tokens_in_all": told["tokens"],
        "read_in_all": told["read_tokens"],
        "steps": told["steps"],
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "parameters": told["parameters"],
    }


def spec(job: Facts) -> TrainingSpec:
    """The numbers that both sides share; all else is tokka's default."""
    shared = {
        "learning_rate": job["learning_rate"],
        "epochs": 1,
        "batch_tokens": job["batch_tokens"],
        "warmup_ratio": job["warmup_ratio"],
        "seed": job["seed"],
    }
    if job["method"] == "pretrain":
        longest = max(len(ids) for ids, _ in job["lessons"])
        return PretrainSpec(method="full", window_tokens=longest, **shared)
    return FinetuneSpec(
        data="-",
        method="lora",
        rank=job["rank"],
        alpha=job["alpha"],
        batch_examples=len(job["lessons"]),  # the budget of tokens decides
        **shared,
    )


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the `tokka` command does
    contestant(work)
