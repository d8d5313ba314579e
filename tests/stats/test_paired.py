"""The clustered paired bootstrap: consistent, deterministic, honest when there is little to see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.stats.paired import mcnemar, paired_bootstrap
from tokka.stats.resample import resample

SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
ROWS = st.lists(st.tuples(SCORES, SCORES, st.sampled_from("abcdefgh")), min_size=1, max_size=40)


def drawn(rows, **options):
    candidate, control, clusters = zip(*rows, strict=True)
    return paired_bootstrap(candidate, control, clusters, draws=300, **options)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(0.005, 0.4), st.floats(-0.5, 0.5))
def test_a_bound_is_beyond_the_margin_exactly_where_p_is_below_the_level(rows, level, margin):
    bootstrap = drawn(rows)
    for bound, p in (
        (bootstrap.low(level) - margin, bootstrap.p_above(margin)),
        (margin - bootstrap.high(level), bootstrap.p_below(margin)),
    ):
        if abs(bound) > 1e-9 and abs(p - level) > 1e-9:
            assert (bound > 0) == (p < level)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.floats(0.005, 0.4))
def test_the_estimate_lies_between_its_bounds_and_they_on_the_scale(rows, level):
    bootstrap = drawn(rows)
    low, high = bootstrap.low(level), bootstrap.high(level)
    assert -1 <= low <= bootstrap.estimate + 1e-12 and bootstrap.estimate - 1e-12 <= high <= 1


def test_swapping_candidate_and_control_mirrors_the_bounds():
    rng = np.random.default_rng(3)
    candidate, control = rng.random(80) ** 2, rng.random(80)
    labels = [str(i // 2) for i in range(80)]
    there = paired_bootstrap(candidate, control, labels)
    back = paired_bootstrap(control, candidate, labels)
    assert there.low(0.05) == pytest.approx(-back.high(0.05), abs=0.006)
    assert there.p_above(-0.1) == pytest.approx(back.p_below(0.1), abs=0.01)


def test_the_same_seed_gives_the_same_bounds_and_blocks_change_nothing(monkeypatch):
    rows = [(1.0, 0.0, str(i // 3)) if i % 4 else (0.0, 1.0, str(i // 3)) for i in range(60)]
    first = drawn(rows, seed=4)
    assert first.low(0.05) == drawn(rows, seed=4).low(0.05)
    monkeypatch.setattr("tokka.stats.resample.BLOCK_CELLS", 10)
    assert np.array_equal(first.means, drawn(rows, seed=4).means)


def test_bounds_agree_with_the_t_interval_where_the_normal_theory_holds():
    rng = np.random.default_rng(5)
    values = np.clip(rng.normal(0.1, 0.3, size=400), -1, 1)
    bootstrap = resample(list(values), [""] * 400, minimum=-1, draws=20_000)
    half = 1.6486 * values.std(ddof=1) / math.sqrt(400)  # t quantile 0.95, 399 degrees of freedom
    assert bootstrap.low(0.05) == pytest.approx(values.mean() - half, abs=0.002)
    assert bootstrap.high(0.05) == pytest.approx(values.mean() + half, abs=0.002)


def test_clusters_widen_the_bounds():
    candidate = ([1.0] * 5 + [0.0] * 5) * 8
    control = ([0.0] * 5 + [1.0] * 4 + [0.0]) * 8
    alone = paired_bootstrap(candidate, control)
    together = paired_bootstrap(candidate, control, [str(i // 5) for i in range(80)])
    assert together.low(0.05) < alone.low(0.05) - 0.05


def test_equal_differences_are_not_certain():
    same = paired_bootstrap([1.0] * 100, [1.0] * 100)
    assert same.low(0.05) == pytest.approx(-(1 - 0.05**0.01))  # rule of three: about 3/100
    assert same.p_above(-0.02) > 0.05 and same.p_above(-0.04) < 0.05
    assert same.p_above(0.0) == 1.0
    two = paired_bootstrap([1.0, 1.0], [0.0, 0.0])
    assert two.p_above(0.0) > 0.05


def test_one_cluster_proves_nothing():
    bootstrap = paired_bootstrap([1.0] * 200, [0.0] * 200, ["passage"] * 200)
    assert bootstrap.p_above(0.0) == 1.0
    assert (bootstrap.low(0.05), bootstrap.high(0.05)) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("candidate", "control", "clusters"),
    [([], [], []), ([1.0], [1.0, 0.0], ["a"]), ([1.0], [0.0], []), ([3.0], [0.0], ["a"])],
)
def test_samples_that_cannot_be_paired_are_refused(candidate, control, clusters):
    with pytest.raises(UsageError):
        paired_bootstrap(candidate, control, clusters)


def test_mcnemar_agrees_with_textbook_cases():
    # by hand: 1 against 8 discordant pairs, p = 2·(1 + 9)/2⁹ = 0.0390625
    candidate = [1] + [0] * 8 + [1] * 20
    control = [0] + [1] * 8 + [1] * 20
    result = mcnemar(candidate, control)
    assert (result.gained, result.lost) == (1, 8)
    assert result.p_value == pytest.approx(0.0390625)
    assert mcnemar([1, 0, 1], [1, 0, 1]).p_value == 1.0
    # the approval ratings of Agresti's Categorical Data Analysis: 150 against 86 changed sides
    big = mcnemar([0] * 150 + [1] * 86, [1] * 150 + [0] * 86)
    assert big.p_value == pytest.approx(3.7e-5, abs=1e-6)


def test_mcnemar_refuses_graded_scores():
    with pytest.raises(UsageError, match="0 or 1"):
        mcnemar([0.5], [1])


def pass_rate(sample, margin, runs, below=False):
    rng = np.random.default_rng(99)
    passes = 0
    for run in range(runs):
        values, labels = sample(rng)
        bootstrap = resample(values, labels, minimum=-1, draws=600, seed=run)
        p = bootstrap.p_below(margin) if below else bootstrap.p_above(margin)
        passes += p < 0.05
    return passes / runs


def independent(n, gained, lost):
    shares = [gained, lost, 1 - gained - lost]
    return lambda rng: (rng.choice([1.0, -1.0, 0.0], size=n, p=shares), [""] * n)


def clustered(clusters):
    def sample(rng):
        shared = rng.choice([1.0, -1.0, 0.0], size=clusters, p=[0.25, 0.25, 0.5])
        sizes = rng.integers(1, 7, size=clusters)
        labels = [str(k) for k in range(clusters) for _ in range(sizes[k])]
        own = rng.choice([1.0, -1.0, 0.0], size=len(labels), p=[0.25, 0.25, 0.5])
        follows = rng.random(len(labels)) < 0.6
        values = np.where(follows, np.repeat(shared, sizes), own)
        return values, labels

    return sample


@pytest.mark.parametrize(
    ("sample", "margin", "below"),
    [
        (independent(50, 0.3, 0.3), 0.0, False),
        (independent(100, 0.02, 0.02), 0.0, False),  # almost no discordant pairs
        (independent(100, 0.0, 0.04), -0.04, False),  # rare losses: percentile passes 8 % here
        (independent(120, 0.1, 0.2), -0.1, False),
        (independent(100, 0.15, 0.1), 0.05, True),
        (clustered(12), 0.0, False),
        (clustered(40), 0.0, False),
    ],
    ids=[
        "null",
        "sparse",
        "rare-loss",
        "loss-at-margin",
        "fail-side",
        "12-clusters",
        "40-clusters",
    ],
)
def test_false_passes_stay_within_alpha(sample, margin, below):
    runs = 800
    assert pass_rate(sample, margin, runs, below) <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / runs)


def test_ignoring_the_clusters_would_pass_too_often():
    def blind(rng):
        values, labels = clustered(40)(rng)
        return values, [""] * len(labels)

    assert pass_rate(blind, 0.0, 800) > 0.08


def test_a_real_effect_is_found_about_as_often_as_planned():
    # 2.486·√(0.4/140) is 13.3 points at 80 % power, one-sided
    assert pass_rate(independent(140, 0.2665, 0.1335), 0.0, 400) == pytest.approx(0.8, abs=0.07)
