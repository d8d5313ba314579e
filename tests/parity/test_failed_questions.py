"""Pitfall 17: a failed question becomes 0.0 or vanishes, and shifts the mean.

From the model to the sitting; tests/pipeline/test_endpoint_project.py has the whole run, which
returns 5 and asks the failed question again.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tokka.arms.building import candidate_of
from tokka.candidates.specialist import Specialist
from tokka.exam.sitting import score_all, sit, summarise
from tokka.records import Arm, Exam, Key, Message, Question, Sitting

EXAM = Exam(
    name="e", role="domain", digest="d" * 64, scorer="contained", normalisation="sum", questions=4
)
HOW: dict[str, Any] = {"base_model": "f", "base_digest": "f", "artifacts": {}, "language": "en"}


def asked(n: int) -> Question:
    said = (Message(role="user", content=f"number {n}?"),)
    written = Question(id=f"q{n}", messages=said, form="short")
    choice = {"form": "choice", "choices": ("blue", "red")}
    return written.model_copy(update=choice) if n % 2 else written


QUESTIONS = [asked(n) for n in range(4)]
KEYS = [
    Key(question_id=q.id, targets=("blue",), choice=0 if q.form == "choice" else None)
    for q in QUESTIONS
]


def sitting(model: Any) -> tuple[list[str], list[float | None], Sitting]:
    arm = Arm(name="base")
    specialist = Specialist(candidate_of(arm, **HOW), model)
    answers = sit(specialist, EXAM, QUESTIONS)
    scores = score_all(EXAM, QUESTIONS, KEYS, answers)
    more: dict[str, Any] = {"arm": "base", "candidate_id": "c", "split": "test", "limit": None}
    found = summarise(EXAM, QUESTIONS, answers, scores, **more)
    return [s.status for s in scores], [s.value for s in scores], found


def test_without_a_failure_there_is_a_mean(fake_model: Any) -> None:
    _, values, found = sitting(fake_model("en", like=lambda prompt, option: -len(option)))
    assert found.primary is not None and found.complete
    assert found.primary.estimate == pytest.approx(math.fsum(v or 0 for v in values) / 4)


def test_a_written_question_that_failed_leaves_no_mean(fake_model: Any) -> None:
    model = fake_model("en", say=lambda p: "error:timeout" if "number 2" in p else "blue")
    statuses, values, found = sitting(model)
    assert (statuses[2], values[2]) == ("error", None)
    assert [s for i, s in enumerate(statuses) if i != 2] == ["scored"] * 3
    assert (found.asked, found.answered, found.errors) == (4, 3, 1)
    assert found.primary is None and not found.complete


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_choice_without_usable_likelihoods_leaves_no_mean(fake_model: Any, value: float) -> None:
    model = fake_model("en", like=lambda p, option: value if "number 3" in p else -len(option))
    statuses, values, found = sitting(model)
    assert (statuses[3], values[3]) == ("error", None)
    assert found.errors == 1 and found.primary is None
