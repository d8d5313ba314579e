"""Every arm of one exam against the control: one primary test each, and the verdict under a policy.

Scores per arm → Comparison per arm and exam → Verdict per arm → the arm that wins, or None.

Gain (role domain): H0 effect ≤ min_gain. Loss (retention, safety): H0 effect ≤ −max_forgetting, a
non-inferiority test; "no significant difference" is never taken for "no loss". An arm passes where
its Holm-adjusted p is below alpha, which is where `low` lies beyond the margin; it fails where
`high` lies on the other side; else the result is inconclusive and names the questions it needs.

>>> compare(exam, "base", {"base": ArmScores(...), "rag": ArmScores(...)}, clusters, policy)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokka.errors import UsageError
from tokka.records import Comparison, Exam, Outcome, Score, Verdict
from tokka.stats.correction import Holm, holm
from tokka.stats.intervals import clustered_se, is_right_or_wrong
from tokka.stats.paired import differences, mcnemar, paired_bootstrap
from tokka.stats.power import detectable_by, questions_needed
from tokka.stats.resample import Bootstrap

METHOD = "clustered paired bootstrap, one-sided, widest of percentile, BCa and unseen-cluster bound"


class Policy(Protocol):
    """What decides, in shares, not points (0.10 = 10 points); `Project.policy` is one."""

    @property
    def min_gain(self) -> float: ...
    @property
    def max_forgetting(self) -> float: ...
    @property
    def alpha(self) -> float: ...
    @property
    def power(self) -> float: ...
    @property
    def draws(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ArmScores:
    """What one candidate's sitting of one exam was worth.

    `complete` is `Sitting.complete`; `method` says how options were chosen ("loglikelihood",
    "letter", "text", or several joined by the caller): different methods are not compared.
    """

    candidate_id: str
    scores: Sequence[Score]
    complete: bool
    method: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """One arm and the control on the same questions. `refusal` says why nothing can be tested."""

    arm: str
    candidate_id: str
    candidate: tuple[float, ...]
    control: tuple[float, ...]
    clusters: tuple[str, ...]
    refusal: str


def compare(
    exam: Exam,
    control: str,
    sat: Mapping[str, ArmScores],
    clusters: Mapping[str, str],
    policy: Policy,
) -> list[Comparison]:
    """Test every arm but the control on one exam, Holm-corrected over these arms.

    `sat` is keyed by arm and holds the control; `clusters` maps question id → cluster (missing or
    empty: the question is its own). An arm that can't be tested (errors, a partial sitting, another
    scoring method) is inconclusive with that reason and counts in the correction with p = 1.
    Returned in the order of `sat`. Raises UsageError where the control is missing, an arm has two
    scores for one question, or the policy's numbers are impossible.
    """
    if control not in sat:
        raise UsageError(f"compare: control arm {control!r} didn't sit {exam.name}; add it to arms")
    threshold = _threshold(exam, policy)
    pairs = [_pair(arm, sat[arm], control, sat[control], clusters) for arm in sat if arm != control]
    tested = {
        pair.arm: paired_bootstrap(
            pair.candidate, pair.control, pair.clusters, draws=policy.draws, seed=policy.seed
        )
        for pair in pairs
        if not pair.refusal
    }
    p_values = [
        tested[pair.arm].p_above(threshold) if pair.arm in tested else 1.0 for pair in pairs
    ]
    steps = holm(p_values, policy.alpha)
    return [
        _conclude(exam, sat[control].candidate_id, pair, tested.get(pair.arm), step, policy)
        for pair, step in zip(pairs, steps, strict=True)
    ]


def verdict(arm: str, candidate_id: str, comparisons: Sequence[Comparison]) -> Verdict:
    """Pass where every comparison of this arm passes, fail where any fails, else inconclusive.

    All must pass, so no correction over exams is needed (intersection–union test, Berger 1982).
    An arm without a domain comparison is inconclusive; one without a retention comparison says that
    forgetting wasn't measured.
    """
    own = [c for c in comparisons if c.arm == arm]
    reasons = [c.reason for c in own]
    outcome: Outcome = "pass"
    if any(c.outcome == "fail" for c in own):
        outcome = "fail"
    elif any(c.outcome == "inconclusive" for c in own):
        outcome = "inconclusive"
    if not any(c.side == "gain" for c in own):
        outcome = "fail" if outcome == "fail" else "inconclusive"
        reasons.append("No domain exam was compared, so no gain can be claimed.")
    if not any(c.side == "loss" for c in own):
        reasons.append("No retention exam was compared: forgetting was not measured.")
    return Verdict(arm=arm, candidate_id=candidate_id, outcome=outcome, reasons=tuple(reasons))


def choose(verdicts: Sequence[Verdict], comparisons: Sequence[Comparison]) -> str | None:
    """The passing arm with the largest mean domain effect, or None where none passes.

    By effect and not by `low`: Holm draws the bounds of the strongest arms at stricter levels, so
    bounds of two arms don't rank them. Ties go to the higher `low`, then to the earlier arm.
    """
    ranked = []
    for order, judged in enumerate(verdicts):
        gains = [c for c in comparisons if c.arm == judged.arm and c.side == "gain"]
        if judged.outcome == "pass" and gains:
            effect = sum(c.effect for c in gains) / len(gains)
            ranked.append((effect, min(c.low for c in gains), -order, judged.arm))
    return max(ranked)[-1] if ranked else None


def _threshold(exam: Exam, policy: Policy) -> float:
    for name, value in (("min_gain", policy.min_gain), ("max_forgetting", policy.max_forgetting)):
        if not 0 <= value <= 1:
            raise UsageError(f"policy: {name} must lie in [0, 1], got {value}; 0.10 is 10 points")
    return policy.min_gain if exam.role == "domain" else -policy.max_forgetting


def _pair(
    arm: str, sat: ArmScores, control: str, held: ArmScores, clusters: Mapping[str, str]
) -> _Pair:
    values, against = _values(arm, sat), _values(control, held)
    shared = [
        question
        for question, value in values.items()
        if value is not None and against.get(question) is not None
    ]
    refusal = ""
    for name, sitting in ((arm, sat), (control, held)):
        if not sitting.complete or None in _values(name, sitting).values():
            refusal = f"the sitting of {name} is incomplete; sit the whole exam without errors"
    if not refusal and sat.method != held.method:
        refusal = (
            f"{arm} was scored by {sat.method} and {control} by {held.method}, which can't be "
            "compared; examine both the same way"
        )
    if not refusal and values.keys() != against.keys():
        refusal = f"{arm} and {control} were asked different questions; sit the same exam"
    if not refusal and not shared:
        refusal = "the exam has no questions; add some"
    return _Pair(
        arm=arm,
        candidate_id=sat.candidate_id,
        candidate=tuple(values[q] or 0.0 for q in shared),
        control=tuple(against[q] or 0.0 for q in shared),
        clusters=tuple(clusters.get(q) or f"question {q}" for q in shared),
        refusal=refusal,
    )


def _values(arm: str, sat: ArmScores) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for score in sat.scores:
        if score.question_id in values:
            raise UsageError(
                f"compare: {arm} has two scores for question {score.question_id}; "
                "give the primary scorer's only"
            )
        values[score.question_id] = None if score.status == "error" else score.value
    return values


def _conclude(
    exam: Exam,
    control_id: str,
    pair: _Pair,
    drawn: Bootstrap | None,
    step: Holm,
    policy: Policy,
) -> Comparison:
    threshold = _threshold(exam, policy)
    untested = Comparison(
        candidate_id=pair.candidate_id,
        arm=pair.arm,
        control_id=control_id,
        exam=exam.name,
        exam_digest=exam.digest,
        metric=exam.scorer,
        effect=0.0,
        low=-1.0,
        high=1.0,
        side="gain" if exam.role == "domain" else "loss",
        margin=abs(threshold),
        alpha=policy.alpha,
        p_value=1.0,
        p_adjusted=1.0,
        n=len(pair.clusters),
        clusters=len(set(pair.clusters)),
        smallest_detectable=1.0,
        draws=0,
        seed=policy.seed,
        method="not tested",
        correction="not tested",
        outcome="inconclusive",
        reason=f"{exam.name}: {pair.arm} was not tested: {pair.refusal}.",
    )
    if drawn is None:
        return untested
    error = clustered_se(differences(pair.candidate, pair.control), pair.clusters)
    outcome: Outcome = "inconclusive"
    if step.p_adjusted < policy.alpha:
        outcome = "pass"
    elif drawn.p_below(threshold) < step.level:
        outcome = "fail"
    needed = questions_needed(drawn, error, threshold, step.level, policy.power)
    detectable = detectable_by(drawn, error, step.level, policy.power)
    binary = is_right_or_wrong(pair.candidate) and is_right_or_wrong(pair.control)
    beside = mcnemar(pair.candidate, pair.control) if binary else None
    independent = drawn.clusters == drawn.n
    tested = untested.model_copy(
        update={
            "effect": _tidy(drawn.estimate),
            "low": _tidy(drawn.low(step.level)),
            "high": _tidy(drawn.high(step.level)),
            "p_value": _tidy(step.p_value),
            "p_adjusted": _tidy(step.p_adjusted),
            "smallest_detectable": _tidy(detectable),
            "draws": len(drawn.means),
            "method": METHOD,
            "correction": f"Holm over {step.tests} arms; bounds at one-sided {step.level:.4g}",
            "mcnemar_p": _tidy(beside.p_value) if beside and independent else None,
            "discordant": (beside.gained, beside.lost) if beside else None,
            "questions_needed": needed if outcome == "inconclusive" else None,
            "outcome": outcome,
        }
    )
    return tested.model_copy(update={"reason": _reason(tested)})


def _reason(c: Comparison) -> str:
    seen = (
        f"{c.exam}: {c.arm} differs from the control by {_points(c.effect)} "
        f"(bounds {_points(c.low)} to {_points(c.high)}; n = {c.n}, {c.clusters} clusters)"
    )
    kind, held, missed = (
        ("required gain", "above", "below")
        if c.side == "gain"
        else ("allowed loss", "within", "beyond")
    )
    bar = f"the {kind} of {100 * c.margin:.1f} points"
    if c.outcome == "pass":
        return f"{seen}: the lower bound is {held} {bar}."
    if c.outcome == "fail":
        return f"{seen}: even the upper bound is {missed} {bar}."
    settle = (
        f"about {c.questions_needed} questions would settle it if the effect stays as it is"
        if c.questions_needed
        else "no practical number of questions would settle an effect that stands at the margin"
    )
    return (
        f"{seen}: inconclusive against {bar}; this exam could have shown a distance of "
        f"{100 * c.smallest_detectable:.1f} points from it; {settle}."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _tidy(value: float) -> float:
    """Ten decimals: the last bits may differ between processors, results.json may not."""
    return round(value, 10)
