"""Pitfall 3: batch size changes scores. Through the whole arm, with a random model in float32.

tests/models/test_families.py has the same for every architecture, request by request.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokka.arms.building import candidate_of
from tokka.candidates.specialist import Specialist
from tokka.records import Answer, Arm, Message, Question

QUESTIONS = [
    Question(
        id=f"q{n}",
        messages=(Message(role="user", content=f"{'so ' * (n * 5 % 13)}which, {n}?"),),
        form="choice" if n % 3 else "short",
        choices=("red", "a light blue", f"{n} greens")[: 2 + n % 2] if n % 3 else (),
        completion=f"{n} and {'so ' * n}on " if n % 4 == 1 else "",
    )
    for n in range(12)
]


@pytest.fixture(scope="module")
def specialist(tiny_folder: Path) -> Iterator[Specialist]:
    from tokka.models.opening import open_model

    how: dict[str, Any] = {"base_model": "f", "base_digest": "f", "artifacts": {}, "language": "en"}
    model = open_model(str(tiny_folder), dtype="float32")
    with Specialist(candidate_of(Arm(name="base"), **how), model) as opened:
        yield opened


@pytest.fixture(scope="module")
def together(specialist: Specialist) -> dict[str, Answer]:
    return {a.question_id: a for a in specialist.answer(QUESTIONS)}


@pytest.mark.parametrize("size", [1, 5])
def test_a_question_is_answered_alike_alone_and_among_others(
    specialist: Specialist, together: dict[str, Answer], size: int
) -> None:
    backwards = QUESTIONS[::-1]
    parts = [backwards[i : i + size] for i in range(0, len(backwards), size)]
    answers = [answer for part in parts for answer in specialist.answer(part)]
    assert len(answers) == len(QUESTIONS)
    for answer in answers:
        same = together[answer.question_id]
        assert answer.choice_loglikelihoods == pytest.approx(same.choice_loglikelihoods, abs=1e-4)
        assert answer.text == same.text
        assert answer.prompt_sha256 == same.prompt_sha256
        assert answer.tokens_in == same.tokens_in


def test_the_questions_differ_enough_to_tell(together: dict[str, Answer]) -> None:
    assert len({a.tokens_in for a in together.values()}) > 6
    assert len({a.choice_loglikelihoods for a in together.values()}) == 1 + sum(
        q.form == "choice" for q in QUESTIONS
    )
    assert len({a.text for a in together.values() if a.text}) > 2
