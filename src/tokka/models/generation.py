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
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tokka.models.attention import Decoder, Pair, Prefix, line
from tokka.models.batches import answer_end, packed
from tokka.models.head import Head, leaders
from tokka.models.protocol import GenerateRequest, Renderer

ROUND = 8  # rows of a step: float32 products of 1, 2, 7 or 9 rows differ in their last bits
ADMIT = 8  # free slots worth a prefill while others wait to go on
LEADERS = 32
SHELF = 16  # slots
SPARE = 32  # tokens by which a shelf grows


class Writer:
    """One text as it grows. `finish` is empty until it ends: "stop" or "length"."""

    def __init__(
        self,
        key: int,
        ids: Sequence[int],
        request: GenerateRequest,
        renderer: Renderer,
        pieces: dict[int, str] | None = None,
    ) -> None:
        self.key, self.prompt, self.request = key, tuple(ids), request
        self.ids: list[int] = []
        self.finish = ""
        self._renderer = renderer
        self._generator = torch.Generator().manual_seed(request.seed)
        # A character is up to four tokens (bytes), so this tail holds any stop string whole.
        self._tail = 4 * max(map(len, request.stop), default=0) + 4
        self._ends = {s[-1] for s in request.stop if s}  # of decoded pieces, which lose spaces
        self._pieces = {} if pieces is None else pieces

    @property
    def text(self) -> str:
        said = self._renderer.decode(self.ids)
        return said[: answer_end(said, self.request.stop)]

    def take(self, token: int) -> None:
        if token in self._renderer.stop_ids:
            self.finish = "stop"
            return
        self.ids.append(token)
        if self.request.stop and self._stops():
            self.finish = "stop"
        elif len(self.ids) >= self.request.max_tokens:
            self.finish = "length"

    def _stops(self) -> bool:
        """Whether the last token completes a stop string: most can't, and need no decoding."""
        decode = self._renderer.decode
        piece = self._pieces.get(self.ids[-1])
        if piece is None:
            piece = self._pieces[self.ids[-1]] = decode(self.ids[-1:])
        if not self._ends & {*piece, " "} and "\ufffd" not in piece:
            return False
        tail = decode(self.ids[-self._tail :])
        return any(s in tail for s in self.request.stop) and (
            answer_end(decode(self.ids), self.request.stop) is not None
        )

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
        self._pieces: dict[int, str] = {}  # tokens as text, shared by all texts
        self._waiting: deque[Writer] = deque()
        self._active: list[Writer] = []
        self._next: list[int] = []  # the token that each active text has chosen but not yet read

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._active)

    @property
    def texts(self) -> Sequence[Writer]:
        """Those that are being written, after what `step` returned has left."""
        return self._active

    def add(self, key: int, ids: Sequence[int], request: GenerateRequest) -> None:
        """`ids` are the prompt's after the shared prefix: at least one."""
        self._waiting.append(Writer(key, ids, request, self._renderer, self._pieces))

    @torch.inference_mode()
    def drop(self, key: int) -> None:
        """Take a text out between two steps, whether it waits or is being written; its slot is
        free."""
        self._waiting = deque(writer for writer in self._waiting if writer.key != key)
        for place, writer in enumerate(self._active):
            if writer.key == key:
                self._vacate(place)
                return

    @torch.inference_mode()
    def step(self) -> list[Writer]:
        """Read new prompts where there is room for them, else write one token of each text."""
        free = self._most - len(self._active)
        if self._waiting and free >= min(len(self._waiting), ADMIT, self._most):
            newcomers = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self._admit(newcomers)
        elif self._active:
            self._decode()
        return self._leave()

    def _admit(self, newcomers: list[Writer]) -> None:
        """Read prompts into the next slots, longest first: slots beside each other are alike."""
        newcomers = sorted(newcomers, key=lambda w: (-len(w.prompt), w.key))
        first = len(self._active)
        states: list[Any] = [None] * len(newcomers)
        whole = [i for i, w in enumerate(newcomers) if len(w.prompt) <= self._batch_tokens]
        for i in range(len(newcomers) - len(whole)):  # longer than a batch, so they come first
            states[i] = self._read_long(newcomers[i], first + i)
        sizes = [len(newcomers[i].prompt) for i in whole]
        for batch in packed(sizes, self._batch_tokens, self._before):
            lanes = [
                [(first + whole[i], newcomers[whole[i]].prompt) for i in lane]
                for lane in batch.lanes
            ]
            for slot, state in self._read(self._prefix, lanes, batch.width):
                states[slot - first] = state
        self._active += newcomers
        self._next += choose(self._head, torch.stack(states), newcomers)

    def _read_long(self, writer: Writer, slot: int) -> Any:
        start = len(writer.prompt) - self._batch_tokens
        prefix = self._decoder.extend(self._prefix, writer.prompt[:start], self._batch_tokens)
        self._slots.fill(slot, prefix.layers, slice(self._before, prefix.length))
        lane = [(slot, writer.prompt[start:])]
        ((_, state),) = self._read(prefix, [lane], self._batch_tokens, start)
        return state

    def _read(
        self,
        prefix: Prefix | None,
        lanes: Sequence[Sequence[tuple[int, Sequence[int]]]],
        width: int,
        start: int = 0,
    ) -> Iterator[tuple[int, Any]]:
        """Fill the slots of prompts laid into lanes; (slot, state of the prompt's last token).

        `start` tokens of the slot are filled already.
        """
        first = self._before + start
        laid = [[line(ids, first) for _, ids in lane] for lane in lanes]
        hidden, view = self._decoder.read(laid, width, prefix, keep=True)
        for number, lane in enumerate(lanes):
            own = [(k[number : number + 1], v[number : number + 1]) for k, v in view.own]
            stop = 0
            for slot, ids in lane:
                begin, stop = stop, stop + len(ids)
                self._slots.fill(slot, own, slice(begin, stop), start)
                yield slot, hidden[number, stop - 1]

    def _decode(self) -> None:
        count = len(self._active)
        rows = min(-(-count // ROUND) * ROUND, len(self._slots.lengths))
        tokens = torch.zeros((rows, 1), dtype=torch.long)
        tokens[:count, 0] = torch.tensor(self._next)
        hidden = self._decoder.run(tokens.to(self._decoder.device), self._slots.view(rows))
        self._slots.lengths[:count] = [n + 1 for n in self._slots.lengths[:count]]
        self._next = choose(self._head, hidden[:, 0], self._active)

    def _leave(self) -> list[Writer]:
        """Take finished texts out; the last slot moves into the place of each."""
        finished = []
        for place in reversed(range(len(self._active))):
            if self._active[place].finish:
                finished.append(self._active[place])
                self._vacate(place)
        return finished[::-1]

    def _vacate(self, place: int) -> None:
        last = len(self._active) - 1
        self._slots.move(last, place)
        self._active[place], self._next[place] = self._active[last], self._next[last]
        self._active.pop(), self._next.pop()


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
    """Keys and values of the texts being written, in shelves of `SHELF` slots.

    A shelf is as long as its longest text, so that a few long texts don't make every step read as
    much for all. Within a shelf whole rows are multiplied, since slices would be copied first.
    """

    def __init__(self, decoder: Decoder, prefix: Prefix | None, most: int) -> None:
        self._decoder, self._prefix = decoder, prefix
        self.lengths = [0] * (-(-most // ROUND) * ROUND)
        self._shelves: list[list[Pair]] = [[] for _ in range(0, len(self.lengths), SHELF)]

    def fill(self, slot: int, own: Sequence[Pair], columns: slice, at: int = 0) -> None:
        """Write `columns` of keys and values, (1, key heads, width, size) by layer, from place
        `at`."""
        stop = at + columns.stop - columns.start
        for pair, new in zip(self._shelf(slot, stop + 1, own), own, strict=True):
            for kept, fresh in zip(pair, new, strict=True):
                kept[slot % SHELF, :, at:stop] = fresh[0, :, columns]
        self.lengths[slot] = stop

    def move(self, source: int, target: int) -> None:
        length = self.lengths[source]
        if source != target:
            before = self._shelves[source // SHELF]
            after = self._shelf(target, length + 1, before)
            for old, new in zip(before, after, strict=True):
                for kept, fresh in zip(old, new, strict=True):
                    fresh[target % SHELF, :, :length] = kept[source % SHELF, :, :length]
            self.lengths[target] = length
        self.lengths[source] = 0

    def view(self, rows: int) -> _SlotView:
        """What the next token of each of the first `rows` slots sees, padding among them."""
        for slot in range(rows):
            self._shelf(slot, self.lengths[slot] + 1, self._shelves[0])
        shelves = self._shelves[: -(-rows // SHELF)]
        return _SlotView(shelves, self._prefix, self.lengths[:rows], self._decoder)

    def _shelf(self, slot: int, length: int, like: Sequence[Pair]) -> list[Pair]:
        """The layers of a slot's shelf, grown to hold `length` tokens."""
        place = slot // SHELF
        kept = self._shelves[place]
        have = kept[0][0].shape[2] if kept else 0
        if length > have:
            slots = min(SHELF, len(self.lengths) - place * SHELF)
            room = -(-(length + SPARE) // SPARE) * SPARE
            grown = []
            for layer, pair in enumerate(like):
                shape = (slots, pair[0].shape[1], room, pair[0].shape[3])
                fresh = (pair[0].new_zeros(shape), pair[1].new_zeros(shape))
                if kept:
                    for old, new in zip(kept[layer], fresh, strict=True):
                        new[:, :, :have] = old
                grown.append(fresh)
            self._shelves[place] = grown
        return self._shelves[place]


class _SlotView:
    """One token a text: it sees the prefix, its own slot and itself."""

    def __init__(
        self,
        shelves: Sequence[list[Pair]],
        prefix: Prefix | None,
        lengths: Sequence[int],
        decoder: Decoder,
    ) -> None:
        self._shelves, self._prefix = shelves, prefix
        self._before = prefix.length if prefix is not None else 0
        self._at = torch.tensor(lengths, device=decoder.device)
        self._rows = torch.arange(SHELF, device=decoder.device)
        self.places = (self._before + self._at)[:, None]
        self._masks: dict[tuple[int, int | None], Any] = {}

    def attend(
        self, layer: int, window: int | None, query: Any, key: Any, value: Any, scale: float
    ) -> Any:
        rows, heads, _, size = query.shape
        shared = key.shape[1]
        grouped = query.view(rows, shared, heads // shared, size)
        seen = torch.empty_like(grouped)
        outer = outer_weights = None
        if self._prefix is not None:
            keys, values = (kept[0] for kept in self._prefix.layers[layer])
            together = grouped.transpose(0, 1).reshape(shared, -1, size)
            outer = (together @ keys.transpose(1, 2)).view(shared, rows, -1, self._before)
            outer = outer.transpose(0, 1)
            outer_weights = torch.empty_like(outer)
        for place, layers in enumerate(self._shelves):
            some = slice(place * SHELF, min((place + 1) * SHELF, rows))
            own_keys, own_values = layers[layer]
            count, at = some.stop - some.start, self._at[some]
            own_keys[self._rows[:count], :, at] = key[some, :, 0]
            own_values[self._rows[:count], :, at] = value[some, :, 0]
            own_keys, own_values = own_keys[:count], own_values[:count]
            scores = grouped[some] @ own_keys.transpose(2, 3)
            if outer is not None:
                scores = torch.cat([outer[some], scores], dim=3)
            mask = self._mask(place, some, own_keys.shape[2], window)
            weights = torch.softmax(scores.float().mul_(scale).add_(mask), dim=3).to(query.dtype)
            seen[some] = weights[..., self._before :] @ own_values
            if outer_weights is not None:
                outer_weights[some] = weights[..., : self._before]
        if outer_weights is not None:
            flat = outer_weights.transpose(0, 1).reshape(shared, -1, self._before)
            seen += (flat @ values).view(shared, rows, -1, size).transpose(0, 1)
        return seen.reshape(rows, heads, 1, size)

    def _mask(self, place: int, some: slice, length: int, window: int | None) -> Any:
        """(rows, 1, 1, prefix + length) float32: 0 where a key is seen, −∞ elsewhere."""
        if (place, window) not in self._masks:
            columns = torch.arange(self._before + length, device=self._at.device)[None]
            own = self.places[some]
            seen = columns <= own
            if window is not None:
                seen &= own - columns < window
            mask = torch.zeros(seen.shape, device=self._at.device)
            self._masks[place, window] = mask.masked_fill_(~seen, float("-inf"))[:, None, None]
        return self._masks[place, window]
