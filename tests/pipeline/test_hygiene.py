"""What a sitting keeps, so that it can be explained, scored again and held against its options'
order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.exam.rescoring import read_stored
from tokka.models.prompting import pose
from tokka.pipeline import load_candidate, prepare, renderer_of, run
from tokka.project import load_project
from tokka.records import Answer, Example
from tokka.store import read_records

REFUSED = "tokka.pipeline.open_language_model"


def sittings(folder: Path, arm: str) -> list[Path]:
    """The folders of one arm's sittings, by the labels of their manifests."""
    found = []
    for path in sorted((folder / ".tokka" / "steps").glob("sit-*/manifest.json")):
        if json.loads(path.read_bytes())["label"].startswith(f"{arm} · "):
            found.append(path.parent)
    return found


def correct(folder: Path, exam: str, name: str, answer: str) -> None:
    path = folder / "exam" / f"{exam}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [{**row, "answer": answer} if row["id"] == name else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def estimate(folder: Path, arm: str) -> float:
    results = json.loads((folder / ".tokka" / "reports" / "tokka" / "results.json").read_bytes())
    (own,) = (a for a in results["arms"] if a["arm"]["name"] == arm)
    value: float = own["sittings"][0]["primary"]["estimate"]
    return value


# ---- few-shot examples and decoding --------------------------------------------------------------


def test_the_shots_of_every_question_lie_beside_its_answer(copied: Path, listener: Any) -> None:
    """Pitfall 4: the stored examples give the very prompt that was sent."""
    build = prepare(load_project(copied), listener)
    candidate = load_candidate(build, "few-shot")
    renderer = renderer_of(build)
    questions = {q.id: q for step in build.exams.values() for q in step.questions()}
    folders = sittings(copied, "few-shot")
    assert len(folders) == 2
    for folder in folders:
        shots = {shot.id: shot for shot in read_records(folder / "shots.jsonl", Example)}
        answers = read_records(folder / "answers.jsonl", Answer)
        assert len(shots) == 2  # fixed: the same for all, stored once
        assert {answer.shots for answer in answers} == {tuple(shots)}
        for answer in answers:
            question = questions[answer.question_id]
            seen = [shots[name] for name in answer.shots]
            how: dict[str, Any] = {"language": "en", "scored": question.form == "choice"}
            prompt = pose(question, renderer, spec=candidate.arm.prompt, shots=seen, **how)
            assert prompt.sha256 == answer.prompt_sha256
            assert pose(question, renderer, spec=candidate.arm.prompt, **how) != prompt
    assert not any((folder / "shots.jsonl").exists() for folder in sittings(copied, "base"))


def test_another_run_shows_the_same_shots(
    fresh: Path, finished: Any, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(fresh, "base", "few-shot")
    run(load_project(fresh), listener)
    here, there = (sittings(folder, "few-shot") for folder in (fresh, finished.folder))
    assert [f.name for f in here] == [f.name for f in there]
    for mine, own in zip(here, there, strict=True):
        assert (mine / "shots.jsonl").read_bytes() == (own / "shots.jsonl").read_bytes()


def test_nearest_shots_are_stored_once_each_however_many_questions_saw_them(
    fresh: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(fresh, "base", "few-shot")
    path = fresh / "tokka.yaml"
    project = json.loads(path.read_text())
    project["arms"]["few-shot"]["prompt"]["selection"] = "nearest"
    path.write_text(json.dumps(project))
    run(load_project(fresh), listener)
    folder = sittings(fresh, "few-shot")[0]
    answers = read_records(folder / "answers.jsonl", Answer)
    stored = [shot.id for shot in read_records(folder / "shots.jsonl", Example)]
    assert len({answer.shots for answer in answers}) > 1
    assert len(stored) == len(set(stored))
    assert set(stored) == {name for answer in answers for name in answer.shots}


def test_every_stored_answer_says_how_it_was_decoded(finished: Any) -> None:
    for arm in ("base", "lora"):
        for folder in sittings(finished.folder, arm):
            for answer in read_records(folder / "answers.jsonl", Answer):
                own = answer.decoding
                assert own.engine.startswith("torch ") and own.dtype == "bfloat16"
                if own.method == "text":
                    assert (own.max_tokens, own.stop, own.temperature) == (6, ("\n",), 0.0)
                    assert own.normalisation is None
                else:
                    assert (own.method, own.normalisation) == ("loglikelihood", "tokens")


# ---- corrected keys ------------------------------------------------------------------------------


def test_after_a_corrected_key_a_run_opens_no_model_and_the_score_is_right(
    copied: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for arm in ("base", "lora", "rag")
              for path in (f / "answers.jsonl" for f in sittings(copied, arm))}  # fmt: skip
    told = estimate(copied, "lora")
    monkeypatch.setattr(REFUSED, lambda *args: pytest.fail("a model was opened"))
    correct(copied, "domain", "d01", "green")
    run(load_project(copied), listener)
    assert estimate(copied, "lora") == pytest.approx(told - 1 / 12)
    assert len(list((copied / ".tokka" / "steps").glob("sit-*"))) == 14
    assert {path: path.read_bytes() for path in before} == before


def test_rescore_tells_what_a_corrected_key_changes_before_any_run(
    copied: Path, tokka: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def written() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(copied.rglob("*")) if p.is_file()}

    monkeypatch.setattr(REFUSED, lambda *args: pytest.fail("a model was opened"))
    told = tokka("exam", "rescore", copied, "--json").json
    assert len(told["sittings"]) == 14 and not told["missing"]
    assert all(one["old"] == one["new"] and not one["changed"] for one in told["sittings"])
    correct(copied, "domain", "d01", "green")
    before = written()
    out = tmp_path / "out"
    of = ("--exam", "domain", "--arm", "lora")
    told = tokka("exam", "rescore", copied, *of, "--json", "--out", out).json
    assert written() == before
    (one,) = told["sittings"]
    assert (one["arm"], one["exam"]) == ("lora", "domain")
    assert [(c["question"], c["old"], c["new"]) for c in one["changed"]] == [("d01", 1.0, 0.0)]
    assert told["written"] == [str(out / "domain" / "lora")]
    stored = read_stored(out / "domain" / "lora")
    assert stored.sitting is not None and stored.sitting.primary is not None
    assert stored.sitting.primary.estimate == one["new"]["estimate"]
    assert tokka("run", copied).code == 0
    assert estimate(copied, "lora") == one["new"]["estimate"]
    again = tokka("exam", "rescore", copied, "--json").json
    assert all(one["old"] == one["new"] for one in again["sittings"])


def test_rescore_names_what_was_never_asked(
    copied: Path, tokka: Callable[..., Any], only_arms: Callable[..., None]
) -> None:
    path = copied / "exam" / "retention.jsonl"
    path.write_text(path.read_text().replace("Which animal barks?", "Which of them barks?"))
    told = tokka("exam", "rescore", copied, "--json").json
    assert {one["exam"] for one in told["sittings"]} == {"domain"}
    assert len(told["missing"]) == 7 and "questions of retention" in told["missing"][0]
    told = tokka("exam", "rescore", copied, "--exam", "retention")
    assert told.code == 2 and "tokka run" in told.err
    told = tokka("exam", "rescore", copied, "--arm", "nobody")
    assert told.code == 2 and "no arm 'nobody'; the project has: base" in told.err


def test_a_sitting_that_was_tampered_with_is_not_scored(
    copied: Path, tokka: Callable[..., Any]
) -> None:
    path = sittings(copied, "lora")[0] / "answers.jsonl"
    path.write_text(path.read_text().replace("blue", "gold"))
    told = tokka("exam", "rescore", copied)
    assert told.code == 6 and "changed since it was made" in told.err


# ---- the order of options ------------------------------------------------------------------------


def rotating(folder: Path, **exam: Any) -> None:
    path = folder / "tokka.yaml"
    project = json.loads(path.read_text(encoding="utf-8"))
    project["exams"]["domain"] |= {"rotate": True, **exam}
    path.write_text(json.dumps(project), encoding="utf-8")


def test_a_rotated_exam_tells_the_bias_of_every_arm(
    copied: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(copied, "base", "rag", "lora")
    rotating(copied, show_options=True)
    outcome = run(load_project(copied), listener)
    assert not [n for n in listener.notices if "rotate" in n]
    results = json.loads(outcome.results.read_bytes())
    for arm in results["arms"]:
        domain, retention = arm["sittings"]
        assert domain["settings"]["option order"] == "rotated"
        assert domain["settings"]["scoring"] == "choice: loglikelihood rotated, short: text"
        (bias,) = domain["positions"]
        assert (bias["options"], bias["questions"], len(bias["picks"])) == (4, 4, 4)
        assert sum(place["estimate"] for place in bias["picks"]) == pytest.approx(1.0)
        assert 0 < bias["p_value"] <= 1
        right = [place["estimate"] for place in bias["accuracy"]]
        if arm["arm"]["name"] == "lora":  # it learnt to say blue, wherever it stands
            assert right == [1.0] * 4 and bias["unchanged"]["estimate"] == 1.0
        assert retention["positions"] == [] and "option order" not in retention["settings"]
    stored = [read_records(f / "answers.jsonl", Answer) for f in sittings(copied, "lora")]
    turned = [a for answers in stored for a in answers if a.rotations]
    assert Counter(len(a.rotations) for a in turned) == {4: 4}
    assert all(len({r.prompt_sha256 for r in a.rotations}) == 4 for a in turned)
    rotating(copied, rotate=False)
    outcome = run(load_project(copied), listener)
    for arm in json.loads(outcome.results.read_bytes())["arms"]:
        assert arm["sittings"][0]["settings"]["scoring"] == "choice: loglikelihood, short: text"


def test_the_report_shows_the_bias(
    copied: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(copied, "base", "lora")
    rotating(copied, show_options=True)
    report = run(load_project(copied), listener).report.read_text(encoding="utf-8")
    assert 'id="positions"' in report and "Does the place of an option decide?" in report


def test_rotating_what_no_prompt_shows_asks_once_and_says_so(
    copied: Path, listener: Any, only_arms: Callable[..., None]
) -> None:
    only_arms(copied, "base", "lora")
    rotating(copied)
    outcome = run(load_project(copied), listener)
    assert sum("their order can't matter" in notice for notice in listener.notices) == 1
    for arm in json.loads(outcome.results.read_bytes())["arms"]:
        domain = arm["sittings"][0]
        assert domain["settings"]["option order"].startswith("as given")
        assert domain["positions"] == []
        assert domain["settings"]["scoring"] == "choice: loglikelihood, short: text"
    report = outcome.report.read_text(encoding="utf-8")
    assert "were to be rotated" in report


def test_a_report_without_rotation_doesnt_speak_of_it(finished: Any) -> None:
    report = finished.results.with_name("report.html").read_text(encoding="utf-8")
    assert 'id="positions"' not in report and "#positions" not in report
