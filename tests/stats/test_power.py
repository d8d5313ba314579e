"""Miller's worked examples, and that the questions asked for do settle the matter."""

from __future__ import annotations

import math

import pytest

from tokka.errors import UsageError
from tokka.stats.intervals import clustered_se
from tokka.stats.paired import paired_bootstrap
from tokka.stats.power import detectable_by, questions_needed, sample_size, smallest_detectable


def test_sample_size_agrees_with_miller():
    assert sample_size(0.03, variance=1 / 9) == 969


@pytest.mark.parametrize(("answers", "published"), [(1, 0.132), (10, 0.075)])
def test_smallest_detectable_agrees_with_millers_198_questions(answers, published):
    variance = 1 / 9 + 2 * (1 / 6) / answers
    effect = smallest_detectable(math.sqrt(variance / 198))
    assert math.floor(effect * 1000) / 1000 == published  # the paper cuts, 13.27 → 13.2
    assert sample_size(
        effect, 1 / 9, noise_candidate=1 / 6, noise_control=1 / 6,
        answers_candidate=answers, answers_control=answers,
    ) in (198, 199)  # fmt: skip


@pytest.mark.parametrize(("n", "discordant", "points"), [(400, 0.2, 6.3), (910, 0.3, 5.1)])
def test_smallest_detectable_of_right_or_wrong_pairs(n, discordant, points):
    effect = smallest_detectable(math.sqrt(discordant / n))
    assert 100 * effect == pytest.approx(points, abs=0.05)
    assert effect == pytest.approx(2.80 * math.sqrt(discordant / n), rel=2e-3)


def test_an_effect_of_zero_needs_no_finite_number():
    with pytest.raises(UsageError, match="not 0"):
        sample_size(0.0, variance=0.1)


def exam(copies):
    candidate = [1, 1, 1, 0, 0, 1, 0, 1, 0, 1] * copies
    control = [1, 0, 1, 1, 0, 0, 0, 1, 1, 0] * copies  # gained 3, lost 2 of ten
    drawn = paired_bootstrap(candidate, control, draws=4_000)
    error = clustered_se([a - b for a, b in zip(candidate, control, strict=True)])
    return drawn, error


def test_the_questions_asked_for_settle_an_inconclusive_result():
    drawn, error = exam(copies=6)
    assert drawn.p_above(0.0) > 0.05
    needed = questions_needed(drawn, error, margin=0.0, level=0.05)
    assert 250 < needed < 400
    larger, _ = exam(copies=math.ceil(needed / 10))
    assert larger.p_above(0.0) < 0.05


def test_no_number_settles_an_effect_at_the_margin():
    drawn, error = exam(copies=6)
    assert questions_needed(drawn, error, margin=drawn.estimate, level=0.05) is None


def test_equal_scores_need_enough_questions_for_what_was_never_seen():
    same = paired_bootstrap([1.0] * 20, [1.0] * 20)
    assert same.p_above(-0.10) > 0.05
    needed = questions_needed(same, 0.0, margin=-0.10, level=0.05)
    assert needed == 29  # 0.9²⁹ < 0.05 < 0.9²⁸
    enough = paired_bootstrap([1.0] * needed, [1.0] * needed)
    assert enough.p_above(-0.10) < 0.05
    assert detectable_by(same, 0.0, level=0.05) == pytest.approx(1 - 0.05 ** (1 / 20))
