"""Preferences become the exam's ids, in an order laid down before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import Mistakes, UsageError
from tokka.models.rendering import TokenRenderer
from tokka.records import Message, Preference, PreferSpec
from tokka.training.preference_rows import Row, plan_batches, rows_of

OBJECTIVES = ("dpo", "kto", "orpo")


def spec(**fields: Any) -> PreferSpec:
    return PreferSpec(**{"data": "preferences.jsonl", "batch_examples": 3, **fields})


def pair(name: str, chosen: str = "blue", rejected: str = "red") -> Preference:
    messages = (Message(role="user", content=f"Question: {name}?"),)
    return Preference(id=name, messages=messages, chosen=chosen, rejected=rejected)


@pytest.fixture(scope="module")
def renderer(make_tokenizer: Callable[..., Any]) -> TokenRenderer:
    return TokenRenderer(make_tokenizer(), "en")


def test_every_preference_that_cannot_be_learnt_is_named_at_once(renderer: TokenRenderer) -> None:
    long, lone = pair("long", "blue " * 40), pair("lone", rejected="")
    with pytest.raises(Mistakes) as found:
        rows_of([pair("good"), long, lone], spec(), renderer, 64)
    assert len(found.value.items) == 2
    assert "preference long" in found.value.items[0] and "context of 64" in found.value.items[0]
    assert "preference lone: dpo needs chosen and rejected" in found.value.items[1]
    assert len(rows_of([lone, pair("both")], spec(objective="kto"), renderer, 64)) == 3
    with pytest.raises(UsageError, match="no preference to learn from"):
        rows_of([], spec(), renderer, 64)


def row(width: int, sequences: int = 2) -> Row:
    return Row(f"p{width}", {}, sequences, width, width * sequences - 1, width)


@given(
    widths=st.lists(st.integers(2, 60), min_size=2, max_size=30),
    epochs=st.sampled_from([1.0, 2.0, 2.5]),
    batch_tokens=st.integers(16, 200),
    batch_examples=st.integers(1, 6),
    objective=st.sampled_from(OBJECTIVES),
)
def test_every_row_comes_once_an_epoch_in_batches_within_the_limits(
    widths: list[int], epochs: float, batch_tokens: int, batch_examples: int, objective: str
) -> None:
    least = 2 if objective == "kto" else 1
    rows = [row(width, 1 if objective == "kto" else 2) for width in widths]
    how = spec(
        objective=objective, epochs=epochs, batch_tokens=batch_tokens, batch_examples=batch_examples
    )
    plan = plan_batches(rows, how)
    counts = Counter(index for batch in plan for index in batch)
    assert sum(counts.values()) == round(epochs * len(rows))
    assert all(int(epochs) <= counts[i] <= int(epochs) + 1 for i in range(len(rows)))
    for batch in plan:
        padded = sum(rows[i].sequences for i in batch) * max(rows[i].width for i in batch)
        within = padded <= batch_tokens and len(batch) <= batch_examples
        assert within or len(batch) <= (1 if least == 1 else max(2, batch_examples) + 1)
        assert len(batch) >= least or round(epochs * len(rows)) % len(rows) == 1
        assert len(set(batch)) == len(batch)


def test_batches_of_kto_are_not_sorted_into_one_kind_each() -> None:
    """Short wanted answers and long unwanted ones: sorted by width they would never meet."""
    rows = [row(width, 1) for width in [*range(5, 25), *range(45, 65)]]
    mixed = plan_batches(rows, spec(objective="kto", epochs=1, batch_examples=4))
    both = [batch for batch in mixed if min(batch) < 20 <= max(batch)]
    assert len(both) > len(mixed) / 2
    pairs_ = plan_batches(rows, spec(epochs=1, batch_examples=4))
    assert not [batch for batch in pairs_ if min(batch) < 20 <= max(batch)]


def test_max_train_tokens_and_the_seed_decide_the_plan() -> None:
    rows = [row(width) for width in range(5, 25)]
    plan = plan_batches(rows, spec(max_train_tokens=300))
    used = sum(rows[i].tokens for batch in plan for i in batch)
    assert 300 - 49 < used <= 300
    assert plan_batches(rows, spec(seed=1)) == plan_batches(rows, spec(seed=1))
    assert plan_batches(rows, spec(seed=1)) != plan_batches(rows, spec(seed=2))
