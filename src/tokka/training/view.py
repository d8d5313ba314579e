"""What the tokens of a packed training batch see, with gradients.

A lane holds many lessons end to end, and lessons that begin alike share their beginning: token i
sees the tokens j ≤ i < ends[j], within the layer's window, and no other. Attention runs tile by
tile over the keys that a tile's queries see at all; weights of small tiles are kept for the
backward pass, those of large ones are computed again, so memory is linear in the tokens.

    view = PackedView(places, ends, picks)
    hidden = decoder.run(ids[None], view)        # (1, picks, hidden size)

The gradient is that of softmax attention: dS = P ∘ (dP − rowsum(dO ∘ O)) (Dao et al. 2022,
FlashAttention, appendix B).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tokka.training import gpu

TILE_QUERIES = 128  # at most
KEYS = 64  # a tile's keys are as many or a multiple, for few shapes (see `step.LANE_TOKENS`)
KEPT_CELLS = 2**22  # a layer's weights: heads × queries × keys in the model's dtype


@dataclass(frozen=True, slots=True)
class Tile:
    """Queries, the keys that any of them sees, and 0 or −∞ for each pair (queries, keys)."""

    queries: slice
    keys: Any  # a slice, or ids where there are gaps
    mask: Any


class PackedView:
    """`places`, `ends`: (tokens,). `picks`: (picks,) columns whose hidden states are wanted."""

    def __init__(self, places: Any, ends: Any, picks: Any) -> None:
        self.places = places[None]
        self.picks = picks
        self._ends = ends
        self._tiles: dict[tuple[int | None, bool], list[Tile]] = {}
        self._masks: dict[tuple[int | None, bool], Any] = {}

    def attend(
        self,
        layer: int,
        window: int | None,
        query: Any,
        key: Any,
        value: Any,
        scale: float,
        picked: bool = False,
    ) -> Any:
        """query (1, heads, tokens or, where `picked`, picks, size), key and value (1, key heads,
        tokens, size). There may be as many picks as tokens, in another order."""
        if query.device.type == "cpu":
            tiles = self._plan(window, picked)
            apply: Any = _Attend.apply
            return apply(query, key, value, scale, tiles)
        found = gpu.attend(query, key, value, scale, window, None if picked else self.bounds)
        if found is not None:
            return found
        return torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self._mask(window, picked, query.dtype),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )

    @functools.cached_property
    def bounds(self) -> Any | None:
        """Where the texts of the lane begin, and its end; None where they share tokens."""
        first = self.places[0] == 0
        end = first.new_tensor([len(first)], dtype=torch.int32)
        found = torch.cat([first.nonzero()[:, 0].to(torch.int32), end])
        apart = bool((found[first.cumsum(0)] == self._ends).all())
        return found if apart else None

    def _seen(self, columns: Any, window: int | None, keys: Any) -> Any:
        """(columns, keys) true where a column sees a key."""
        seen = (columns[:, None] >= keys[None]) & (columns[:, None] < self._ends[keys][None])
        if window is not None:
            places = self.places[0]
            seen &= places[columns][:, None] - places[keys][None] < window
        return seen

    def _columns(self, picked: bool) -> Any:
        if picked:
            return self.picks
        return torch.arange(self.places.shape[1], device=self.places.device)

    def _mask(self, window: int | None, picked: bool, dtype: Any) -> Any:
        if (window, picked) not in self._masks:
            seen = self._seen(self._columns(picked), window, self._columns(False))
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._masks[window, picked] = mask.masked_fill_(~seen, float("-inf"))
        return self._masks[window, picked]

    def _plan(self, window: int | None, picked: bool) -> list[Tile]:
        if (window, picked) in self._tiles:
            return self._tiles[window, picked]
        columns = self._columns(picked)
        tiles = []
        for start in range(0, len(columns), TILE_QUERIES):
            queries = slice(start, min(start + TILE_QUERIES, len(columns)))
            seen = self._seen(columns[queries], window, self._columns(False))
            kept = seen.any(dim=0).nonzero()[:, 0]
            first, last = int(kept[0]), int(kept[-1]) + 1
            more = -(last - first) % KEYS
            last = min(last + more, seen.shape[1])
            first = max(0, first - -(last - first) % KEYS)
            if len(kept) > 0.75 * (last - first):  # small gaps cost less than copies
                keys: Any = slice(first, last)
                seen = seen[:, first:last]
            else:
                count = len(kept)
                keys = torch.cat([kept, kept[-1:].expand(-count % KEYS)])
                seen = seen[:, keys]
                seen[:, count:] = False
            mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
            tiles.append(Tile(queries, keys, mask))
        self._tiles[window, picked] = tiles
        return tiles


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, scale: float, tiles: Any) -> Any:
        _, heads, _, _ = query.shape
        shared = key.shape[1]
        grouped = _grouped(query, shared)
        result = torch.empty_like(grouped)
        keep = sum(tile.mask.numel() for tile in tiles) * heads <= KEPT_CELLS
        kept = []
        for tile in tiles:
            weights = _weights(grouped[:, :, tile.queries], key[0][:, tile.keys], scale, tile)
            size = weights.shape
            seen = weights.view(shared, -1, size[3]) @ value[0][:, tile.keys]
            result[:, :, tile.queries] = seen.view(*size[:3], -1)
            if keep:
                kept.append(weights)
        result = result.view(1, heads, *result.shape[2:])
        ctx.save_for_backward(query, key, value, result, *kept)
        ctx.scale, ctx.tiles = scale, tiles
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, result, *kept = ctx.saved_tensors
        shared, size = key.shape[1], key.shape[3]
        grouped, slope = _grouped(query, shared), _grouped(grads[0], shared)
        through = torch.linalg.vecdot(slope.float(), _grouped(result, shared).float(), dim=-1)
        to_query = torch.empty_like(grouped)
        wide = torch.float32  # keys of several tiles add up
        to_key = torch.zeros(key[0].shape, dtype=wide)
        to_value = torch.zeros(value[0].shape, dtype=wide)
        for number, tile in enumerate(ctx.tiles):
            asking = grouped[:, :, tile.queries]
            own_key, own_value = key[0][:, tile.keys], value[0][:, tile.keys]
            weights = kept[number] if kept else _weights(asking, own_key, ctx.scale, tile)
            count = weights.shape[3]
            flat = weights.view(shared, -1, count)
            out = slope[:, :, tile.queries].reshape(shared, -1, size)
            _add(to_value, tile.keys, flat.transpose(1, 2) @ out)
            change = (out @ own_value.transpose(1, 2)).view(weights.shape).float()
            change.sub_(through[:, :, tile.queries, None]).mul_(weights).mul_(ctx.scale)
            change = change.to(key.dtype).view(shared, -1, count)
            to_query[:, :, tile.queries] = (change @ own_key).view(asking.shape)
            _add(to_key, tile.keys, change.transpose(1, 2) @ asking.reshape(shared, -1, size))
        return (
            to_query.view(query.shape),
            to_key.to(key.dtype)[None],
            to_value.to(value.dtype)[None],
            None,
            None,
        )


def _grouped(x: Any, shared: int) -> Any:
    """(1, heads, n, size) → (key heads, heads that share one, n, size)."""
    return x.reshape(shared, x.shape[1] // shared, *x.shape[2:])


def _weights(asking: Any, keys: Any, scale: float, tile: Tile) -> Any:
    """(key heads, heads that share one, queries, keys) in the model's dtype, softmax in float32."""
    shared, heads, queries, size = asking.shape
    raw = (asking.reshape(shared, -1, size) @ keys.transpose(1, 2)).view(shared, heads, queries, -1)
    scores = torch.add(tile.mask, raw, alpha=scale)
    return torch.softmax(scores, dim=3).to(asking.dtype)


def _add(total: Any, keys: Any, part: Any) -> None:
    if isinstance(keys, slice):
        total[:, keys].add_(part)
    else:
        total.index_add_(1, keys, part.to(total.dtype))
