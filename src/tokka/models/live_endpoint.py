"""An OpenAI-compatible endpoint that writes for many at once, each text as it streams.

    live = EndpointLive(open_endpoint("http://127.0.0.1:8000/v1#qwen3-4b", …), places=8)
    async for piece in live.write(request): ...

What is sent, to which host and with which key is as in `endpoint`. A request is sent again only
before its first byte of text has come: what was said can't be taken back. Nothing that the service
says of a failure is repeated, since that may be the question.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tokka.errors import ServiceError, TokkaError, UsageError
from tokka.models.endpoint import EndpointModel
from tokka.models.live_writing import Flow, Spoken, refuse_too_long
from tokka.models.protocol import GenerateRequest, GenerateResult, Renderer
from tokka.models.retries import is_retried, wait_seconds

_REFUSED_QUESTION = frozenset({400, 413, 422})


class _Again(Exception):
    """It may go better later. `retry_after` is the service's own word."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        self.reason, self.retry_after = reason, retry_after
        super().__init__(reason)


@dataclass(slots=True)
class _Heard:
    """What has come of one text. `tokens_in` and `tokens_out` as the service counts, where it
    does."""

    spoken: Spoken
    parts: list[str] = field(default_factory=list)
    finish: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


class EndpointLive:
    """A LiveModel over an EndpointModel, which it owns."""

    def __init__(self, model: EndpointModel, places: int) -> None:
        self.name, self.digest, self.capabilities = model.name, model.digest, model.capabilities
        self.places = places
        self._model = model
        self._turns = asyncio.Semaphore(places)
        self._client: httpx.AsyncClient | None = None
        self._texts: dict[asyncio.Task[None], Flow] = {}
        self._closed = False

    @property
    def renderer(self) -> Renderer:
        return self._model.renderer

    @property
    def ready(self) -> bool:
        return not self._closed

    @property
    def model(self) -> EndpointModel:
        return self._model

    def write(self, request: GenerateRequest) -> Flow:
        """Raises UsageError for a prompt whose tokens are known and don't fit."""
        if self._closed:
            raise ServiceError(f"{self._model.host}: the model is closed; ask again later")
        if self.capabilities.token_ids:
            limit = self.capabilities.max_context_tokens
            refuse_too_long(self._model.host, request, limit)
        flow = Flow(lambda: self._cancelled(flow))
        task = flow.loop.create_task(self._run(request, flow))
        self._texts[task] = flow
        task.add_done_callback(self._texts.pop)
        return flow

    def _cancelled(self, flow: Flow) -> None:
        for task, other in self._texts.items():
            if other is flow:
                task.cancel()

    async def close(self) -> None:
        """Texts that are being written end with ServiceError."""
        self._closed = True
        closed = ServiceError(f"{self._model.host}: closed while it wrote; ask again later")
        tasks = list(self._texts)
        for task, flow in list(self._texts.items()):
            flow.fail(closed)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
        self._model.close()

    # ---- one text -------------------------------------------------------------------------------

    async def _run(self, request: GenerateRequest, flow: Flow) -> None:
        try:
            async with self._turns:
                flow.end(await self._ask(request, flow))
        except TokkaError as error:
            flow.fail(error)
        except Exception as error:  # whatever a service makes our libraries throw
            kind = type(error).__name__
            flow.fail(ServiceError(f"{self._model.host}: the answer can't be read ({kind})"))

    async def _ask(self, request: GenerateRequest, flow: Flow) -> GenerateResult:
        started = time.perf_counter()
        host, tries = self._model.host, self._model.retries + 1
        reason = ""
        for attempt in range(tries):
            heard = _Heard(Spoken(request.stop if self.capabilities.token_ids else ()))
            try:
                await self._stream(request, flow, heard)
                return self._result(request, heard, time.perf_counter() - started)
            except _Again as again:
                reason = again.reason
                if heard.parts:
                    raise ServiceError(
                        f"{host}: the answer broke off ({reason}); ask again"
                    ) from None
                if attempt + 1 < tries:
                    draw = random.random()
                    await asyncio.sleep(wait_seconds(attempt, again.retry_after, draw))
        raise ServiceError(
            f"{host}: no answer after {tries} tries (the last: {reason}); check that the service "
            "runs and has room, and ask again"
        )

    async def _stream(self, request: GenerateRequest, flow: Flow, heard: _Heard) -> None:
        if self._client is None:
            self._client = self._model.open_async_client()
        body = {
            **self._model.body(request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with self._client.stream("POST", self._model.url, json=body) as reply:
                self._refuse(reply)
                async for event in _events(reply):
                    self._hear(event, flow, heard)
                    if heard.spoken.ended:
                        return
        except httpx.RequestError as error:
            raise _Again(type(error).__name__) from None
        if not heard.finish:
            raise _Again("the stream ended before the answer did")

    def _hear(self, event: dict[str, Any], flow: Flow, heard: _Heard) -> None:
        if "error" in event:
            raise _Again("the service reports an error in its stream")
        usage = event.get("usage") or {}
        heard.tokens_in = int(usage.get("prompt_tokens") or heard.tokens_in)
        heard.tokens_out = int(usage.get("completion_tokens") or heard.tokens_out)
        for choice in event.get("choices") or ():
            told = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            # Half a surrogate pair is legal JSON but no text: it could be neither hashed nor kept.
            new = heard.spoken.add(told.encode("utf-8", "replace").decode())
            heard.finish = choice.get("finish_reason") or heard.finish
            if heard.finish and not heard.spoken.ended:
                new += heard.spoken.rest()
            if new:
                heard.parts.append(new)
                flow.tell(new, 1)

    def _refuse(self, reply: httpx.Response) -> None:
        status, host = reply.status_code, self._model.host
        if status == 200:
            return
        if is_retried(status):
            raise _Again(f"status {status}", reply.headers.get("retry-after"))
        if status in (401, 403):
            raise ServiceError(
                f"{host}: status {status}, the key was refused; set the environment variable that "
                "the project file names as api_key_env"
            )
        if status in _REFUSED_QUESTION:
            raise UsageError(
                f"{host}: status {status}, it refuses this request; make it shorter, or see the "
                "service's own log"
            )
        raise ServiceError(f"{host}: status {status}; check the URL and the model's name")

    def _result(self, request: GenerateRequest, heard: _Heard, seconds: float) -> GenerateResult:
        text = "".join(heard.parts)
        if heard.tokens_in and self.capabilities.token_ids:
            self._model.stop_if_prompt_changed(heard.tokens_in, request)
        tokens_in = heard.tokens_in or self._model.estimate(request)
        tokens_out = heard.tokens_out or self.renderer.count(text)
        return GenerateResult(
            text=text,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            truncated=False,
            finish="length" if heard.finish == "length" and not heard.spoken.ended else "stop",
            seconds=seconds,
            cost_usd=self._model.price.of(tokens_in, tokens_out),
        )


async def _events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event, up to [DONE]."""
    async for line in _lines(reply):
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            found = json.loads(data)
        except ValueError:
            raise _Again("an event that is no JSON") from None
        if not isinstance(found, dict):
            raise _Again("an event that is no object")
        yield found


async def _lines(reply: httpx.Response) -> AsyncIterator[bytes]:
    """As events have them: httpx's own would also break at U+2028 or U+0085 within a text."""
    rest = b""
    async for part in reply.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
    yield rest
