"""What was found → passages: references in it followed, each made wider, numbered.

Both steps see the rows of one view and no others: where a reference leads, and how far a passage
reaches, are what they would be in an index of only these rows.

>>> passages_of(found, RetrievalSpec(follow=2, neighbours=1), view, reranked={})
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from tokka.records import Passage, RetrievalSpec
from tokka.retrieval.access import View
from tokka.retrieval.fusion import Fused
from tokka.retrieval.named import Titles
from tokka.retrieval.packed import Array
from tokka.retrieval.reference_table import ReferenceTable, follow
from tokka.retrieval.widening import Span, text_of, widen

_DIGITS = 8
_DIGIT = re.compile(r"\d|第")  # others don't take part; most titles needn't be folded


def passages_of(
    found: Sequence[Fused[int]], spec: RetrievalSpec, view: View, reranked: Mapping[int, float]
) -> list[Passage]:
    """Passages for `found` and at most `spec.follow` more that it refers to, which come last and
    have no scores. Passages that meet when they are widened become one, where the better stood."""
    by_row = {one.item: one for one in found}
    rows = list(by_row)
    if spec.follow and rows:
        rows += _pointers(view).follow(rows, spec.follow)
    spans = [Span(row, row, row) for row in rows]
    if spec.neighbours or spec.parent:
        spans = widen(rows, view.table, spec.neighbours, spec.parent, view.finds)
    return [
        _passage(number, span, view, by_row.get(span.found), reranked.get(span.found))
        for number, span in enumerate(spans, start=1)
    ]


def _passage(
    number: int, span: Span, view: View, found: Fused[int] | None, rerank: float | None
) -> Passage:
    title, chunk = view.table.line(span.found)
    first, last = view.table[span.first_row], view.table[span.last_row]
    return Passage(
        number=number,
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        title=title or " > ".join(chunk.headings),
        text=text_of(span, view.table),
        start=first.start,
        end=last.end,
        page=first.page,
        score=round(found.score, _DIGITS) if found else 0.0,
        lexical=found.lexical if found else None,
        dense=found.dense if found else None,
        rerank=rerank,
        parts=_parts(span, view),
    )


def _parts(span: Span, view: View) -> tuple[tuple[str, int, int, int | None], ...]:
    """Empty where the passage is one chunk."""
    if span.first_row == span.last_row:
        return ()
    chunks = [view.table[row] for row in range(span.first_row, span.last_row + 1)]
    return tuple((chunk.id, chunk.start, chunk.end, chunk.page) for chunk in chunks)


class _Pointers:
    """References among the rows of a view, which are numbered anew here: by document and place,
    without gaps."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._rows: Array = view.rows()
        self._numbers = np.full(len(view.table), -1, np.int64)
        self._numbers[self._rows] = np.arange(len(self._rows))
        table = view.table
        places = ((table.place(row), row) for row in self._rows.tolist())
        self._table = ReferenceTable(
            (part.document_ids[part.arrays["document"][at]], table.title(row), table.headings(row))
            for (part, at), row in places
        )

    def follow(self, rows: Sequence[int], limit: int) -> list[int]:
        numbers = self._numbers[list(rows)].tolist()
        found = follow(numbers, self._text_of, self._table, limit, lambda number: True)
        return [int(self._rows[number]) for number in found]

    def _text_of(self, number: int) -> tuple[str, str, Sequence[str]]:
        chunk = self._view.table[int(self._rows[number])]
        return chunk.document_id, chunk.text, chunk.headings


def titles_of(view: View) -> Titles[str]:
    """The titles by which a query may name the documents of a view."""
    if view.titles is None:
        known = view.table.documents_of(view)
        view.titles = Titles((name, title) for name, title in known.items() if _DIGIT.search(title))
    titles: Titles[str] = view.titles
    return titles


def _pointers(view: View) -> _Pointers:
    if view.pointers is None:
        view.pointers = _Pointers(view)
    pointers: _Pointers = view.pointers
    return pointers
