"""Which reader reads which file, and how one file is read: `BUILTIN` lists the formats.

File → Documents and Dropped. Archives and mails hand their members back to `read_members`, so
that a document in an archive in a mail is read as if it lay in a folder.

>>> [document] = read_one(File(Path("rules/loan.md"), "rules/loan.md"))
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tokka.corpus.limits import MAX_DEPTH, File, Spent, check_size
from tokka.errors import ItemError, boundary
from tokka.records import Document, Dropped

Reader = Callable[[File], Iterator[Document | Dropped]]

BUILTIN = {
    ".md": "tokka.corpus.plain:read",
    ".markdown": "tokka.corpus.plain:read",
    ".txt": "tokka.corpus.plain:read",
    ".html": "tokka.corpus.html:read",
    ".htm": "tokka.corpus.html:read",
    ".xhtml": "tokka.corpus.html:read",
    ".pdf": "tokka.corpus.pdf:read",
    ".docx": "tokka.corpus.word:read",
    ".pptx": "tokka.corpus.slides:read",
    ".xlsx": "tokka.corpus.sheet:read",
    ".xlsm": "tokka.corpus.sheet:read",
    ".csv": "tokka.corpus.table:read",
    ".tsv": "tokka.corpus.table:read",
    ".jsonl": "tokka.corpus.jsonl:read",
    ".jsonl.gz": "tokka.corpus.jsonl:read",
    ".epub": "tokka.corpus.epub:read",
    ".eml": "tokka.corpus.mail:read",
    ".zip": "tokka.corpus.archive:read",
}
CONTAINERS = frozenset({".zip", ".eml"})
SIDECAR = ".tokka.yaml"  # the labels of a file, see tokka.corpus.labels
_SAVE_AS = {".doc": ".docx", ".ppt": ".pptx", ".xls": ".xlsx", ".xlsb": ".xlsx", ".msg": ".eml"}


class Member(NamedTuple):
    """A file inside another. `write` puts its bytes at a path; it may raise ItemError."""

    name: str
    write: Callable[[Path], None]


def suffix_of(name: str) -> str:
    """The lower-case suffix that names the format, ".jsonl.gz" in one piece."""
    lower = name.lower()
    return ".jsonl.gz" if lower.endswith(".jsonl.gz") else Path(lower).suffix


def skipped(document_id: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(document_id, pattern) for pattern in patterns)


def hidden(parts: Iterable[str]) -> bool:
    """Hidden files, and what macOS and Office leave beside documents."""
    return any(
        part == "__MACOSX" or (part != ".." and part.startswith((".", "~$"))) for part in parts
    )


def dropped(item: str, reason: str) -> Dropped:
    """A row of the report from an error's text, "what; what to do"."""
    why, _, action = reason.partition("; ")
    return Dropped(item=item, reason=why, stage="read", next_action=action)


def read_one(file: File) -> Iterator[Document | Dropped]:
    """The documents of one file, and its rows and pages left out.

    Raises ItemError with the reason and, after "; ", the next action; MissingExtra where the
    format's library is absent.
    """
    file.watch.begun(file.id)
    if reason := file.watch.avoid.get(file.id):
        raise ItemError(reason)
    reader = _reader(file)
    if file.spent is None:
        file = dataclasses.replace(file, spent=Spent(file.settings))
    try:
        check_size(file.id, file.path.stat().st_size, file.settings)
        yield from reader(file)
    except PermissionError as error:
        raise ItemError(
            f"read: {file.id} is locked or unreadable ({error.strerror}); "
            "close the program that holds it or grant read permission"
        ) from error
    except OSError as error:
        raise ItemError(
            f"read: {file.id} can't be read ({error.strerror or type(error).__name__}); "
            "check the disk and try again"
        ) from error
    except RecursionError as error:
        raise ItemError(
            f"read: {file.id} is nested too deeply; save it again or list it under skip"
        ) from error
    except MemoryError as error:
        raise ItemError(
            f"read: {file.id} needs more memory than one file may take; split it"
        ) from error


def read_members(container: File, members: Iterable[Member]) -> Iterator[Document | Dropped]:
    """What is inside an archive or a mail, in the order given, each as a file of its own.

    A member that can't be read is Dropped, and the others go on. Hidden and skipped ones are
    passed over.
    """
    with tempfile.TemporaryDirectory(prefix="tokka-read-") as folder:
        for member in members:
            member_id = f"{container.id}/{member.name}"
            if hidden(member.name.split("/")) or skipped(member_id, container.watch.skip):
                continue
            path = Path(folder, "member")  # its own name is never used for a path
            failures: list[tuple[str, str]] = []
            with boundary(failures, member_id):
                inner = dataclasses.replace(
                    container, path=path, id=member_id, depth=container.depth + 1
                )
                if inner.depth > MAX_DEPTH and suffix_of(member.name) in CONTAINERS:
                    raise ItemError(
                        f"read: {member_id} lies in {MAX_DEPTH} others already, and isn't opened; "
                        "take it out or list it under skip"
                    )
                _reader(inner)  # an unknown format isn't unpacked
                member.write(path)
                yield from read_one(inner)
            path.unlink(missing_ok=True)
            for item, reason in failures:
                yield dropped(item, reason)


def _reader(file: File) -> Reader:
    suffix = suffix_of(file.name)
    if suffix in _SAVE_AS:
        raise ItemError(
            f"read: {file.id} has the old format {suffix}; save it as {_SAVE_AS[suffix]} or list "
            "it under skip"
        )
    if suffix not in BUILTIN:
        raise ItemError(
            f"read: {file.id} has the unknown format {suffix or '(no suffix)'}; convert it to "
            f"one of {' '.join(BUILTIN)} or list it under skip"
        )
    module, function = BUILTIN[suffix].split(":")
    reader: Reader = getattr(importlib.import_module(module), function)
    return reader
