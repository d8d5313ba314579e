"""Continuous batching: a text that ends makes room for the next at once.

Prompts → texts, each as it finishes. Every text has a slot with its own keys and values; the prefix
that all prompts share is computed once and read by all slots. Slots in use are the first ones, so a
decoding step is one forward over a slice; when a text ends, the last slot moves into its place.

    scheduler = Scheduler(decoder, head, renderer, prefix, slots=64, batch_tokens=2048)
    scheduler.add(0, ids, request)
    while scheduler.busy:
        for finished in scheduler.step(): ...      # Writer: key, text, finish
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from tokka.models.attention import Decoder, Pair, Prefix, TreeView
from tokka.models.batches import answer_end, by_budget
from tokka.models.head import Head, leaders
from tokka.models.protocol import GenerateRequest, Renderer

ROUND = 8  # rows of a step: float32 products of 1, 2, 7 or 9 rows differ in their last bits
ADMIT = 8  # free slots worth a prefill while others wait to go on
LEADERS = 32
SPARE = 32  # tokens by which the slots grow


class Writer:
    """One text as it grows. `finish` is empty until it ends: "stop", "length" or "cancelled"."""

    def __init__(self, key: int, ids: Sequence[int], request: GenerateRequest, renderer: Renderer):
        self.key, self.prompt, self.request = key, tuple(ids), request
        self.ids: list[int] = []
        self.finish = ""
        self._renderer = renderer
        self._generator = torch.Generator().manual_seed(request.seed)
        # A character is up to four tokens (bytes), so this tail holds any stop string whole.
        self._tail = 4 * max(map(len, request.stop), default=0) + 4

    @property
    def text(self) -> str:
        said = self._renderer.decode(self.ids)
        return said[: answer_end(said, self.request.stop)]

    def take(self, token: int) -> None:
        if token in self._renderer.stop_ids:
            self.finish = "stop"
            return
        self.ids.append(token)
        if self._stops():
            self.finish = "stop"
        elif len(self.ids) >= self.request.max_tokens:
            self.finish = "length"

    def _stops(self) -> bool:
        stop, decode = self.request.stop, self._renderer.decode
        tail = decode(self.ids[-self._tail :]) if stop else ""
        return any(s in tail for s in stop) and answer_end(decode(self.ids), stop) is not None

    def draw(self, logits: Any) -> int:
        """A token by the request's own seed: neighbours change neither the draws nor their
        order."""
        weights = torch.softmax(logits.float() / self.request.temperature, dim=0).cpu()
        return int(torch.multinomial(weights, 1, generator=self._generator))


class Scheduler:
    """Owns the slots. `prefix` stands before every prompt that is added; `slots` at once.

    Memory beyond the weights: slots × longest text × cache of a token, and what one prefill of
    `batch_tokens` needs.
    """

    def __init__(
        self,
        decoder: Decoder,
        head: Head,
        renderer: Renderer,
        prefix: Prefix | None,
        *,
        slots: int,
        batch_tokens: int,
    ) -> None:
        self._decoder, self._head, self._renderer = decoder, head, renderer
        self._prefix = prefix
        self._before = prefix.length if prefix is not None else 0
        self._most = slots
        self._batch_tokens = batch_tokens
        self._slots = _Slots(decoder, prefix, slots)
        self._waiting: deque[Writer] = deque()
        self._active: list[Writer] = []
        self._next: list[int] = []  # the token that each active text has chosen but not yet read

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._active)

    def add(self, key: int, ids: Sequence[int], request: GenerateRequest) -> None:
        """`ids` are the prompt's after the shared prefix: at least one."""
        self._waiting.append(Writer(key, ids, request, self._renderer))

    def cancel(self, key: int) -> None:
        """Free a text's slot at the next step, or take it off the queue; unknown keys are
        ignored."""
        self._waiting = deque(w for w in self._waiting if w.key != key)
        for writer in self._active:
            if writer.key == key:
                writer.finish = "cancelled"

    @torch.inference_mode()
    def step(self) -> list[Writer]:
        """Read new prompts where there is room for them, else write one token of each text."""
        self._leave()
        free = self._most - len(self._active)
        if self._waiting and free >= min(len(self._waiting), ADMIT, self._most):
            newcomers = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self._admit(newcomers)
        elif self._active:
            self._decode()
        return self._leave()

    def _admit(self, newcomers: list[Writer]) -> None:
        groups = by_budget([len(w.prompt) for w in newcomers], self._batch_tokens)
        for group in groups:
            writers = [newcomers[i] for i in group]
            states = self._read(writers)
            self._active += writers
            self._next += choose(self._head, states, writers)

    def _read(self, writers: list[Writer]) -> Any:
        """Fill the slots of new texts; (texts, hidden size) states of their last tokens."""
        device = self._decoder.device
        prefix, start = self._prefix, 0
        if len(writers) == 1 and len(writers[0].prompt) > self._batch_tokens:
            start = len(writers[0].prompt) - self._batch_tokens
            prefix = self._decoder.extend(prefix, writers[0].prompt[:start], self._batch_tokens)
        lengths = [len(w.prompt) - start for w in writers]
        width = max(lengths)
        tokens = torch.zeros((len(writers), width), dtype=torch.long)
        ends = torch.arange(1, width + 1).repeat(len(writers), 1)
        for i, writer in enumerate(writers):
            tokens[i, : lengths[i]] = torch.tensor(writer.prompt[start:])
            ends[i, : lengths[i]] = lengths[i]
        first = self._before + start
        places = torch.arange(first, first + width, device=device).repeat(len(writers), 1)
        view = TreeView(places, ends.to(device), prefix, self._decoder.dtype, keep=True)
        hidden = self._decoder.run(tokens.to(device), view)
        own = view.own
        if start and prefix is not None:
            own = [
                (
                    torch.cat([keys[:, :, self._before :], key], dim=2),
                    torch.cat([values[:, :, self._before :], value], dim=2),
                )
                for (keys, values), (key, value) in zip(prefix.layers, own, strict=True)
            ]
        self._slots.fill(len(self._active), own, [start + n for n in lengths])
        last = torch.tensor(lengths, device=device) - 1
        return hidden[torch.arange(len(writers), device=device), last]

    def _decode(self) -> None:
        count = len(self._active)
        rows = min(-(-count // ROUND) * ROUND, self._slots.rows)
        tokens = torch.zeros((rows, 1), dtype=torch.long)
        tokens[:count, 0] = torch.tensor(self._next)
        hidden = self._decoder.run(tokens.to(self._decoder.device), self._slots.view(rows, count))
        self._slots.lengths[:count] = [n + 1 for n in self._slots.lengths[:count]]
        self._next = choose(self._head, hidden[:, 0], self._active)

    def _leave(self) -> list[Writer]:
        """Take finished texts out; the last slot moves into the place of each."""
        finished = []
        for place in reversed(range(len(self._active))):
            if self._active[place].finish:
                finished.append(self._active[place])
                last = len(self._active) - 1
                self._slots.move(last, place)
                self._active[place], self._next[place] = self._active[last], self._next[last]
                self._active.pop(), self._next.pop()
        return finished[::-1]


def choose(head: Head, states: Any, writers: Sequence[Writer]) -> list[int]:
    """The next token of each text, told to it; `states` (rows, hidden size), rows beyond the texts
    are padding.

    bfloat16 logits tie where float32 ones don't, so greedy leaders are computed again in float32.
    """
    logits = states @ head.weight.T
    if head.bias is not None:
        logits += head.bias
    best = leaders(logits, 1 if logits.dtype == torch.float32 else LEADERS)
    if best.shape[1] > 1:
        exact = head.exact(states, best)
        best = best.gather(1, exact.argmax(dim=1, keepdim=True))
    greedy = best[:, 0].tolist()
    chosen = []
    for row, writer in enumerate(writers):
        sampled = writer.request.temperature > 0
        token = writer.draw(head.bend(logits[row].float())) if sampled else greedy[row]
        writer.take(token)
        chosen.append(token)
    return chosen


class _Slots:
    """Keys and values of the texts being written, (slots, key heads, capacity, size) by layer."""

    def __init__(self, decoder: Decoder, prefix: Prefix | None, most: int) -> None:
        self._decoder, self._prefix = decoder, prefix
        self.rows = -(-most // ROUND) * ROUND
        self.lengths = [0] * self.rows
        self._capacity = 0
        self._layers: list[Pair] = []

    def fill(self, first: int, own: Sequence[Pair], lengths: Sequence[int]) -> None:
        """Write new texts' keys and values, (texts, key heads, width, size), from slot `first`."""
        self._reserve(max(lengths) + 1, own[0][0])
        for pair, new in zip(self._layers, own, strict=True):
            for kept, fresh in zip(pair, new, strict=True):
                for i, length in enumerate(lengths):
                    kept[first + i, :, :length] = fresh[i, :, :length]
        self.lengths[first : first + len(lengths)] = lengths

    def move(self, source: int, target: int) -> None:
        if source != target:
            length = self.lengths[source]
            for pair in self._layers:
                for kept in pair:
                    kept[target, :, :length] = kept[source, :, :length]
            self.lengths[target] = length
        self.lengths[source] = 0

    def view(self, rows: int, count: int) -> _SlotView:
        """What the next token of each text sees; rows from `count` on are padding."""
        self._reserve(max(self.lengths[:count]) + 1, self._layers[0][0])
        return _SlotView(self._layers, self._prefix, self.lengths[:rows], self._decoder)

    def _reserve(self, length: int, like: Any) -> None:
        if length <= self._capacity:
            return
        self._capacity = -(-(length + SPARE) // SPARE) * SPARE
        shape = (self.rows, like.shape[1], self._capacity, like.shape[3])
        count = len(self._decoder.windows)
        fresh = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(count)]
        for old, new in zip(self._layers, fresh, strict=False):
            for before, after in zip(old, new, strict=True):
                after[:, :, : before.shape[2]] = before
        self._layers = fresh


class _SlotView:
    """One token a text: it sees the prefix, its own slot and itself."""

    def __init__(
        self, layers: list[Pair], prefix: Prefix | None, lengths: Sequence[int], decoder: Decoder
    ) -> None:
        self._layers, self._prefix = layers, prefix
        self._before = prefix.length if prefix is not None else 0
        self._length = layers[0][0].shape[2]  # whole rows: a slice would be copied to be multiplied
        self._at = torch.tensor(lengths, device=decoder.device)
        self._rows = torch.arange(len(lengths), device=decoder.device)
        self.places = (self._before + self._at)[:, None]
        self._masks: dict[int | None, Any] = {}

    def attend(
        self, layer: int, window: int | None, query: Any, key: Any, value: Any, scale: float
    ) -> Any:
        rows, heads, _, size = query.shape
        keys, values = self._layers[layer]
        keys[self._rows, :, self._at] = key[:, :, 0]
        values[self._rows, :, self._at] = value[:, :, 0]
        keys, values = keys[:rows], values[:rows]
        shared = key.shape[1]
        grouped = query.view(rows, shared, heads // shared, size)
        scores = grouped @ keys.transpose(2, 3)
        if self._prefix is not None:
            before_keys, before_values = (kept[0] for kept in self._prefix.layers[layer])
            together = grouped.transpose(0, 1).reshape(shared, -1, size)
            outer = (together @ before_keys.transpose(1, 2)).view(shared, rows, -1, self._before)
            scores = torch.cat([outer.transpose(0, 1), scores], dim=3)
        scores = scores.float().mul_(scale).add_(self._mask(window))
        weights = torch.softmax(scores, dim=3).to(query.dtype)
        seen = weights[..., self._before :] @ values
        if self._prefix is not None:
            outer = weights[..., : self._before].transpose(0, 1).reshape(shared, -1, self._before)
            found = (outer @ before_values).view(shared, rows, -1, size)
            seen = seen + found.transpose(0, 1)
        return seen.reshape(rows, heads, 1, size)

    def _mask(self, window: int | None) -> Any:
        """(rows, 1, 1, prefix + length) float32: 0 where a key is seen, −∞ elsewhere."""
        if window not in self._masks:
            own = torch.arange(self._length, device=self._at.device) + self._before
            before = torch.arange(self._before, device=self._at.device)
            columns = torch.cat([before, own])[None]
            seen = columns <= self.places
            if window is not None:
                seen &= self.places - columns < window
            mask = torch.zeros(seen.shape, device=self._at.device)
            self._masks[window] = mask.masked_fill_(~seen, float("-inf"))[:, None, None]
        return self._masks[window]
