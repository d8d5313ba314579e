"""lm-evaluation-harness and tokka agree: same prompts, choices, texts and scores, in float32.

The harness runs once, in a Python of its own that TOKKA_LM_EVAL_PYTHON names, over tasks as they
are and over exams that tokka exported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokka.exam.harness.task_export import write_tasks
from tokka.exam.harness.task_import import import_task, write_task
from tokka.examining import Entry, export_file, sit_alone

PYTHON = os.environ.get("TOKKA_LM_EVAL_PYTHON", "")
TASKS = Path(__file__).parent / "harness_tasks"
NATIVE = [  # asked by the harness from the task file, by tokka after an import
    *("choice_first_n", "choice_own_split", "choice_random", "choice_samples", "choice_table"),
    *("choice_validation_only", "text_listed", "text_numbers", "text_options", "text_targets"),
]
OWN = ("english", "japanese")  # exams of our own, exported

pytestmark = [
    pytest.mark.skipif(
        not PYTHON, reason="TOKKA_LM_EVAL_PYTHON names no Python with lm_eval 0.4.13"
    ),
    pytest.mark.timeout(1800),  # a hundred requests of the harness on a busy machine
]


def rows(language: str) -> Iterator[dict[str, Any]]:
    things = ("rope", "lamp", "flag", "gate") if language == "english" else tuple("縄灯旗門")
    for n in range(24):
        thing = things[n % 4]
        asked = f"Which colour is {thing} {n}?" if language == "english" else f"{thing}{n}の色は。"
        choices = (
            ["red", "dark green", "blue", "a rather pale white"]
            if language == "english"
            else ["赤", "濃い緑", "青", "やや薄い白"]
        )
        yield {"id": f"c{n}", "question": asked, "choices": choices, "answer_index": n % 4}
        if n % 6 == 0:
            yield {"id": f"s{n}", "question": asked, "answer": choices[n % 4]}


@pytest.fixture(scope="module")
def both(
    harbour: Path, tmp_path_factory: pytest.TempPathFactory, tokka_cache: Path
) -> Iterator[dict[str, tuple[Any, Any]]]:
    """By task: the samples of tokka and of the harness, each by filter and question."""
    folder = tmp_path_factory.mktemp("agreement")
    shutil.copytree(TASKS, folder / "tasks")
    model = harbour / "model"
    exams = []
    for language in OWN:
        path = folder / f"{language}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(language))
        path.write_text("".join(lines), encoding="utf-8")
        write_tasks(export_file(path).tasks, folder / "exported")
        exams.append(path)
    before = Path.cwd()
    os.chdir(folder / "tasks")
    try:
        for name in NATIVE:
            path = folder / f"{name}.jsonl"
            write_task(import_task(Path(f"{name}.yaml")), path)
            exams.append(path)
        ours: dict[str, Any] = {}
        for path in exams:
            entry = Entry(path, str(model), dtype="float32", out=folder / "sat" / path.stem)
            found = sit_alone(entry, _Silent()).results
            for name, samples in found.samples.items():
                ours[name] = (samples, found.results["results"][name])
        theirs = _harness(model, [*ours], folder)
    finally:
        os.chdir(before)
    yield {name: (ours[name], theirs[name]) for name in ours}


class _Silent:
    def task(self, label: str, total: float | None) -> Any:
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, n: float = 1, note: str = "") -> None:
        """Nobody watches."""

    def notice(self, text: str) -> None:
        """Nobody listens."""


def _harness(model: Path, names: list[str], folder: Path) -> dict[str, Any]:
    tasks = [str(folder / "exported" / f"{n}.yaml") for n in names if n not in NATIVE]
    tasks += [f"{name}.yaml" for name in NATIVE]
    settings = f"pretrained={model},dtype=float32,max_length=512"
    out = folder / "harness"
    done = subprocess.run(
        [PYTHON, "-m", "lm_eval", "run", "--model", "hf", "--model_args", settings,
         "--device", "cpu", "--batch_size", "1", "--tasks", ",".join(tasks),
         "--output_path", str(out), "--log_samples"],
        capture_output=True, text=True, timeout=1500, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"),
             "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.glob("*/results_*.json")
    aggregated = json.loads(results.read_text(encoding="utf-8"))["results"]
    found: dict[str, Any] = {}
    for name in names:
        (samples,) = out.glob(f"*/samples_{name}_2*.jsonl")
        lines = samples.read_text(encoding="utf-8").split("\n")
        found[name] = ([json.loads(line) for line in lines if line], aggregated[name])
    return found


def pairs(both: dict[str, Any], kind: str) -> Iterator[tuple[str, Any, Any]]:
    """Samples side by side: of choices or of texts."""
    seen = 0
    for name, ((ours, _), (theirs, _)) in both.items():
        if kind not in name:
            continue
        assert [(s["filter"], s["doc_id"]) for s in ours] == [
            (s["filter"], s["doc_id"]) for s in theirs
        ]
        for one, other in zip(ours, theirs, strict=True):
            seen += 1
            yield name, one, other
    assert seen


def test_the_same_is_asked_of_the_same_questions(both: dict[str, Any]) -> None:
    for kind in ("choice", "text"):
        for name, one, other in pairs(both, kind):
            assert one["prompt_hash"] == other["prompt_hash"], name
            contexts = [asked["arg_0"] for asked in other["arguments"].values()]
            assert [asked["arg_0"] for asked in one["arguments"].values()] == contexts
            if kind == "choice":
                assert one["arguments"] == other["arguments"]


def test_hashes_of_exported_questions_are_the_same(both: dict[str, Any]) -> None:
    exported = [name for name in both if name not in NATIVE]
    assert len(exported) == 4
    for name in exported:
        (ours, _), (theirs, _) = both[name]
        hashes = [(s["doc_hash"], s["prompt_hash"], s["target_hash"]) for s in theirs]
        assert [(s["doc_hash"], s["prompt_hash"], s["target_hash"]) for s in ours] == hashes


def test_log_likelihoods_differ_by_less_than_a_thousandth(both: dict[str, Any]) -> None:
    for name, one, other in pairs(both, "choice"):
        assert len(one["resps"]) == len(other["resps"])
        for ((ours, _),), ((theirs, _),) in zip(one["resps"], other["resps"], strict=True):
            assert float(ours) == pytest.approx(float(theirs), abs=1e-3), name


def test_the_same_option_is_chosen_for_every_question(both: dict[str, Any]) -> None:
    chosen = set()
    for name, one, other in pairs(both, "choice"):
        ours = [float(pair[0]) for pair in one["filtered_resps"]]
        theirs = [float(pair[0]) for pair in other["filtered_resps"]]
        assert ours.index(max(ours)) == theirs.index(max(theirs)), name
        chosen.add(ours.index(max(ours)))
        for metric in other["metrics"]:
            assert one[metric] == other[metric], (name, metric)
    assert len(chosen) > 2  # a model that always says A would agree with everybody


def test_the_same_texts_are_written_and_marked_alike(both: dict[str, Any]) -> None:
    for name, one, other in pairs(both, "text"):
        if name in NATIVE:
            assert one["resps"] == other["resps"], name
            # Without take_first the harness leaves a text in a list of its own.
            filtered = [f[0] if isinstance(f, list) else f for f in other["filtered_resps"]]
            assert one["filtered_resps"] == filtered, name
        assert one["exact_match"] == other["exact_match"], name


def test_accuracy_is_the_same(both: dict[str, Any]) -> None:
    for name, ((_, ours), (_, theirs)) in both.items():
        metrics = [key for key in theirs if "," in key and "_stderr" not in key]
        assert metrics
        for metric in metrics:
            assert ours[metric] == pytest.approx(theirs[metric], abs=1e-9), (name, metric)
