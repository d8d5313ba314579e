"""A process that reads files for another: tasks come on its input, one JSON line each.

    python -m tokka.corpus.worker < tasks > reports

It reports what it begins, that it is alive, and that a task is done; the documents themselves go
to the task's own file. Whatever a parser does to its process, the caller lives on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tokka.corpus.formats import dropped, read_one
from tokka.corpus.limits import MEGABYTE, File, ReadSettings, Watch, check_size
from tokka.corpus.rows import write_rows
from tokka.errors import MissingExtra, TokkaError, boundary
from tokka.records import Document, Dropped

_ALIVE_SECONDS = 0.5
_BASE_MEMORY_BYTES = 4096 * MEGABYTE
_MEMORY_PER_FILE_BYTE = 8  # bytes, text in 4-byte characters, and its copies on the way


class Task(BaseModel):
    """One file to read, and where its documents go. `origin` is its remote place."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    path: str
    origin: str = ""
    size_bytes: int = 0
    language: str = ""
    ocr: bool
    max_file_megabytes: int
    max_pages: int
    storage_options: dict[str, dict[str, Any]] = {}
    seconds_per_file: float
    skip: tuple[str, ...] = ()
    avoid: dict[str, str] = {}
    target: str

    @property
    def settings(self) -> ReadSettings:
        return ReadSettings(
            ocr=self.ocr,
            max_file_megabytes=self.max_file_megabytes,
            max_pages=self.max_pages,
            storage_options=self.storage_options,
            seconds_per_file=self.seconds_per_file,
        )


def read_task(
    task: Task,
    begun: Callable[[str], None] = lambda _: None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Read one file into its target: its documents, its rows left out, or why it can't be read.

    Raises MissingExtra where the format's library is absent.
    """
    failures: list[tuple[str, str]] = []

    def rows() -> Iterator[Document | Dropped]:
        with boundary(failures, task.id):
            for row in _read(task, begun, alive):
                alive()
                yield row
        for item, reason in failures:
            yield dropped(item, reason)

    write_rows(Path(task.target), rows(), again=lambda: bool(failures))


def _read(
    task: Task, begun: Callable[[str], None], alive: Callable[[], None]
) -> Iterator[Document | Dropped]:
    watch = Watch(task.skip, task.avoid, begun, alive)
    file = File(Path(task.path), task.id, task.language, task.settings, watch)
    if not task.origin:
        yield from read_one(file)
        return
    from dataclasses import replace

    from tokka.corpus.remote import fetch

    begun(task.id)
    check_size(task.id, task.size_bytes, task.settings)
    with tempfile.TemporaryDirectory(prefix="tokka-read-") as folder:
        copy = Path(folder, "file")
        limit = task.settings.max_file_bytes
        fetch(task.origin, task.path, copy, task.storage_options, limit)
        yield from read_one(replace(file, path=copy))


def main() -> None:
    reports = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not be taken for a report

    def report(message: dict[str, str]) -> None:
        reports.write(json.dumps(message).encode() + b"\n")

    for line in sys.stdin.buffer:
        _serve(Task.model_validate_json(line), report)


def _serve(task: Task, report: Callable[[dict[str, str]], None]) -> None:
    _limit_memory(task)
    said = 0.0
    # Should the caller be gone, a reader that never ends still does. The caller itself is quicker.
    limit = 2 * task.seconds_per_file + 10

    def begun(item: str) -> None:
        nonlocal said
        faulthandler.dump_traceback_later(limit, exit=True)
        said = time.monotonic()
        report({"begun": item})

    def alive() -> None:
        nonlocal said
        if time.monotonic() - said > _ALIVE_SECONDS:
            faulthandler.dump_traceback_later(limit, exit=True)
            said = time.monotonic()
            report({"alive": task.id})

    try:
        read_task(task, begun, alive)
    except TokkaError as error:  # not this file's fault: the run stops
        kind = "missing" if isinstance(error, MissingExtra) else "usage"
        report({"stop": str(error), "kind": kind})
    except OSError as error:  # a file that can't be read was caught: this is the disk of results
        reason = f"read: results can't be written ({error.strerror}); free the disk and run again"
        report({"stop": reason, "kind": "usage"})
    else:
        report({"done": task.id})
    faulthandler.cancel_dump_traceback_later()


def _limit_memory(task: Task) -> None:
    """A reader without measure fails by itself, before the machine has to choose whom to end."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        limit = _BASE_MEMORY_BYTES + _MEMORY_PER_FILE_BYTE * task.max_file_megabytes * MEGABYTE
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main()
