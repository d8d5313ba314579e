"""Stored answers are scored again without asking anybody."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, Mistakes, UsageError
from tokka.exam.importing import load_exam, load_keys, read_exam
from tokka.exam.rescoring import Stored, changes, read_stored, rescore, write_stored
from tokka.records import (
    Answer,
    Decoding,
    Exam,
    Example,
    Message,
    Question,
    Rotation,
    Score,
)

SOURCE = Path(__file__).parents[2] / "src"
CHOICES = ("red", "a very deep blue", "green")
ROWS = [
    {"id": "q1", "question": "Which colour?", "choices": list(CHOICES), "answer": "red"},
    {"id": "q2", "question": "Which colour is it?", "choices": list(CHOICES), "answer": "green"},
    {"id": "q3", "question": "What is it made of?", "answer": "wood", "split": "test"},
    {"id": "q4", "question": "What does it cost?", "form": "number", "answer": "4"},
]
TEXTS = {"q3": "It is made of wood.", "q4": "4 crowns"}


def sat(tmp_path: Path) -> Stored:
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps({"split": "test", **row}) + "\n" for row in ROWS))
    exam, questions, keys = read_exam(path, "colours", "domain", "sum")
    answers = [answered(q, exam) for q in questions]
    shot = Example(id="e1", messages=(Message(role="user", content="x"),
                                      Message(role="assistant", content="y")))  # fmt: skip
    plain = Stored(
        exam, tuple(questions), tuple(keys), tuple(answers), arm="rag", candidate_id="c",
        shots=(shot,),
    )  # fmt: skip
    return rescore(plain)


def answered(question: Question, exam: Exam, **fields: Any) -> Answer:
    """Red by the sum, the long blue by anything that divides by a length."""
    scored = {"choice_loglikelihoods": (-4.0, -9.0, -6.0), "choice_lengths": (1, 4, 1)}
    return Answer(**{
        "candidate_id": "c", "exam_digest": exam.digest, "question_id": question.id,
        "text": TEXTS.get(question.id, ""), "prompt_sha256": "0", "hash_kind": "tokens",
        "decoding": Decoding(method="loglikelihood" if question.choices else "text"),
        **(scored if question.choices else {}), **fields,
    })  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_stored(tmp_path / "sat", sat(tmp_path))
    return tmp_path / "sat"


def correct(folder: Path, name: str, **changed: Any) -> None:
    path = folder / "exam" / "keys.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{**row, **changed} if row["question_id"] == name else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def values(stored: Stored) -> dict[str, float | None]:
    return {score.question_id: score.value for score in stored.scores}


# ---- scoring again -------------------------------------------------------------------------------


def test_a_sitting_reads_back_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    stored = read_stored(folder)
    assert stored == sat(tmp_path)
    assert values(stored) == {"q1": 1.0, "q2": 0.0, "q3": 1.0, "q4": 1.0}
    assert stored.sitting is not None and stored.sitting.primary is not None
    assert stored.sitting.primary.estimate == 0.75
    assert rescore(stored) == stored
    assert sorted(p.name for p in folder.iterdir()) == [
        "answers.jsonl", "exam", "scores.jsonl", "shots.jsonl", "sitting.json",
    ]  # fmt: skip


def test_a_corrected_key_changes_its_score_and_no_other(folder: Path) -> None:
    before = read_stored(folder)
    correct(folder, "q2", choice=0, targets=["red"])
    again = rescore(read_stored(folder))
    assert values(again) == {"q1": 1.0, "q2": 1.0, "q3": 1.0, "q4": 1.0}
    (change,) = changes(before.scores, again.scores)
    assert change.old is not None
    assert (change.new.question_id, change.old.value, change.new.value) == ("q2", 0.0, 1.0)
    assert again.exam.digest != before.exam.digest  # another key is another exam
    assert again.sitting is not None and again.sitting.exam_digest == again.exam.digest
    assert {a.exam_digest for a in again.answers} == {again.exam.digest}


def test_another_normalisation_chooses_other_options(folder: Path) -> None:
    stored = read_stored(folder)
    for name in ("tokens", "characters", "bytes"):
        again = rescore(stored, normalisation=name)
        assert again.exam.normalisation == name
        assert [(a.choice, a.text) for a in again.answers[:2]] == [(1, CHOICES[1])] * 2
        assert {a.decoding.normalisation for a in again.answers} == {name, None}
        assert values(again) == {"q1": 0.0, "q2": 0.0, "q3": 1.0, "q4": 1.0}
        assert rescore(again, normalisation="sum") == stored


def test_another_scorer_marks_the_short_answers(folder: Path) -> None:
    again = rescore(read_stored(folder), scorer="exact")
    assert values(again) == {"q1": 1.0, "q2": 0.0, "q3": 0.0, "q4": 1.0}
    assert again.exam.scorer == "exact"


def test_rotated_answers_are_scored_again_over_all_orders(tmp_path: Path) -> None:
    stored = sat(tmp_path)
    orders = [((0, 1, 2), (-4.0, -9.0, -3.0)), ((1, 2, 0), (-4.0, -9.0, -8.0)),
              ((2, 0, 1), (-4.0, -9.0, -8.0))]  # fmt: skip
    rotations = tuple(
        Rotation(order=o, prompt_sha256="0", choice_loglikelihoods=v, choice_lengths=(1, 4, 1))
        for o, v in orders
    )
    first = stored.answers[0].model_copy(update={"rotations": rotations})
    turned = Stored(
        stored.exam, stored.questions, stored.keys, (first, *stored.answers[1:]), arm="rag",
        candidate_id="c", rotate=True,
    )  # fmt: skip
    again, by_tokens = rescore(turned), rescore(turned, normalisation="tokens")
    assert (again.answers[0].choice, by_tokens.answers[0].choice) == (0, 1)
    assert again.sitting is not None
    (bias,) = again.sitting.positions
    assert bias.unchanged.estimate == 0.0
    assert [place.estimate for place in bias.accuracy] == [0.0, 1.0, 1.0]  # the key is red
    write_stored(tmp_path / "turned", again)
    assert rescore(read_stored(tmp_path / "turned")) == again


@pytest.mark.parametrize("how", [{"normalisation": "words"}, {"scorer": "vibes"}])
def test_an_unknown_measure_is_refused_with_the_known_ones(
    folder: Path, how: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="is none of"):
        rescore(read_stored(folder), **how)


def test_an_error_stays_one_and_the_sitting_has_no_mean(tmp_path: Path) -> None:
    """Pitfall 17."""
    stored = sat(tmp_path)
    failed = stored.answers[2].model_copy(update={"status": "error", "error": "timeout"})
    answers = (*stored.answers[:2], failed, stored.answers[3])
    again = rescore(
        Stored(stored.exam, stored.questions, stored.keys, answers, arm="rag", candidate_id="c")
    )
    assert again.sitting is not None
    assert (again.sitting.errors, again.sitting.primary) == (1, None)


# ---- what doesn't belong together ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"choice": 0}, "choice 0 is 'red', but targets say 'green'; correct both"),
        ({"targets": ["red"]}, "choice 2 is 'green', but targets say 'red'; correct both"),
        ({"choice": 3}, "counts from 0 to 2"),
        ({"choice": None}, "counts from 0 to 2"),
        ({"question_id": "q9"}, "q2 has no key"),
        ({"question_id": "q1"}, "two keys of q1"),
    ],
)
def test_a_key_that_was_corrected_by_half_is_a_mistake(
    folder: Path, changed: dict[str, Any], said: str
) -> None:
    correct(folder, "q2", **changed)
    with pytest.raises(Mistakes) as found:
        rescore(read_stored(folder))
    assert any(said in item for item in found.value.items), found.value.items


def test_questions_changed_after_they_were_asked_are_named_together(folder: Path) -> None:
    path = folder / "exam" / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()][:3]
    rows[0]["choices"] = ["red", "green"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Mistakes) as found:
        rescore(read_stored(folder))
    assert len(found.value.items) == 2
    assert "q1 has 3 log-likelihoods for 2 options" in found.value.items[0]
    assert "q4 was answered, but is no question any more" in found.value.items[1]


def test_lost_answers_are_an_integrity_error(folder: Path) -> None:
    path = folder / "answers.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(IntegrityError, match="3 answers to 4 questions; sit the exam again"):
        read_stored(folder)
    path.write_text("")
    with pytest.raises(IntegrityError, match="is empty"):
        read_stored(folder)


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_tells_old_and_new_and_writes_only_where_it_is_told(
    folder: Path, tmp_path: Path, tokka: Callable[..., Any]
) -> None:
    def written() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}

    correct(folder, "q2", choice=0, targets=["red"])
    before = written()
    told = tokka("exam", "rescore", folder, "--json")
    assert told.code == 0, told.err
    (one,) = told.json["sittings"]
    assert (one["arm"], one["exam"], one["asked"]) == ("rag", "colours", 4)
    assert (one["old"]["estimate"], one["new"]["estimate"]) == (0.75, 1.0)
    assert [(c["question"], c["old"], c["new"]) for c in one["changed"]] == [("q2", 0.0, 1.0)]
    table = tokka("exam", "rescore", folder, "--dry-run", "--out", tmp_path / "out")
    assert "75.0%" in table.out and "100.0%" in table.out
    assert "rag · colours · q2: 0 → 1 (chose A" in table.out
    assert written() == before
    told = tokka("exam", "rescore", folder, "--out", tmp_path / "out", "--json")
    assert told.json["written"] == [str(tmp_path / "out")]
    again = read_stored(tmp_path / "out")
    assert again.sitting is not None and again.sitting.primary is not None
    assert again.sitting.primary.estimate == 1.0
    assert load_exam(tmp_path / "out" / "exam").digest == again.exam.digest
    assert load_keys(tmp_path / "out" / "exam")[1].choice == 0
    assert {name: data for name, data in written().items() if name in before} == before


def test_the_command_explains_what_is_wrong(folder: Path, tokka: Callable[..., Any]) -> None:
    told = tokka("exam", "rescore", folder, "--normalisation", "words")
    assert told.code == 2 and "none of sum, tokens, characters, bytes" in told.err
    told = tokka("exam", "rescore", folder, "--arm", "lora")
    assert told.code == 2 and "it holds 'rag'" in told.err
    told = tokka("exam", "rescore", folder.parent)
    assert told.code == 2 and "no project file" in told.err


def test_rescoring_loads_no_model_library(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "import json, sys\n"
         f"sys.argv = ['tokka', 'exam', 'rescore', {str(folder)!r}, '--normalisation', 'tokens']\n"
         "from tokka.cli import main\n"
         "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
         "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert "scipy" in modules
    assert not modules & {"torch", "transformers", "peft", "httpx", "xllamacpp", "numkong"}


def test_a_value_that_is_no_number_survives_the_file(tmp_path: Path) -> None:
    stored = sat(tmp_path)
    nan = stored.answers[0].model_copy(update={"choice_loglikelihoods": (-1.0, float("nan"), -2.0)})
    again = rescore(
        Stored(stored.exam, stored.questions, stored.keys, (nan, *stored.answers[1:]), arm="rag",
               candidate_id="c")
    )  # fmt: skip
    write_stored(tmp_path / "nan", again)
    score: Score = rescore(read_stored(tmp_path / "nan")).scores[0]
    assert (score.value, score.status) == (None, "error")


def test_what_exam_sit_wrote_is_scored_again_after_a_corrected_key(
    harbour: Path, tmp_path: Path, tokka: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, exam = tmp_path / "sat", harbour / "exam" / "domain.jsonl"
    sat_now = tokka("exam", "sit", exam, "--model", harbour / "model", "--out", out, "--json")
    assert sat_now.code == 0, sat_now.err
    same = tokka("exam", "rescore", out, "--json").json["sittings"][0]
    assert same["old"] == same["new"] and not same["changed"]
    assert same["new"]["estimate"] == sat_now.json["sitting"]["primary"]["estimate"]
    name, text = next(
        (a.question_id, a.text) for a in read_stored(out).answers if a.decoding.method == "text"
    )
    correct(out, name, targets=[text or "nothing"])
    monkeypatch.setattr("tokka.models.opening.open_model", lambda *a, **k: pytest.fail("opened"))
    told = tokka("exam", "rescore", out, "--scorer", "exact", "--out", out, "--json").json
    (change,) = told["sittings"][0]["changed"]
    assert (change["question"], change["old"], change["new"]) == (name, 0.0, 1.0)
    stored = read_stored(out)
    assert {s.question_id: s.value for s in stored.scores}[name] == 1.0
    assert stored.exam.scorer == "exact"
