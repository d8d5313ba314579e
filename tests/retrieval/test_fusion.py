"""Rankings are fused by rank, each with its weight."""

from __future__ import annotations

import pytest

from tokka.retrieval.fusion import Ranking, fuse, sum_scores


def _rankings(*items: str, weights: tuple[float, ...] = ()) -> list[Ranking[str]]:
    return [
        Ranking("lexical", number, weights[number] if weights else 1.0, list(one), [0.5] * len(one))
        for number, one in enumerate(items)
    ]


def test_fusion_follows_cormack_clarke_and_buettcher() -> None:
    fused = fuse(_rankings("abc", "ca"), k=60)
    scores = {one.item: one.score for one in fused}
    assert scores == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})
    assert [one.item for one in fused] == ["a", "c", "b"]


def test_a_weight_multiplies_what_a_ranking_gives() -> None:
    fused = fuse(_rankings("ab", "ba", weights=(1.0, 1.5)), k=60)
    assert [one.item for one in fused] == ["b", "a"]
    assert fused[0].score == pytest.approx(1 / 62 + 1.5 / 61)


def test_fusion_breaks_ties_by_the_better_rank_then_the_earlier_ranking() -> None:
    assert [one.item for one in fuse(_rankings("z", "a"))] == ["z", "a"]
    assert fuse([]) == [] == fuse(_rankings("", ""))


def test_a_fused_hit_says_where_it_was_found_and_adds_up() -> None:
    rankings = [
        Ranking("lexical", 0, 1.0, ["x", "y"], [9.0, 3.0]),
        Ranking("lexical", 1, 1.0, ["y"], [5.0]),
        Ranking("dense", 0, 0.5, ["z", "y"], [0.9, 0.8]),
    ]
    fused = {one.item: one for one in fuse(rankings, k=10)}
    y = fused["y"]
    assert [(p.kind, p.query, p.rank, p.score) for p in y.parts] == [
        ("lexical", 0, 2, 3.0),
        ("lexical", 1, 1, 5.0),
        ("dense", 0, 2, 0.8),
    ]
    assert (y.lexical, y.dense) == (5.0, 0.8)
    assert y.score == pytest.approx(sum(part.share for part in y.parts))
    assert (fused["x"].dense, fused["z"].lexical) == (None, None)


def test_scores_are_summed_as_shares_of_the_best_lexical_one_and_four_cosines() -> None:
    rankings = [
        Ranking("lexical", 0, 1.0, ["x", "y"], [8.0, 4.0], {"z": 2.0}),
        Ranking("dense", 0, 0.5, ["z", "y"], [0.9, 0.8], {"x": 0.1}),
    ]
    fused = {one.item: one for one in sum_scores(rankings)}
    assert {item: one.score for item, one in fused.items()} == pytest.approx(
        {"y": 4 / 8 + 2.0 * 0.8, "z": 2 / 8 + 2.0 * 0.9, "x": 1.0 + 2.0 * 0.1}
    )
    assert list(fused) == ["y", "z", "x"]
    assert [one.item for one in sum_scores(rankings, depth=2)] == ["y", "z"]
    named = [*rankings, Ranking("named", 0, 1.0, ["x"], [1.0])]
    assert [one.item for one in sum_scores(named, depth=1)] == ["x"]
    assert [part.rank for part in fused["z"].parts] == [None, 1]
    assert (fused["z"].lexical, fused["z"].dense) == (None, 0.9)
    assert fused["z"].score == pytest.approx(sum(part.share for part in fused["z"].parts))


def test_equal_sums_come_by_their_better_rank_and_nothing_found_is_nothing() -> None:
    rankings = [
        Ranking("lexical", 0, 1.0, ["b", "a", "c"], [2.0, 2.0, 2.0]),
        Ranking("lexical", 1, 1.0, [], []),
    ]
    assert [one.item for one in sum_scores(rankings)] == ["b", "a", "c"]
    assert sum_scores([]) == [] == sum_scores([rankings[1]])
