"""Markdown and text files → one `Document` each.

>>> [document] = read(File(Path("rules/loan.md"), "loan.md"))
"""

from __future__ import annotations

from collections.abc import Iterator

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode
from tokka.corpus.limits import File
from tokka.records import Document


def read(file: File) -> Iterator[Document]:
    """Raises ItemError for an unknown encoding or an empty file."""
    yield build(decode(file.data(), file.id), file.id, language=file.language)
