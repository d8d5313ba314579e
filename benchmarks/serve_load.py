"""Clients of an OpenAI-compatible server: streams read as they come, over raw connections.

    results = asyncio.run(load(target, bodies, clients=32))     # one Heard a body

Each client keeps one connection and takes the next body when its answer ended. Nothing is shared
between clients but the list of what is left to ask; the work of reading is the same for every
server, and small: a chunk costs some twenty microseconds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heard:
    """`seconds` and `ttft` from the moment of sending; `status` 0: the connection broke."""

    status: int
    text: str
    tokens: int
    seconds: float
    ttft: float
    error: str = ""
    prompt_tokens: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    heard: list[Heard]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.heard)

    @property
    def errors(self) -> int:
        return sum(bool(one.error) for one in self.heard)


async def load(target: Target, bodies: Sequence[Mapping[str, Any]], clients: int) -> Loaded:
    """Ask all bodies, at most `clients` at a time; answers in the order of the bodies."""
    left = iter(enumerate(bodies))
    heard: dict[int, Heard] = {}

    async def client() -> None:
        connection = Connection(target)
        for place, body in left:
            heard[place] = await connection.ask(body)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(min(clients, len(bodies)))))
    return Loaded([heard[i] for i in range(len(bodies))], time.perf_counter() - started)


class _ClosedBefore(Exception):
    """The server had closed a connection that was kept open, as it may between two requests."""


class Connection:
    """One client's connection, opened when it is needed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def ask(self, body: Mapping[str, Any], *, leave_after: int | None = None) -> Heard:
        """`leave_after` pieces the client hangs up in the middle of the answer."""
        started = time.perf_counter()
        try:
            return await self._ask(body, started, leave_after)
        except _ClosedBefore:
            return await self.ask(body, leave_after=leave_after)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as e:
            self.close()
            seconds = time.perf_counter() - started
            return Heard(0, "", 0, seconds, seconds, f"{type(e).__name__}: {e}")

    async def _ask(self, body: Mapping[str, Any], started: float, leave_after: int | None) -> Heard:
        reused = self._reader is not None
        reader, writer = await self._opened()
        try:
            writer.write(self._request(body))
            status, headers = await self._head(reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            if reused:
                raise _ClosedBefore from error
            raise
        if status != 200:
            said = await self._rest(reader, headers)
            seconds = time.perf_counter() - started
            return Heard(
                status, "", 0, seconds, seconds, said[:500] or str(status), headers=headers
            )
        text: list[str] = []
        tokens, read, ttft, error, ended = 0, 0, 0.0, "", False
        async for event in self._events(reader, headers):
            if event == b"[DONE]":
                ended = True
                continue
            got = json.loads(event)
            if "error" in got:
                error = json.dumps(got["error"], ensure_ascii=False)
                continue
            for choice in got.get("choices", ()):
                piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                if piece:
                    ttft = ttft or time.perf_counter() - started
                    text.append(piece)
            if got.get("usage"):
                tokens = got["usage"]["completion_tokens"]
                read = got["usage"]["prompt_tokens"]
            if leave_after is not None and len(text) >= leave_after:
                self.close()
                error = "left"
                break
        if not (ended or error):
            error = "the stream ended without [DONE]"
        seconds = time.perf_counter() - started
        return Heard(status, "".join(text), tokens, seconds, ttft or seconds, error, read, headers)

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self._reader, self._writer = await asyncio.open_connection(
                self._target.host, self._target.port, limit=1 << 20
            )
        return self._reader, self._writer

    def _request(self, body: Mapping[str, Any]) -> bytes:
        data = json.dumps(body, ensure_ascii=False).encode()
        lines = [
            f"POST {self._target.path} HTTP/1.1",
            f"Host: {self._target.host}:{self._target.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *(f"{name}: {value}" for name, value in self._target.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def _rest(self, reader: asyncio.StreamReader, headers: Mapping[str, str]) -> str:
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([part async for part in self._chunks(reader)]).decode()
        said = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return said.decode()

    async def _events(self, reader: asyncio.StreamReader, headers: Mapping[str, str]) -> Any:
        waiting = b""
        async for part in self._chunks(reader):
            waiting += part
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip()

    async def _chunks(self, reader: asyncio.StreamReader) -> Any:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
