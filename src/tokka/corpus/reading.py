"""Read a folder of documents: every file gives documents or a reason.

Paths → `Document`s and `Dropped`s, in a stable order. One broken file never stops the others.

>>> documents, dropped = read_folder([Path("documents")])
>>> [(row.item, row.reason) for row in dropped]
[('rules/old.pdf', 'pdf: rules/old.pdf is encrypted')]
"""

from __future__ import annotations

import fnmatch
import importlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokka.errors import ItemError, UsageError, boundary
from tokka.records import Document, Dropped

Reader = Callable[[Path, str, str], Iterator[Document | Dropped]]

BUILTIN = {
    ".md": "tokka.corpus.plain:read",
    ".markdown": "tokka.corpus.plain:read",
    ".txt": "tokka.corpus.plain:read",
    ".html": "tokka.corpus.html:read",
    ".htm": "tokka.corpus.html:read",
    ".pdf": "tokka.corpus.pdf:read",
    ".docx": "tokka.corpus.word:read",
    ".csv": "tokka.corpus.table:read",
    ".tsv": "tokka.corpus.table:read",
    ".jsonl": "tokka.corpus.jsonl:read",
    ".jsonl.gz": "tokka.corpus.jsonl:read",
}


def read_folder(
    paths: Sequence[Path], skip: Sequence[str] = (), language: str = ""
) -> tuple[list[Document], list[Dropped]]:
    """Read every file under `paths`, in the order of their ids.

    `skip` holds shell patterns against ids (`drafts/*`, `*.tmp`); skipped files aren't reported.
    `language` "" finds each document's own. A document whose id was already given is dropped.
    Raises UsageError for a path that doesn't exist, MissingExtra where a format's library
    is absent.
    """
    listing, dropped = _listing(paths, skip)
    documents: dict[str, Document] = {}
    for document_id, path in listing:
        failures: list[tuple[str, str]] = []
        with boundary(failures, document_id):
            for document in read_file(path, document_id, language, dropped):
                if document.id in documents:
                    dropped.append(
                        Dropped(
                            item=document.source,
                            reason=f"read: the id {document.id} was already given by "
                            f"{documents[document.id].source}",
                            stage="read",
                            next_action="give each document its own id",
                        )
                    )
                else:
                    documents[document.id] = document
        dropped.extend(_dropped(item, reason) for item, reason in failures)
    return list(documents.values()), dropped


def files(paths: Sequence[Path], skip: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """(document id, path) of every file, sorted by id.

    An id is the POSIX path from the root given (a file given by itself: its name), in Unicode NFC
    so that a macOS copy has the same ids. Where two roots hold the same id, those get their root's
    name in front. Hidden files and Office's lock files (`~$…`) are left out.
    """
    return _listing(paths, skip)[0]


def read_file(
    path: Path, document_id: str, language: str = "", dropped: list[Dropped] | None = None
) -> list[Document]:
    """The documents of one file. Rows and pages left out are appended to `dropped`.

    Raises ItemError with the reason and, after "; ", the next action. Without a `dropped` list the
    first row that can't be read raises too.
    """
    reader = _reader(path, document_id)
    documents = []
    try:
        for item in reader(path, document_id, language):
            if isinstance(item, Document):
                documents.append(item)
            elif dropped is not None:
                dropped.append(item)
            else:
                raise ItemError(f"{item.reason}; {item.next_action}")
    except PermissionError as error:
        raise ItemError(
            f"read: {document_id} is locked or unreadable ({error.strerror}); "
            "close the program that holds it or grant read permission"
        ) from error
    except OSError as error:
        raise ItemError(
            f"read: {document_id} can't be read ({error.strerror or error}); "
            "check the disk and try again"
        ) from error
    return documents


def _reader(path: Path, document_id: str) -> Reader:
    name = path.name.lower()
    suffix = ".jsonl.gz" if name.endswith(".jsonl.gz") else path.suffix.lower()
    if suffix not in BUILTIN:
        raise ItemError(
            f"read: {document_id} has the unknown format {suffix or '(no suffix)'}; convert it to "
            f"one of {' '.join(BUILTIN)} or list it under skip"
        )
    module, function = BUILTIN[suffix].split(":")
    reader: Reader = getattr(importlib.import_module(module), function)
    return reader


def _dropped(item: str, reason: str) -> Dropped:
    why, _, action = reason.partition("; ")
    return Dropped(item=item, reason=why, stage="read", next_action=action)


def _listing(
    paths: Sequence[Path], skip: Sequence[str]
) -> tuple[list[tuple[str, Path]], list[Dropped]]:
    dropped: list[Dropped] = []
    found: list[tuple[str, str, Path]] = []  # id within its root, root's label, path
    seen: set[Path] = set()
    for root, label in zip(paths, _labels(paths), strict=True):
        if not root.exists():
            raise UsageError(f"corpus: {root} doesn't exist; correct the path or create the folder")
        for path in [root] if root.is_file() else _walk(root, dropped):
            if (resolved := path.resolve()) in seen:
                continue  # one root inside another
            seen.add(resolved)
            inner = path.name if path == root else path.relative_to(root).as_posix()
            found.append((_clean(inner), label, path))
    clashes = Counter(inner for inner, _, _ in found)
    listing = [
        (f"{label}/{inner}" if clashes[inner] > 1 else inner, path) for inner, label, path in found
    ]
    kept = [
        (document_id, path)
        for document_id, path in listing
        if not any(fnmatch.fnmatchcase(document_id, pattern) for pattern in skip)
    ]
    return sorted(kept), dropped


def _walk(root: Path, dropped: list[Dropped]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        folder = Path(error.filename).relative_to(root).as_posix()
        dropped.append(
            Dropped(
                item=_clean(folder) + "/",
                reason=f"read: the folder {_clean(folder)} can't be listed ({error.strerror})",
                stage="read",
                next_action="grant read permission",
            )
        )

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith((".", "~$")):
                yield Path(folder, name)


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest tails of the roots' paths that tell them apart."""
    parts = [(path.parent if path.is_file() else path).resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        labels = ["/".join(part.strip("/") for part in p[-depth:]) for p in parts]
        if len(set(labels)) == len(set(parts)):
            break
    return labels if parts else []


def _clean(name: str) -> str:
    """NFC; bytes of a file name that aren't UTF-8 (old archives) become U+FFFD."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", readable)
