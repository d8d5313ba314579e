"""How many questions a claim needs, and how small an effect an exam can see.

Standard errors and margins → question counts and effects. All effects are shares (0.03 = 3 points).

>>> sample_size(0.03, variance=1 / 9)
969
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from tokka.errors import UsageError
from tokka.stats.resample import Bootstrap

POWER = 0.8
MOST_QUESTIONS = 1_000_000  # beyond this the effect stands at the margin for all that matters


def smallest_detectable(
    standard_error: float, alpha: float = 0.05, power: float = POWER, sides: int = 2
) -> float:
    """Smallest true effect seen with probability `power`: (z_{α/sides} + z_β)·SE (Miller 2024).

    For right/wrong pairs SE = √(p_discordant/n), which gives the familiar 2.80·√(p_discordant/n).
    """
    return _z_sum(alpha, power, sides) * standard_error


def sample_size(
    effect: float,
    variance: float,
    *,
    noise_candidate: float = 0.0,
    noise_control: float = 0.0,
    answers_candidate: int = 1,
    answers_control: int = 1,
    alpha: float = 0.05,
    power: float = POWER,
    sides: int = 2,
) -> int:
    """Questions needed to see `effect` in a paired design (Miller 2024).

    n = (z_{α/2}+z_β)²·(ω² + σ²_A/K_A + σ²_B/K_B)/δ². `variance` is ω², the variance over questions
    of the difference of expected scores; `noise_*` is σ², the variance of one answer's score, drawn
    `answers_*` times per question. Raises UsageError for an effect of 0.
    """
    if effect == 0 or not math.isfinite(effect):
        raise UsageError(f"sample size: effect must be finite and not 0, got {effect}")
    spread = variance + noise_candidate / answers_candidate + noise_control / answers_control
    return math.ceil(_z_sum(alpha, power, sides) ** 2 * spread / effect**2)


def detectable_by(
    drawn: Bootstrap, standard_error: float, level: float, power: float = POWER
) -> float:
    """Smallest distance from the margin that this exam would have shown, one-sided at `level`.

    Never below what a difference not seen in any cluster may amount to, so that an exam on which
    all differences are equal isn't said to see everything. At most the width of the scale.
    """
    unseen = float(1 - level ** (1 / drawn.effective_clusters))
    seen = smallest_detectable(standard_error, level, power, sides=1)
    return min(max(seen, unseen), drawn.maximum - drawn.minimum)


def questions_needed(
    drawn: Bootstrap, standard_error: float, margin: float, level: float, power: float = POWER
) -> int | None:
    """Questions, clustered as these are, that would settle the test if the effect stays as seen.

    `sample_size` with the variance n·SE² that the clusters imply, and enough clusters for the
    unseen part. None where the effect stands at the margin, so that no number settles it.
    """
    distance = drawn.estimate - margin
    if abs(distance) < 1e-9:
        return None
    room = drawn.estimate - drawn.minimum if distance > 0 else drawn.maximum - drawn.estimate
    share = min(abs(distance) / room, 1 - 1e-9)
    per_cluster = drawn.n / drawn.effective_clusters
    unseen = math.ceil(math.log(level) / math.log1p(-share) * per_cluster)
    seen = sample_size(distance, drawn.n * standard_error**2, alpha=level, power=power, sides=1)
    needed = max(seen, unseen, drawn.n + 1)
    return needed if needed <= MOST_QUESTIONS else None


def _z_sum(alpha: float, power: float, sides: int) -> float:
    if sides not in (1, 2) or not (0 < alpha < 1 and 0 < power < 1):
        raise UsageError(
            f"power: alpha and power must lie in (0, 1) and sides be 1 or 2, "
            f"got {alpha}, {power}, {sides}"
        )
    return float(ndtri(1 - alpha / sides) + ndtri(power))
