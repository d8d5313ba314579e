"""One text with its facts → `Document`: what every reader calls last.

>>> build("# 融資規程\\n限度額は…", "rules/loan.md").title
'融資規程'
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from tokka.corpus.language import language_of as language_of
from tokka.errors import ItemError
from tokka.records import Document

_MARKDOWN_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_SENTENCE_END = "。．.!?！？、,，:：;；"
_TITLE_CHARACTERS = 40
_FACT_CHARACTERS = 200
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def build(
    text: str,
    document_id: str,
    *,
    source: str = "",
    title: str = "",
    language: str = "",
    page_starts: tuple[int, ...] = (),
    licence: str = "",
    access: tuple[str, ...] = (),
    valid_from: str | None = None,
    valid_to: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Document:
    """A Document whose title and language are found in the text where they aren't given.

    `sha256` is of the text in UTF-8, so that a re-saved file with the same words is the same.
    Raises ItemError for a text without any visible character.
    """
    if not text.strip():
        raise ItemError(f"read: {document_id} is empty; fill it or list it under skip")
    return Document(
        id=document_id,
        text=text,
        source=source or document_id,
        title=title.strip() or title_of(text, document_id),
        language=language or language_of(text),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        licence=licence,
        access=access,
        valid_from=valid_from,
        valid_to=valid_to,
        metadata=short_texts(metadata or {}),
        page_starts=page_starts,
    )


def short_texts(facts: Mapping[str, object]) -> dict[str, str]:
    """What a format says of a document, as texts of at most 200 characters; blank ones go."""
    texts = {name: _CONTROL.sub(" ", str(value or "")) for name, value in facts.items()}
    short = {name: " ".join(text.split())[:_FACT_CHARACTERS] for name, text in texts.items()}
    return {name: text for name, text in short.items() if text}


def title_of(text: str, document_id: str) -> str:
    """The first heading; else a short first line that isn't a sentence; else the file's stem."""
    if heading := _MARKDOWN_HEADING.search(text[:20_000]):
        return heading[1].strip()
    first = text.lstrip().split("\n", 1)[0].strip()
    if len(first) <= _TITLE_CHARACTERS and "|" not in first and first[-1] not in _SENTENCE_END:
        return first
    return PurePosixPath(document_id).stem
