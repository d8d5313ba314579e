"""Weights are chosen by development questions alone; equal weights win where nothing is better."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tokka.errors import UsageError
from tokka.records import Message, Question
from tokka.retrieval.tuning import EQUAL, GRID, Tried, Weights, best, tune


def question(name: str, *gold: str, split: str = "dev") -> Question:
    asked = (Message(role="user", content=f"question {name}"),)
    return Question.model_validate(
        {"id": name, "messages": asked, "form": "short", "document_ids": gold, "split": split}
    )


def test_the_weights_of_the_best_mrr_are_taken() -> None:
    def rank(asked: Question, weights: Weights) -> Sequence[str]:
        return ["gold"] if weights == (1.6, 0.4) else ["other", "gold"]

    told: list[int] = []
    tuned = tune([question("a", "gold"), question("b", "gold")], rank, told.append)
    assert tuned.weights == (1.6, 0.4)
    assert tuned.questions == 2 and told == [1, 1]
    assert [one.weights for one in tuned.tried] == list(GRID)
    assert {one.weights: one.mrr for one in tuned.tried}[1.6, 0.4] == 1
    assert {one.weights: one.mrr for one in tuned.tried}[1.4, 0.6] == 0.5


def test_one_search_alone_can_be_the_best() -> None:
    for alone in ((2.0, 0.0), (0.0, 2.0)):

        def rank(asked: Question, weights: Weights, alone: Weights = alone) -> Sequence[str]:
            return ["gold"] if weights == alone else []

        assert tune([question("a", "gold")], rank).weights == alone


def test_ties_go_to_equal_weights_then_to_the_lexical_side() -> None:
    assert tune([question("a", "gold")], lambda *_: ["gold"]).weights == EQUAL
    assert tune([question("a", "gold")], lambda *_: []).weights == EQUAL
    tried = [Tried(weights, 0.5) for weights in GRID if weights != EQUAL]
    assert best(tried).weights == (1.2, 0.8)
    assert best([*tried, Tried((0.0, 2.0), 0.5 + 1e-6)]).weights == (0.0, 2.0)


def test_sums_in_another_order_are_ties() -> None:
    """Three reciprocal ranks whose sums differ in the last bit."""
    orders = {(2.0, 0.0): "abc", (1.8, 0.2): "bca", (1.6, 0.4): "cab"}
    ranks = {"a": 2, "b": 3, "c": 7}

    def rank(asked: Question, weights: Weights) -> Sequence[str]:
        places = orders.get(weights, "")
        if not places:
            return []
        return ["x"] * (ranks[places[int(asked.id)]] - 1) + ["gold"]

    tuned = tune([question(str(n), "gold") for n in range(3)], rank)
    assert tuned.weights == (1.6, 0.4)  # nearest to equal weights
    assert len({one.mrr for one in tuned.tried if one.mrr}) == 1


def test_the_grid_holds_equal_weights_and_sums_to_two() -> None:
    assert EQUAL in GRID and len(set(GRID)) == 11
    assert all(lexical + dense == pytest.approx(2) for lexical, dense in GRID)


def test_a_test_question_is_refused_before_anything_is_ranked() -> None:
    with pytest.raises(UsageError, match="question t belongs to the test"):
        tune(
            [question("a", "gold"), question("t", "gold", split="test")],
            lambda *_: pytest.fail("ranked"),
        )


def test_nothing_is_tuned_without_questions_or_documents() -> None:
    with pytest.raises(UsageError, match="no questions"):
        tune([], lambda *_: [])
    with pytest.raises(UsageError, match="document_ids"):
        tune([question("a")], lambda *_: [])
