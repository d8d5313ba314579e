"""A llama.cpp child process that is kept alive: watched by a thread, started again when it dies.

A child that ended is started again, at once the first time, then after growing pauses. One that
says nothing to a waiting text, and doesn't answer when asked for its health either, is killed: then
it has ended.

    child = Child(path, context_tokens=4096, threads=2, log=None, places=8, …)
    child.ready, child.address, child.headers, child.number
    child.close()
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tokka.errors import TokkaError
from tokka.models.llamacpp_process import LlamaServer

_LOOK_SECONDS = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 10.0  # after which a crash counts as the first again


class Child:
    """`number` counts the processes: whatever one of them had cached, the next one hasn't."""

    def __init__(
        self,
        path: Path,
        context_tokens: int,
        threads: int,
        log: Path | None,
        places: int,
        exact: bool,
        stall_seconds: float,
        silent_since: Callable[[], float],
    ) -> None:
        self._how = (path, context_tokens, threads, log, places, exact)
        self._stall_seconds, self._silent_since = stall_seconds, silent_since
        self._server = LlamaServer(*self._how)
        self._started = time.monotonic()
        self._attempts = 0
        self.number = 1
        self._closing = threading.Event()
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tokka-llamacpp", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return self._server.is_running

    @property
    def restarts(self) -> int:
        return self.number - 1

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def headers(self) -> dict[str, str]:
        return self._server.headers

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self._server.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def suspect(self) -> None:
        """Something went wrong there: look now."""
        self._look.set()

    def close(self) -> None:
        self._closing.set()
        self._look.set()
        self._thread.join()
        self._server.close()

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._look.wait(_LOOK_SECONDS)
            self._look.clear()
            if self._closing.is_set():
                return
            if not self._server.is_running:
                self._restart()
            elif (
                time.monotonic() - self._silent_since() > self._stall_seconds
                and not self._is_healthy()
            ):
                self._server.kill()

    def _restart(self) -> None:
        self._server.close()
        steady = time.monotonic() - self._started > _STEADY_SECONDS
        self._attempts = 0 if steady else self._attempts
        while not self._closing.is_set():
            if self._attempts:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._attempts - 1))
                if self._closing.wait(pause):
                    return
            self._attempts += 1
            try:
                server = LlamaServer(*self._how)
            except (TokkaError, OSError):  # out of memory, say: later there may be room
                continue
            self._server, self._started = server, time.monotonic()
            self.number += 1
            return

    def _is_healthy(self) -> bool:
        host, port = self.address
        connection = http.client.HTTPConnection(host, port, timeout=self._stall_seconds)
        try:
            connection.request("GET", "/health", headers=self.headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
