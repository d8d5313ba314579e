"""A `.gguf` file that writes for many at once: llama.cpp in a child process with so many places.

    live = LlamaCppLive(Path("model.gguf"), renderer, digest, places=8)
    async for piece in live.write(GenerateRequest(prompt, 64)): ...

Token ids go in over loopback HTTP, a text comes back token by token. Who stops listening closes the
connection, and the place is free. If the child dies, all its texts end with ServiceError at once,
and it is started again in the background.

A text that is written alone is, bit for bit, what the exam's `LlamaCppModel` writes: its prompt is
computed in the same blocks, and a cached prefix is used only where it was computed so and is cut
back to whole blocks (see there for why). Beside others a batch has another shape, so numbers differ
in any case, and whatever the place has cached is used. `exact=False` uses it always.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokka.errors import ServiceError
from tokka.models.live_beside import Beside
from tokka.models.live_child import Child
from tokka.models.live_http import Exchange, Refused, post, send
from tokka.models.live_writing import Flow, Spoken, refuse_too_long
from tokka.models.llamacpp import capabilities_of, threads_here
from tokka.models.llamacpp_server import BLOCK_TOKENS
from tokka.models.protocol import GenerateRequest, GenerateResult, Renderer
from tokka.models.safety import refuse_unsafe

_LEAVING_SECONDS = 2.0  # the child has noticed by then; measured: 0.02 to 0.06
_FIELDS = ["content", "tokens", "stop_type", "tokens_predicted", "timings/cache_n"]


@dataclass(slots=True, eq=False)
class _Place:
    """A slot of the child. `kept`: whole blocks in its cache, computed as the exam computes them;
    `last`: the prompt that it was given last. Both are void once the child is another."""

    number: int
    kept: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    child: int = 0
    left_at: float = float("-inf")  # before the child had finished


@dataclass(slots=True, eq=False)
class _Text:
    request: GenerateRequest
    spoken: Spoken
    started: float
    flow: Flow | None = None
    place: _Place | None = None
    exchange: Exchange | None = None
    alone: bool = True  # as long as nobody else's tokens were computed with the prompt's
    shared: int = 0  # tokens of the cached prefix that was asked for, where it must be exact
    parts: list[str] = field(default_factory=list)
    tokens: int = 0  # that the child has written
    told: int = 0
    heard_at: float = 0.0
    complete: bool = False  # the child has finished too


class LlamaCppLive:
    """A LiveModel over one GGUF. One event loop asks; a thread watches the child."""

    def __init__(
        self,
        path: Path,
        renderer: Renderer,
        digest: str,
        *,
        places: int = 8,
        context_tokens: int = 4096,
        threads: int | None = None,
        log: Path | None = None,
        exact: bool = True,
        stall_seconds: float = 15.0,
    ) -> None:
        """Start the child. Raises as `open_llamacpp` does."""
        refuse_unsafe(path)
        threads = threads or threads_here()
        self.name, self.digest, self.places = path.name, digest, places  # the path is ours to know
        self._renderer, self._exact = renderer, exact
        self.capabilities = capabilities_of(renderer, context_tokens)
        self._free = [_Place(number) for number in range(places)]
        self._running: dict[int, _Text] = {}  # by place
        self._waiting: deque[_Text] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._beside = Beside(path, renderer, digest, context_tokens, threads, log)
        self._child = Child(
            path, context_tokens, threads, log, places, exact, stall_seconds, self._silent_since
        )

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    @property
    def ready(self) -> bool:
        return not self._closed and self._child.ready

    @property
    def restarts(self) -> int:
        """How often the child was started again."""
        return self._child.restarts

    @property
    def model(self) -> Beside:
        return self._beside

    def write(self, request: GenerateRequest) -> Flow:
        """Raises UsageError for a prompt that doesn't fit, ServiceError while the child is started
        again."""
        refuse_too_long(self.name, request, self.capabilities.max_context_tokens)
        if not self.ready:
            raise self._unavailable()
        text = _Text(request, Spoken(request.stop), time.perf_counter())
        flow = text.flow = Flow(lambda: self._cancelled(text))
        self._waiting.append(text)
        self._pump()
        return flow

    async def close(self) -> None:
        """Texts that are being written end with ServiceError."""
        self._closed = True
        closed = ServiceError(f"llama.cpp: {self.name} was closed while it wrote; ask again later")
        for text in [*self._running.values(), *self._waiting]:
            assert text.flow is not None
            text.flow.fail(closed)
            if text.exchange is not None:
                text.exchange.abort()
        self._waiting.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._child.close)
        await asyncio.to_thread(self._beside.close_child)

    # ---- places ---------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._waiting and self._free:
            text = self._waiting.popleft()
            assert text.flow is not None
            if text.flow.over:
                continue
            if not self.ready:
                text.flow.fail(self._unavailable())
                continue
            self._begin(text)

    def _begin(self, text: _Text) -> None:
        prompt = text.request.prompt.ids
        for place in self._free:
            if place.child != self._child.number:
                place.kept = place.last = ()
                place.child = self._child.number
        place = max(self._free, key=lambda p: self._worth(p, prompt))
        self._free.remove(place)
        text.place, text.alone = place, not self._running
        for other in self._running.values():
            if not other.tokens:
                other.alone = False
        self._running[place.number] = text
        assert text.flow is not None
        task = text.flow.loop.create_task(self._write(text, place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _worth(self, place: _Place, prompt: tuple[int, ...]) -> tuple[bool, int, int]:
        """The longest cached prefix, then the lowest number: llama.cpp computes neighbouring places
        together, and begins anew behind each gap. Whoever is alone takes the place that was left
        last: the child may still be writing there, and lets him wait."""
        left = not self._running and time.perf_counter() - place.left_at < _LEAVING_SECONDS
        return left, _shared(prompt, place.kept or place.last), -place.number

    def _cancelled(self, text: _Text) -> None:
        if text.exchange is not None:
            text.exchange.abort()
        if text.place is not None:
            self._release(text, text.place)
        elif text in self._waiting:
            self._waiting.remove(text)

    # ---- one text -------------------------------------------------------------------------------

    async def _write(self, text: _Text, place: _Place) -> None:
        flow = text.flow
        assert flow is not None
        try:
            await self._ask(text, place)
        except Refused as refused:
            flow.fail(
                ServiceError(
                    f"llama.cpp: {self.name} answered {refused.status}; check that the tokenizer "
                    "belongs to this GGUF"
                )
            )
        except OSError:
            self._child.suspect()
            flow.fail(self._unavailable())
        finally:
            if not flow.over:  # an answer without its end
                self._child.suspect()
                flow.fail(self._unavailable())
            self._release(text, place)

    def _release(self, text: _Text, place: _Place) -> None:
        """Once for each text, as soon as its last token is here: whoever comes next is alone."""
        if self._running.get(place.number) is not text:
            return
        blocks = (len(text.request.prompt.ids) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        whole = text.alone and text.tokens and place.child == self._child.number
        place.kept = text.request.prompt.ids[:blocks] if whole else ()
        if not text.complete:
            place.left_at = time.perf_counter()
        del self._running[place.number]
        self._free.append(place)
        self._pump()

    async def _ask(self, text: _Text, place: _Place) -> None:
        request = text.request
        prompt = request.prompt.ids
        exact = self._exact and text.alone
        shared = _shared(prompt, place.kept) if exact else 0
        place.kept, place.last = (), prompt
        if shared:
            # One other token makes the child drop everything behind the shared blocks.
            other = 1 if prompt[shared] == 0 else 0
            await self._send(
                text,
                {"prompt": (*prompt[:shared], other), "n_predict": 1, "temperature": 0},
                place,
                cached=True,
                hear=False,
            )
        text.shared = shared
        await self._send(
            text,
            {
                "prompt": prompt,
                "n_predict": request.max_tokens,
                "temperature": request.temperature,
                "samplers": ["temperature"],
                "seed": request.seed & 0xFFFFFFFF,
                "stream": True,
                "return_tokens": True,
                "response_fields": _FIELDS,
            },
            place,
            cached=not exact or shared > 0,
        )

    async def _send(
        self,
        text: _Text,
        body: dict[str, Any],
        place: _Place,
        *,
        cached: bool,
        hear: bool = True,
    ) -> None:
        flow = text.flow
        assert flow is not None
        if flow.over:
            return
        asked = post(
            "/completion",
            self._child.headers,
            # Where nothing must be exact, llama.cpp finds the slot with the best cache itself.
            {**body, "cache_prompt": cached, "id_slot": place.number if self._exact else -1},
        )
        text.heard_at = time.monotonic()
        host, port = self._child.address
        exchange = await send(
            flow.loop, host, port, asked, (lambda event: self._hear(text, event)) if hear else _pass
        )
        text.exchange = exchange
        if flow.over:  # cancelled while the connection was made
            exchange.abort()
        await exchange.over

    def _hear(self, text: _Text, event: bytes) -> None:
        """One event: usually a token. Stop strings are ours to find: llama.cpp would end at a line
        break before the answer's first character."""
        text.heard_at = time.monotonic()
        found = json.loads(event)
        if "error" in found:
            raise ValueError("the child reports an error")
        flow, spoken = text.flow, text.spoken
        assert flow is not None
        text.tokens = found["tokens_predicted"]
        ids = found["tokens"]
        ended = bool(ids) and not self._renderer.stop_ids.isdisjoint(ids)
        new = "" if ended else spoken.add(found["content"])
        finish = "stop" if ended or spoken.ended else ""
        if kind := found.get("stop_type"):
            text.complete = True
            finish = finish or ("length" if kind == "limit" else "stop")
        if finish and not spoken.ended:
            new += spoken.rest()
        if new:
            text.parts.append(new)
            flow.tell(new, text.tokens - text.told)
            text.told = text.tokens
        if finish:
            self._finish(text, finish, text.tokens - ended)

    def _finish(self, text: _Text, finish: str, tokens: int) -> None:
        assert text.flow is not None
        text.flow.end(
            GenerateResult(
                text="".join(text.parts),
                tokens_in=len(text.request.prompt.ids),
                tokens_out=tokens,
                truncated=False,
                finish=finish,
                seconds=time.perf_counter() - text.started,
            )
        )
        if text.exchange is not None:
            text.exchange.abort()
        if text.place is not None:
            self._release(text, text.place)

    def _unavailable(self) -> ServiceError:
        if self._closed:
            return ServiceError(f"llama.cpp: {self.name} is closed; ask again later")
        return ServiceError(
            f"llama.cpp: the process for {self.name} broke off; it is started again where it "
            "ended, so ask again in a moment"
        )

    def _silent_since(self) -> float:
        """When the text that has waited longest last heard something; now where none waits."""
        heard = [text.heard_at for text in list(self._running.values()) if text.heard_at]
        return min(heard, default=time.monotonic())


def _shared(prompt: Sequence[int], cached: Sequence[int]) -> int:
    """Tokens of the whole blocks that both begin with; at least one token of the prompt is left."""
    most = min((len(prompt) - 1), len(cached)) // BLOCK_TOKENS * BLOCK_TOKENS
    for start in range(0, most, BLOCK_TOKENS):
        stop = start + BLOCK_TOKENS
        if prompt[start:stop] != cached[start:stop]:
            return start
    return most


def _pass(event: bytes) -> None:
    """What comes back doesn't matter."""
