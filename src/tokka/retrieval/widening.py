"""Passages made wider: a chunk with its neighbours, or the whole section that it is part of.

Rows of an index → `Span`s of rows, best first; a span's text is the document's, to the letter.

>>> [span] = widen([7], chunks, neighbours=1, parent=False, allowed=lambda row: True)
>>> text_of(span, chunks) == document.text[chunks[6].start : chunks[8].end]
True
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokka.records import Chunk

_BELOW_ARTICLE = re.compile(
    r"第[0-9]+項|第[0-9一二三四五六七八九十百の]+号|[ア-ンヰヱ](?:〜[ア-ンヰヱ])?$"
)


class Chunks(Protocol):
    """The rows of an index: a list, or read one by one."""

    def __getitem__(self, row: int, /) -> Chunk: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `first_row` to `last_row`, both included: chunks of one document, one behind the other.
    `found` is the row that was found, the best where several are in the span."""

    first_row: int
    last_row: int
    found: int


def widen(
    rows: Sequence[int],
    chunks: Chunks,
    neighbours: int,
    parent: bool,
    allowed: Callable[[int], bool],
    reach: int = 4,
) -> list[Span]:
    """Spans around the rows (best first), which have the rank of the best row in them.

    `neighbours` chunks are added on each side; with `parent` as many of the same section as stand
    beside it, at most `reach` on each side: the article around a 項, the table around its rows, all
    under the innermost heading elsewhere. Spans that share a row become one. A row that isn't
    `allowed` (hidden from the caller, or deleted) is in no span, and none reaches over it.
    """
    spans: list[Span] = []
    for row in rows:
        if not allowed(row):
            continue
        first = _extended(row, -1, chunks, neighbours, reach if parent else 0, allowed)
        last = _extended(row, +1, chunks, neighbours, reach if parent else 0, allowed)
        _insert(Span(first, last, row), spans)
    return spans


def text_of(span: Span, chunks: Chunks) -> str:
    """The document's text from the first chunk's start to the last one's end."""
    first = chunks[span.first_row]
    text, end = first.text, first.end
    for row in range(span.first_row + 1, span.last_row + 1):
        chunk = chunks[row]
        text += chunk.before + chunk.text if chunk.start >= end else chunk.text[end - chunk.start :]
        end = max(end, chunk.end)
    return text


def section_of(headings: Sequence[str]) -> tuple[str, ...]:
    """The path of the section that a chunk belongs to: without 項 and 号, without a table's
    header."""
    path = list(headings)
    while path and (_BELOW_ARTICLE.match(path[-1]) or " | " in path[-1]):
        path.pop()
    return tuple(path)


def _extended(
    row: int,
    step: int,
    chunks: Chunks,
    neighbours: int,
    reach: int,
    allowed: Callable[[int], bool],
) -> int:
    middle = chunks[row]
    section = section_of(middle.headings)
    edge, last = row, middle
    for distance in range(1, max(neighbours, reach) + 1):
        following = row + step * distance
        if not 0 <= following < len(chunks) or not allowed(following):
            break
        chunk = chunks[following]
        if not _follows(*(last, chunk) if step > 0 else (chunk, last)):
            break
        if distance > neighbours and section_of(chunk.headings) != section:
            break
        edge, last = following, chunk
    return edge


def _follows(one: Chunk, other: Chunk) -> bool:
    """Whether both stand one behind the other in one version of one document."""
    gap = other.start - one.end
    return (
        one.document_id == other.document_id
        and one.start < other.start
        and (gap <= 0 or len(other.before) == gap)
    )


def _insert(span: Span, spans: list[Span]) -> None:
    """Join what shares a row with the span; the result stands where the best of them stood."""
    meeting = [s for s in spans if s.first_row <= span.last_row and span.first_row <= s.last_row]
    if not meeting:
        spans.append(span)
        return
    place = spans.index(meeting[0])
    joined = Span(
        min(span.first_row, *(s.first_row for s in meeting)),
        max(span.last_row, *(s.last_row for s in meeting)),
        meeting[0].found,
    )
    spans[:] = [s for s in spans if s not in meeting]
    spans.insert(place, joined)
