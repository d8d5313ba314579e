"""The listening process: sockets, TLS, slow senders, and how it ends.

    asyncio.run(listen(service, Listening("127.0.0.1", 8000)))

At the first SIGTERM or SIGINT no new request is taken, running texts go on for up to
`drain_seconds`, and what is left then is told that the server stops. At the second it ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.serving.app import make_app
from tokka.serving.door import where as where_of
from tokka.serving.reply import ABORT
from tokka.serving.service import Service

require("uvicorn", extra="serve")

import uvicorn  # noqa: E402  (after the message of what to install)

LOOK_SECONDS = 60.0
_REQUEST_LINE = 8192
_log = logging.getLogger("tokka.serving")


@dataclass(frozen=True, slots=True)
class Listening:
    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None


async def listen(
    service: Service, where: Listening, ready: Callable[[int], None] | None = None
) -> None:
    """Serve until a signal ends it. `ready` is told the port once requests are taken."""
    asyncio.get_running_loop().set_exception_handler(_note_failure)
    server = _Server(_config(service, where), service)
    beside = [asyncio.create_task(one(service)) for one in (_keep_looking, _keep_ending)]
    try:
        with _bound(where) as sock:
            if ready is not None:
                server.when_started = lambda: ready(sock.getsockname()[1])
            await server.serve(sockets=[sock])
    finally:
        for task in beside:
            task.cancel()


def _config(service: Service, where: Listening) -> uvicorn.Config:
    config = uvicorn.Config(
        make_app(service),
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",  # its words about a failure may hold what was asked
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=service.limits.keep_alive_seconds,
        # After our own drain: else one client that doesn't read what it is sent holds up the end.
        timeout_graceful_shutdown=math.ceil(service.limits.stall_seconds),
        ssl_certfile=where.tls_cert,
        ssl_keyfile=where.tls_key,
        ws="none",
        backlog=1024,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"serve: the certificate {where.tls_cert} or its key can't be used "
            f"({type(error).__name__}); give PEM files that belong together"
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    config.http_protocol_class = patient(
        config.http_protocol_class,
        service.limits.header_seconds,
        service.limits.max_header_bytes,
        service.limits.max_connections,
    )
    return config


def _note_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody listens to: asyncio itself would write down the failure's words."""
    error = context.get("exception")
    _log.error("beside any request: %s", where_of(error) if error is not None else "unknown")


@contextlib.contextmanager
def _bound(where: Listening) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((where.host, where.port))
    except OSError as error:
        sock.close()
        raise UsageError(
            f"serve: {where.host}:{where.port} can't be listened on ({error.strerror}); choose "
            "another --port or --host"
        ) from error
    with sock:
        yield sock


class _Server(uvicorn.Server):
    """uvicorn, with a drain of our own: the socket stays open while texts end, so that whoever
    balances loads reads in /readyz that this one stops."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.when_started: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.when_started is not None:
            self.when_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        service = self._service
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(service.limits.drain_seconds):
                while service.inside:
                    await asyncio.sleep(0.02)
        service.end_running("draining")
        while service.running and not self.force_exit:
            await asyncio.sleep(0.02)
        self.should_exit = True


def patient(protocol: Any, seconds: float, header_bytes: int, connections: int) -> Any:
    """A protocol of uvicorn that closes a connection whose head takes too long or is too large, and
    one that is one too many. uvicorn itself waits for ever for the first byte."""

    class Patient(protocol):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_bytes = 0
            self._head_timer: asyncio.TimerHandle | None = None
            if len(self.connections) > connections:
                transport.abort()
                return
            self._await_head()

        def data_received(self, data: bytes) -> None:
            waiting = self._head_timer is not None
            idle = self.cycle is None or self.cycle.response_complete
            if not waiting and idle:  # the next request of a connection that is kept
                self._await_head()
                waiting = True
            # What comes while an answer is written is the head of a request sent ahead.
            ahead = not waiting and not self.cycle.more_body
            if waiting or ahead:
                self._head_bytes += len(data)
            if ahead and self._head_bytes > header_bytes:
                self._late()
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_is_there()
            elif waiting and self._head_bytes > header_bytes:
                self._late()

        def on_headers_complete(self) -> None:
            size = sum(len(name) + len(value) for name, value in self.headers)
            if size > header_bytes or len(self.url) > _REQUEST_LINE:
                self._late()
                return
            self.scope[ABORT] = self.transport.abort
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_there()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(seconds, self._late)

        def _head_is_there(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _late(self) -> None:
            self._head_is_there()
            self.transport.abort()

    return Patient


async def _keep_looking(service: Service) -> None:
    """A withdrawal or an expiry ends service within a minute."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await service.look()
        except IntegrityError:
            _log.error("the ledger doesn't verify; nothing is answered until it does")
            service.standing = replace(service.standing, refusal="the ledger doesn't verify")
        except Exception as error:  # the ledger may be away; what was known holds meanwhile
            _log.warning("the ledger can't be asked (%s)", type(error).__name__)


async def _keep_ending(service: Service) -> None:
    while True:
        await asyncio.sleep(1)
        service.end_stalled()
