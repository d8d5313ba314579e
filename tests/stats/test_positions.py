"""The test of equal places: exact on small cases, its level held where χ² loses it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from tokka.errors import UsageError
from tokka.stats.positions import equal_places


def exact(counts: list[list[int]]) -> float:
    """All shifts of all questions, counted one by one."""
    places = len(counts[0])
    observed = np.sum(counts, axis=0).var()
    shifted = [
        np.sum([np.roll(row, by) for row, by in zip(counts, shift, strict=True)], axis=0).var()
        for shift in product(range(places), repeat=len(counts))
    ]
    return float(np.mean(np.array(shifted) >= observed - 1e-9))


@pytest.mark.parametrize(
    "counts",
    [
        [[3, 0, 0], [2, 1, 0], [1, 1, 1], [0, 3, 0]],
        [[2, 0], [2, 0], [2, 0], [0, 2], [1, 1]],
        [[4, 0, 0, 0], [3, 1, 0, 0], [4, 0, 0, 0]],
        [[0, 0, 1], [0, 0, 0], [1, 1, 0]],  # askings that named nothing
    ],
)
def test_it_agrees_with_counting_every_shift(counts):
    assert equal_places(counts, draws=40_000) == pytest.approx(exact(counts), abs=0.01)


def test_two_places_are_a_sign_test():
    counts = [[2, 0]] * 9 + [[0, 2]]
    assert equal_places(counts, draws=200_000) == pytest.approx(22 / 1024, abs=0.002)


def test_questions_answered_by_content_show_no_bias_and_p_is_never_zero():
    assert equal_places([[1, 1, 1, 1]] * 50) == 1.0
    assert equal_places([[4, 0, 0, 0]] * 50, draws=999) == 1 / 1000


def test_the_level_holds_where_the_askings_of_a_question_agree():
    """Every question has a place of its own that it is stubborn about; none is favoured."""
    rng = np.random.default_rng(0)
    ours, naive = [], []
    for seed in range(400):
        counts = [np.roll([4, 0, 0, 0], rng.integers(4)) for _ in range(30)]
        ours.append(equal_places(counts, draws=400, seed=seed) <= 0.05)
        naive.append(chisquare(np.sum(counts, axis=0)).pvalue <= 0.05)
    assert 0.02 < np.mean(ours) < 0.085
    assert np.mean(naive) > 0.3  # χ² over askings takes one question for four


def test_clusters_are_shifted_as_one():
    counts = [[3, 0, 0]] * 12
    assert equal_places(counts) < 0.001
    assert equal_places(counts, ["a"] * 12) == 1.0
    pairs = [f"pair {n // 2}" for n in range(12)]
    assert equal_places(counts, pairs) == pytest.approx(equal_places([[6, 0, 0]] * 6))
    assert equal_places(counts, [""] * 12) == equal_places(counts)


def test_the_same_seed_gives_the_same_value():
    counts = [[3, 0, 0], [2, 1, 0], [2, 0, 1]]
    assert equal_places(counts, seed=3) == equal_places(counts, seed=3)
    assert equal_places(counts, seed=3) != equal_places(counts, seed=4)


@pytest.mark.parametrize(
    ("counts", "clusters", "draws"),
    [([], None, 10), ([[1, 2], [1]], None, 10), ([[]], None, 10), ([[1, 0]], ["a", "b"], 10),
     ([[1, 0]], None, 0)],
)  # fmt: skip
def test_what_is_no_table_of_picks_is_refused(counts, clusters, draws):
    with pytest.raises(UsageError, match="positions"):
        equal_places(counts, clusters, draws=draws)
