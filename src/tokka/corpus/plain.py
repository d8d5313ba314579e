"""Markdown and text files → one `Document` each.

>>> [document] = read(Path("rules/loan.md"), "loan.md", "")
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode
from tokka.records import Document


def read(path: Path, document_id: str, language: str) -> Iterator[Document]:
    """Raises ItemError for an unknown encoding or an empty file."""
    yield build(decode(path.read_bytes(), document_id), document_id, language=language)
