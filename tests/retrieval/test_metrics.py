"""The measures of a ranking are those of the literature and of trec_eval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.retrieval.metrics import METRICS, measure, ndcg_at, recall_at, reciprocal_rank

RANKING = ["d7", "d2", "d9", "d1", "d4", "d8", "d5", "d3", "d6", "d0", "d11", "d12"]

ids = st.sampled_from([f"d{n}" for n in range(8)])
rankings = st.lists(ids, max_size=15)
golds = st.sets(ids, min_size=1)


# What pytrec_eval says of RANKING: recall_1, recall_5, recall_10, recip_rank, ndcg_cut_10.
@pytest.mark.parametrize(
    ("gold", "known"),
    [
        (["d7"], [1.0, 1.0, 1.0, 1.0, 1.0]),
        (["d2"], [0.0, 1.0, 1.0, 0.5, 0.6309297535714575]),
        (["d9", "d3", "d12"], [0.0, 1 / 3, 2 / 3, 1 / 3, 0.38268031849431083]),
        (["d12"], [0.0, 0.0, 0.0, 1 / 12, 0.0]),
        (["d7", "gone"], [0.5, 0.5, 0.5, 1.0, 0.6131471927654584]),
        (["gone"], [0.0] * 5),
    ],
)
def test_measures_are_those_of_trec_eval(gold: list[str], known: list[float]) -> None:
    assert list(measure(RANKING, gold).values()) == pytest.approx(known)
    assert list(METRICS) == ["recall@1", "recall@5", "recall@10", "MRR", "nDCG@10"]


def test_ndcg_by_hand() -> None:
    """Gold at ranks 2 and 3 of two: (1/log₂3 + 1/log₂4) / (1/log₂2 + 1/log₂3)."""
    by_hand = (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))
    assert ndcg_at(["x", "a", "b"], {"a", "b"}, 10) == pytest.approx(by_hand)
    assert ndcg_at(["x", "a", "b"], {"a", "b"}, 1) == 0
    assert ndcg_at(["a", "b", "x"], {"a", "b", "c"}, 2) == 1  # nothing better fits in two places


def test_a_document_counts_once_and_its_passages_keep_their_places() -> None:
    assert recall_at(["a", "a", "b"], {"a", "b"}, 2) == 0.5
    assert recall_at(["a", "a", "b"], {"a", "b"}, 3) == 1
    assert reciprocal_rank(["x", "x", "b"], {"b"}) == pytest.approx(1 / 3)
    assert ndcg_at(["a", "a"], {"a"}, 10) == 1


@given(rankings, golds)
def test_every_measure_lies_between_0_and_1(ranking: list[str], gold: set[str]) -> None:
    assert all(0 <= value <= 1 + 1e-12 for value in measure(ranking, gold).values())


@given(rankings, golds, st.integers(1, 14))
def test_more_places_find_no_less(ranking: list[str], gold: set[str], k: int) -> None:
    assert recall_at(ranking, gold, k) <= recall_at(ranking, gold, k + 1)


@given(rankings.filter(lambda r: len(r) > 1), golds, st.data())
def test_a_gold_id_that_climbs_makes_nothing_worse(
    ranking: list[str], gold: set[str], data: st.DataObject
) -> None:
    place = data.draw(st.integers(1, len(ranking) - 1))
    if ranking[place] in gold and ranking[place - 1] not in gold:
        climbed = list(ranking)
        climbed[place - 1 : place + 1] = climbed[place], climbed[place - 1]
        for metric in METRICS.values():
            assert metric(climbed, gold) >= metric(ranking, gold) - 1e-12


@pytest.mark.parametrize("gold", [[], set(), "d7"])
def test_without_gold_ids_nothing_can_be_measured(gold: Sequence[str]) -> None:
    with pytest.raises(UsageError, match="at least one id"):
        measure(RANKING, gold)


def test_no_place_is_no_ranking() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        recall_at(RANKING, {"d7"}, 0)
