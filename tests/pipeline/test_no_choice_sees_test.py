"""Nothing chosen on the way to an answer has seen a key, or the split kept for the end."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokka.exam.importing
from tokka.pipeline import Models, load_candidate, prepare, run, sit_exam
from tokka.project import load_project


def answered(folder: Path) -> dict[str, set[str]]:
    """Exam digest → ids of the questions that stand in the sittings' folders."""
    found: dict[str, set[str]] = {}
    for path in (folder / ".tokka" / "steps").glob("sit-*/answers.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["exam_digest"], set()).add(row["question_id"])
    return found


def parts(folder: Path) -> dict[str, Any]:
    """What each arm is made of, by digest; the steps' names cover the exam, keys and all."""
    found = {}
    for path in (folder / ".tokka" / "candidates" / "tokka").glob("*.json"):
        candidate = json.loads(path.read_bytes())
        digests = {name: entry.partition("@")[2] for name, entry in candidate["artifacts"].items()}
        found[path.stem] = {**candidate, "artifacts": digests, "id": ""}
    return found


def stored(folder: Path) -> dict[str, bytes]:
    """Every sitting's folder with the bytes of its answers."""
    found = (folder / ".tokka" / "steps").glob("sit-*/answers.jsonl")
    return {path.parent.name: path.read_bytes() for path in found}


def test_only_the_split_of_the_policy_is_asked(
    finished: Any, copied: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    domain, retention = ({f"d{n:02}" for n in range(12)}, {f"r{n:02}" for n in range(10)})
    before = answered(finished.folder)
    assert sorted(before.values(), key=sorted) == [domain, retention]
    exams = {"domain": {"path": "exam/domain.jsonl", "role": "domain"}}
    policy = {"control": "base", "split": "dev", "draws": 200}
    only_arms(copied, "base", "few-shot", "lora", exams=exams, policy=policy)
    run(load_project(copied), listener)
    now = answered(copied)
    asked = {q for digest, ids in now.items() for q in ids - before.get(digest, set())}
    assert asked == {"dev0", "dev1"}
    results = json.loads((copied / ".tokka/reports/tokka/results.json").read_bytes())
    assert {s["split"] for arm in results["arms"] for s in arm["sittings"]} == {"dev"}
    assert {s["asked"] for arm in results["arms"] for s in arm["sittings"]} == {2}


def test_no_key_is_read_before_the_last_answer_is_there(
    fresh: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the report is written, whoever opens a file of keys gets an error."""
    read: list[str] = []
    load_keys, opened = tokka.exam.importing.load_keys, Path.open

    def recorded(folder: Path) -> Any:
        frames, frame = [], sys._getframe(1)
        while frame is not None:
            frames.append(Path(frame.f_code.co_filename).name)
            frame = frame.f_back
        assert "reporting.py" in frames, f"keys were loaded by {frames[:4]}"
        read.append(folder.name)
        return load_keys(folder)

    def poisoned(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if (
            self.name == "keys.jsonl"
            and "r" in mode
            and sys._getframe(1).f_code.co_name != ("sha256_file")
        ):
            assert "compare and report" in listener.tasks, f"{self} was opened too early"
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr("tokka.exam.importing.load_keys", recorded)
    monkeypatch.setattr(Path, "open", poisoned)
    run(load_project(fresh), listener)
    assert sorted(name.partition("-")[0] for name in read) == ["exam", "exam"]
    assert listener.tasks.index("compare and report") == len(listener.tasks) - 1
    assert sum("sit domain" in label for label in listener.tasks) == 7


def test_other_keys_change_no_candidate_and_nobody_is_asked_again(
    finished: Any, copied: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same questions with every key turned round: only the scores may notice."""
    for exam in ("domain", "retention"):
        path = copied / "exam" / f"{exam}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            if "choices" in row:
                row["answer"] = next(c for c in row["choices"] if c != row["answer"])
            else:
                row["answer"] = "7" if row.get("form") == "number" else "something else"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr("tokka.pipeline.open_language_model", lambda *args: pytest.fail("opened"))
    run(load_project(copied), listener)
    assert parts(copied) == parts(finished.folder)
    assert len(stored(copied)) == 14
    assert stored(copied) == stored(finished.folder)
    results = json.loads((copied / ".tokka/reports/tokka/results.json").read_bytes())
    by_arm = {arm["arm"]["name"]: arm["sittings"][0]["primary"] for arm in results["arms"]}
    assert by_arm["lora"]["estimate"] < 0.5  # it was 1: the scores did notice


def test_another_normalisation_chooses_again_without_asking(
    copied: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load_project(copied)
    spec = project.exams["domain"].model_copy(update={"normalisation": "sum"})
    changed = project.model_copy(update={"exams": {**project.exams, "domain": spec}})
    before = stored(copied)
    monkeypatch.setattr("tokka.pipeline.open_language_model", lambda *args: pytest.fail("opened"))
    outcome = run(changed, listener)
    assert stored(copied) == before
    results = json.loads(outcome.results.read_bytes())
    assert results["exams"][0]["normalisation"] == "sum"
    build = prepare(changed, listener)
    candidate, models = load_candidate(build, "base"), Models(build)
    sat = sit_exam(build, candidate, build.exams["domain"], models, None)
    chosen = {a.decoding.normalisation for a in sat.answers if a.choice_loglikelihoods}
    assert chosen == {"sum"}
    scores = (outcome.results.parent / "scores" / "domain" / "base.jsonl").read_text()
    assert "by sum" in scores and "by tokens" not in scores


# ---- the state of the weights --------------------------------------------------------------------

DEV_ROWS = [
    {"id": "rdev0", "split": "dev", "question": "Which of them swims?", "answer": "a carp"},
    {"id": "rdev1", "split": "dev", "question": "Which of them is hot?", "answer": "an oven"},
]
OPTIONS = {"rdev0": ["a carp", "a wall"], "rdev1": ["a glacier", "an oven"]}
CHOOSES = {
    "weights": [
        {
            "finetune": {
                "data": "examples.jsonl", "rank": 8, "alpha": 64, "learning_rate": 5e-3,
                "epochs": 4, "batch_examples": 4, "checkpoints": 2,
            }
        }
    ],
    "choose": {"alphas": [0.5, 1.0]},
    "prompt": {"max_tokens": 6},
}  # fmt: skip


@pytest.fixture
def choosing(fresh: Path, listener: Any) -> Callable[[], tuple[Path, Any]]:
    """Chooses the weights of an arm; its folder, and all that the choice says. Nothing but the
    training is kept from one call to the next."""
    from tokka.stages import weights_of

    examples = fresh / "examples.jsonl"
    examples.write_text("".join(examples.read_text().splitlines(True)[:-1]))  # "copied"
    with (fresh / "exam" / "retention.jsonl").open("a") as file:
        file.writelines(json.dumps({**r, "choices": OPTIONS[r["id"]]}) + "\n" for r in DEV_ROWS)
    project = {
        "name": "p", "language": "en", "base_model": "model/",
        "exams": {e: {"path": f"exam/{e}.jsonl", "role": e} for e in ("domain", "retention")},
        "arms": {"base": {"prompt": {"max_tokens": 6}}, "tuned": CHOOSES},
        "policy": {"max_forgetting": 0.6},
    }  # fmt: skip
    (fresh / "tokka.yaml").write_text(json.dumps(project))

    def choose() -> tuple[Path, Any]:
        for path in (fresh / ".tokka" / "steps").glob("choose-*"):
            shutil.rmtree(path)
        shutil.rmtree(fresh / ".tokka" / "batches", ignore_errors=True)
        build = prepare(load_project(fresh), listener)
        weights = weights_of(build, build.project.arms["tuned"])
        assert weights is not None
        said = {
            p.name: p.read_bytes() for p in weights.steps[-1].iterdir() if "manif" not in p.name
        }
        return weights.steps[-1], said

    return choose


def rewrite(folder: Path, exam: str, change: Callable[[int, dict[str, Any]], Any]) -> None:
    """`change` gives the rows that stand in place of each."""
    path = folder / "exam" / f"{exam}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    changed = [new for number, row in enumerate(rows) for new in change(number, row)]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")


def test_the_chosen_state_knows_nothing_of_the_test(
    choosing: Callable[[], tuple[Path, Any]], fresh: Path
) -> None:
    def other(n: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["split"] == "dev":
            return [row]
        return [{"id": f"new{n}", "split": "test", "question": f"Who sails {n}?", "answer": "all"}]

    def without(n: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [row] * (row["split"] == "dev")

    before = choosing()
    assert "choice.json" in before[1] and "adapter_model.safetensors" in before[1]
    for change in (other, without):
        for exam in ("domain", "retention"):
            rewrite(fresh, exam, change)
        assert choosing() == before
    for folder in (fresh / ".tokka" / "steps").glob("exam-*"):
        shutil.rmtree(folder)  # of the exams that still had a test
    assert choosing() == before
    assert not [
        word for word in ("new1", "d00", "r00") if word in before[1]["choice.json"].decode()
    ]


def test_development_keys_do_decide(choosing: Callable[[], tuple[Path, Any]], fresh: Path) -> None:
    def turned(_: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "answer": "green"} if row["split"] == "dev" else row]

    folder, said = choosing()
    rewrite(fresh, "domain", turned)
    now, other = choosing()
    assert now != folder
    taken, retaken = (json.loads(found["choice.json"]) for found in (said, other))
    assert taken["points"][taken["taken"]]["domain"] == 1.0
    assert retaken["points"][taken["taken"]]["domain"] == 0.0


def test_what_is_examined_is_not_what_chose(
    choosing: Callable[[], tuple[Path, Any]], fresh: Path, listener: Any
) -> None:
    pytest.importorskip("altair")
    choosing()
    run(load_project(fresh), listener)
    asked = set().union(*answered(fresh).values())
    assert asked == {f"d{n:02}" for n in range(12)} | {f"r{n:02}" for n in range(10)}
