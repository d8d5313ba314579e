"""Risk and coverage: how wrong the answers are that one is surest of.

Confidences and scores of one sitting → a curve and the area under it. Risk is 1 − mean score of the
questions that are answered, coverage their share of all questions (El-Yaniv and Wiener 2010, "On
the Foundations of Noise-free Selective Classification"; Geifman and El-Yaniv 2017).

>>> curve([0.9, 0.5, 0.2], [1.0, 1.0, 0.0])
[(0.9, 0.333333, 0.0), (0.5, 0.666667, 0.0), (0.2, 1.0, 0.333333)]
>>> area([0.9, 0.5, 0.2], [1.0, 1.0, 0.0]).estimate
0.111111
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokka.errors import UsageError
from tokka.records import Interval
from tokka.stats.resample import check_sample

LEVEL = 0.025  # of each side
_DIGITS = 6
_CELLS = 2_000_000


def curve(
    confidences: Sequence[float],
    scores: Sequence[float],
    *,
    questions: int | None = None,
    most: int = 200,
) -> list[tuple[float, float, float]]:
    """(confidence, coverage, risk) for each distinct confidence, from the surest on, the last one
    being of all answers. Equal confidences are one point: nothing tells which comes first.

    `questions` is what coverage is a share of (None: the answers). At most `most` points are
    returned, evenly drawn. Raises UsageError for no answers, unequal lengths, a score off [0, 1].
    """
    _check(confidences, scores)
    order = np.argsort(-np.asarray(confidences), kind="stable")
    ranked = np.asarray(confidences)[order]
    lost = np.cumsum(1 - np.asarray(scores, dtype=np.float64)[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    if len(ends) > most:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, most).round().astype(int))]
    total = len(confidences) if questions is None else questions
    return [
        (
            round(float(ranked[end]), _DIGITS),
            round((end + 1) / total, _DIGITS),
            round(float(lost[end]) / (end + 1), _DIGITS),
        )
        for end in ends.tolist()
    ]


def area(
    confidences: Sequence[float],
    scores: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    draws: int = 2_000,
    seed: int = 0,
) -> Interval:
    """The area under the risk–coverage curve, AURC = 1/n Σ_k risk(k surest answers), with an
    interval.

    Among equal confidences the order is unknown, so a k within them counts the mean over all
    orders. The interval is the percentile bootstrap over whole clusters (empty labels: each its
    own), widened by what an unseen cluster could do, as in `resample.Bootstrap`. Raises UsageError
    as `curve` does.
    """
    _check(confidences, scores)
    n = len(confidences)
    labels = [""] * n if clusters is None else list(clusters)
    order: dict[object, int] = {}
    own = np.array([order.setdefault(label or at, len(order)) for at, label in enumerate(labels)])
    if len(own) != n:
        raise UsageError(f"coverage: {n} answers but {len(own)} clusters; give one cluster each")
    _, group = np.unique(-np.asarray(confidences), return_inverse=True)
    losses = 1 - np.asarray(scores, dtype=np.float64)
    groups, count = int(group.max()) + 1, len(order)
    # Answers and losses of each cluster in each group of equal confidences, (clusters, groups).
    sizes, sums = np.zeros((count, groups)), np.zeros((count, groups))
    np.add.at(sizes, (own, group), 1.0)
    np.add.at(sums, (own, group), losses)
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, n * int(sizes.sum(1).max()) + 1)))
    estimate = float(_areas(np.ones((1, count)), sizes, sums, harmonic)[0])
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // max(count, groups))
    drawn = []
    for start in range(0, draws, block):
        often = rng.multinomial(count, np.full(count, 1 / count), size=min(block, draws - start))
        drawn.append(_areas(often.astype(np.float64), sizes, sums, harmonic))
    low, high = np.quantile(np.concatenate(drawn), [LEVEL, 1 - LEVEL]).tolist()
    unseen = 1 - LEVEL ** (1 / count)
    kind = "bootstrap" if count == n else f"bootstrap over {count} clusters"
    return Interval(
        estimate=round(estimate, _DIGITS),
        low=round(max(0.0, min(low, estimate - unseen * estimate)), _DIGITS),
        high=round(min(1.0, max(high, estimate + unseen * (1 - estimate))), _DIGITS),
        n=n,
        method=f"{kind} 95 %",
    )


def _areas(
    often: NDArray[np.float64],
    sizes: NDArray[np.float64],
    sums: NDArray[np.float64],
    harmonic: NDArray[np.float64],
) -> NDArray[np.float64]:
    """AURC of each row of `often`, which says how often each cluster was drawn.

    Behind k answers with losses S, a group of g answers with mean loss m adds
    Σ_{j=1..g} (S + j·m) / (k + j) = g·m + (S − k·m) · (H(k + g) − H(k)), H the harmonic numbers.
    """
    g, lost = often @ sizes, often @ sums
    after, total = np.cumsum(g, axis=1), np.cumsum(lost, axis=1)
    before, behind = after - g, total - lost
    mean = np.divide(lost, g, out=np.zeros_like(lost), where=g > 0)
    reach = harmonic[after.round().astype(int)] - harmonic[before.round().astype(int)]
    area: NDArray[np.float64] = (lost + (behind - before * mean) * reach).sum(axis=1)
    return area / after[:, -1]


def _check(confidences: Sequence[float], scores: Sequence[float]) -> None:
    check_sample(scores, [""] * len(confidences), 0.0, 1.0)
    if not np.isfinite(np.asarray(confidences, dtype=np.float64)).all():
        raise UsageError("coverage: a confidence is no finite number; score the answers again")
