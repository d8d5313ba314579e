"""The risk–coverage curve and the area under it, against sums by hand and over all orders."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.stats.coverage import area, curve

ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.1, 0.4, 0.8]), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1,
    max_size=6,
)


def in_all_orders(answers: list[tuple[float, float]]) -> float:
    """AURC by its definition, over every order that keeps the surer ones first."""
    found = []
    for order in itertools.permutations(answers):
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order)):
            lost = [1 - score for _, score in order]
            found.append(fmean(sum(lost[:k]) / k for k in range(1, len(lost) + 1)))
    return fmean(found)


def test_the_curve_goes_from_the_surest_to_all() -> None:
    assert curve([0.2, 0.9, 0.5], [0.0, 1.0, 1.0]) == [
        (0.9, 0.333333, 0.0), (0.5, 0.666667, 0.0), (0.2, 1.0, 0.333333),
    ]  # fmt: skip


def test_equal_confidences_are_one_point() -> None:
    assert curve([0.5, 0.5, 0.5], [0.0, 1.0, 1.0]) == [(0.5, 1.0, 0.333333)]


def test_coverage_is_of_all_questions_where_some_werent_answered() -> None:
    assert [point[1] for point in curve([0.9, 0.5], [1.0, 1.0], questions=4)] == [0.25, 0.5]


def test_many_points_are_thinned_and_the_ends_stay() -> None:
    found = curve([1 - n / 1000 for n in range(1000)], [1.0] * 1000, most=50)
    assert len(found) == 50
    assert (found[0][1], found[-1][1]) == (0.001, 1.0)


@given(ANSWERS)
def test_the_area_is_the_mean_over_all_orders_of_equals(
    answers: list[tuple[float, float]],
) -> None:
    confidences, scores = zip(*answers, strict=True)
    assert area(confidences, scores, draws=2).estimate == pytest.approx(
        in_all_orders(answers), abs=1e-6
    )


@given(ANSWERS, st.randoms())
def test_the_order_of_the_answers_changes_nothing(
    answers: list[tuple[float, float]], random: object
) -> None:
    mixed = sorted(answers)
    one, other = (area(*zip(*a, strict=True), draws=5) for a in (answers, mixed))
    assert one.estimate == other.estimate
    assert curve(*zip(*answers, strict=True)) == curve(*zip(*mixed, strict=True))


def test_the_area_of_known_curves() -> None:
    confidences = [n / 10 for n in range(10, 0, -1)]
    assert area(confidences, [1.0] * 10).estimate == 0
    assert area(confidences, [0.0] * 10).estimate == 1
    sure, unsure = (
        area(confidences, [1.0] * 5 + [0.0] * 5),
        area(confidences, [0.0] * 5 + [1.0] * 5),
    )
    assert sure.estimate < 0.5 < unsure.estimate
    assert area([0.5] * 10, [1.0, 0.0] * 5).estimate == 0.5  # a confidence that says nothing


def test_the_interval_holds_the_estimate_and_is_wider_over_fewer_clusters() -> None:
    confidences = [n / 40 for n in range(40)]
    scores = [float(n % 3 > 0) for n in range(40)]
    free = area(confidences, scores, seed=1)
    clustered = area(confidences, scores, [f"c{n // 10}" for n in range(40)], seed=1)
    for one in (free, clustered):
        assert 0 <= one.low < one.estimate < one.high <= 1 and one.n == 40
    assert clustered.high - clustered.low > free.high - free.low
    assert clustered.method == "bootstrap over 4 clusters 95 %"
    assert area(confidences, scores, seed=1) == free


def test_the_interval_covers_as_often_as_it_says() -> None:
    """A curve whose area is known: a confidence that says nothing, answers right half of the time.
    Expected area 1/2; 120 exams of 40 questions."""
    import numpy as np

    rng = np.random.default_rng(3)
    held = 0
    for _ in range(120):
        scores = rng.integers(0, 2, 40).astype(float).tolist()
        found = area(rng.random(40).tolist(), scores, draws=200)
        held += found.low <= 0.5 <= found.high
    assert held >= 105


def test_equal_scores_dont_look_certain() -> None:
    assert area([0.9, 0.5, 0.1] * 4, [1.0] * 12).high > 0.2


@pytest.mark.parametrize(
    ("confidences", "scores", "said"),
    [
        ([], [], "no scores"),
        ([0.5], [0.5, 1.0], "2 scores but 1 clusters"),
        ([0.5], [1.5], "outside"),
        ([float("nan")], [1.0], "no finite number"),
    ],
)
def test_what_has_no_curve_is_refused(
    confidences: list[float], scores: list[float], said: str
) -> None:
    for draw in (curve, area):
        with pytest.raises(UsageError, match=said):
            draw(confidences, scores)
