"""One exam without a project: `tokka exam import`, `sit`, `export` and `results`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.examining import Entry, checked_entry, export_file, read_alone, sit_alone, stored_results
from tokka.store import FolderMemo

TASKS = Path(__file__).parent / "exam" / "harness_tasks"
COLOURS = ["red", "green", "blue"]
ROWS: list[dict[str, Any]] = [
    *(
        {
            "id": f"c{n}",
            "question": f"Which colour is lamp number {n}?",
            "choices": COLOURS,
            "answer_index": n % 3,
        }
        for n in range(6)
    ),
    {"id": "s", "question": "Who lights the lamps?", "answer": "the keeper"},
    {"id": "d", "question": "Is this asked?", "answer": "no", "split": "dev"},
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def model(harbour: Path) -> Path:
    """A random base model of two layers."""
    return harbour / "model"


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    write_rows(tmp_path / "lamps.jsonl", ROWS)
    return tmp_path / "lamps.jsonl"


def files(folder: Path) -> dict[str, str]:
    """Contents without what is measured."""
    measured = re.compile(r'"(seconds|total_evaluation_time_seconds)": ?"?[\d.e-]+"?')
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {str(path.relative_to(folder)): measured.sub("", path.read_text()) for path in kept}


def test_a_sitting_leaves_answers_scores_figures_and_results(
    tokka: Callable[..., Any], exam: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = tokka(
        "exam", "sit", exam, "--model", model, "--out", out, "--dtype", "float32", "--json"
    )
    assert said.code == 0, said.err
    sitting = said.json["sitting"]
    assert (sitting["asked"], sitting["errors"], sitting["partial"]) == (7, 0, False)
    assert set(said.json["results"]) == {"lamps_choice", "lamps_text"}
    assert json.loads((out / "sitting.json").read_text()) == sitting
    answers = [json.loads(line) for line in (out / "answers.jsonl").open()]
    assert [one["question_id"] for one in answers] == [*(f"c{n}" for n in range(6)), "s"]
    assert {one["decoding"]["dtype"] for one in answers} == {"float32"}
    assert len((out / "scores.jsonl").read_text().splitlines()) == 7
    assert (out / "exam" / "keys.jsonl").is_file()
    assert len(said.json["files"]) == 3 and all(Path(f).is_file() for f in said.json["files"])
    rescored = tokka("exam", "rescore", out, "--json")
    assert rescored.json["sittings"][0]["changed"] == []


def test_a_table_shows_the_score_and_the_metrics_of_the_harness(
    tokka: Callable[..., Any], exam: Path, model: Path
) -> None:
    said = tokka("exam", "sit", exam, "--model", model, "--limit", 2, "--dtype", "float32")
    assert said.code == 0, said.err
    assert "lamps_choice as lm_eval reports it: acc,none" in said.out
    assert "choice: loglikelihood, by tokens" in said.out


def test_the_same_sitting_again_writes_the_same_bytes(
    here: None, exam: Path, model: Path, tmp_path: Path, listener: Any
) -> None:
    out = tmp_path / "out"
    entry = Entry(exam, str(model), dtype="float32", out=out)
    sit_alone(entry, listener)
    before = files(out)
    (out / "sitting.json").unlink()
    (out / "answers.jsonl").unlink()
    sit_alone(entry, listener)
    assert files(out) == before


def test_a_finished_batch_is_not_computed_again(
    here: None,
    exam: Path,
    model: Path,
    tmp_path: Path,
    listener: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = Entry(exam, str(model), dtype="float32", out=tmp_path / "out")
    first = sit_alone(entry, listener)
    torch = pytest.importorskip("torch")

    def broken(*_: object, **__: object) -> object:
        raise AssertionError("computed again")

    monkeypatch.setattr(torch.nn.Embedding, "forward", broken)
    again = sit_alone(entry, listener)
    assert [a.text for a in again.stored.answers] == [a.text for a in first.stored.answers]
    with pytest.raises(AssertionError, match="computed again"):
        sit_alone(replace(entry, out=tmp_path / "other"), listener)


def test_a_folder_of_another_sitting_is_refused(
    here: None, exam: Path, model: Path, tmp_path: Path, listener: Any
) -> None:
    out = tmp_path / "out"
    sit_alone(Entry(exam, str(model), dtype="float32", out=out, limit=2), listener)
    with pytest.raises(UsageError, match=r"holds another sitting \(questions .*--out"):
        sit_alone(Entry(exam, str(model), dtype="float32", out=out), listener)
    with pytest.raises(UsageError, match="dtype 'float32' there, 'bfloat16' here"):
        sit_alone(Entry(exam, str(model), out=out, limit=2), listener)


def test_another_normalisation_of_the_same_sitting_is_taken_from_what_is_there(
    here: None, exam: Path, model: Path, tmp_path: Path, listener: Any
) -> None:
    out = tmp_path / "out"
    sit_alone(Entry(exam, str(model), dtype="float32", out=out), listener)
    entry = Entry(exam, str(model), dtype="float32", out=out, normalisation="sum")
    assert sit_alone(entry, listener).stored.exam.normalisation == "sum"


def test_a_killed_sitting_goes_on_to_the_same_answers(
    here: None,
    exam: Path,
    model: Path,
    tmp_path: Path,
    listener: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = Entry(exam, str(model), dtype="float32", out=tmp_path / "killed")
    kept: list[str] = []

    def put_once(memo: FolderMemo, key: str, value: Any) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(key)
        put(memo, key, value)

    put = FolderMemo.put
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FolderMemo, "put", put_once)
        sit_alone(entry, listener)
    assert len(list((tmp_path / "killed" / "batches").glob("*/*.json"))) == 1
    assert not (tmp_path / "killed" / "sitting.json").exists()
    whole = sit_alone(replace(entry, out=tmp_path / "whole"), listener)
    resumed = sit_alone(entry, listener)
    ours, theirs = (
        [answer.model_copy(update={"seconds": 0.0}) for answer in sat.stored.answers]
        for sat in (resumed, whole)
    )
    assert ours == theirs


def test_dev_questions_are_asked_only_on_request(exam: Path) -> None:
    imported = read_alone(exam)
    assert [q.id for q in imported.questions if q.split == "dev"] == ["d"]
    assert imported.exam.normalisation == "tokens"


def test_whole_prompts_are_scored_by_the_sum_unless_told_otherwise(tmp_path: Path) -> None:
    row = {"question": "?", "choices": ["a", "b"], "answer_index": 0, "completion": "Q:"}
    write_rows(tmp_path / "whole.jsonl", [row])
    assert read_alone(tmp_path / "whole.jsonl").exam.normalisation == "sum"
    own = read_alone(tmp_path / "whole.jsonl", normalisation="bytes").exam
    assert own.normalisation == "bytes"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"dtype": "int3"}, "--dtype 'int3' is none of bfloat16, float32"),
        ({"normalisation": "words"}, "--normalisation 'words' is none of sum"),
        ({"scorer": "best"}, "--scorer 'best' is none of contained"),
        ({"language": "fr"}, "--language 'fr' is none of ja, en"),
        ({"split": "all"}, "--split 'all' is none of dev, test"),
    ],
)
def test_a_wrong_option_is_named_with_the_right_ones(how: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        checked_entry(Entry(Path("a.jsonl"), "m", **how))


def test_a_dry_run_counts_and_writes_nothing(
    tokka: Callable[..., Any], exam: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = tokka("exam", "sit", exam, "--model", "none", "--out", out, "--dry-run")
    assert (said.code, said.out) == (0, "would ask none 7 questions\n")
    said = tokka("exam", "export", exam, "--out", out, "--dry-run", "--json")
    assert said.json["tasks"] == {"lamps_choice": 6, "lamps_text": 1}
    task = TASKS / "choice_table.yaml"
    said = tokka("exam", "import", "lm-eval", task, "--out", out / "a.jsonl", "--dry-run")
    assert said.code == 0 and "would write" in said.out
    assert not out.exists()


def test_a_task_is_imported_sat_and_exported_by_commands(
    tokka: Callable[..., Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TASKS, tmp_path / "tasks")
    said = tokka("exam", "import", "lm-eval", "tasks/choice_random.yaml", "--json")
    assert said.code == 0, said.err
    assert (said.json["questions"], said.json["shots"]) == (9, 4)
    assert said.json["written"] == ["choice_random.jsonl", "choice_random.shots.jsonl"]
    sat = tokka(
        *("exam", "sit", "choice_random.jsonl", "--model", model, "--dtype", "float32"),
        *("--out", "sat", "--json"),
    )
    assert sat.code == 0, sat.err
    stored = stored_results(Path("sat"))["sat"].results
    assert stored["n-shot"] == {"choice_random": 4}
    assert stored["results"] == sat.json["results"]
    again = tokka("exam", "results", "sat", "--out", "again", "--json")
    assert again.json == {"sat": sat.json["results"]}
    (one,) = Path("again/sat").glob("results_*.json")
    (other,) = Path("sat/lm-eval").glob("results_*.json")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    exported = tokka("exam", "export", "choice_random.jsonl", "--out", "back")
    assert (
        exported.code == 0 and "next: lm_eval run --model hf --tasks choice_random" in exported.out
    )
    assert {path.name for path in Path("back").iterdir()} == {
        "choice_random.yaml",
        "choice_random.jsonl",
    }


def test_what_is_supported_is_printed(tokka: Callable[..., Any]) -> None:
    said = tokka("exam", "import", "lm-eval", "--supported")
    assert said.code == 0
    assert "Refused: !function" in said.out


def test_a_refused_task_exits_with_2_and_names_the_line(
    tokka: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("task: bad\nprocess_docs: !function a.b\n", encoding="utf-8")
    said = tokka("exam", "import", "lm-eval", path)
    assert said.code == 2
    assert "process_docs: !function a.b would run code" in said.err and "bad.yaml:2" in said.err


def test_a_project_exports_the_exam_that_is_named(harbour: Path) -> None:
    exported = export_file(harbour, "domain")
    assert [(task.name, len(task.rows)) for task in exported.tasks] == [
        ("domain_choice", 4),
        ("domain_text", 8),
    ]
    assert exported.tasks[0].rows[0]["completion"].endswith("\nAnswer:")
    with pytest.raises(UsageError, match="name one; the project has --exam domain"):
        export_file(harbour)
    with pytest.raises(UsageError, match="no exam 'other'"):
        export_file(harbour, "other")


def test_a_run_of_a_project_gets_the_layout_too(copied: Path) -> None:
    found = stored_results(copied)
    assert {"base/domain", "rag/domain", "few-shot/retention"} <= set(found)
    sample = found["base/domain"].samples["domain_choice"][0]
    assert sample["arguments"]["gen_args_0"]["arg_0"].startswith("Question: Which colour")
    assert found["rag/domain"].samples["domain_choice"][0]["arguments"] == {}
