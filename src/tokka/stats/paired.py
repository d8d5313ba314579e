"""Two candidates on the same questions: the clustered paired bootstrap, and McNemar beside it.

Scores of the candidate and of the control, question by question → Bootstrap of the mean difference.

>>> drawn = paired_bootstrap([1, 1, 0, 1], [0, 1, 0, 0], clusters=["a", "a", "b", "c"])
>>> drawn.estimate, drawn.p_above(0.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from tokka.errors import UsageError
from tokka.stats.intervals import is_right_or_wrong
from tokka.stats.resample import Bootstrap, resample


@dataclass(frozen=True, slots=True)
class McNemar:
    """`gained`: only the candidate was right; `lost`: only the control was."""

    p_value: float
    gained: int
    lost: int


def differences(candidate: Sequence[float], control: Sequence[float]) -> list[float]:
    """candidate − control, question by question; UsageError unless they are equally long."""
    if len(candidate) != len(control):
        raise UsageError(
            f"paired test: {len(candidate)} scores of the candidate but {len(control)} of the "
            "control; pair them by question id first"
        )
    return [a - b for a, b in zip(candidate, control, strict=True)]


def paired_bootstrap(
    candidate: Sequence[float],
    control: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Bootstrap:
    """Bootstrap mean(candidate − control) over whole clusters; scores lie in [0, 1].

    Read `estimate`, `low(level)`, `high(level)`, `p_above(margin)` and `p_below(margin)` from the
    result. Nothing is certain from equal differences, few clusters or none: one cluster gives the
    bounds −1 and 1. Raises UsageError for no questions, unequal lengths or scores off the scale.
    """
    gaps = differences(candidate, control)
    labels = [""] * len(gaps) if clusters is None else clusters
    return resample(gaps, labels, minimum=-1.0, maximum=1.0, draws=draws, seed=seed)


def mcnemar(candidate: Sequence[float], control: Sequence[float]) -> McNemar:
    """Exact two-sided McNemar test of right/wrong scores: gained ~ Binomial(gained + lost, ½).

    It takes the questions to be independent, so it is shown only where there are no clusters. No
    discordant pair gives p = 1. Raises UsageError for graded scores.
    """
    gaps = differences(candidate, control)
    if not (is_right_or_wrong(candidate) and is_right_or_wrong(control)):
        raise UsageError("mcnemar: scores must be 0 or 1; use paired_bootstrap for graded scores")
    gained, lost = gaps.count(1), gaps.count(-1)
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(p_value=min(1.0, p_value), gained=gained, lost=lost)
