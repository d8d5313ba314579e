"""One request to a server on loopback, its answer event by event: as little as that needs.

Bytes of a request → the payload of each server-sent event, given to a function as it arrives.

    exchange = await send(loop, "127.0.0.1", port, request, on_event=print)
    await exchange.over

A connection serves one request: setting one up takes a tenth of a millisecond here, and closing it
is how the server learns that nobody listens any more. What httpx does for each chunk of a stream
takes longer than a small model takes for a token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, cast


class Refused(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        super().__init__(f"status {status}")


def post(path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    """A request whose connection ends with its answer."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        "\r\n",
    ]
    return "\r\n".join(lines).encode("ascii") + content


class Exchange(asyncio.Protocol):
    """`over` ends with the answer: raises Refused, or ConnectionError where it broke off."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: bytes,
        on_event: Callable[[bytes], None],
    ) -> None:
        self.over: asyncio.Future[None] = loop.create_future()
        self._request, self._on_event = request, on_event
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._event = bytearray()
        self._status = 0
        self._chunked = False
        self._left: int | None = None  # of a body that isn't chunked; None until the head is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of another family
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.over.done():
            return
        self._buffer += data
        try:
            self._read()
        except (ValueError, LookupError, TypeError):
            self._end(ConnectionError("no answer that can be read"))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(ConnectionResetError("the connection broke off"))

    def abort(self) -> None:
        """Close at once, with nothing more to tell."""
        if not self.over.done():
            self.over.set_result(None)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: Exception | None = None) -> None:
        if not self.over.done():
            if error is None:
                self.over.set_result(None)
            else:
                self.over.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    def _read(self) -> None:
        if self._left is None and not self._read_head():
            return
        if not self._chunked:
            assert self._left is not None
            self._event += self._buffer
            self._left -= len(self._buffer)
            self._buffer.clear()
            if self._left <= 0:
                self._complete()
            return
        buffer, at = self._buffer, 0
        while (line := buffer.find(b"\r\n", at)) >= 0:
            size = int(buffer[at:line], 16)
            stop = line + 2 + size
            if len(buffer) < stop + 2:
                break
            if not size:
                self._complete()
                return
            self._event += buffer[line + 2 : stop]
            at = stop + 2
            if self._status == 200:
                self._tell()
                if self.over.done():  # whoever was told had heard enough
                    return
        del buffer[:at]

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._status = int(first.split(" ", 2)[1])
        headers = {}
        for text in lines:
            name, _, value = text.partition(":")
            headers[name.strip().lower()] = value.strip()
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = int(headers.get("content-length", "0"))
        del self._buffer[: end + 4]
        return True

    def _tell(self) -> None:
        while (end := self._event.find(b"\n\n")) >= 0:
            event = bytes(self._event[:end])
            del self._event[: end + 2]
            if event.startswith(b"data: "):
                self._on_event(event[6:])
                if self.over.done():
                    return

    def _complete(self) -> None:
        self._end(None if self._status == 200 else Refused(self._status, bytes(self._event)))


async def send(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    request: bytes,
    on_event: Callable[[bytes], None],
) -> Exchange:
    """Connect and send. Raises OSError where nobody answers there."""
    exchange = Exchange(loop, request, on_event)
    await loop.create_connection(lambda: exchange, host, port)
    return exchange
