"""One question's way: heard, a place awaited, written, and said with what it rests on.

Asked → pieces of text, as they are written → Answer. It goes through `Specialist.hear`,
`request_of` and `said`, the path of the exam.

    answering = Answering(service, visit, asked)
    async for text in answering.pieces(): ...
    answering.answer.citations
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from tokka.errors import ServiceError, UsageError
from tokka.records import Answer
from tokka.records import Caller as Reader
from tokka.serving.asks import Asked
from tokka.serving.budgets import Reserved
from tokka.serving.callers import Anybody
from tokka.serving.faults import Fault, unavailable, wrong
from tokka.serving.service import Service, Visit, elsewhere

if TYPE_CHECKING:
    from tokka.candidates.specialist import Heard
    from tokka.models.live import Writing
    from tokka.models.protocol import GenerateRequest


class Answering:
    """`pieces` is iterated once; `answer` is there when it ended by itself."""

    def __init__(self, service: Service, visit: Visit, asked: Asked) -> None:
        self._service, self._visit, self._asked = service, visit, asked
        self.answer: Answer | None = None
        self.dropped_turns = 0

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The text without the spaces around it, piece by piece.

        Raises Fault: 400 for what can't be asked, 429 for a budget, 503 where no place came free in
        time or the model broke down. Leaving early frees everything at once.
        """
        service, visit, asked = self._service, self._visit, self._asked
        key = visit.key or Anybody()
        service.enter()
        reserved: Reserved | None = None
        try:
            service.budgets.check_day(key)
            deadline = time.perf_counter() + service.limits.queue_seconds
            heard = await self._hear(deadline)
            if heard.silent:
                self.answer = service.specialist.said(heard, None)
                visit.finish = "stop"
                yield self.answer.text
                return
            request = service.specialist.request_of(heard, asked.max_tokens, asked.stop)
            tokens_in = len(heard.prompt.ids)
            reserved = service.budgets.reserve(key, tokens_in + request.max_tokens)
            await self._place(deadline)
            try:
                service.refuse_unless_ready()
                writing = self._begin(request)
                visit.prompt_tokens = tokens_in
                trimmed = Trimmed()
                began = time.perf_counter()
                try:
                    async for piece in writing:
                        visit.completion_tokens += piece.tokens
                        text = trimmed.add(piece.text)
                        if text:
                            if visit.first_seconds is None:
                                visit.first_seconds = visit.seconds()
                            yield text
                except ServiceError:
                    raise _broken() from None
                except UsageError:
                    raise _too_long() from None
                finally:
                    writing.cancel()
            finally:
                service.writing.give()
            result = writing.result
            if result is None or result.finish == "error":
                raise _broken()
            visit.prompt_tokens = result.tokens_in
            visit.completion_tokens = result.tokens_out
            visit.finish = "length" if result.finish == "length" else "stop"
            service.tracing.part(
                visit.span, "write", time.perf_counter() - began,
                {"gen_ai.usage.output_tokens": result.tokens_out},
            )  # fmt: skip
            # Citations are looked up among a few passages: a millisecond or so, off the loop.
            self.answer = await elsewhere(service, service.specialist.said, heard, result, request)
        finally:
            if reserved is not None:
                reserved.settle(visit.prompt_tokens + visit.completion_tokens)
            service.leave(visit.seconds())

    def _begin(self, request: GenerateRequest) -> Writing:
        try:
            return self._service.live.write(request)
        except UsageError:
            raise _too_long() from None
        except ServiceError:
            raise _broken() from None

    async def _hear(self, deadline: float) -> Heard:
        """The thread's turn is given back when the thread is done, also where nobody waits for it
        any more."""
        service, visit = self._service, self._visit
        key = visit.key or Anybody()
        try:
            await service.hearing.take(key.id, deadline - time.perf_counter())
        except TimeoutError:
            raise _late() from None
        began = time.perf_counter()
        reader = Reader(labels=tuple(key.groups))
        hearing = elsewhere(service, service.specialist.hear, self._asked.messages, reader)
        hearing.add_done_callback(lambda _: service.hearing.give())
        try:
            heard: Heard = await asyncio.shield(hearing)
        except UsageError as error:
            # Only such words are passed on as name figures; others could repeat what was asked.
            text = str(error)
            says = text if text.startswith("messages:") else "messages can't be asked as they are"
            raise wrong(says, "messages") from None
        except ServiceError:  # an embedder or a model that the search asks
            raise unavailable(
                "the search broke down; ask again in a moment", "model_failed"
            ) from None
        except asyncio.CancelledError:
            hearing.add_done_callback(_forget)
            raise
        visit.prompt_sha256, visit.hash_kind = heard.prompt.sha256, heard.prompt.hash_kind
        self.dropped_turns = heard.dropped_turns
        if heard.dropped_turns:
            visit.details["dropped_turns"] = heard.dropped_turns
        service.tracing.part(
            visit.span, "hear", time.perf_counter() - began,
            {"tokka.passages": len(heard.passages), "tokka.prompt_sha256": heard.prompt.sha256},
        )  # fmt: skip
        return heard

    async def _place(self, deadline: float) -> None:
        service, visit = self._service, self._visit
        began = time.perf_counter()
        try:
            await service.writing.take((visit.key or Anybody()).id, deadline - began)
        except TimeoutError:
            raise _late() from None
        visit.queue_seconds = time.perf_counter() - began
        service.metrics.queued.observe(visit.queue_seconds)
        service.tracing.part(visit.span, "queue", visit.queue_seconds, {})


class Trimmed:
    """A growing text without the spaces before and after it: joined, it is `text.strip()`."""

    __slots__ = ("_begun", "_held")

    def __init__(self) -> None:
        self._begun, self._held = False, ""

    def add(self, text: str) -> str:
        if self._held:
            text = self._held + text
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        said = text.rstrip()
        self._held = text[len(said) :]
        return said


def _too_long() -> Fault:
    return wrong("messages are too long for this model; shorten them", "messages")


def _late() -> Fault:
    return unavailable("no place came free in time; ask again in a moment", "queue_timeout")


def _broken() -> Fault:
    return unavailable("the model broke down over this text; ask again in a moment", "model_failed")


def _forget(future: asyncio.Future[Heard]) -> None:
    """Nobody listens; its failure is nobody's."""
    if not future.cancelled():
        future.exception()
