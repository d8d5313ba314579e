"""A model in this process that writes for many at once: one thread computes, texts join and leave
between its steps.

    live = TorchLive(model, places=8)
    async for piece in live.write(GenerateRequest(prompt, 64)): ...

What a step wrote reaches the event loop in one call. A step that fails takes the texts in it with
it, and nothing else. Alone, a text is what the exam's engine writes; beside others its float
results may differ in their last bits (see `generation.ROUND`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from tokka.errors import ServiceError
from tokka.models.generation import Writer
from tokka.models.live_writing import Decoded, Flow, Spoken, refuse_too_long
from tokka.models.protocol import (
    Capabilities,
    GenerateRequest,
    GenerateResult,
    Memo,
    Progress,
    Renderer,
    ScoreRequest,
    ScoreResult,
)
from tokka.models.torch_model import CACHE_TOKENS, TorchModel

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Text:
    """One request's way from the queue to its result."""

    key: int
    request: GenerateRequest
    flow: Flow
    decoded: Decoded
    spoken: Spoken
    started: float
    seen: int = 0  # tokens
    untold: int = 0  # tokens whose text was held back
    said: str = ""

    @property
    def most_tokens(self) -> int:
        return len(self.request.prompt.ids) + self.request.max_tokens


@dataclass(frozen=True, slots=True)
class _News:
    """What a step brought to one text; with a result it is the last."""

    flow: Flow
    text: str
    tokens: int
    result: GenerateResult | None = None
    failure: ServiceError | None = None


class TorchLive:
    """A LiveModel over a TorchModel, which it owns."""

    def __init__(self, model: TorchModel, places: int) -> None:
        self.name, self.digest, self.capabilities = model.name, model.digest, model.capabilities
        self.places = places
        self._model = model
        self._scheduler = model.scheduler(places)
        self._keys = count()
        self._waiting: deque[_Text] = deque()
        self._writing: dict[int, _Text] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._gate = threading.Lock()  # nothing enters the inbox once it is closed
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="tokka-writing", daemon=True)
        self._thread.start()

    @property
    def renderer(self) -> Renderer:
        return self._model.renderer

    @property
    def ready(self) -> bool:
        return not self._closed

    @property
    def model(self) -> _Between:
        return _Between(self, self._model)

    def write(self, request: GenerateRequest) -> Flow:
        """Raises UsageError for a prompt that doesn't fit, ServiceError once it is closed."""
        refuse_too_long(self.name, request, self.capabilities.max_context_tokens)
        key = next(self._keys)
        flow = Flow(lambda: self._cancelled(key))
        decode = self.renderer.decode
        text = _Text(key, request, flow, Decoded(decode), Spoken(request.stop), time.perf_counter())
        self._put(lambda: self._waiting.append(text))
        return flow

    async def close(self) -> None:
        """Texts that are being written end with ServiceError."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._inbox.put(lambda: None)
        await asyncio.to_thread(self._thread.join)

    def _put(self, task: Callable[[], None]) -> None:
        with self._gate:
            if self._closed:
                raise ServiceError(f"{self.name}: the model is closed; ask again later")
            self._inbox.put(task)

    def _cancelled(self, key: int) -> None:
        with self._gate:
            if not self._closed:
                self._inbox.put(lambda: self._drop(key))

    def between(self, call: Callable[[], T]) -> T:
        """Run `call` between two steps, in the thread that computes. Blocks."""
        done: Future[T] = Future()

        def run() -> None:
            if self._closed:
                done.set_exception(ServiceError(f"{self.name}: the model is closed"))
                return
            try:
                done.set_result(call())
            except BaseException as error:
                done.set_exception(error)

        self._put(run)
        return done.result()

    # ---- in the computing thread ----------------------------------------------------------------

    def _work(self) -> None:
        while not self._closed:
            try:
                self._take_in()
                self._admit()
                if self._scheduler.busy:
                    self._step()
            except Exception as error:
                self._broken(error)
        self._take_in()
        closed = ServiceError(f"{self.name}: the model was closed while it wrote; ask again later")
        texts = [*self._writing.values(), *self._waiting]
        _deliver([_News(text.flow, "", 0, failure=closed) for text in texts])
        self._writing.clear()
        self._waiting.clear()
        self._model.close()

    def _take_in(self) -> None:
        """All that came in; waits for something where there is nothing to write."""
        idle = not self._scheduler.busy and not self._waiting and not self._closed
        try:
            while True:
                self._inbox.get(block=idle)()
                idle = False
        except queue.Empty:
            return

    def _admit(self) -> None:
        """Only as many as can be read at once: in the scheduler they would wait for company."""
        if not self._writing and self._waiting:
            self._scheduler = self._model.scheduler(self.places)  # gives long texts' memory back
        while self._waiting and len(self._writing) < self.places:
            text = self._waiting[0]
            longest = max(t.most_tokens for t in (text, *self._writing.values()))
            if self._writing and longest * (len(self._writing) + 1) > CACHE_TOKENS:
                return
            self._waiting.popleft()
            self._writing[text.key] = text
            self._scheduler.add(text.key, text.request.prompt.ids, text.request)

    def _drop(self, key: int) -> None:
        self._waiting = deque(text for text in self._waiting if text.key != key)
        if self._writing.pop(key, None) is not None:
            self._scheduler.drop(key)

    def _step(self) -> None:
        finished = self._scheduler.step()
        told = (*self._scheduler.texts, *finished)
        _deliver([_news(self._writing[writer.key], writer) for writer in told])
        for writer in finished:
            del self._writing[writer.key]

    def _broken(self, error: Exception) -> None:
        # Without the error's own words: they may hold what was asked.
        failure = ServiceError(
            f"{self.name}: a step failed ({type(error).__name__}); ask again, with fewer at once "
            "or a shorter text if that repeats"
        )
        _deliver([_News(text.flow, "", 0, failure=failure) for text in self._writing.values()])
        self._writing.clear()
        self._scheduler = self._model.scheduler(self.places)


def _news(text: _Text, writer: Writer) -> _News:
    """What may be said now, with the tokens since something was; at the end, all that is left."""
    new = writer.ids[text.seen :]
    text.seen = len(writer.ids)
    text.untold += len(new)
    if not writer.finish:
        said = text.spoken.add(text.decoded.add(new)) if new else ""
    else:
        whole = writer.text
        # Bytes that are no character may be decoded otherwise with more behind them: what was said
        # stands.
        said = whole[len(text.said) :] if whole.startswith(text.said) else ""
    text.said += said
    tokens = text.untold if said else 0
    text.untold -= tokens
    return _News(text.flow, said, tokens, _result(text, writer) if writer.finish else None)


def _result(text: _Text, writer: Writer) -> GenerateResult:
    return GenerateResult(
        text=text.said,
        tokens_in=len(writer.prompt),
        tokens_out=len(writer.ids),
        truncated=False,
        finish=writer.finish,
        seconds=time.perf_counter() - text.started,
    )


def _deliver(news: Sequence[_News]) -> None:
    """One call for each event loop that listens (there is one)."""
    for loop in {one.flow.loop for one in news}:
        mine = [one for one in news if one.flow.loop is loop and (one.text or _last(one))]
        try:
            if mine:
                loop.call_soon_threadsafe(_tell, mine)
        except RuntimeError:  # that loop is closed: nobody listens any more
            continue


def _last(news: _News) -> bool:
    return news.result is not None or news.failure is not None


def _tell(news: Sequence[_News]) -> None:
    for one in news:
        one.flow.tell(one.text, one.tokens)
        if one.failure is not None:
            one.flow.fail(one.failure)
        elif one.result is not None:
            one.flow.end(one.result)


class _Between:
    """The same model as a LanguageModel, for a search that asks it: it computes between two
    steps."""

    def __init__(self, live: TorchLive, model: TorchModel) -> None:
        self._live, self._model = live, model
        self.name, self.digest = model.name, model.digest
        self.capabilities: Capabilities = model.capabilities

    @property
    def renderer(self) -> Renderer:
        return self._model.renderer

    def score(
        self,
        requests: Sequence[ScoreRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ScoreResult]:
        call = self._model.score
        return iter(self._live.between(lambda: list(call(requests, memo, progress))))

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        memo: Memo | None = None,
        progress: Progress | None = None,
    ) -> Iterator[GenerateResult]:
        call = self._model.generate
        return iter(self._live.between(lambda: list(call(requests, memo, progress))))

    def close(self) -> None:
        """The live model closes what it owns."""

    def __enter__(self) -> _Between:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
