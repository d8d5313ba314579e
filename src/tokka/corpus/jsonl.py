"""A corpus in JSON lines → one `Document` a row; a bad row is dropped with its line number.

Fields: `id` and `text` (required), `title`, `source`, `language`, `licence`, `access` (a list),
`valid_from`, `valid_to`. The row's `id` is the document's id as it stands.

>>> documents = list(read(Path("laws.jsonl"), "laws.jsonl", "ja"))
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode, tidy
from tokka.errors import ItemError
from tokka.records import Document, Dropped

_OPTIONAL_TEXT = ("title", "source", "language", "licence", "valid_from", "valid_to")
_FIELDS = {"id", "text", "access", *_OPTIONAL_TEXT}


def read(path: Path, document_id: str, language: str) -> Iterator[Document | Dropped]:
    """Raises ItemError when the file as a whole can't be read (encoding, empty, broken gzip)."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise ItemError(f"jsonl: {document_id} is no gzip file; compress it again") from error
    if not data.strip():
        raise ItemError(f"read: {document_id} is empty; fill it or list it under skip")
    # Not splitlines(): U+2028 may stand inside a JSON string.
    for number, line in enumerate(decode(data, document_id).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _document(json.loads(line), f"{document_id}:{number}", language)
        except (ItemError, ValueError) as error:
            reason = str(error) if isinstance(error, ItemError) else f"jsonl: {error}"
            yield Dropped(
                item=f"{document_id}:{number}",
                reason=reason.split("; ")[0],
                stage="read",
                next_action=f"correct line {number} of {document_id}",
            )


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
            raise ItemError(f"jsonl: {place}: {field} must be text, got {row[field]!r}")
    access = row.get("access") or ()
    if isinstance(access, str) or not all(isinstance(label, str) for label in access):
        raise ItemError(f"jsonl: {place}: access must be a list of texts, got {access!r}")
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
    )
