"""Trees of tokens: every option once, with exactly its prompt before it, whatever is shared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokka.models.protocol import ScoreRequest
from tokka.models.tree import Group, Plan, Row, plan

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple)
REQUESTS = st.lists(
    st.builds(ScoreRequest, IDS, st.lists(IDS, min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=12,
)
STARTS = st.lists(st.lists(st.integers(0, 1), max_size=20).map(tuple), min_size=1, max_size=3)


def seen_by(row: Row, column: int, group: Group) -> tuple[int, ...]:
    """The ids that a token sees: the prefix, its ancestors, itself."""
    return group.prefix + tuple(row.ids[j] for j in range(column + 1) if j <= column < row.ends[j])


def read(found: Plan) -> dict[tuple[int, int], list[tuple[tuple[int, ...], int]]]:
    """(request, option) → what stands before each of its tokens, and the token."""
    texts: dict[tuple[int, int], list[tuple[tuple[int, ...], int]]] = {}
    for group in found.groups:
        for batch in group.batches:
            for row in batch.rows:
                for pick in row.picks:
                    before = seen_by(row, pick.column, group)
                    assert row.places[pick.column] == len(before) - 1
                    texts.setdefault((pick.request, pick.option), []).append((before, pick.target))
    return texts


@given(requests=REQUESTS, starts=STARTS, budget=st.integers(1, 120), context=st.integers(14, 60))
def test_each_token_of_an_option_sees_its_prompt_and_the_option_before_it(
    requests: list[ScoreRequest], starts: list[tuple[int, ...]], budget: int, context: int
) -> None:
    asked = [
        ScoreRequest(starts[i % len(starts)] + r.prompt, r.options) for i, r in enumerate(requests)
    ]
    found = plan(asked, context, budget)
    texts = read(found)
    for index, request in enumerate(asked):
        keep = found.keeps[index]
        assert found.truncated[index] == (keep != request.prompt)
        for o, option in enumerate(request.options):
            expected = [(keep + option[:j], token) for j, token in enumerate(option)]
            assert sorted(texts.pop((index, o))) == sorted(expected)
    assert not texts


@given(requests=REQUESTS, starts=STARTS, budget=st.integers(1, 120))
def test_a_batch_keeps_to_its_budget_and_ancestors_come_first(
    requests: list[ScoreRequest], starts: list[tuple[int, ...]], budget: int
) -> None:
    asked = [
        ScoreRequest(starts[i % len(starts)] + r.prompt, r.options) for i, r in enumerate(requests)
    ]
    found = plan(asked, 10_000, budget)
    assert found == plan(asked, 10_000, budget)
    assert sorted(i for g in found.groups for b in g.batches for i in b.requests) == list(
        range(len(asked))
    )
    for place, group in enumerate(found.groups):
        assert group.parent < place
        if group.parent >= 0:
            before = found.groups[group.parent].prefix
            assert group.prefix[: len(before)] == before and len(group.prefix) > len(before)
        for batch in group.batches:
            assert all(sum(len(r.ids) for r in lane) <= batch.width for lane in batch.lanes)
            assert len(batch.lanes) == 1 or len(batch.lanes) * batch.width <= budget


def test_what_questions_and_options_share_is_read_once() -> None:
    shots, passage = tuple(range(100, 200)), tuple(range(200, 260))
    options = ((1, 2, 3), (1, 2, 4), (5,))
    asked = [
        ScoreRequest((*shots, *passage, 300 + q, 301 + q), options) for q in range(0, 20, 2)
    ] + [ScoreRequest((*shots, 400 + q), options) for q in range(10)]
    found = plan(asked, 10_000, budget=150)
    read_tokens = sum(len(r.ids) for g in found.groups for b in g.batches for r in b.rows)
    prefixes = [g for g in found.groups if g.prefix]
    assert [len(g.prefix) for g in prefixes] == [100]
    assert len(passage) + 10 * (2 + 2) + 10 * (1 + 2) == read_tokens  # (1, 2) once a question


def test_a_passage_that_doesnt_fit_into_a_row_is_cached_below_what_all_share() -> None:
    shots, passage = tuple(range(100, 200)), tuple(range(1000, 1400))
    asked = [ScoreRequest((*shots, *passage, 300 + q), ((1,), (2,))) for q in range(8)]
    asked += [ScoreRequest((*shots, 600 + q), ((1,), (2,))) for q in range(200)]
    found = plan(asked, 10_000, budget=128)
    assert [(len(g.prefix), g.parent) for g in found.groups] == [(0, -1), (100, 0), (500, 1)]


def test_a_thousand_prompts_that_each_go_on_from_the_last_are_planned() -> None:
    words = tuple(range(3000))
    asked = [ScoreRequest(words[: n + 2], ((1,), (2, 3))) for n in range(1500)]
    found = plan(asked, 10_000, budget=256)
    assert len(read(found)) == 3000
