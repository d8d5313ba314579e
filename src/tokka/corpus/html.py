"""HTML → one `Document`: headings as `#` lines, lists as `-` lines, table rows as `a | b` lines.

Owners' pages are short and every line of them may be a rule, so the whole body is kept except
navigation and scripts. Main-content extractors were tried and left out: trafilatura 2.3 dropped
list items from a page of rules and flattened the tables of pages under about 250 characters.

>>> [document] = read(Path("fees.html"), "fees.html", "")
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode
from tokka.errors import ItemError
from tokka.extras import require
from tokka.records import Document

_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w.:-]+)""", re.I
)
_SAME_AS = {  # what browsers take these names to mean
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "iso-8859-1": "cp1252",
    "ascii": "cp1252",
}
_UNREAD_TAGS = (
    "script style template noscript nav svg button select input textarea iframe rt rp head"
)
_BLOCK_TAGS = (
    "p div section article main header footer aside blockquote figure figcaption address ul ol dl "
    "dt dd li table caption tr td th form fieldset details summary hr body html center"
)
_SPACED_TAGS = "p section article table ul ol dl blockquote"
_UNREAD, _BLOCKS, _SPACED = (
    frozenset(tags.split()) for tags in (_UNREAD_TAGS, _BLOCK_TAGS, _SPACED_TAGS)
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read(path: Path, document_id: str, language: str) -> Iterator[Document]:
    """Raises ItemError for an unknown encoding and for a page without text."""
    data = path.read_bytes()
    if not data.strip():
        raise ItemError(f"read: {document_id} is empty; fill it or list it under skip")
    found = _DECLARED.search(data[:4096])
    declared = found[1].decode("ascii").lower() if found else ""
    text = decode(data, document_id, _SAME_AS.get(declared, declared))
    lxml_html = require("lxml.html", extra="read")
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        root = lxml_html.document_fromstring(text.encode(), parser=parser)
    except (
        Exception
    ) as error:  # lxml raises ParserError, ValueError and more for pages without text
        raise ItemError(f"html: {document_id} holds no page ({error}); correct the file") from error
    lines = _Lines()
    _walk(root, lines)
    first = root.find(".//h1")
    yield build(
        lines.text(),
        document_id,
        title=_inline(first)
        if first is not None
        else " ".join((root.findtext(".//title") or "").split()),
        language=language,
    )


class _Lines:
    """Text collected line by line: inline pieces join, blocks break."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._open: list[str] = []
        self._bullet = ""

    def add(self, piece: str) -> None:
        self._open.append(piece)

    def end(self, gap: bool = False) -> None:
        line = re.sub("[ \t\n\f]+", " ", "".join(self._open)).strip(" ")
        self._open = []
        if line:
            self._done.append(self._bullet + line)
            self._bullet = ""
        if gap and self._done and self._done[-1]:
            self._done.append("")

    def item(self) -> None:
        """The next line, if any, is the first of a list item."""
        self.end()
        self._bullet = "- "

    def put(self, line: str) -> None:
        self.end()
        self._bullet = ""
        self._done.append(line)

    def text(self) -> str:
        self.end()
        return "\n".join(self._done).strip("\n") + "\n"


def _walk(element: Any, lines: _Lines) -> None:
    tag = element.tag if isinstance(element.tag, str) else ""
    if tag in _UNREAD or element.get("hidden") is not None:
        return
    if tag in _HEADINGS:
        lines.end(gap=True)
        if heading := _inline(element):
            lines.put("#" * _HEADINGS[tag] + " " + heading)
        lines.end(gap=True)
        return
    if tag == "pre":
        lines.put(element.text_content().strip("\n"))
        lines.end(gap=True)
        return
    if tag == "table" and _holds_data(element):
        _table(element, lines)
        return
    if tag == "br":
        lines.end()
        return
    if tag in _BLOCKS:
        lines.end(gap=tag in _SPACED)
    if tag == "li":
        lines.item()
    lines.add(element.text or "")
    for child in element:
        _walk(child, lines)
        lines.add(child.tail or "")
    if tag in _BLOCKS:
        lines.end(gap=tag in _SPACED)


def _inline(element: Any) -> str:
    inner = _Lines()
    inner.add(element.text or "")
    for child in element:
        _walk(child, inner)
        inner.add(child.tail or "")
    return " ".join(inner.text().split())


def _holds_data(table: Any) -> bool:
    """Old pages lay themselves out with tables; those hold tables or headings in their cells."""
    return not any(
        inner is not table and inner.tag in ("table", *_HEADINGS) for inner in table.iter()
    )


def _table(table: Any, lines: _Lines) -> None:
    lines.end(gap=True)
    below: dict[int, tuple[int, str]] = {}  # column → rows still covered by a rowspan, its text
    for row in table.iter("tr", "caption"):
        if row.tag == "caption":
            lines.put(_inline(row))
            continue
        cells: list[str] = []
        for cell in row.iterchildren("td", "th"):
            _fill_from_above(cells, below)
            text = _inline(cell)
            if (rows := _span(cell, "rowspan")) > 1:
                below[len(cells)] = (rows - 1, text)
            cells.append(text)
            cells.extend([""] * (_span(cell, "colspan") - 1))
        _fill_from_above(cells, below)
        if any(cells):
            lines.put(" | ".join(cell for cell in cells if cell))
    lines.end(gap=True)


def _fill_from_above(cells: list[str], below: dict[int, tuple[int, str]]) -> None:
    while (column := len(cells)) in below:
        rows, text = below.pop(column)
        if rows > 1:
            below[column] = (rows - 1, text)
        cells.append(text)


def _span(cell: Any, name: str) -> int:
    value = (cell.get(name) or "1").strip()
    return min(int(value), 1000) if value.isascii() and value.isdigit() and int(value) else 1
