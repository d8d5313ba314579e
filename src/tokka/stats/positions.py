"""Does it matter where an option stands? A test for choices that were asked in every order.

Picks per place and question, with clusters → p-value of "every place is picked equally often".

>>> equal_places([[4, 0, 0, 0], [1, 1, 1, 1], [3, 1, 0, 0]])    # question 2 picks by content
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokka.errors import UsageError

TIE = 1e-9


def equal_places(
    counts: Sequence[Sequence[float]],
    clusters: Sequence[str] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Randomisation test: were the places shifted at random, would they differ as much as seen?

    `counts` has one row per question, shape (questions, places): how often what stood at a place
    was picked. Askings of one question are not independent, and a question that is answered by
    content picks each place exactly once; χ² over all askings would count each question as many.
    Here a question counts once: each draw shifts the places of every question (of every cluster of
    questions alike) cyclically by a random number, and the statistic is the variance of the
    picks over the places. The p-value is (1 + draws at least as uneven) / (1 + draws), never zero
    (Phipson and Smyth 2010). Raises UsageError for no questions, rows of unequal length, draws < 1.
    """
    widths = {len(row) for row in counts}
    if len(widths) != 1 or widths == {0}:
        raise UsageError("positions: every question needs a count for each of the same places")
    if draws < 1:
        raise UsageError(f"positions: draws must be at least 1, got {draws}; 10000 is usual")
    rows = _by_cluster(np.asarray(counts, dtype=np.float64), clusters)
    places = rows.shape[1]
    distinct, alike = np.unique(rows, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    totals = np.zeros((draws, places))
    for row, n in zip(distinct, alike, strict=True):
        shifted = np.stack([np.roll(row, by) for by in range(places)])
        # Rows that are alike are interchangeable: how many get which shift is one draw.
        totals += rng.multinomial(n, np.full(places, 1 / places), size=draws) @ shifted
    observed = float(rows.sum(axis=0).var())
    as_uneven = int((totals.var(axis=1) >= observed - TIE * max(1.0, observed)).sum())
    return (1 + as_uneven) / (1 + draws)


def _by_cluster(rows: NDArray[np.float64], clusters: Sequence[str] | None) -> NDArray[np.float64]:
    """One row per cluster, the sum of its questions; an empty label is a cluster of its own."""
    if clusters is None:
        return rows
    if len(clusters) != len(rows):
        raise UsageError(
            f"positions: {len(rows)} questions but {len(clusters)} clusters; give one cluster each"
        )
    order: dict[object, int] = {}
    index = [order.setdefault(label or at, len(order)) for at, label in enumerate(clusters)]
    summed = np.zeros((len(order), rows.shape[1]))
    np.add.at(summed, index, rows)
    return summed
