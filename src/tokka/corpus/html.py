"""HTML → one `Document`: headings as `#` lines, lists as `-` lines, table rows as `a | b` lines.

Owners' pages are short and every line of them may be a rule, so the whole body is kept except
navigation and scripts. Main-content extractors were tried and left out: trafilatura 2.3 dropped
list items from a page of rules and flattened the tables of pages under about 250 characters.

>>> [document] = read(File(Path("fees.html"), "fees.html"))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode
from tokka.corpus.limits import File
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


def read(file: File) -> Iterator[Document]:
    """Raises ItemError for an unknown encoding and for a page without text."""
    page = page_of(file.data(), file.id)
    yield build(
        page.text,
        file.id,
        title=page.title,
        language=file.language,
        metadata={"author": page.author},
    )


class Page(NamedTuple):
    text: str
    title: str
    author: str


def page_of(data: bytes, name: str, declared: str = "") -> Page:
    """The text of a page, in the encoding that it declares or `declared`, its first heading or
    title, and its author.

    Raises ItemError for an unknown encoding, and for one nested deeper than 2,048 elements, below
    which the parser would lose text without a word.
    """
    if not data.strip():
        raise ItemError(f"read: {name} is empty; fill it or list it under skip")
    found = _DECLARED.search(data[:4096])
    says = found[1].decode("ascii").lower() if found else declared.lower()
    text = decode(data, name, _SAME_AS.get(says, says))
    lxml_html = require("lxml.html", extra="read")
    parser = lxml_html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True, no_network=True
    )
    try:
        root = lxml_html.document_fromstring(text.encode(), parser=parser)
    except (
        Exception
    ) as error:  # lxml raises ParserError, ValueError and more for pages without text
        raise ItemError(f"html: {name} holds no page ({error}); correct the file") from error
    if any("RESOURCE_LIMIT" in entry.type_name for entry in parser.error_log):
        raise ItemError(f"html: {name} is nested too deeply; save it again or list it under skip")
    lines = _Lines()
    _walk(root, lines)
    first = root.find(".//h1")
    title = _inline(first) if first is not None else root.findtext(".//title") or ""
    authors = root.xpath("//meta[translate(@name, 'AUTHOR', 'author') = 'author']/@content")
    return Page(lines.text(), " ".join(title.split()), authors[0] if authors else "")


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
    """The text of an element and all below it, without recursion: old pages never close a tag."""
    walker = require("lxml.etree", extra="read").iterwalk(element, events=("start", "end"))
    closed = False  # the element whose end comes next had nothing to open
    for event, node in walker:
        if event == "start":
            if closed := not _opens(node, lines):
                walker.skip_subtree()
            else:
                lines.add(node.text or "")
            continue
        if not closed and node.tag in _BLOCKS:
            lines.end(gap=node.tag in _SPACED)
        closed = False
        if node is not element:
            lines.add(node.tail or "")


def _opens(element: Any, lines: _Lines) -> bool:
    """Begin an element; False where nothing below it is to be read any more."""
    tag = element.tag if isinstance(element.tag, str) else ""
    if tag in _UNREAD or element.get("hidden") is not None:
        return False
    if tag in _HEADINGS:
        lines.end(gap=True)
        if heading := _inline(element):
            lines.put("#" * _HEADINGS[tag] + " " + heading)
        lines.end(gap=True)
        return False
    if tag == "pre":
        lines.put(element.text_content().strip("\n"))
        lines.end(gap=True)
        return False
    if tag == "table" and _holds_data(element):
        _table(element, lines)
        return False
    if tag == "br":
        lines.end()
    if tag in _BLOCKS:
        lines.end(gap=tag in _SPACED)
    if tag == "li":
        lines.item()
    return True


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
