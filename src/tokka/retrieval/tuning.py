"""How much lexical and dense search count in the fusion, chosen by questions whose documents are
known.

Development questions → MRR of each pair of weights → the best pair. Nothing else is chosen: two
numbers that add up to 2, in steps of a fifth, so that a few dozen questions can't be learnt by
heart. (2, 0) is lexical search alone, (0, 2) dense search alone, and (1, 1) what an arm has that
says nothing.

>>> tune(questions, lambda question, weights: ids_of(index.rank(...)))
Tuned(weights=(1.4, 0.6), tried=(Tried(weights=(2.0, 0.0), mrr=0.61), …), questions=40)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from tokka.errors import UsageError
from tokka.records import Question
from tokka.retrieval.metrics import reciprocal_rank

Weights = tuple[float, float]  # of lexical, of dense
Rank = Callable[[Question, Weights], Sequence[str]]

STEPS = 10
EQUAL: Weights = (1.0, 1.0)
GRID: tuple[Weights, ...] = tuple(
    (2 * (STEPS - dense) / STEPS, 2 * dense / STEPS) for dense in range(STEPS + 1)
)
DIGITS = 9  # sums in another order differ by less, and are ties


class Tried(NamedTuple):
    weights: Weights
    mrr: float


class Tuned(NamedTuple):
    """`tried` holds every pair of the grid, from lexical alone to dense alone."""

    weights: Weights
    tried: tuple[Tried, ...]
    questions: int


def tune(
    questions: Sequence[Question], rank: Rank, progress: Callable[[int], None] | None = None
) -> Tuned:
    """The weights with the largest mean reciprocal rank; ties go to the pair nearest to equal
    weights, then to the lexical side.

    `rank` gives a question's document ids, best first, under a pair of weights; `progress` counts
    questions. Raises UsageError without questions, for one of the test, and for one without
    `document_ids`.
    """
    if not questions:
        raise UsageError("retrieval: weights: tuned has no questions to choose by")
    for question in questions:
        if question.split != "dev":
            raise UsageError(
                f"retrieval: question {question.id} belongs to the test; weights are tuned on the "
                "development split only"
            )
    found: dict[Weights, list[float]] = {weights: [] for weights in GRID}
    for question in questions:
        for weights, values in found.items():
            values.append(reciprocal_rank(rank(question, weights), question.document_ids))
        if progress is not None:
            progress(1)
    tried = tuple(Tried(weights, round(fmean(values), DIGITS)) for weights, values in found.items())
    return Tuned(best(tried).weights, tried, len(questions))


def best(tried: Sequence[Tried]) -> Tried:
    """The largest MRR; of equal ones the nearest to equal weights, then the more lexical."""
    return min(tried, key=lambda one: (-one.mrr, abs(one.weights[0] - EQUAL[0]), -one.weights[0]))
