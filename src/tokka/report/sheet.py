"""One exam as it was sat by every arm: what the question browser of the report shows.

The pipeline joins questions, keys, answers and scores here, after the exam; nothing else does.

>>> ExamSheet(exam, questions, keys, answers={"rag": {"q1": answer}}, scores={"rag": {"q1": score}})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokka.records import Answer, Exam, Key, Question, Score


@dataclass(frozen=True, slots=True)
class ExamSheet:
    """`keys` by question id; `answers` and `scores` by arm, then by question id. Gaps are shown."""

    exam: Exam
    questions: tuple[Question, ...]
    keys: Mapping[str, Key]
    answers: Mapping[str, Mapping[str, Answer]]
    scores: Mapping[str, Mapping[str, Score]]
