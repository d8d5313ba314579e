"""tokka against transformers' `generate` and llama.cpp's server: 64 short answers, greedy.

    python benchmarks/generate_vs_transformers.py --data FOLDER [--quick] [--out results.json]

Work: JSQuAD questions, each after its paragraph, picked evenly from the shortest paragraph to the
longest and then shuffled; up to 32 tokens, ended by EOS or a line break. transformers gets them in
left-padded batches of 8, llama.cpp's server in 8 slots; everybody gets the same token ids, and only
tokens up to an answer's end count. bf16, twice, one after the other, each time in new processes;
loading is not counted, compiling is. Then 16 of them in float32, to compare texts with
transformers'. `--quick` does a quarter of everything, `--shots 4` puts the same solved questions
before every prompt.

llama.cpp gets the same weights as GGUF, as published (4 bit) and as bf16; the faster one counts.
Where torch has a GPU and xllamacpp has none, llama.cpp is left out. A ratio above 1 says that tokka
makes more tokens a second. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf_bf16 import bf16_of
from measuring import Facts, environment, machine, run, say, table
from public_data import Row, add_data_option, data_folder, jsquad

HERE = Path(__file__).parent
PROMPTS = 64
EXACT_PROMPTS = 16
MAX_TOKENS = 32
BATCH = 8
ROUNDS = 2


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_option(options)
    options.add_argument("--model", default="embedded:gemma-3-270m", help="reference of a folder")
    options.add_argument("--gguf", type=Path, help="the same model for llama.cpp (not embedded)")
    options.add_argument("--shots", type=int, default=0, help="solved questions before each prompt")
    options.add_argument("--quick", action="store_true", help="a quarter of the work")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    given = options.parse_args()
    part = 4 if given.quick else 1
    rows = jsquad(data_folder(given.data))
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    from tokka.models.opening import locate

    model = locate(given.model, Path(), say)
    shots, asked = set_apart(rows, given.shots)
    prompts = render(model, pick(asked, PROMPTS // part), shots)
    measured = compare(str(model), ggufs(given.model, given.gguf), prompts, EXACT_PROMPTS // part)
    found = summary(measured)
    print(report(measured))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"summary": found, "quick": given.quick, "shots": given.shots, "machine": facts}
        given.out.write_text(
            json.dumps(whole | measured, ensure_ascii=False, indent=1), encoding="utf-8"
        )
    print(json.dumps(found))


# ---- the work -----------------------------------------------------------------------------------


def set_apart(rows: Sequence[Row], shots: int) -> tuple[list[Row], list[Row]]:
    """The first question of each of the first paragraphs, and all questions on other paragraphs."""
    first = list({row["context"]: row for row in reversed(rows)}.values())[::-1][:shots]
    shown = {row["context"] for row in first}
    return first, [row for row in rows if row["context"] not in shown]


def pick(rows: Sequence[Row], count: int) -> list[Row]:
    """One question a paragraph, evenly from the shortest paragraph to the longest, shuffled."""
    by_length = sorted({row["context"]: row for row in rows}.items(), key=lambda pair: len(pair[0]))
    step = (len(by_length) - 1) / (count - 1)
    chosen = [by_length[round(number * step)][1] for number in range(count)]
    random.Random(0).shuffle(chosen)
    return chosen


def render(model: Path, rows: Sequence[Row], shots: Sequence[Row]) -> list[list[int]]:
    from tokka.models.opening import open_renderer
    from tokka.records import Message

    renderer = open_renderer(model, "ja")
    before = []
    for shot in shots:
        before += [
            Message(role="user", content=_asked(shot)),
            Message(role="assistant", content=shot["answers"][0]["text"]),
        ]
    return [
        list(renderer.prompt((*before, Message(role="user", content=_asked(row)))).ids)
        for row in rows
    ]


def _asked(row: Row) -> str:
    return f"{row['context']}\n質問：{row['question']}"


def ggufs(reference: str, given: Path | None) -> dict[str, Path]:
    """The files that llama.cpp may read; none where it would compute elsewhere than torch does."""
    from importlib.util import find_spec

    import torch

    from tokka.models import embedded

    if find_spec("xllamacpp") is None:
        say("xllamacpp is not installed (pip install 'tokka[llamacpp]'): llama.cpp is left out")
        return {}
    import xllamacpp

    devices = {str(device["type"]) for device in xllamacpp.get_device_info()}
    if torch.cuda.is_available() and not any("GPU" in device for device in devices):
        say("xllamacpp has no GPU here: llama.cpp is left out")
        return {}
    if given is not None:
        return {"llamacpp": given}
    if not reference.startswith("embedded:"):
        say("no --gguf was named: llama.cpp is left out")
        return {}
    published = embedded.gguf_path(reference.removeprefix("embedded:"))
    return {"llamacpp 4 bit": published, "llamacpp bf16": bf16_of(published)}


# ---- the measurement ----------------------------------------------------------------------------


def compare(
    model: str, files: dict[str, Path], prompts: Sequence[list[int]], exact: int
) -> dict[str, Any]:
    """`rounds`: for each round the contestants' results by name; `exact`: tokka and transformers
    in float32."""
    job = {"model": model, "max_tokens": MAX_TOKENS, "batch": BATCH, "threads": _cores()}
    rounds = []
    for number in range(1, ROUNDS + 1):
        found = {}
        for name in ("transformers", "tokka", *files):
            say(f"round {number} of {ROUNDS}, bfloat16: {name}")
            path = str(files[name]) if name in files else ""
            found[name] = _ask(name, {**job, "prompts": prompts, "gguf": path})
        check_same_work(prompts, found)
        rounds.append(found)
    part, both = prompts[:exact], {}
    for name in ("transformers", "tokka"):
        say(f"float32: {name}")
        both[name] = _ask(name, {**job, "prompts": part, "dtype": "float32"})
    check_same_work(part, both)
    return {"rounds": rounds, "exact": both}


def _ask(name: str, job: Facts) -> Facts:
    command = [sys.executable, str(HERE / "generate_contestants.py"), name.split()[0]]
    return run(command, {"dtype": "bfloat16", **job}, environment())


def check_same_work(prompts: Sequence[list[int]], found: dict[str, Facts]) -> None:
    """Everybody was given the same token ids; each must have taken and answered all of them."""
    for name, result in found.items():
        if result["prompt_tokens"] != [len(ids) for ids in prompts]:
            sys.exit(f"{name} saw {result['prompt_tokens']} prompt tokens; there is no ratio")
        if len(result["texts"]) != len(prompts):
            sys.exit(f"{name} wrote {len(result['texts'])} answers to {len(prompts)} prompts")


def _cores() -> int:
    may_use = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(may_use(0)) if may_use else os.cpu_count() or 1


# ---- the figures --------------------------------------------------------------------------------


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """The line at the end. Tokens and seconds are added up over the rounds."""
    rounds, exact = measured["rounds"], measured["exact"]
    own = _speed(rounds, "tokka")
    theirs = [_speed(rounds, name) for name in rounds[0] if name.startswith("llamacpp")]
    return {
        "ratio_transformers": round(own / _speed(rounds, "transformers"), 2),
        "ratio_llamacpp": round(own / max(theirs), 2) if theirs else None,
        "identical_fp32": exact["tokka"]["texts"] == exact["transformers"]["texts"],
    }


def report(measured: dict[str, Any]) -> str:
    rounds, exact = measured["rounds"], measured["exact"]
    rows: list[Sequence[object]] = [
        ("bfloat16", "prompts", "tokens in", "tokens out", "seconds", "tokens/s", "as tokka", "MiB")
    ]
    for name, last in rounds[-1].items():
        same = sum(a == b for a, b in zip(last["texts"], rounds[-1]["tokka"]["texts"], strict=True))
        rows.append(
            (
                name,
                len(last["texts"]),
                sum(last["prompt_tokens"]),
                " ".join(str(sum(turn[name]["tokens"])) for turn in rounds),
                " ".join(f"{turn[name]['seconds']:.1f}" for turn in rounds),
                _speed(rounds, name),
                f"{same} texts",
                last["peak_bytes"] >> 20,
            )
        )
    lengths = rounds[0]["tokka"]["prompt_tokens"]
    batches = [lengths[i : i + BATCH] for i in range(0, len(lengths), BATCH)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    pairs = list(zip(exact["tokka"]["texts"], exact["transformers"]["texts"], strict=True))
    lines = [
        f"padding in transformers' batches: {1 - sum(lengths) / padded:.0%} of their prompt tokens",
        f"float32: {sum(a == b for a, b in pairs)} of {len(pairs)} texts identical",
    ]
    lines += [f"  tokka        {a!r}\n  transformers {b!r}" for a, b in pairs if a != b]
    about = (
        f"{name}: {side.get('device', 'cpu')}, {side.get('threads', _cores())} threads, "
        f"{json.dumps(side['versions'])}"
        for name, side in rounds[-1].items()
    )
    return "\n".join([table(rows), "", *lines, "", *about])


def _speed(rounds: Sequence[dict[str, Facts]], name: str) -> float:
    """Tokens a second."""
    return sum(sum(turn[name]["tokens"]) for turn in rounds) / sum(
        turn[name]["seconds"] for turn in rounds
    )


if __name__ == "__main__":
    main()
