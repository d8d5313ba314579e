"""Attention of our own inside transformers' decoders: trees, shared prefixes and slots.

transformers lets a model's attention be replaced by name and hands keyword arguments through to it.
So a decoder of any known family computes its own projections, norms and rotations, and a `View`
decides what each token sees: keys and values never pass through a cache of transformers.

    decoder = Decoder(module)
    prefix = decoder.extend(None, ids)                        # keys and values of shared tokens
    hidden = decoder.run(tokens, TreeView(...))               # (lanes, width, hidden size)

Query (batch, heads, width, size), keys and values (batch, key heads, length, size).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

NAME = "tokka"
# Tested against one request at a time on random models (tests/models/test_families.py).
FAMILIES = frozenset(
    {
        "gemma3_text",
        "llama",
        "mistral",
        "mixtral",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
    }
)
# Their own code has no window, whatever a config.json says (a converted Mistral's has one).
WINDOWLESS = frozenset({"llama"})
# Rotations that depend on the longest text of a batch: neighbours would change each other.
LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})
TILE_QUERIES = 256
TILE_CELLS = 2**19  # queries × keys of a tile: 2 MB of scores a head
Pair = tuple[Any, Any]  # keys, values
# A row of a lane: ids, places in its text, and where each token's descendants end (see `tree`).
Laid = tuple[Sequence[int], Sequence[int], Sequence[int]]


class View(Protocol):
    """What the tokens of one forward pass see, layer by layer."""

    places: Any  # (batch, width): where in its text each token stands

    def attend(
        self, layer: int, window: int | None, query: Any, key: Any, value: Any, scale: float
    ) -> Any: ...  # (batch, heads, width, size)


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of `length` tokens by layer, each (1, key heads, length, size)."""

    layers: tuple[Pair, ...]
    length: int


def knows(config: Any) -> str:
    """Why a text configuration has to take the plain path; empty where it need not."""
    if config.model_type not in FAMILIES:
        return f"architecture {config.model_type} is not among {', '.join(sorted(FAMILIES))}"
    if depends_on_length(config):
        return "its rotary embedding depends on the longest text of a batch"
    if getattr(config, "use_bidirectional_attention", False):
        return "its attention looks ahead"
    return ""


def depends_on_length(config: Any) -> bool:
    """Whether a text's rotations change with the longest text beside it."""
    return bool(_rotations(getattr(config, "rope_parameters", None)) & LENGTH_DEPENDENT)


def _rotations(rope: Any) -> set[str]:
    if not isinstance(rope, dict):
        return set()
    own = {str(rope["rope_type"])} if rope.get("rope_type") else set()
    return own.union(*(_rotations(v) for v in rope.values() if isinstance(v, dict)))


def turning_length(config: Any) -> int | None:
    """How many tokens a text may have before all its places are turned otherwise (Phi-3's long
    rope), None where that never happens. Keys computed before are of no use after."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    return int(rope["original_max_position_embeddings"])


def windows_of(config: Any) -> tuple[int | None, ...]:
    """The sliding window of each layer, None where it sees everything."""
    window = getattr(config, "sliding_window", None)
    if config.model_type in WINDOWLESS:
        window = None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * (
        config.num_hidden_layers
    )
    return tuple(window if kind == "sliding_attention" and window else None for kind in kinds)


def tiled(device: Any) -> bool:
    """Whether attention runs tile by tile here; elsewhere torch's fused kernels are faster."""
    return bool(device.type == "cpu")


class Decoder:
    """The body of a known causal model: token ids and a view in, last hidden states out."""

    def __init__(self, module: Any) -> None:
        _register()
        module.set_attn_implementation(NAME)
        config = module.config.get_text_config()
        self._body = module.get_decoder()
        self.windows = windows_of(config)
        weight = module.get_input_embeddings().weight
        self.device, self.dtype = weight.device, weight.dtype
        self._no_mask = weight.new_empty((1, 1, 1, 1))  # of four dimensions: none is made

    def run(self, tokens: Any, view: View) -> Any:
        """(batch, width) ids → (batch, width, hidden size)."""
        return self._body(
            input_ids=tokens,
            position_ids=view.places,
            attention_mask=self._no_mask,
            use_cache=False,
            tokka_view=view,
            tokka_windows=self.windows,
        ).last_hidden_state

    def read(
        self,
        lanes: Sequence[Sequence[Laid]],
        width: int,
        prefix: Prefix | None,
        keep: bool = False,
    ) -> tuple[Any, TreeView]:
        """Rows laid end to end into lanes below a prefix: (lanes, width, hidden size) and the
        view."""
        shape = (len(lanes), width)
        tokens, places = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        stops = np.tile(np.arange(1, width + 1), (len(lanes), 1))  # padding sees itself alone
        for lane, rows in enumerate(lanes):
            start = 0
            for ids, where, ends in rows:
                stop = start + len(ids)
                tokens[lane, start:stop] = ids
                places[lane, start:stop] = where
                stops[lane, start:stop] = np.asarray(ends) + start
                start = stop
        inputs, at, until = (torch.from_numpy(a).to(self.device) for a in (tokens, places, stops))
        view = TreeView(at, until, prefix, self.dtype, keep)
        return self.run(inputs, view), view

    def extend(self, prefix: Prefix | None, ids: Sequence[int], chunk: int) -> Prefix:
        """The prefix grown by `ids`, computed `chunk` tokens at a time to bound the memory."""
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            done = prefix.length if prefix is not None else 0
            _, view = self.read([[line(part, done)]], len(part), prefix, keep=True)
            layers = tuple(_joined(prefix, i, *own) for i, own in enumerate(view.own))
            prefix = Prefix(layers, done + len(part))
        assert prefix is not None, "a prefix of no tokens"
        return prefix


def line(ids: Sequence[int], start: int) -> Laid:
    """A text without branches, from place `start` on."""
    return ids, range(start, start + len(ids)), [len(ids)] * len(ids)


class TreeView:
    """Lanes of rows in depth-first order below a prefix; `ends` is (lanes, width).

    Token i sees the prefix and the tokens j ≤ i < ends[j] of its lane, within the layer's window.
    With `keep` the lanes' own keys and values stay in `own`, layer by layer.
    """

    def __init__(
        self, places: Any, ends: Any, prefix: Prefix | None, dtype: Any, keep: bool = False
    ) -> None:
        self.places = places
        self.own: list[Pair] = []
        self._prefix, self._keep = prefix, keep
        self._tiled = tiled(places.device)
        self._dtype = torch.float32 if self._tiled else dtype
        self._before = prefix.length if prefix is not None else 0
        order = torch.arange(places.shape[1], device=places.device)
        seen = (order[:, None] >= order[None, :]) & (order[None, :, None] < ends[:, None, :])
        self._seen = seen | torch.eye(len(order), dtype=torch.bool, device=places.device)
        self._masks: dict[int | None, Any] = {}
        self._tiles: dict[int | None, list[_Tile]] = {}

    def attend(
        self, layer: int, window: int | None, query: Any, key: Any, value: Any, scale: float
    ) -> Any:
        if self._keep:
            self.own.append((key, value))
        if self._tiled:
            return self._by_tiles(layer, window, query, key, value, scale)
        key, value = _joined(self._prefix, layer, key, value)
        return torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self._mask(window),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )

    def _by_tiles(
        self, layer: int, window: int | None, query: Any, key: Any, value: Any, scale: float
    ) -> Any:
        """Softmax of scores in float32, some queries at a time against the keys that they see.

        On the CPU this takes a sixth to four fifths of the time of torch's fused attention (at head
        size 256; docs/log.md): depth-first order and windows leave most keys out, the prefix is one
        product for all lanes, and its keys are not copied for each.
        """
        lanes, heads, width, size = query.shape
        shared = key.shape[1]
        query = query.reshape(lanes, shared, heads // shared, width, size)
        result = torch.empty_like(query)
        if self._prefix is not None:
            before_keys, before_values = (kept[0] for kept in self._prefix.layers[layer])
        for tile in self._plan(window):
            part = query[:, :, :, tile.queries]
            own_key, own_value = key[:, :, tile.keys], value[:, :, tile.keys]
            rows = part.reshape(lanes, shared, -1, size)
            scores = torch.empty((*part.shape[:4], tile.mask.shape[4]))
            inner = (rows @ own_key.transpose(2, 3)).view(*part.shape[:4], -1)
            outer_count = tile.mask.shape[4] - inner.shape[4]
            torch.add(
                tile.mask[..., outer_count:], inner, alpha=scale, out=scores[..., outer_count:]
            )
            if outer_count:
                flat = rows.transpose(0, 1).reshape(shared, -1, size)
                outer = flat @ before_keys[:, tile.before].transpose(1, 2)
                outer = outer.view(shared, *part.shape[:1], *part.shape[2:4], -1).transpose(0, 1)
                torch.add(
                    tile.mask[..., :outer_count], outer, alpha=scale, out=scores[..., :outer_count]
                )
            weights = torch.softmax(scores, dim=4).to(query.dtype)
            inner_weights = weights[..., outer_count:].reshape(lanes, shared, rows.shape[2], -1)
            seen = (inner_weights @ own_value).view(part.shape)
            if outer_count:
                outer_weights = weights[..., :outer_count].transpose(0, 1)
                flat = outer_weights.reshape(shared, -1, outer_count)
                found = (flat @ before_values[:, tile.before]).view(
                    shared, *part.shape[:1], *part.shape[2:]
                )
                seen = seen + found.transpose(0, 1)
            result[:, :, :, tile.queries] = seen
        return result.view(lanes, heads, width, size)

    def _plan(self, window: int | None) -> list[_Tile]:
        if window in self._tiles:
            return self._tiles[window]
        mask = self._mask(window)
        tiles = []
        width = mask.shape[2]
        step = max(16, min(TILE_QUERIES, TILE_CELLS // (mask.shape[0] * mask.shape[3])))
        for start in range(0, width, step):
            stop = min(start + step, width)
            part = mask[:, :, start:stop]
            seen = (part == 0).flatten(0, 2).any(dim=0)
            own = seen[self._before :].nonzero()[:, 0]
            keys = slice(int(own[0]), int(own[-1]) + 1)
            outer = seen[: self._before].nonzero()[:, 0]
            before = slice(int(outer[0]), self._before) if len(outer) else slice(0, 0)
            kept = torch.cat(
                [
                    part[..., before],
                    part[..., self._before + keys.start : self._before + keys.stop],
                ],
                dim=3,
            )
            tiles.append(_Tile(slice(start, stop), keys, before, kept[:, :, None]))
        self._tiles[window] = tiles
        return tiles

    def _mask(self, window: int | None) -> Any:
        """0 where a key is seen, −∞ elsewhere; (lanes, 1, width, prefix + width), once a window."""
        if window in self._masks:
            return self._masks[window]
        lanes, width = self.places.shape
        seen = self._seen
        outer = torch.ones((lanes, width, self._before), dtype=torch.bool, device=seen.device)
        if window is not None:
            order = torch.arange(self._before, device=seen.device)
            seen = seen & (self.places[:, :, None] - self.places[:, None, :] < window)
            outer &= self.places[:, :, None] - order < window
        seen = torch.cat([outer, seen], dim=2)
        mask = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        self._masks[window] = mask.masked_fill_(~seen, float("-inf"))[:, None]
        return self._masks[window]


@dataclass(frozen=True, slots=True)
class _Tile:
    """Queries, the keys of their lanes and of the prefix that any of them sees, and the mask."""

    queries: slice
    keys: slice
    before: slice
    mask: Any  # (lanes, 1, 1, queries, prefix keys + own keys) float32


def _joined(prefix: Prefix | None, layer: int, key: Any, value: Any) -> Pair:
    if prefix is None:
        return key, value
    keys, values = prefix.layers[layer]
    shape = (key.shape[0], -1, -1, -1)
    return (
        torch.cat([keys.expand(shape), key], dim=2),
        torch.cat([values.expand(shape), value], dim=2),
    )


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float,
    tokka_view: View | None = None,
    tokka_windows: tuple[int | None, ...] = (),
    **others: Any,
) -> tuple[Any, None]:
    if tokka_view is None:  # somebody else calls the module: as transformers would have it
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return found, None
    layer = module.layer_idx
    seen = tokka_view.attend(layer, tokka_windows[layer], query, key, value, scaling)
    return seen.transpose(1, 2), None


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
