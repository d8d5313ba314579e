"""Read documents wherever they lie: every file gives documents or a reason.

Places → `Document`s and `Dropped`s, streamed, in the order of their ids whatever the number of
workers. One broken file never stops the others, and a read that was killed goes on where it was.

>>> for row in read_corpus(["rules", "s3://office/minutes/**/*.pdf"], kept=Path("reading")):
...     print(row.id if isinstance(row, Document) else (row.item, row.reason))
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokka.corpus.formats import BUILTIN, CONTAINERS, dropped, read_one, suffix_of
from tokka.corpus.limits import MEGABYTE, File, ReadSettings
from tokka.corpus.places import Found, Place, files_state, list_places, resolve
from tokka.corpus.pool import Pool
from tokka.corpus.rows import is_whole, read_rows
from tokka.corpus.worker import Task, read_task
from tokka.errors import ItemError
from tokka.records import Document, Dropped, fingerprint

__all__ = [
    "BUILTIN",
    "ReadSettings",
    "files",
    "files_state",
    "read_corpus",
    "read_file",
    "read_folder",
    "resolve",
]

_READING = 1  # raised when a reader gives other text for the same file
_MOST_WORKERS = 8
# Read at once, without a process of their own, where all of them together are small.
_PLAIN = frozenset({".md", ".markdown", ".txt", ".csv", ".tsv", ".jsonl"})
_SMALL_BYTES = 4 * MEGABYTE


def read_corpus(
    places: Sequence[Place],
    skip: Sequence[str] = (),
    *,
    kept: Path,
    language: str = "",
    settings: ReadSettings | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Document | Dropped]:
    """Everything under `places` (paths, globs, URLs), by file in the order of ids.

    `skip` holds shell patterns against ids (`drafts/*`, `*.tmp`), of members of archives too;
    skipped files aren't reported. `language` "" finds each document's own. A document whose id was
    already given is dropped. `kept` holds what each file gave, by id, size and time of change:
    read again, only what is new or has failed is read. `progress` hears files done and all files.
    Raises UsageError for a place that doesn't exist, MissingExtra where a format's library is
    absent.
    """
    settings = settings or ReadSettings()
    listing = list_places(places, skip, settings)
    yield from listing.dropped
    tasks = [_task(found, skip, language, settings, kept) for found in listing.found]
    if progress is not None:
        progress(0, len(tasks))
    missing = [i for i, task in enumerate(tasks) if not is_whole(Path(task.target))]
    here = _read_here([tasks[i] for i in missing])
    waits = {number: place for place, number in enumerate(missing)}
    source_of: dict[str, str] = {}
    with Pool([] if here else [tasks[i] for i in missing], workers or _processors()) as pool:
        for number, task in enumerate(tasks):
            if number in waits and here:
                read_task(task)
            elif number in waits:
                pool.finish(waits[number])
            for row in read_rows(Path(task.target)):
                yield _once(row, source_of)
            if progress is not None:
                progress(number + 1, len(tasks))


def read_folder(
    paths: Sequence[Path], skip: Sequence[str] = (), language: str = ""
) -> tuple[list[Document], list[Dropped]]:
    """All documents of a corpus that fits in memory, and what was left out: see `read_corpus`."""
    documents: list[Document] = []
    left: list[Dropped] = []
    with tempfile.TemporaryDirectory(prefix="tokka-read-") as kept:
        for row in read_corpus(paths, skip, language=language, kept=Path(kept)):
            documents.append(row) if isinstance(row, Document) else left.append(row)
    return documents, left


def files(paths: Sequence[Path], skip: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """(document id, path) of every local file, sorted by id: see `places.list_places`."""
    return [(one.id, Path(one.path)) for one in list_places(paths, skip).found]


def read_file(
    path: Path,
    document_id: str,
    language: str = "",
    dropped: list[Dropped] | None = None,
    settings: ReadSettings | None = None,
) -> list[Document]:
    """The documents of one file, read in this process. Rows and pages left out are appended to
    `dropped`.

    Raises ItemError with the reason and, after "; ", the next action. Without a `dropped` list the
    first row that can't be read raises too.
    """
    documents = []
    for item in read_one(File(path, document_id, language, settings or ReadSettings())):
        if isinstance(item, Document):
            documents.append(item)
        elif dropped is not None:
            dropped.append(item)
        else:
            raise ItemError(f"{item.reason}; {item.next_action}")
    return documents


def _once(row: Document | Dropped, source_of: dict[str, str]) -> Document | Dropped:
    if isinstance(row, Dropped):
        return row
    if row.id in source_of:
        why = f"read: the id {row.id} was already given by {source_of[row.id]}"
        return dropped(row.source, f"{why}; give each document its own id")
    source_of[row.id] = row.source
    return row


def _task(
    found: Found, skip: Sequence[str], language: str, settings: ReadSettings, kept: Path
) -> Task:
    inner_skip = tuple(skip) if suffix_of(found.id) in CONTAINERS else ()
    asked = {
        "reading": _READING,
        "file": [found.id, found.origin, found.path, found.state],
        "language": language,
        "skip": inner_skip,
        "limits": [settings.ocr, settings.max_file_megabytes, settings.max_pages],
    }
    key = fingerprint(asked)
    options = {name: dict(value) for name, value in settings.storage_options.items()}
    return Task(
        id=found.id,
        path=found.path,
        origin=found.origin,
        size_bytes=found.size_bytes,
        language=language,
        ocr=settings.ocr,
        max_file_megabytes=settings.max_file_megabytes,
        max_pages=settings.max_pages,
        storage_options=options if found.origin else {},
        seconds_per_file=settings.seconds_per_file,
        skip=inner_skip,
        target=str(kept / key[:2] / f"{key}.jsonl"),
    )


def _read_here(tasks: Sequence[Task]) -> bool:
    """Whether these are few bytes in formats that no parser's fault can bring down; what lies in
    this process's memory no other can read."""
    if any(task.origin.startswith("memory://") for task in tasks):
        return True
    plain = all(suffix_of(task.id) in _PLAIN and not task.origin for task in tasks)
    return plain and sum(task.size_bytes for task in tasks) <= _SMALL_BYTES


def _processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, _MOST_WORKERS)
