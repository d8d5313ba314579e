"""Packed attention is that of a full mask, whatever tree, window, tiles and picks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from tokka.training import view  # noqa: E402
from tokka.training.view import PackedView  # noqa: E402

SIZE, SCALE = 6, 0.4


def tree(backs: list[int]) -> tuple[list[int], list[int], list[list[int]]]:
    """Each token after closing so many levels: its place, where its descendants end, and all that
    it descends from, itself included."""
    places: list[int] = []
    ends = [len(backs)] * len(backs)
    seen: list[list[int]] = []
    path: list[int] = []
    for column, back in enumerate(backs):
        for closed in path[max(0, len(path) - back) :]:
            ends[closed] = column
        del path[max(0, len(path) - back) :]
        places.append(len(path))
        path.append(column)
        seen.append(list(path))
    return places, ends, seen


def naive(
    query: Any, key: Any, value: Any, seen: list[list[int]], places: list[int], window: int | None
) -> Any:
    """One query of one head after the other."""
    per = query.shape[1] // key.shape[1]
    rows = []
    for number, columns in enumerate(seen):
        here = places[columns[-1]]
        near = [c for c in columns if window is None or here - places[c] < window]
        heads = []
        for head in range(query.shape[1]):
            scores = SCALE * key[0, head // per, near] @ query[0, head, number]
            heads.append(torch.softmax(scores, 0) @ value[0, head // per, near])
        rows.append(torch.stack(heads))
    return torch.stack(rows, dim=1)[None]


def compared(
    backs: list[int],
    *,
    window: int | None = None,
    picks: list[int] | None = None,
    shared: int = 2,
    per: int = 2,
    dtype: Any = torch.float32,
) -> None:
    """Values and gradients of both computations."""
    places, ends, seen = tree(backs)
    asked = list(range(len(backs))) if picks is None else picks
    draw = torch.Generator().manual_seed(len(backs))

    def random(heads: int, count: int) -> Any:
        made = torch.randn((1, count, heads, SIZE), generator=draw).to(dtype)
        return made.transpose(1, 2)  # as projections leave them

    given = random(shared * per, len(asked)), random(shared, len(backs)), random(shared, len(backs))
    laid = PackedView(torch.tensor(places), torch.tensor(ends), torch.tensor(asked))
    found = []
    for wide in (False, True):
        inputs = [x.detach().clone().requires_grad_() for x in given]
        if wide:
            value = naive(*(x.float() for x in inputs), [seen[c] for c in asked], places, window)
        else:
            value = laid.attend(0, window, *inputs, SCALE, picks is not None)
        slope = torch.cos(torch.arange(value.numel()).float()).view(value.shape)
        value.backward(slope.to(value.dtype))
        found.append([value.detach(), *(x.grad for x in inputs)])
    tolerance = 1e-5 if dtype == torch.float32 else 0.04
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.float(), theirs.float(), atol=tolerance, rtol=tolerance)


LINE = [0] * 12
ROWS = [*LINE, 12, *LINE, 13, *LINE]  # three texts
FORK = [*LINE, *[0] * 5, 5, *[0] * 4, 5, *[0] * 3]  # a beginning of 12 and three ends


@pytest.fixture(params=["kept", "computed again"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "kept":
        monkeypatch.setattr(view, "KEPT_CELLS", 0)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("backs", [LINE, ROWS, FORK], ids=["line", "rows", "fork"])
def test_attention_and_its_gradients_are_those_of_a_full_mask(
    backs: list[int], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(backs, window=window)
    monkeypatch.setattr(view, "TILE_QUERIES", 5)
    compared(backs, window=window)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(("shared", "per"), [(1, 1), (1, 4), (4, 1), (2, 3)])
def test_query_heads_share_keys_in_groups(shared: int, per: int) -> None:
    compared(FORK, shared=shared, per=per)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(("keys", "filled"), [(8, 0), (5, 4)])
def test_keys_with_gaps_between_them_are_gathered(
    keys: int, filled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last end sees the beginning and itself, and nothing of the forty tokens between; what
    fills a tile up counts for nothing."""
    backs = [*LINE, *[0] * 40, 40, *[0] * 3]
    places, ends, _ = tree(backs)
    monkeypatch.setattr(view, "TILE_QUERIES", 4)
    monkeypatch.setattr(view, "KEYS", keys)
    laid = PackedView(torch.tensor(places), torch.tensor(ends), torch.tensor([]))
    last = laid._plan(None, False)[-1]
    assert last.keys.tolist() == [*range(12), *range(52, 56), *[55] * filled]
    compared(backs)
    compared(backs, window=6)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("window", [None, 4])
def test_picked_queries_may_be_few_repeated_and_out_of_order(window: int | None) -> None:
    compared(FORK, window=window, picks=[20, 3, 3, 13, 0])


def test_as_many_picks_as_tokens_are_still_picks() -> None:
    compared(LINE, picks=[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 11])


def test_bfloat16_is_close_to_float32() -> None:
    compared(FORK, dtype=torch.bfloat16)


def test_keys_that_no_query_of_a_tile_sees_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three texts of equal length take a third of the products, and a little for whole tiles."""
    monkeypatch.setattr(view, "TILE_QUERIES", 13)
    monkeypatch.setattr(view, "KEYS", 4)
    places, ends, _ = tree(ROWS)
    laid = PackedView(torch.tensor(places), torch.tensor(ends), torch.tensor([]))
    masks = [tile.mask for tile in laid._plan(None, False)]
    assert sum(mask.numel() for mask in masks) < 0.45 * len(ROWS) ** 2
    assert all(mask.shape[1] % 4 == 0 for mask in masks)
    compared(ROWS)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_tree_is_seen_as_it_is(data: st.DataObject) -> None:
    backs = data.draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 5, 40]), min_size=1, max_size=40))
    columns = st.integers(0, len(backs) - 1)
    picks = data.draw(st.none() | st.lists(columns, min_size=1, max_size=12))
    window = data.draw(st.none() | st.integers(1, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "TILE_QUERIES", data.draw(st.sampled_from([1, 3, 8, 128])))
        patch.setattr(view, "KEYS", data.draw(st.sampled_from([1, 4, 64])))
        patch.setattr(view, "KEPT_CELLS", data.draw(st.sampled_from([0, 2**22])))
        compared(backs, window=window, picks=picks, shared=1)


def test_fused_attention_takes_the_same_mask() -> None:
    """What a GPU is given."""
    places, ends, seen = tree(FORK)
    picks = torch.tensor([20, 3, 13])
    laid = PackedView(torch.tensor(places), torch.tensor(ends), picks)
    for picked, asked in ((False, range(len(FORK))), (True, picks.tolist())):
        mask = laid._mask(4, picked, torch.float32)
        for row, column in zip(mask, asked, strict=True):
            near = [c for c in seen[column] if places[column] - places[c] < 4]
            assert (row == 0).nonzero()[:, 0].tolist() == near
            assert row[row != 0].tolist() == [float("-inf")] * (len(FORK) - len(near))
