"""Intervals around one candidate's mean score.

Scores of one sitting, with their clusters → Interval. Right/wrong scores of independent questions
get Wilson's interval; graded or clustered scores get the clustered bootstrap.

>>> mean_interval([1, 0, 1, 1], clusters=["a", "b", "c", "d"]).method
'Wilson 95 %'
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from tokka.errors import UsageError
from tokka.records import Interval
from tokka.stats.resample import check_sample, gather, resample


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (Wilson 1927; Newcombe 1998, method 3).

    Holds its confidence at 0, at 1 and below a few hundred questions, where the normal
    approximation doesn't (Bowyer et al. 2025). Raises UsageError unless 0 ≤ successes ≤ n, n ≥ 1.
    """
    if n < 1:
        raise UsageError(f"wilson: n must be at least 1, got {n}; an empty exam has no interval")
    if not 0 <= successes <= n:
        raise UsageError(f"wilson: successes must lie in 0..{n}, got {successes}")
    z2 = float(ndtri(0.5 + _checked(confidence) / 2)) ** 2
    share = successes / n
    centre = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (n * share * (1 - share) + z2 / 4)) / (n + z2)
    return Interval(
        estimate=share,
        low=0.0 if successes == 0 else max(0.0, centre - half),
        high=1.0 if successes == n else min(1.0, centre + half),
        n=n,
        method=f"Wilson {confidence:.0%}".replace("%", " %"),
    )


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Two-sided interval for the mean of scores in [0, 1], one per question.

    `clusters` names the passage that each question was drawn from; None or an empty label means a
    question on its own. Raises UsageError for no scores or scores outside [0, 1].
    """
    labels = [""] * len(values) if clusters is None else list(clusters)
    check_sample(values, labels, 0.0, 1.0)
    independent = len(gather(values, labels).sums) == len(values)
    if independent and is_right_or_wrong(values):
        return wilson(sum(values), len(values), confidence)
    level = (1 - _checked(confidence)) / 2
    drawn = resample(values, labels, draws=draws, seed=seed)
    kind = "bootstrap" if independent else f"bootstrap over {drawn.clusters} clusters"
    return Interval(
        estimate=round(drawn.estimate, 12),
        low=round(drawn.low(level), 12),
        high=round(drawn.high(level), 12),
        n=drawn.n,
        method=f"{kind} {confidence:.0%}".replace("%", " %"),
    )


def clustered_se(values: Sequence[float], clusters: Sequence[str] | None = None) -> float:
    """Standard error of the mean when questions of a cluster err together (Miller 2024).

    SE² = n⁻² Σ_c (Σ_{i∈c} (s_i − s̄))², which is the naive s²/n plus the cross terms within
    clusters; without clusters it is √(p(1−p)/n) for right/wrong scores. Works on paired differences
    as well. Raises UsageError for no scores.
    """
    labels = [""] * len(values) if clusters is None else list(clusters)
    check_sample(values, labels, -math.inf, math.inf)
    centred = np.asarray(values, dtype=np.float64) - float(np.mean(values))
    return math.sqrt(float((gather(centred.tolist(), labels).sums ** 2).sum())) / len(values)


def is_right_or_wrong(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    return confidence
