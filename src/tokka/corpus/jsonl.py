"""A corpus in JSON lines → one `Document` a row; a bad row is dropped with its line number.

Fields: `id` and `text` (required), `title`, `source`, `language`, `licence`, `access` (a list),
`valid_from`, `valid_to`, `metadata` (texts by name). The row's `id` is the document's id as it
stands.

>>> documents = list(read(File(Path("laws.jsonl"), "laws.jsonl")))
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode, tidy
from tokka.corpus.limits import File, check_size
from tokka.errors import ItemError
from tokka.records import Document, Dropped

_OPTIONAL_TEXT = ("title", "source", "language", "licence", "valid_from", "valid_to")
_FIELDS = {"id", "text", "access", "metadata", *_OPTIONAL_TEXT}
_NOT_PLAIN = re.compile(rb"[\x00\x1b]|\A(?:\xff\xfe|\xfe\xff)")  # UTF-16 and ISO-2022-JP


def read(file: File) -> Iterator[Document | Dropped]:
    """Row by row, so that a file of any length takes the memory of its longest line.

    Raises ItemError when the file as a whole can't be read (encoding, empty, broken gzip).
    """
    empty = True
    try:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            empty = False
            place = f"{file.id}:{number}"
            try:
                yield _document(json.loads(line), place, file.language)
            except RecursionError:
                yield _left_out(place, f"jsonl: {place} is nested too deeply")
            except (ItemError, ValueError) as error:
                reason = str(error) if isinstance(error, ItemError) else f"jsonl: {error}"
                yield _left_out(place, reason.split("; ")[0])
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ItemError(f"jsonl: {file.id} is no gzip file; compress it again") from error
    if empty:
        raise ItemError(f"read: {file.id} is empty; fill it or list it under skip")


def _left_out(place: str, reason: str) -> Dropped:
    document, _, number = place.rpartition(":")
    action = f"correct line {number} of {document}"
    return Dropped(item=place, reason=reason, stage="read", next_action=action)


def _lines(file: File) -> Iterator[str]:
    """UTF-8 line by line; from the first line that isn't, the whole file in its encoding.

    The lines before are ASCII then, and the same in all of them but ISO-2022-JP, whose escapes
    no JSON may hold. Not splitlines(): U+2028 may stand inside a JSON string.
    """
    count = 0
    with _opened(file) as stream:
        for line in _bounded(stream, file):
            if count == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                if _NOT_PLAIN.search(line):
                    break
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                break
            count += 1
            yield text
        else:
            return
    with _opened(file) as stream:
        whole = decode(b"".join(_bounded(stream, file)), file.id)
    yield from whole.split("\n")[count:]


def _opened(file: File) -> IO[bytes]:
    if file.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(file.path, "rb"))
    return file.path.open("rb")


def _bounded(stream: IO[bytes], file: File) -> Iterator[bytes]:
    """Lines, until they make more than the largest file: a packed file may be a bomb."""
    total = 0
    while line := stream.readline(file.settings.max_file_bytes + 1):
        total += len(line)
        check_size(file.id, total, file.settings)
        yield line


def _document(row: Any, place: str, language: str) -> Document:
    if not isinstance(row, dict):
        raise ItemError(f"jsonl: {place} is a {type(row).__name__}, not an object")
    if unknown := sorted(set(row) - _FIELDS):
        raise ItemError(f"jsonl: {place} has unknown fields {', '.join(unknown)}")
    for field in ("id", "text"):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise ItemError(f"jsonl: {place} has no text in the field {field!r}")
    for field in _OPTIONAL_TEXT:
        if not isinstance(row.get(field), str | None):
            raise ItemError(
                f"jsonl: {place}: {field} must be text, not {type(row[field]).__name__}"
            )
    access = row.get("access") or ()
    if isinstance(access, str) or not all(isinstance(label, str) for label in access):
        raise ItemError(f"jsonl: {place}: access must be a list of texts")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ItemError(f"jsonl: {place}: metadata must hold texts by name")
    return build(
        tidy(row["text"]),
        tidy(row["id"]),
        source=row.get("source") or place,
        title=row.get("title") or "",
        language=row.get("language") or language,
        licence=row.get("licence") or "",
        access=tuple(access),
        valid_from=row.get("valid_from") or None,
        valid_to=row.get("valid_to") or None,
        metadata={**metadata, "file": place},  # a row may name another source
    )
