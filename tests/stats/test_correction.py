"""Holm against worked examples, and its levels against its decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.stats.correction import holm


def test_holm_agrees_with_worked_examples():
    # the four-test textbook case: H1 and H4 are rejected at 0.05, H2 and H3 are not
    results = holm([0.01, 0.04, 0.03, 0.005], alpha=0.05)
    assert [r.p_adjusted for r in results] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # R's p.adjust(c(0.0001, 0.0075, 0.03, 0.2), "holm")
    adjusted = [r.p_adjusted for r in holm([0.0001, 0.0075, 0.03, 0.2], alpha=0.05)]
    assert adjusted == pytest.approx([0.0004, 0.0225, 0.06, 0.2])


def test_one_arm_is_not_corrected():
    (only,) = holm([0.03], alpha=0.05)
    assert (only.p_adjusted, only.level) == (0.03, 0.05)
    assert holm([], alpha=0.05) == []


def test_a_later_arm_does_not_pass_where_an_earlier_one_stopped():
    first, second = holm([0.03, 0.04], alpha=0.05)
    assert first.p_adjusted == second.p_adjusted == pytest.approx(0.06)
    assert second.level < 0.04  # so that its bound doesn't pass either


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.3))
def test_levels_decide_as_the_adjusted_values_do(p_values, alpha):
    for p, result in zip(p_values, holm(p_values, alpha), strict=True):
        assert result.p_adjusted >= p
        assert alpha / len(p_values) * (1 - 1e-9) <= result.level <= alpha * (1 + 1e-9)
        if result.p_adjusted < 1 and abs(result.p_adjusted - alpha) > 1e-9 * alpha:
            assert (p < result.level) == (result.p_adjusted < alpha)


@pytest.mark.parametrize(("p_values", "alpha"), [([1.2], 0.05), ([0.5], 0.0), ([0.5], 1.0)])
def test_impossible_numbers_are_refused(p_values, alpha):
    with pytest.raises(UsageError):
        holm(p_values, alpha)
