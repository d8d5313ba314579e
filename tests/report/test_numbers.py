import pytest

from tokka.records import Interval
from tokka.report.numbers import (
    bounds,
    confidence,
    money,
    p_text,
    points,
    points_bounds,
    seconds,
    typographic,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123, "+12.3"), (-0.123, "-12.3"), (0.0, "+0.0"), (-0.0001, "+0.0"), (-0.0006, "-0.1")],
)
def test_an_effect_is_signed_and_never_minus_zero(value: float, shown: str):
    assert points(value) == shown


def test_bounds_are_in_percent():
    interval = Interval(estimate=0.5, low=0.404, high=0.596, n=100, method="Wilson 95%")
    assert bounds(interval) == "[40.4, 59.6]"
    assert points_bounds(-0.1, 0.02) == "[-10.0, +2.0]"


def test_the_interval_that_matches_a_one_sided_test():
    assert [confidence(0.05), confidence(0.025)] == ["90%", "95%"]


def test_a_tiny_p_is_not_shown_as_zero():
    assert [p_text(0.0000001), p_text(0.034)] == ["p < 0.001", "p = 0.034"]


def test_small_amounts_keep_their_digits():
    assert [money(0.0), money(0.00012), money(0.0000021), money(1204.5)] == [
        "$0",
        "$0.0001",
        "$2.1e-06",
        "$1,204.50",
    ]
    assert [seconds(0.0421), seconds(3.21), seconds(1204)] == ["0.042", "3.21", "1,204"]


def test_names_keep_their_hyphens():
    assert typographic("lora-2: -3.1 [-5.0, +1.0] 2026-11-01") == (
        "lora-2: \u22123.1 [\u22125.0, +1.0] 2026-11-01"
    )
