"""Batch plans: a pure function of the requests, within the budget, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.models.batches import (
    MASK_CELLS,
    MIN_SHARED_TOKENS,
    answer_end,
    packed,
    shared_prefix,
    truncate,
)

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20).map(tuple), min_size=1)


@given(sizes=st.lists(st.integers(1, 50)), budget=st.integers(1, 200))
def test_every_row_has_one_place_in_lanes_within_the_budget(sizes: list[int], budget: int) -> None:
    batches = packed(sizes, budget)
    lanes = [lane for batch in batches for lane in batch.lanes]
    assert sorted(i for lane in lanes for i in lane) == list(range(len(sizes)))
    for batch in batches:
        assert batch.width == max(sum(sizes[i] for i in lane) for lane in batch.lanes)
        assert len(batch.lanes) == 1 or len(batch.lanes) * batch.width <= budget
    assert all(batch.width <= max(sizes) for batch in batches)
    first = [sizes[lane[0]] for lane in lanes]
    assert first == sorted(first, reverse=True)  # out of memory shows at once


@given(sizes=st.lists(st.integers(1, 50), min_size=1))
def test_no_two_lanes_would_fit_into_one(sizes: list[int]) -> None:
    filled = sorted(
        sum(sizes[i] for i in lane) for batch in packed(sizes, 400) for lane in batch.lanes
    )
    assert len(filled) < 2 or filled[0] + filled[1] > max(sizes)


def test_masks_stay_bounded_however_long_the_prefix() -> None:
    for before in (0, 100_000):
        for batch in packed([50] * 60, 2048, before):
            cells = len(batch.lanes) * batch.width * (before + batch.width)
            assert cells <= MASK_CELLS or len(batch.lanes) == 1
    assert len(packed([50] * 60, 2048, 100_000)) > len(packed([50] * 60, 2048))


@given(prompts=PROMPTS, start=st.lists(st.integers(0, 2), max_size=12).map(tuple))
def test_the_shared_prefix_is_common_and_leaves_every_prompt_a_token(
    prompts: list[tuple[int, ...]], start: tuple[int, ...]
) -> None:
    whole = [start + prompt for prompt in prompts]
    length = shared_prefix(whole)
    assert len({prompt[:length] for prompt in whole}) == 1
    assert all(length < len(prompt) for prompt in whole)
    if len(whole) > 1 and len(start) >= MIN_SHARED_TOKENS:
        assert length >= len(start)


def test_a_short_common_start_isnt_worth_a_cache() -> None:
    for length, found in ((MIN_SHARED_TOKENS - 1, 0), (MIN_SHARED_TOKENS, MIN_SHARED_TOKENS)):
        start = tuple(range(length))
        assert shared_prefix([(*start, 100), (*start, 200)]) == found
    assert shared_prefix([tuple(range(50))]) == 0


def test_a_cut_prompt_keeps_bos_and_its_end() -> None:
    assert truncate((1, 2, 3, 4, 5), 5) == ((1, 2, 3, 4, 5), False)
    assert truncate((1, 2, 3, 4, 5), 3) == ((1, 4, 5), True)
    assert truncate((1, 2, 3, 4, 5), 1) == ((5,), True)  # an option follows the last token


@pytest.mark.parametrize(
    ("text", "stop", "end"),
    [
        ("noon\nQuestion", ("\n",), 4),
        ("\n noon\nQ", ("\n",), 6),
        (" \n", ("\n",), None),
        ("noon", ("\n",), None),
        ("a;b\n", ("\n", ";"), 1),
        ("noon", (), None),
    ],
)
def test_an_answer_ends_at_the_first_stop_after_something_visible(
    text: str, stop: tuple[str, ...], end: int | None
) -> None:
    assert answer_end(text, stop) == end
