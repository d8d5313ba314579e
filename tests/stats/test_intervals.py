"""Wilson against Newcombe's published values; clustered intervals against simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokka.errors import UsageError
from tokka.stats.intervals import clustered_se, mean_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombes_table(successes, n, low, high):
    interval = wilson(successes, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_mirrors_successes_and_failures():
    right, wrong = wilson(17, 60), wilson(43, 60)
    assert right.low == pytest.approx(1 - wrong.high)
    assert wilson(60, 60).high == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 3)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(UsageError, match="wilson"):
        wilson(successes, n)


def test_right_or_wrong_without_clusters_is_wilson_and_with_clusters_is_not():
    values = [1, 0, 1, 1, 0, 1, 1, 0]
    assert mean_interval(values, clusters=list("abcdefgh")).method == "Wilson 95 %"
    assert mean_interval(values) == wilson(5, 8)
    clustered = mean_interval(values, clusters=list("aabbccdd"))
    assert clustered.method == "bootstrap over 4 clusters 95 %"
    assert clustered.high - clustered.low > wilson(5, 8).high - wilson(5, 8).low


def test_equal_scores_are_not_certain():
    interval = mean_interval([0.7] * 50)
    assert interval.estimate == pytest.approx(0.7)
    assert interval.low < 0.66 and interval.high > 0.71
    one_cluster = mean_interval([1.0, 0.0, 1.0], clusters=["a", "a", "a"])
    assert (one_cluster.low, one_cluster.high) == (0.0, 1.0)


def test_an_empty_label_makes_a_cluster_of_its_own():
    assert mean_interval([1, 0, 1], clusters=["", "", ""]) == wilson(2, 3)


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [0.5, math.nan]])
def test_scores_off_the_scale_are_refused(values):
    with pytest.raises(UsageError):
        mean_interval(values)


def test_clustered_se_adds_the_cross_terms_to_the_naive_one():
    values = [1, 1, 0, 0, 1, 0]
    assert clustered_se(values) == pytest.approx(math.sqrt(0.5 * 0.5 / 6))
    clusters = ["a", "a", "b", "b", "c", "c"]
    cross = 2 * (0.25 + 0.25 - 0.25)  # each pair of a cluster twice: a agrees, b agrees, c doesn't
    expected = math.sqrt(0.25 / 6 + cross / 36)
    assert clustered_se(values, clusters) == pytest.approx(expected)


def test_clustered_intervals_cover_graded_scores_as_often_as_they_say():
    rng = np.random.default_rng(11)
    covered, runs = 0, 400
    for run in range(runs):
        passages = rng.beta(2, 2, size=30)
        sizes = rng.integers(1, 6, size=30)
        labels = [str(k) for k in range(30) for _ in range(sizes[k])]
        scores = [float(np.clip(passages[int(k)] + rng.uniform(-0.1, 0.1), 0, 1)) for k in labels]
        interval = mean_interval(scores, labels, draws=500, seed=run)
        covered += interval.low <= 0.5 <= interval.high
    assert covered / runs > 0.95 - 2.6 * math.sqrt(0.95 * 0.05 / runs)
    assert covered / runs < 0.999
