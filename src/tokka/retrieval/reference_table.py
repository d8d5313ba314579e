"""Which rows of an index hold which article, so that references can be followed.

Reference → rows, by the headings of the chunks alone.

>>> rows = [("第九条", "第2項"), ("第十条",)]
>>> table = ReferenceTable(("loan.md", "融資規程", headings) for headings in rows)
>>> [reference] = references("前条第二項の承認を得る。", here=("第十条",))
>>> table.resolve(reference, "loan.md")
[0]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tokka.retrieval.places import Numbers, Place, folded, place_of
from tokka.retrieval.references import Reference, references

_MOST_IN_RANGE = 30
_FORMER = re.compile("(?:旧|改正前の?)$")


@dataclass(slots=True)
class _Document:
    """`rows` by scope, kind and number; `order` the articles of a scope as they stand."""

    first_row: int
    title: str
    rows: dict[tuple[str, str, Numbers], list[int]] = field(default_factory=dict)
    order: dict[tuple[str, str], list[Numbers]] = field(default_factory=dict)
    repealed: list[tuple[str, Numbers, Numbers, int]] = field(default_factory=list)


class ReferenceTable:
    """Which rows hold which article, for every document of an index.

    `entries` are document id, title and path of headings of each row, in the order of the rows;
    nothing of the text is needed.
    """

    def __init__(self, entries: Iterable[tuple[str, str, Sequence[str]]]) -> None:
        self._documents: dict[str, _Document] = {}
        self._titles: dict[str, list[str]] = {}
        self._paragraphs: dict[int, tuple[int, int]] = {}
        for row, (document_id, title, headings) in enumerate(entries):
            document = self._documents.get(document_id)
            if document is None:
                document = self._documents[document_id] = _Document(row, _title(title))
                self._titles.setdefault(document.title, []).append(document_id)
            if headings:
                self._add(document, row, place_of(tuple(headings)))

    def _add(self, document: _Document, row: int, place: Place) -> None:
        for kind, numbers in place.parts:
            key = (place.scope, kind, numbers)
            rows = document.rows.get(key)
            if rows is None:
                rows = document.rows[key] = []
                document.order.setdefault((place.scope, kind), []).append(numbers)
            if not rows or rows[-1] != row:
                rows.append(row)
        if place.until:
            document.repealed.append((place.scope, place.article, place.until, row))
        if place.paragraphs:
            self._paragraphs[row] = place.paragraphs

    def resolve(
        self,
        reference: Reference,
        document_id: str,
        allowed: Callable[[int], bool] = lambda row: True,
    ) -> list[int]:
        """The rows of what is referred to, in order; [] where the index doesn't hold it.

        With a 項 only the chunks that hold it. A name before the number is looked for among the
        titles of the documents that are `allowed`, the longest first; "法" in 銀行法施行令 is
        銀行法. Without a name, or where it is no document's, nothing of another document is
        guessed.
        """
        own = self._documents.get(document_id)
        if own is None:
            return []
        documents = [own]
        if reference.title:
            documents = self._called(reference.title, own, allowed)
        found: list[int] = []
        for document in documents:
            for row in self._rows(document, reference):
                if row not in found and allowed(row):
                    found.append(row)
        return found

    def _called(self, name: str, own: _Document, allowed: Callable[[int], bool]) -> list[_Document]:
        """The documents whose title the text before a number ends with; the longest title wins."""
        called = _title(name)
        for start in range(len(called)):
            documents = [self._documents[i] for i in self._titles.get(called[start:], ())]
            if _FORMER.search(called[:start]):
                continue  # its wording isn't in the index
            if visible := [found for found in documents if allowed(found.first_row)]:
                return visible
        short = re.search(r"(施行令|施行規則|規則|令|法)$", called)
        stem = re.sub(r"(施行令|施行規則|施行細則)$", "", own.title)
        if short is None or not re.fullmatch(r"(.*[^一-鿿])?(法|令|規則)", called):
            return []
        wanted = {"法": stem, "令": stem + "施行令", "規則": stem + "施行規則"}.get(short[1], "")
        documents = [self._documents[i] for i in self._titles.get(wanted, ())]
        return [found for found in documents if found is not own and allowed(found.first_row)]

    def _rows(self, document: _Document, reference: Reference) -> list[int]:
        scope = self._scope(document, reference)
        if scope is None:
            return []
        order = document.order.get((scope, reference.kind), [])
        wanted = self._wanted(order, reference)
        rows: list[int] = []
        for numbers in wanted:
            found = document.rows.get((scope, reference.kind, numbers))
            if found is None and reference.kind == "条":
                found = [
                    row
                    for where, first, last, row in document.repealed
                    if where == scope and first <= numbers <= last
                ]
            if found is None and reference.kind in ("section", "chapter", "appendix", "article"):
                other = "section" if reference.kind != "section" else "article"
                found = document.rows.get((scope, other, numbers))
            rows += found or []
        if reference.paragraph is not None and len(wanted) == 1:
            rows = self._with_paragraph(rows, reference.paragraph)
        return rows

    def _scope(self, document: _Document, reference: Reference) -> str | None:
        """附則 where the reference says so; the first of them where it stands outside."""
        if not reference.scope:
            return ""
        scopes = [scope for scope, _ in document.order if scope.startswith(reference.scope)]
        if reference.scope in scopes:
            return reference.scope
        return scopes[0] if scopes else None

    def _wanted(self, order: list[Numbers], reference: Reference) -> list[Numbers]:
        if reference.relative:
            if reference.numbers not in order:
                return []
            at = order.index(reference.numbers)
            step = reference.relative
            near = order[max(0, at + step) : at] if step < 0 else order[at + 1 : at + 1 + step]
            return near
        if reference.until:
            between = [n for n in order if reference.numbers <= n <= reference.until]
            return between[:_MOST_IN_RANGE] or [reference.numbers]
        return [reference.numbers]

    def _with_paragraph(self, rows: list[int], paragraph: int) -> list[int]:
        """Rows without a 項 of their own hold the whole article."""
        return [
            row
            for row in rows
            if row not in self._paragraphs
            or self._paragraphs[row][0] <= paragraph <= self._paragraphs[row][1]
        ]


def _title(title: str) -> str:
    """融資規程（２０２４年版） → 融資規程, compared without spaces and case."""
    return re.sub(r"[(（【\[][^)）】\]]*[)）】\]]$", "", folded(title)).strip('「」『』"')


def follow(
    rows: Sequence[int],
    text_of_row: Callable[[int], tuple[str, str, Sequence[str]]],
    table: ReferenceTable,
    limit: int,
    allowed: Callable[[int], bool],
) -> list[int]:
    """The rows that references in `rows` point to, best passage first, at most `limit`.

    `text_of_row` gives document id, text and headings. One row for each reference: the first of
    those it resolves to; none that is in `rows` already.
    """
    added: list[int] = []
    for row in rows:
        document_id, text, headings = text_of_row(row)
        for reference in references(text, headings):
            if len(added) >= limit:
                return added
            found = table.resolve(reference, document_id, allowed)
            if found and not any(other in rows or other in added for other in found):
                added.append(found[0])
    return added
