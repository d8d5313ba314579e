"""Pass, fail and inconclusive as the policy defines them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tokka.errors import UsageError
from tokka.records import Exam, Score
from tokka.stats.compare import ArmScores, choose, compare, verdict


@dataclass(frozen=True)
class Policy:
    min_gain: float = 0.0
    max_forgetting: float = 0.10
    alpha: float = 0.05
    power: float = 0.8
    draws: int = 2_000
    seed: int = 0


POLICY = Policy()


def exam(role="domain", name=None):
    return Exam(
        name=name or role, role=role, digest="d" * 64, scorer="choice",
        normalisation="tokens", questions=100,
    )  # fmt: skip


def sat(values, complete=True, method="loglikelihood", **statuses):
    scores = [
        Score(
            question_id=f"q{i}",
            scorer="choice",
            value=value,
            status=statuses.get(f"q{i}", "scored"),
        )
        for i, value in enumerate(values)
    ]
    return ArmScores(candidate_id="c", scores=scores, complete=complete, method=method)


def run(arms, role="domain", clusters=None, policy=POLICY):
    comparisons = compare(exam(role), "base", arms, clusters or {}, policy)
    return {c.arm: c for c in comparisons}


def pattern(right, of=100):
    return [1.0] * right + [0.0] * (of - right)


def test_a_clear_gain_passes_a_clear_loss_fails_and_the_rest_is_inconclusive():
    found = run(
        {
            "base": sat(pattern(40)),
            "better": sat(pattern(70)),
            "worse": sat(pattern(15)),
            "same": sat(pattern(41)),
        }
    )
    assert list(found) == ["better", "worse", "same"]
    assert {arm: c.outcome for arm, c in found.items()} == {
        "better": "pass", "worse": "fail", "same": "inconclusive",
    }  # fmt: skip
    better, worse, same = found.values()
    assert (
        better.effect == pytest.approx(0.3) and better.low > 0 and better.questions_needed is None
    )
    assert worse.high < 0 and "below the required gain of 0.0 points" in worse.reason
    assert same.questions_needed > 100 and f"{same.questions_needed} questions" in same.reason
    assert better.correction.startswith("Holm over 3 arms")
    assert better.discordant == (30, 0) and better.mcnemar_p < 1e-6


def test_no_significant_difference_is_not_taken_for_no_forgetting():
    short = run({"base": sat(pattern(12, 20)), "lora": sat(pattern(12, 20))}, role="retention")
    assert short["lora"].outcome == "inconclusive"
    long = run({"base": sat(pattern(120, 200)), "lora": sat(pattern(120, 200))}, role="retention")
    assert long["lora"].outcome == "pass"
    assert long["lora"].side == "loss" and long["lora"].margin == 0.10


def test_forgetting_fails_only_where_the_whole_interval_is_beyond_the_allowed_loss():
    forgot = run({"base": sat(pattern(80)), "lora": sat(pattern(50))}, role="retention")["lora"]
    assert forgot.outcome == "fail" and "beyond the allowed loss of 10.0 points" in forgot.reason
    near = run({"base": sat(pattern(80)), "lora": sat(pattern(68))}, role="retention")["lora"]
    assert near.outcome == "inconclusive"


def test_more_arms_make_a_claim_harder():
    base, promising = sat(pattern(40, 60)), sat(pattern(45, 60))
    alone = run({"base": base, "rag": promising})["rag"]
    among = run(
        {"base": base, "rag": promising} | {f"other{i}": sat(pattern(40, 60)) for i in range(8)}
    )["rag"]
    assert alone.outcome == "pass" and among.outcome == "inconclusive"
    assert alone.p_value == among.p_value and among.p_adjusted > alone.p_adjusted
    assert among.low < alone.low


def test_clusters_are_counted_and_mcnemar_is_not_shown_beside_them():
    clusters = {f"q{i}": f"passage {i // 10}" for i in range(100)}
    alone = run({"base": sat(pattern(40)), "rag": sat(pattern(50))})["rag"]
    together = run({"base": sat(pattern(40)), "rag": sat(pattern(50))}, clusters=clusters)["rag"]
    assert together.clusters == 10 and alone.clusters == 100
    assert together.low < alone.low
    assert together.mcnemar_p is None and together.discordant == (10, 0)


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (sat(pattern(90), complete=False), "the sitting of rag is incomplete"),
        (sat([*pattern(90)[:-1], None], q99="error"), "the sitting of rag is incomplete"),
        (sat(pattern(90), method="letter"), "scored by letter and base by loglikelihood"),
        (sat(pattern(89, 99)), "asked different questions"),
    ],
)
def test_what_cannot_be_tested_is_inconclusive_and_says_why(candidate, why):
    found = run({"base": sat(pattern(40)), "rag": candidate})["rag"]
    assert found.outcome == "inconclusive" and why in found.reason
    assert (found.low, found.high, found.p_adjusted) == (-1.0, 1.0, 1.0)


def test_an_incomplete_control_leaves_every_arm_untested():
    found = run({"base": sat(pattern(40), complete=False), "rag": sat(pattern(90))})
    assert "the sitting of base is incomplete" in found["rag"].reason


def test_refused_answers_stay_in_the_denominator_as_wrong():
    refused = sat([1.0] * 50 + [0.0] * 50, q99="refused", q98="abstained")
    found = run({"base": sat(pattern(40)), "rag": refused})["rag"]
    assert found.n == 100 and found.effect == pytest.approx(0.1)


def test_mistakes_of_the_caller_are_refused():
    with pytest.raises(UsageError, match="didn't sit"):
        run({"rag": sat(pattern(4))})
    twice = sat(pattern(10))
    doubled = ArmScores("c", [*twice.scores, twice.scores[0]], True, "loglikelihood")
    with pytest.raises(UsageError, match="two scores for question q0"):
        run({"base": sat(pattern(10)), "rag": doubled})
    with pytest.raises(UsageError, match="max_forgetting"):
        run({"base": sat([1.0]), "rag": sat([1.0])}, policy=Policy(max_forgetting=-0.1))


def comparisons(gain, kept):
    """An arm with `gain` of 100 domain questions more, and `kept` of 300 retention questions."""
    domain = run({"base": sat(pattern(40)), "arm": sat(pattern(40 + gain))})["arm"]
    retention = run(
        {"base": sat(pattern(200, 300)), "arm": sat(pattern(kept, 300))}, role="retention"
    )["arm"]
    return [domain, retention]


@pytest.mark.parametrize(
    ("gain", "kept", "outcome"),
    [
        (30, 200, "pass"),
        (30, 100, "fail"),  # gained, but forgot
        (-20, 200, "fail"),
        (1, 200, "inconclusive"),
        (1, 100, "fail"),  # a failure isn't hidden by an open question
    ],
)
def test_a_verdict_passes_only_where_every_exam_does(gain, kept, outcome):
    found = comparisons(gain, kept)
    judged = verdict("arm", "c", found)
    assert judged.outcome == outcome
    assert judged.reasons == tuple(c.reason for c in found)


def test_a_verdict_without_a_domain_exam_claims_nothing():
    domain, retention = comparisons(30, 200)
    assert verdict("arm", "c", [retention]).outcome == "inconclusive"
    alone = verdict("arm", "c", [domain])
    assert alone.outcome == "pass" and "forgetting was not measured" in alone.reasons[-1]
    assert verdict("another", "c", [domain, retention]).outcome == "inconclusive"


def test_the_winner_is_the_passing_arm_with_the_largest_effect():
    arms = {"base": sat(pattern(40)), "rag": sat(pattern(65)), "lora": sat(pattern(75))}
    found = list(run(arms).values())
    verdicts = [verdict(arm, "c", found) for arm in ("rag", "lora")]
    assert choose(verdicts, found) == "lora"
    failed = [verdicts[0], verdicts[1].model_copy(update={"outcome": "fail"})]
    assert choose(failed, found) == "rag"
    assert choose([], found) is None


def test_the_same_scores_give_the_same_record():
    arms = {"base": sat([0.2, 0.7, 0.1] * 20), "rag": sat([0.3, 0.8, 0.05] * 20)}
    assert run(arms)["rag"].model_dump_json() == run(arms)["rag"].model_dump_json()
