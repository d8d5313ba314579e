"""llama.cpp's server as a child process: started, watched, ended.

GGUF path → an HTTP address on loopback with a key of its own, until `close()`. If this process dies
first, however it dies, the child sees its standard input end and goes too.

    server = LlamaServer(Path("model.gguf"), context_tokens=4096, threads=2, log=None)
    httpx.get(server.url + "/health", headers=server.headers)
    server.close()
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

from tokka.errors import ServiceError


class LlamaServer:
    """The child process: `url`, `headers` for httpx, `close()`. See `llamacpp_server`."""

    def __init__(
        self,
        path: Path,
        context_tokens: int,
        threads: int,
        log: Path | None,
        places: int = 1,
        exact: bool = True,
    ) -> None:
        """Start the child and wait until it has loaded `path`. Raises ServiceError if it can't.

        It writes `places` texts at once, each in `context_tokens` of its own. `exact`: prompts are
        computed in blocks and nothing is cached but what was last sent; else as llama.cpp likes.
        """
        self.path, self.log = path, log
        api_key = secrets.token_urlsafe(32)
        self.headers = {"Authorization": f"Bearer {api_key}"}
        out: Any = subprocess.DEVNULL if log is None else log.open("ab")
        try:
            # -P: a json.py in the current folder must not be taken for the standard library's.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tokka.models.llamacpp_server", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
            )
        finally:
            if log is not None:
                out.close()
        self._stop = weakref.finalize(self, _stop, self._process)
        settings = {
            "api_key": api_key,
            "context_tokens": context_tokens,
            "threads": threads,
            "places": places,
            "exact": exact,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(settings).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        answer = json.loads(line) if line else {}
        if "url" not in answer:
            reason = answer.get("error") or self.how_it_ended()
            self.close()
            raise ServiceError(
                f"llama.cpp: {path} can't be loaded ({reason}); {self._see_log()}, check the file "
                "with its publisher's digest, or try a smaller context"
            )
        self.url: str = answer["url"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def how_it_ended(self) -> str:
        """ "killed by signal 11" or "exit status 1"; "" while it still runs."""
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return ""
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def crashed(self, reason: str) -> ServiceError:
        return ServiceError(
            f"llama.cpp: the process for {self.path} ended twice ({reason}); {self._see_log()}, "
            "free memory or try a smaller context, then run the same command again: finished "
            "answers are kept"
        )

    def _see_log(self) -> str:
        return f"see {self.log}" if self.log else "its log was not kept"

    def close(self) -> None:
        self._stop()


def _stop(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(OSError):
                pipe.close()
    for end in (process.terminate, process.kill):
        try:
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            end()
    process.wait()
