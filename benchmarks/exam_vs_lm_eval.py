"""tokka against lm-evaluation-harness 0.4.13 (`hf`): the same exams, model, shots and dtype.

    python benchmarks/exam_vs_lm_eval.py --data FOLDER [--quick] [--out results.json]

Work: JCommonsenseQA valid, the first 200 questions with five shots, and lawqa_jp, the first 60 with
the gold context and none; in bf16, twice, one after the other, each time in new processes. The peer
uses the best of three batch sizes, found on a tenth of the work. Loading the model is not counted;
tokenising, compiling and scoring are. Then both again in float32 on 50 questions of each, to
compare log-likelihoods. `--quick` does a quarter of everything.

A ratio above 1 says that tokka is faster. Before it is printed, the token ids of all requests are
compared. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from exam_work import Work, first, works, write_task
from measuring import Facts, environment, machine, run, say, table
from peer_environment import VERSION, python_of_the_peer
from public_data import add_data_option, data_folder

HERE = Path(__file__).parent
BATCH_SIZES = (1, 4, 8)
ROUNDS = 2
EXACT_QUESTIONS = 50
PEER = f"lm-evaluation-harness {VERSION}"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_option(options)
    options.add_argument("--model", default="embedded:gemma-3-270m", help="reference of a folder")
    options.add_argument("--quick", action="store_true", help="a quarter of the work")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    given = options.parse_args()
    every = works(data_folder(given.data))
    exact = EXACT_QUESTIONS
    if given.quick:
        every = {key: first(work, len(work.documents) // 4) for key, work in every.items()}
        exact //= 4
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    measured = compare(every, exact, model_folder(given.model), python_of_the_peer())
    found = summary(measured)
    print(report(measured))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"summary": found, "quick": given.quick, "model": given.model, "machine": facts}
        given.out.write_text(
            json.dumps(whole | brief(measured), ensure_ascii=False, indent=1), encoding="utf-8"
        )
    print(json.dumps(found))


def model_folder(reference: str) -> str:
    """Both sides read this one folder."""
    from tokka.models.opening import kind, locate

    if kind(reference) in ("gguf", "endpoint"):
        sys.exit(f"--model: {reference} is no folder of safetensors, which the harness needs")
    return str(locate(reference, Path(), say))


# ---- the measurement ----------------------------------------------------------------------------


def compare(every: dict[str, Work], exact: int, model: str, python: str) -> Facts:
    """All sittings of both sides, checked to have asked the same token ids.

    `peer` and `own` hold the rounds, each {work: sitting}; `peer_exact` and `own_exact` the sitting
    in float32; `batch_sizes` and `trials` how the peer's batch size was found.
    """
    with tempfile.TemporaryDirectory(prefix="tokka-tasks-") as tasks:
        for work in every.values():
            write_task(work, Path(tasks))
        trials = _trials(every, model, python, tasks)
        sizes = {key: min(found, key=lambda size: found[size]) for key, found in trials.items()}
        say(f"the peer's batch sizes: {sizes}")
        whole = {key: len(work.documents) for key, work in every.items()}
        part = {key: min(exact, count) for key, count in whole.items()}
        measured: Facts = {"titles": {key: work.title for key, work in every.items()}}
        measured |= {"batch_sizes": sizes, "trials": trials, "peer": [], "own": [], "processes": {}}
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}, bfloat16: {PEER}")
            peer = _peer(every, whole, sizes, model, python, tasks, "bfloat16", measured)
            say(f"round {number} of {ROUNDS}, bfloat16: tokka")
            own = _own(every, whole, model, "bfloat16", measured)
            check_same_work(own, peer)
            measured["peer"].append(peer)
            measured["own"].append(own)
        say(f"float32: {PEER}")
        peer = _peer(every, part, sizes, model, python, tasks, "float32", measured)
        say("float32: tokka")
        own = _own(every, part, model, "float32", measured)
        check_same_work(own, peer)
        return measured | {"peer_exact": peer, "own_exact": own}


def _trials(
    every: dict[str, Work], model: str, python: str, tasks: str
) -> dict[str, dict[int, float]]:
    """Seconds for a tenth of each work by batch size, in a process whose memory is not measured."""
    say(f"a tenth of the work with batches of {BATCH_SIZES}: {PEER}")
    asked = [(key, size) for key in every for size in BATCH_SIZES]
    warm_up = {"task": next(iter(every.values())).name, "limit": 1, "batch_size": 1}
    sittings = [
        {
            "task": every[key].name,
            "limit": -(-len(every[key].documents) // 10),
            "batch_size": size,
        }
        for key, size in asked
    ]
    job = {"model": model, "tasks": tasks, "dtype": "bfloat16", "sittings": [warm_up, *sittings]}
    found = run([python, str(HERE / "exam_peer.py")], job, environment())["sittings"][1:]
    trials: dict[str, dict[int, float]] = {key: {} for key in every}
    for (key, size), sitting in zip(asked, found, strict=True):
        trials[key][size] = sitting["seconds"]
    return trials


def _peer(
    every: dict[str, Work],
    counts: dict[str, int],
    sizes: dict[str, int],
    model: str,
    python: str,
    tasks: str,
    dtype: str,
    measured: Facts,
) -> Facts:
    sittings = [
        {"task": work.name, "limit": counts[key], "batch_size": sizes[key]}
        for key, work in every.items()
    ]
    job = {"model": model, "tasks": tasks, "dtype": dtype, "sittings": sittings}
    found = run([python, str(HERE / "exam_peer.py")], job, environment())
    measured["processes"]["peer"] = _without_sittings(found)
    return dict(zip(every, found["sittings"], strict=True))


def _own(
    every: dict[str, Work], counts: dict[str, int], model: str, dtype: str, measured: Facts
) -> Facts:
    sittings = []
    for key, whole in every.items():
        work = first(whole, counts[key])
        sittings.append(
            {
                "name": work.name,
                "prompts": work.prompts,
                "choices": [document.choices for document in work.documents],
                "answers": [document.answer for document in work.documents],
            }
        )
    job = {"model": model, "dtype": dtype, "sittings": sittings}
    found = run([sys.executable, str(HERE / "exam_own.py")], job, environment())
    measured["processes"]["own"] = _without_sittings(found)
    return dict(zip(every, found["sittings"], strict=True))


def _without_sittings(found: Facts) -> Facts:
    return {name: value for name, value in found.items() if name != "sittings"}


def check_same_work(own: Facts, peer: Facts) -> None:
    """Both must have asked the same token ids, option by option; ends the program if not."""
    for key in own:
        ours, theirs = own[key]["sent"], peer[key]["sent"]
        if len(ours) != len(theirs):
            sys.exit(f"{key}: tokka asked {len(ours)} options, the peer {len(theirs)}; no ratio")
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                sys.exit(
                    f"{key}: option {number} was not the same for both, so there is no ratio\n"
                    f"tokka: {one}\npeer:  {other}"
                )


# ---- the figures --------------------------------------------------------------------------------


def summary(measured: Facts) -> dict[str, float]:
    """The line at the end. Seconds are added up over the rounds, memory is the most of all."""
    own, peer = measured["own"], measured["peer"]
    own_values = [v for s in measured["own_exact"].values() for v in s["loglikelihoods"]]
    peer_values = [v for s in measured["peer_exact"].values() for v in s["loglikelihoods"]]
    pairs = list(zip(own_values, peer_values, strict=True))
    same = sum(_best(ours) == _best(theirs) for ours, theirs in pairs)
    return {
        **{f"ratio_{key}": round(_seconds(peer, key) / _seconds(own, key), 2) for key in own[0]},
        "agreement_fp32": round(same / len(pairs), 4),
        "max_abs_diff_fp32": max(
            abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)
        ),
        "accuracy_ours": round(own[-1]["5shot"]["accuracy"], 4),
        "accuracy_peer": round(peer[-1]["5shot"]["accuracy"], 4),
        "peak_memory_ratio": round(_peak(own) / _peak(peer), 3),
    }


def report(measured: Facts) -> str:
    rows: list[Sequence[object]] = [
        ("", "options", "tokens", f"peer s (×{ROUNDS})", f"tokka s (×{ROUNDS})", "ratio", "")
    ]
    for key, title in measured["titles"].items():
        own, peer = ([r[key] for r in measured[side]] for side in ("own", "peer"))
        sent = own[0]["sent"]
        rows.append(
            (
                title,
                len(sent),
                sum(len(prompt) + len(option) for prompt, option in sent),
                " ".join(f"{s['seconds']:.1f}" for s in peer),
                " ".join(f"{s['seconds']:.1f}" for s in own),
                _seconds(measured["peer"], key) / _seconds(measured["own"], key),
                f"batch {measured['batch_sizes'][key]}",
            )
        )
    quality: list[Sequence[object]] = [
        ("", "accuracy peer", "accuracy tokka", "same choice", "peak MiB peer", "peak MiB tokka")
    ]
    for key, title in measured["titles"].items():
        own, peer = measured["own"][-1][key], measured["peer"][-1][key]
        pairs = list(zip(own["loglikelihoods"], peer["loglikelihoods"], strict=True))
        quality.append(
            (
                title,
                float(peer["accuracy"]),
                float(own["accuracy"]),
                f"{sum(_best(a) == _best(b) for a, b in pairs)} of {len(pairs)}",
                peer["peak_bytes"] >> 20,
                own["peak_bytes"] >> 20,
            )
        )
    sides = measured["processes"]
    about = (
        f"{name}: {side['device']}, {side['threads']} threads, {json.dumps(side['versions'])}"
        for name, side in sides.items()
    )
    return "\n".join([table(rows), "", table(quality), "", *about])


def brief(measured: Facts) -> Facts:
    """What goes to a file: everything but the token ids."""

    def without(sitting: Facts) -> Facts:
        return {name: value for name, value in sitting.items() if name != "sent"}

    kept = dict(measured)
    for side in ("own", "peer"):
        kept[side] = [{k: without(s) for k, s in turn.items()} for turn in measured[side]]
        kept[f"{side}_exact"] = {k: without(s) for k, s in measured[f"{side}_exact"].items()}
    return kept


def _seconds(rounds: Sequence[Facts], key: str) -> float:
    return float(sum(turn[key]["seconds"] for turn in rounds))


def _peak(rounds: Sequence[Facts]) -> int:
    return max(sitting["peak_bytes"] for turn in rounds for sitting in turn.values())


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])


if __name__ == "__main__":
    main()
