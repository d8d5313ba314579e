"""Several files at once, each in a process of its own: a crash or an endless loop costs one file.

Tasks → their target files, in whatever order they end; the caller waits for them in its own. A
reader that takes too long, or takes its process with it, is ended, and what it was reading (the
member of an archive, not all of it) is left out with that reason.

>>> with Pool(tasks, workers=2) as pool:
...     for number, task in enumerate(tasks):
...         pool.finish(number)
...         documents = list(read_rows(Path(task.target)))
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tokka.corpus.formats import dropped
from tokka.corpus.rows import write_rows
from tokka.corpus.worker import Task
from tokka.errors import MissingExtra, TokkaError, UsageError

_MOST_AVOIDED = 10  # members of one archive that may break their reader
_NOTICEABLE = 2.0  # seconds that a wait took longer than asked for
_MOST_FALSE_STARTS = 2
_LAST_BYTES = 2000  # of what a process printed


class Pool:
    """At most `workers` processes, started when they are needed. Close it, or use `with`."""

    def __init__(self, tasks: Sequence[Task], workers: int) -> None:
        self._tasks = list(tasks)
        self._waiting = collections.deque(range(len(self._tasks)))
        self._done: set[int] = set()
        self._most = max(1, min(workers, len(self._tasks)))
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._false_starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()

    def finish(self, number: int) -> None:
        """Go on until the rows of task `number` lie at its target.

        Raises MissingExtra or UsageError as the readers do, TokkaError where no process starts.
        """
        while number not in self._done:
            self._hand_out()
            now = time.monotonic()
            deadlines = [w.deadline for w in self._workers if w.number is not None]
            wait = min(1.0, max(0.0, min(deadlines, default=now + 1.0) - now))
            self._listen(wait)
            if (slept := time.monotonic() - now - wait) > _NOTICEABLE:
                # This process was stopped, and its workers with it: their time goes on from here.
                for worker in self._workers:
                    worker.deadline += slept
                self._listen(0.0)  # one of them may have finished meanwhile
            for worker in list(self._workers):
                if worker.number is not None and time.monotonic() > worker.deadline:
                    seconds = self._tasks[worker.number].seconds_per_file
                    self._lost(worker, f"takes longer than {seconds:g} seconds")

    def _listen(self, wait: float) -> None:
        for key, _ in self._selector.select(timeout=wait):
            self._hear(key.data)

    def _hand_out(self) -> None:
        while self._waiting:
            worker = next((w for w in self._workers if w.number is None), None)
            if worker is None and len(self._workers) < self._most:
                worker = _Worker()
                self._workers.append(worker)
                self._selector.register(worker.output, selectors.EVENT_READ, worker)
            if worker is None:
                return
            number = self._waiting.popleft()
            if not worker.take(number, self._tasks[number]):
                self._lost(worker, "")

    def _hear(self, worker: _Worker) -> None:
        data = os.read(worker.output, 1 << 16)
        if not data:
            self._lost(worker, "")
            return
        for message in worker.messages(data):
            if worker.number is None:
                continue
            worker.deadline = time.monotonic() + self._tasks[worker.number].seconds_per_file
            if "begun" in message:
                worker.reading = message["begun"]
            elif "done" in message:
                self._done.add(worker.number)
                worker.number, worker.reading = None, ""
            elif "stop" in message:
                kind = MissingExtra if message["kind"] == "missing" else UsageError
                raise kind(message["stop"])

    def _lost(self, worker: _Worker, reason: str) -> None:
        """End a worker; what it was reading is left out, the rest of its task is read again."""
        number, reading = worker.number, worker.reading
        status = self._end(worker)
        if number is None:
            return
        if not reading:
            self._false_starts += 1
            if self._false_starts > _MOST_FALSE_STARTS:
                raise TokkaError(f"read: no process starts for reading ({worker.last_words})")
            self._waiting.appendleft(number)
            return
        task = self._tasks[number]
        why = f"read: {reading} {reason or _how_it_ended(status)}"
        avoid = task.avoid | {reading: f"{why}; save it again, split it, or list it under skip"}
        if reading != task.id and len(avoid) <= _MOST_AVOIDED:
            self._tasks[number] = task.model_copy(update={"avoid": avoid})
            self._waiting.appendleft(number)
            return
        row = dropped(task.id, avoid[reading])
        write_rows(Path(task.target), [row], again=lambda: True)
        self._done.add(number)

    def _end(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.output)
        return worker.end()


class _Worker:
    """One process, and what it is at."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        self.last_words = "it said nothing"  # known when it has ended
        path = os.pathsep.join(entry for entry in sys.path if entry)
        # -P: a json.py in the current folder must not be taken for the standard library's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tokka.corpus.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path},
            bufsize=0,
            start_new_session=True,  # an interrupt is the caller's; it ends its workers
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input = self._process.stdin
        self.output = self._process.stdout.fileno()
        self.number: int | None = None
        self.reading = ""
        self.deadline = 0.0
        self._heard = b""

    def take(self, number: int, task: Task) -> bool:
        self.number, self.reading = number, ""
        self.deadline = time.monotonic() + task.seconds_per_file + 60  # the start included
        try:
            self._input.write(task.model_dump_json().encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def messages(self, data: bytes) -> list[dict[str, str]]:
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> int:
        """Its exit status; minus the signal where one ended it."""
        with contextlib.suppress(OSError):
            self._input.close()
        if self.number is None and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.2)
        elif self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.05)  # it may be ending by itself: its status tells
        if self._process.poll() is None:
            self._process.kill()
        status = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST_BYTES))
        said = self._errors.read().decode("utf-8", "replace").split("\n")
        self.last_words = next((line for line in reversed(said) if line.strip()), self.last_words)
        self._errors.close()
        return status


def _how_it_ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was ended by the system (signal 9), as for want of memory"
    return f"breaks its reader ({f'signal {-status}' if status < 0 else f'exit status {status}'})"
