"""The response of the two routes that write: one ASGI response that follows a text as it grows.

The head goes out with the first piece, so whatever fails before has its own status. A client that
leaves, also while it waits, ends the work at once; so do the time limit and the end of a drain,
which are told to the client.

    return Reply(service, visit, asked, ChatShape(service, visit, asked))
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokka.serving.answering import Answering
from tokka.serving.asks import Asked
from tokka.serving.faults import Fault, unavailable, unexpected
from tokka.serving.replies import ChatShape, error_event
from tokka.serving.service import Service, Visit

ABORT = "tokka.abort"  # in the scope, where a socket is: drops the connection and what is unsent
_JSON = (b"content-type", b"application/json")
_EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would gather the pieces
)


class Reply(Response):
    def __init__(self, service: Service, visit: Visit, asked: Asked, shape: ChatShape) -> None:
        super().__init__()
        self._service, self._visit, self._asked, self._shape = service, visit, asked, shape
        visit.question, visit.streamed = asked.question, asked.stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, visit = self._service, self._visit
        work = asyncio.create_task(self._work(send))
        gone = asyncio.create_task(_gone(receive))
        service.running[work] = visit
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                visit.ended = visit.ended or "disconnected"
                work.cancel()
            await _finished(work)
        finally:
            service.running.pop(work, None)
            for task in (work, gone):
                if not task.done():
                    task.cancel()
        if work.cancelled():
            if visit.ended == "stalled" and ABORT in scope:
                scope[ABORT]()  # a mere close would wait until all is read
            await self._ended(send)
            return
        failure = work.exception()
        if failure is None:
            return
        if not visit.begun:
            raise failure  # the door answers
        if not isinstance(failure, Fault):
            await self._close_stream(send, unexpected())
            raise failure  # the door writes down where
        visit.fault = failure
        await self._close_stream(send, failure)

    async def _work(self, send: Send) -> None:
        limit = self._service.limits.request_seconds
        try:
            async with asyncio.timeout(limit):
                await (self._stream(send) if self._asked.stream else self._whole(send))
        except TimeoutError:
            raise unavailable(
                f"the answer took longer than {limit:g} seconds; ask for a shorter one",
                "request_timeout",
            ) from None

    async def _stream(self, send: Send) -> None:
        visit, shape = self._visit, self._shape
        answering = Answering(self._service, visit, self._asked)
        said: list[str] = []
        async with aclosing(answering.pieces()) as pieces:
            async for text in pieces:
                said.append(text)
                if visit.begun:
                    body = shape.chunk(text)
                else:
                    await self._start(send, *_EVENTS)
                    body = shape.first() + shape.chunk(text)
                visit.sending = time.perf_counter()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                visit.sending = 0.0
        answer = answering.answer
        assert answer is not None
        visit.answer, visit.said = answer, "".join(said)
        body = b""
        if not visit.begun:  # nothing visible was said
            await self._start(send, *_EVENTS)
            body = shape.first()
        body += shape.last(answer, answering.dropped_turns)
        visit.sending = time.perf_counter()
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _whole(self, send: Send) -> None:
        visit = self._visit
        answering = Answering(self._service, visit, self._asked)
        async with aclosing(answering.pieces()) as pieces:
            async for _ in pieces:
                pass
        answer = answering.answer
        assert answer is not None
        visit.answer, visit.said = answer, answer.text
        body = self._shape.whole(answer, answering.dropped_turns)
        await self._start(send, _JSON, (b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, send: Send, *headers: tuple[bytes, bytes]) -> None:
        visit = self._visit
        visit.begun = True
        prompt = (b"x-tokka-prompt-sha256", visit.prompt_sha256.encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, prompt]})

    async def _ended(self, send: Send) -> None:
        """The work was ended from outside."""
        visit = self._visit
        if visit.ended in ("disconnected", "stalled"):
            self._service.metrics.disconnects.inc()
            return
        fault = unavailable("this server is stopping; ask again in a moment", "draining")
        if not visit.begun:
            raise fault
        visit.fault = fault
        await self._close_stream(send, fault)

    async def _close_stream(self, send: Send, fault: Fault) -> None:
        if not self._asked.stream:
            return  # the body was out already
        body = error_event(fault, self._service)
        with suppress(TimeoutError):  # whoever doesn't read isn't told
            async with asyncio.timeout(self._service.limits.stall_seconds):
                await send({"type": "http.response.body", "body": body, "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _finished(task: asyncio.Task[None]) -> None:
    """Until it is done, whatever came of it; whoever cancels the waiting cancels the task too."""
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
