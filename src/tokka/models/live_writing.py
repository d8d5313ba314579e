"""A text on its way to whoever listens: what may be said already, and how it gets there.

New text → whole characters that can't become a stop string. Token ids → new text, without decoding
all of them again.

>>> spoken = Spoken(stop=("。終",))
>>> [spoken.add(new) for new in ("締切", "は正午。", "です")], spoken.rest()
(['締切', 'は正午', '。です'], '')
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tokka.errors import TokkaError, UsageError
from tokka.models.live import Piece
from tokka.models.protocol import GenerateRequest, GenerateResult

_UNFINISHED = "\ufffd"  # how a decoder shows bytes that are no character yet


class Spoken:
    """What was said of a growing text. `ended` once a stop string stands in it, behind something
    visible: see `batches.answer_end`."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(s for s in stop if s)
        self._longest = max(map(len, self._stop), default=0)
        self._begins = {s[:n] for s in self._stop for n in range(1, len(s))}
        self._held = ""
        self._visible = False  # whether the held text follows something visible
        self.ended = False

    def add(self, new: str) -> str:
        """What may be said now that `new` is there."""
        if not self._stop:
            return new
        if self.ended:
            return ""
        self._held += new
        text = self._held
        start = 0 if self._visible else len(text) - len(text.lstrip())
        ends = [at for s in self._stop if (at := text.find(s, start)) >= 0]
        if ends:
            self.ended = True
            return self._say(min(ends))
        last = min(self._longest - 1, len(text) - start)
        held = next((n for n in range(last, 0, -1) if text[-n:] in self._begins), 0)
        return self._say(len(text) - held)

    def rest(self) -> str:
        """What was held back, once nothing more comes."""
        return "" if self.ended else self._say(len(self._held))

    def _say(self, count: int) -> str:
        said, self._held = self._held[:count], self._held[count:]
        self._visible = self._visible or bool(said.strip())
        return said


class Decoded:
    """Token ids of one text → what each adds to it.

    The last tokens are decoded with some before them, since a token's text can depend on those; a
    character that isn't whole waits for its other bytes.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._from = self._told = 0  # where the window begins, and how many ids were told
        self._before = ""  # the window's text up to there

    def add(self, ids: Sequence[int]) -> str:
        """The new whole characters."""
        self._ids += ids
        text = self._decode(self._ids[self._from :])
        if text.endswith(_UNFINISHED) or len(text) <= len(self._before):
            return ""
        new = text[len(self._before) :]
        self._from, self._before = self._told, self._decode(self._ids[self._told :])
        self._told = len(self._ids)
        return new


class Flow:
    """One text as it grows: the model's side tells, the listener's side iterates. All in one event
    loop. See `live.Writing`."""

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.result: GenerateResult | None = None
        self._on_cancel = on_cancel
        self._text: list[str] = []
        self._tokens = 0
        self._over = False
        self._failure: TokkaError | None = None
        self._listener: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        return self._over

    # ---- the model's side -----------------------------------------------------------------------

    def tell(self, text: str, tokens: int) -> None:
        if self._over:
            return
        self._tokens += tokens
        if text:
            self._text.append(text)
            self._wake()

    def end(self, result: GenerateResult) -> None:
        if not self._over:
            self.result, self._over = result, True
            self._wake()

    def fail(self, failure: TokkaError) -> None:
        if not self._over:
            self._failure, self._over = failure, True
            self._wake()

    def _wake(self) -> None:
        if self._listener is not None and not self._listener.done():
            self._listener.set_result(None)

    # ---- the listener's side --------------------------------------------------------------------

    def cancel(self) -> None:
        if not self._over:
            self._over = True
            self._text.clear()
            self._wake()
            self._on_cancel()

    def __aiter__(self) -> Flow:
        return self

    async def __anext__(self) -> Piece:
        while not self._text:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            self._listener = self.loop.create_future()
            try:
                await self._listener
            finally:
                self._listener = None
        piece = Piece("".join(self._text), self._tokens)
        self._text.clear()
        self._tokens = 0
        return piece


def refuse_too_long(name: str, request: GenerateRequest, limit: int) -> None:
    """Raise UsageError where prompt and answer don't fit: in service nothing is cut silently."""
    tokens = len(request.prompt.ids)
    if request.max_tokens < 1:
        raise UsageError(f"{name}: max_tokens must be at least 1, got {request.max_tokens}")
    if tokens + request.max_tokens > limit:
        raise UsageError(
            f"{name}: a prompt of {tokens} tokens and an answer of up to {request.max_tokens} "
            f"don't fit into a context of {limit}; shorten one of them"
        )
