"""`silence: tuned`: from where on an arm says nothing is chosen by development questions alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.pipeline import build_arm, prepare, run
from tokka.project import load_project
from tokka.records import Candidate
from tokka.silence_steps import read_silence
from tokka.store import read_record

VAIN = ("Who feeds elephants in Paris?", "When did Mozart visit Vienna?", "What grows on Mars?")


@pytest.fixture
def project(fresh: Path) -> Path:
    """Arms that search by words; the exam has development questions with and without an answer."""
    rows = [json.loads(line) for line in (fresh / "exam/domain.jsonl").read_text().splitlines()]
    for n, row in enumerate(rows[:9]):
        asked = row["question"].replace("Which colour is", "Somebody looks at")
        rows.append({"id": f"look{n}", "split": "dev", "question": asked, "answer": "blue"})
    for n, asked in enumerate(VAIN):
        row = {"question": asked, "unanswerable": True}
        rows.append({"id": f"vain{n}", "split": "dev" if n else "test", **row})
    write(fresh, rows)
    arms = {
        "base": {"prompt": {"max_tokens": 6}},
        "rag": {"prompt": {"max_tokens": 6}, "retrieval": {"top_k": 2, "dense": False}},
        "hush": {
            "prompt": {"max_tokens": 6},
            "retrieval": {"top_k": 2, "dense": False, "silence": "tuned"},
        },
    }
    said = {
        "name": "p", "language": "en", "base_model": "model/", "corpus": ["documents/"],
        "chunks": {"max_tokens": 48}, "arms": arms, "policy": {"draws": 200},
        "exams": {"domain": {"path": "exam/domain.jsonl", "role": "domain"}},
    }  # fmt: skip
    (fresh / "tokka.yaml").write_text(json.dumps(said))
    return fresh


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "exam/domain.jsonl").write_text(lines, encoding="utf-8")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    path = folder / "exam/domain.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    write(folder, [row for row in rows if row is not None])


def built(folder: Path, listener: Any) -> Candidate:
    from tokka.documents_steps import read_and_chunk

    build = prepare(load_project(folder), listener)
    read_and_chunk(build)
    return build_arm(build, build.project.arms["hush"])


def test_the_arm_is_silent_where_nothing_is_found_and_the_report_shows_it(
    project: Path, listener: Any
) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("snowballstemmer")
    outcome = run(load_project(project), listener)
    results = json.loads(outcome.results.read_bytes())
    arms = {arm["arm"]["name"]: arm for arm in results["arms"]}
    built_arm = arms["hush"]["candidate"]["arm"]["retrieval"]
    assert arms["hush"]["arm"]["retrieval"]["silence"] == "tuned"
    assert 0 < built_arm["silence"] < 1
    assert any("hush: silent below" in notice for notice in listener.notices)
    sittings = {name: arm["sittings"][0] for name, arm in arms.items()}
    assert sittings["base"]["coverage"] is None  # it searches nothing
    assert sittings["rag"]["coverage"]["silent"] == 0
    assert sittings["rag"]["coverage"]["points"][-1][1] == 1
    assert 0 < sittings["hush"]["coverage"]["silent"] < 1
    scores = (outcome.results.parent / "scores/domain/hush.jsonl").read_text().splitlines()
    values = {row["question_id"]: row["value"] for row in map(json.loads, scores)}
    assert values["vain0"] == 1.0
    assert "AURC" in outcome.report.read_text(encoding="utf-8")
    kept = read_record(project / ".tokka/candidates/tokka/hush.json", Candidate)
    assert kept.arm.retrieval is not None and kept.arm.retrieval.silence == built_arm["silence"]


def test_no_test_question_takes_part(project: Path, listener: Any) -> None:
    pytest.importorskip("snowballstemmer")
    before = built(project, listener)
    (folder,) = (project / ".tokka/steps").glob("silence-*")
    tuned = read_silence(folder)
    assert (tuned.questions, tuned.unanswerable) == (13, 2)

    def other(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["split"] == "dev":
            return row
        new = {"id": row["id"], "split": "test", "question": f"Who sails {row['id']}?"}
        return {**new, "answer": "all"}

    rewrite(project, other)
    assert built(project, listener) == before
    assert [f.name for f in (project / ".tokka/steps").glob("silence-*")] == [folder.name]


def test_development_questions_do_decide(project: Path, listener: Any) -> None:
    pytest.importorskip("snowballstemmer")
    before = built(project, listener)

    def answered(row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] != "vain1":
            return row
        return {"id": "vain1", "split": "dev", "question": row["question"], "answer": "1780"}

    rewrite(project, answered)
    built(project, listener)
    found = [read_silence(f) for f in (project / ".tokka/steps").glob("silence-*")]
    assert sorted(one.unanswerable for one in found) == [1, 2]
    assert before.arm.retrieval is not None


@pytest.mark.parametrize(
    ("leave_out", "said"),
    [("vain", '"unanswerable": true and "split": "dev"'), ("look", "at least 10 development")],
)
def test_too_little_to_choose_by_is_refused_before_anything_is_built(
    project: Path, listener: Any, leave_out: str, said: str
) -> None:
    rewrite(project, lambda row: None if row["id"].startswith(leave_out) else row)
    with pytest.raises(UsageError, match=f"arm hush: .*{said}"):
        prepare(load_project(project), listener)
    assert not list((project / ".tokka/steps").glob("read-*"))


def test_a_number_needs_no_development_question(project: Path, listener: Any) -> None:
    pytest.importorskip("snowballstemmer")
    rewrite(project, lambda row: row if row["split"] == "test" else None)
    said = json.loads((project / "tokka.yaml").read_text())
    said["arms"]["hush"]["retrieval"]["silence"] = 0.4
    (project / "tokka.yaml").write_text(json.dumps(said))
    candidate = built(project, listener)
    assert candidate.arm.retrieval is not None and candidate.arm.retrieval.silence == 0.4
    assert not list((project / ".tokka/steps").glob("silence-*"))
    shutil.rmtree(project / ".tokka")
