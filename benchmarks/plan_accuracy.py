"""How near the plan's memory and time come to a real training's.

    python benchmarks/plan_accuracy.py [--model embedded:gemma-3-270m] [--steps 4]
                                       [--only lora,full,pretrain] [--out results.json]

Each stage is trained for a few steps in a process of its own, on lessons of random tokens; its peak
resident memory is what the kernel says (`ru_maxrss`; on a GPU what torch had allocated, with the
context), its time that of the steps after the first. The plan is made before, from the model's
files and this machine's calibration. A ratio is estimated ÷ measured. The last line is JSON; the
goal is every memory ratio within 0.8 and 1.2.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STAGES: dict[str, dict[str, Any]] = {
    "lora": {"kind": "finetune", "method": "lora"},
    "full": {"kind": "finetune", "method": "full"},
    "pretrain": {"kind": "pretrain", "method": "full"},
    "pretrain-long": {"kind": "pretrain", "method": "full", "batch_tokens": 4096},
    "lora-long": {"kind": "finetune", "method": "lora", "batch_tokens": 4096},
    "qlora": {"kind": "finetune", "method": "qlora"},
}
USUAL = "lora,full,pretrain"
LESSON_TOKENS = (96, 384)  # shortest and longest
ANSWER_SHARE = 0.1


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="embedded:gemma-3-270m", help="a folder's reference")
    options.add_argument("--steps", type=int, default=4, help="steps of each training")
    options.add_argument("--only", default=USUAL, help=f"of {', '.join(STAGES)}")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    options.add_argument("--work", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.work:
        print(json.dumps(measured(json.loads(given.work))))
        return
    from tokka.models.opening import locate

    folder = locate(given.model, Path(), print)
    found = {}
    for name in given.only.split(","):
        work = {"folder": str(folder), "steps": given.steps, **STAGES[name]}
        plan = planned(work)
        done = subprocess.run(
            [sys.executable, __file__, "--work", json.dumps(work)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found[name] = compared(plan, json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    result = {
        "memory": {name: one["memory_ratio"] for name, one in found.items()},
        "time": {name: one["time_ratio"] for name, one in found.items()},
        "within_20_percent": all(0.8 <= one["memory_ratio"] <= 1.2 for one in found.values()),
    }
    if given.out:
        given.out.write_text(json.dumps({"result": result, "stages": found}, indent=1) + "\n")
    print(json.dumps(result))


def spec_of(work: dict[str, Any]) -> Any:
    from tokka.records import FinetuneSpec, PretrainSpec

    settings = {"method": work["method"], "epochs": 1.0}
    if "batch_tokens" in work:
        settings["batch_tokens"] = work["batch_tokens"]
    if work["kind"] == "pretrain":
        return PretrainSpec(**settings)
    return FinetuneSpec(data="random", batch_examples=1000, **settings)


def lessons_of(work: dict[str, Any]) -> list[Any]:
    """As many as the steps take; of a pretraining every token is learnt, else the answer's."""
    from tokka.store import read_json
    from tokka.training.lessons import Lesson

    spec = spec_of(work)
    config = read_json(Path(work["folder"]) / "config.json")
    words = min(config["vocab_size"], 200_000)
    draw = random.Random(0)
    lessons = []
    tokens = 0
    while tokens < work["steps"] * spec.batch_tokens:
        pretraining = work["kind"] == "pretrain"
        length = spec.window_tokens if pretraining else draw.randint(*LESSON_TOKENS)
        start = 1 if pretraining else length - max(1, round(ANSWER_SHARE * length))
        ids = tuple(draw.randrange(10, words) for _ in range(length))
        lessons.append(Lesson(f"random-{len(lessons)}", ids, ((start, length),)))
        tokens += length
    return lessons


def planned(work: dict[str, Any]) -> dict[str, Any]:
    from tokka.amounts import amount
    from tokka.training.calibration import calibrate
    from tokka.training.fitting import runtime_bytes
    from tokka.training.memory import estimate
    from tokka.training.pace import measure_pace, training_seconds
    from tokka.training.shape import shape_of

    spec, lessons = spec_of(work), lessons_of(work)
    shape = shape_of(Path(work["folder"]))
    lengths = [len(lesson.ids) for lesson in lessons]
    counted = amount((lengths, [lesson.supervised for lesson in lessons]), 1.0, spec)
    memory = estimate(shape, spec, counted.longest, runtime=runtime_bytes())
    machine = calibrate()
    pace = measure_pace(Path(work["folder"]), shape, spec, machine, again=True)
    seconds = training_seconds(shape, spec, counted, machine, pace) if pace else None
    rate = counted.tokens / seconds if seconds else None
    return {
        "memory": memory.as_json(),
        "tokens_per_second": rate,
        "efficiency": pace.efficiency if pace else None,
    }


def measured(work: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: nothing else may have held memory before."""
    from tokka.training.training import train

    from tokka.training.start import Start

    lessons = lessons_of(work)
    steps: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            Path(folder),
            Start(Path(work["folder"]), "benchmark"),
            lessons,
            spec_of(work),
            progress=lambda tokens, note: steps.append((time.perf_counter(), tokens)),
        )
    return {
        "peak_bytes": _peak_bytes(),
        "steps": len(steps),
        "tokens_per_second": sum(n for _, n in steps[1:]) / (steps[-1][0] - steps[0][0]),
    }


def _peak_bytes() -> int:
    import torch

    if torch.cuda.is_available():
        from tokka.training.memory import CUDA_RUNTIME_BYTES

        return int(torch.cuda.max_memory_reserved()) + CUDA_RUNTIME_BYTES
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def compared(plan: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    told = plan["tokens_per_second"]
    return {
        "estimated_bytes": plan["memory"]["total"],
        "measured_bytes": real["peak_bytes"],
        "memory_ratio": round(plan["memory"]["total"] / real["peak_bytes"], 3),
        "parts": plan["memory"],
        "estimated_tokens_per_second": told,
        "measured_tokens_per_second": real["tokens_per_second"],
        "time_ratio": round(real["tokens_per_second"] / told, 3) if told else None,
        "efficiency": plan["efficiency"],
    }


if __name__ == "__main__":
    main()
