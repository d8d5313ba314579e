"""Lessons teach the answer and its end, in an order laid down before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.models.rendering import TokenRenderer
from tokka.records import FinetuneSpec, Message
from tokka.training.lessons import Lesson, lesson, plan_batches

ASK = (Message(role="user", content="Question: Who?"),)


@pytest.fixture
def renderer(make_tokenizer: Callable[..., Any]) -> TokenRenderer:
    return TokenRenderer(make_tokenizer(), "en")


def spec(**fields: Any) -> FinetuneSpec:
    return FinetuneSpec(data="examples.jsonl", **fields)


def lessons(*lengths: int) -> list[Lesson]:
    return [Lesson(f"e{n}", tuple(range(length)), length - 1) for n, length in enumerate(lengths)]


def taken(plan: list[list[int]]) -> list[int]:
    return [index for batch in plan for index in batch]


def tokens(plan: list[list[int]], given: list[Lesson]) -> int:
    return sum(len(given[i].ids) for i in taken(plan))


# ---- one lesson ---------------------------------------------------------------------------------


def test_only_the_answer_and_its_end_are_learnt(renderer: TokenRenderer) -> None:
    """Pitfall 7: EOS is not trained."""
    taught = lesson("e1", ASK, "Me", renderer, context_tokens=100)
    assert renderer.decode(taught.ids[: taught.start]) == "Question: Who?\nAnswer:"
    assert renderer.pieces(taught.ids[taught.start :]) == [" ", "M", "e", "</s>"]
    assert taught.supervised == 4


@pytest.mark.parametrize("answer", ["", " \n　"])
def test_an_empty_answer_is_refused(renderer: TokenRenderer, answer: str) -> None:
    with pytest.raises(UsageError, match="example e1: the answer is empty"):
        lesson("e1", ASK, answer, renderer, context_tokens=100)


def test_an_example_beyond_the_context_is_refused_not_cut(renderer: TokenRenderer) -> None:
    """Cut, it would lose its end and teach never to stop (pitfall 7)."""
    length = len(lesson("e1", ASK, "Me", renderer, context_tokens=100).ids)
    assert len(lesson("e1", ASK, "Me", renderer, context_tokens=length).ids) == length
    with pytest.raises(UsageError, match=f"{length} tokens don't fit the context of {length - 1}"):
        lesson("e1", ASK, "Me", renderer, context_tokens=length - 1)


def test_an_answer_without_its_end_is_refused(
    renderer: TokenRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 7."""
    monkeypatch.setattr(renderer, "answer", renderer.option)
    with pytest.raises(UsageError, match="ends without EOS"):
        lesson("e1", ASK, "Me", renderer, context_tokens=100)


# ---- the plan -----------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=30),
    epochs=st.sampled_from([1.0, 2.0, 2.5]),
    batch_tokens=st.integers(16, 120),
    batch_examples=st.integers(1, 6),
)
def test_every_lesson_comes_once_an_epoch_in_batches_within_the_limits(
    lengths: list[int], epochs: float, batch_tokens: int, batch_examples: int
) -> None:
    given_lessons = lessons(*lengths)
    how = spec(epochs=epochs, batch_tokens=batch_tokens, batch_examples=batch_examples)
    plan = plan_batches(given_lessons, how)
    counts = Counter(taken(plan))
    assert sum(counts.values()) == round(epochs * len(lengths))
    whole = int(epochs)
    assert all(whole <= counts[i] <= whole + 1 for i in range(len(lengths)))
    for batch in plan:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert len(batch) == 1 or (padded <= batch_tokens and len(batch) <= batch_examples)
        assert len(set(batch)) == len(batch)


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=20), limit=st.integers(1, 600))
def test_max_train_tokens_is_never_exceeded_but_for_a_first_lesson(
    lengths: list[int], limit: int
) -> None:
    given_lessons = lessons(*lengths)
    plan = plan_batches(given_lessons, spec(epochs=3, max_train_tokens=limit))
    used = tokens(plan, given_lessons)
    assert used <= limit or len(taken(plan)) == 1
    assert used > limit - max(lengths) or len(taken(plan)) == 3 * len(lengths)


def test_the_order_follows_the_seed_alone() -> None:
    """Pitfalls 10 and 14: the order of all epochs is known beforehand and doesn't drift."""
    given_lessons = lessons(*range(5, 45))
    plan = plan_batches(given_lessons, spec(seed=1))
    assert plan_batches(given_lessons, spec(seed=1)) == plan
    assert plan_batches(given_lessons, spec(seed=2)) != plan
    per_epoch = len(plan) // 3
    assert plan[:per_epoch] != plan[per_epoch : 2 * per_epoch]


def test_batches_of_similar_length_come_in_mixed_order() -> None:
    given_lessons = lessons(*range(5, 45))
    plan = plan_batches(given_lessons, spec(epochs=1, batch_examples=4))
    widest = [max(len(given_lessons[i].ids) for i in batch) for batch in plan]
    assert widest != sorted(widest)
    assert all(max(batch) - min(batch) < 4 for batch in plan)


def test_no_examples_are_refused() -> None:
    with pytest.raises(UsageError, match="no example to learn from"):
        plan_batches([], spec())
