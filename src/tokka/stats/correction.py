"""Several arms against one control: Holm's correction, and the level at which each bound is drawn.

p-values in the order of the arms → adjusted p-values and levels in the same order.

>>> [round(h.p_adjusted, 3) for h in holm([0.01, 0.04, 0.03], alpha=0.05)]
[0.03, 0.06, 0.06]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokka.errors import UsageError


@dataclass(frozen=True, slots=True)
class Holm:
    """`level` is the α that this p-value was in effect held against: p < level ⇔ p_adjusted < α.

    A bound drawn at one-sided `level` therefore lies beyond the margin exactly where the corrected
    test rejects; level is between α/m and α.
    """

    p_value: float
    p_adjusted: float
    level: float
    tests: int


def holm(p_values: Sequence[float], alpha: float) -> list[Holm]:
    """Holm's step-down procedure (Holm 1979): p_(i) ≤ α/(m−i+1), stopping at the first failure.

    Adjusted p_(i) = max over j ≤ i of (m−j+1)·p_(j), at most 1. Raises UsageError for p-values
    outside [0, 1] or α outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise UsageError(f"policy: alpha must lie between 0 and 1, got {alpha}; 0.05 is usual")
    for p in p_values:
        if not 0 <= p <= 1:
            raise UsageError(f"holm: a p-value must lie in [0, 1], got {p}")
    results: dict[int, Holm] = {}
    running = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: (p_values[i], i))):
        p, left = p_values[index], len(p_values) - step
        running = max(running, left * p)
        level = alpha * (p / running) if running else alpha / left
        results[index] = Holm(p, min(1.0, running), level, tests=len(p_values))
    return [results[index] for index in range(len(p_values))]
