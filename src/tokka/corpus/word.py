"""DOCX → one `Document`: headings as `#` lines, paragraphs and tables in the order of the page.

The body is walked by hand: python-docx's own `paragraphs` leaves out tables, and its `text` leaves
out inserted (tracked) text, so that the newest wording of a rule would be missing.

>>> [document] = read(File(Path("policy.docx"), "policy.docx"))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tokka.corpus.documents import build
from tokka.corpus.encoding import tidy
from tokka.corpus.limits import File
from tokka.corpus.zipped import broken, check_package
from tokka.extras import require
from tokka.records import Document

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING_STYLE = re.compile(r"(?:heading|見出し)\s*([1-9])", re.I)


def read(file: File) -> Iterator[Document]:
    """Raises ItemError for an encrypted, broken or empty file."""
    word, levels = _opened(file)
    lines = "\n".join(_lines(word.element.body, levels))
    text = re.sub("\n{3,}", "\n\n", lines).strip("\n") + "\n"
    facts = word.core_properties
    yield build(
        tidy(text),
        file.id,
        language=file.language,
        metadata={
            "author": facts.author,
            "subject": facts.subject,
            "date": facts.modified.date() if facts.modified else "",
        },
    )


def _opened(file: File) -> tuple[Any, dict[str, int]]:
    """The document, and the heading level of each style id (the title counts as level 1)."""
    docx = require("docx", extra="read")
    check_package(file, "docx")
    try:
        word = docx.Document(str(file.path))
        styles = [(style.style_id, style.name or "") for style in word.styles]
    except Exception as error:  # zipfile, lxml and python-docx each raise their own
        raise broken(file, "docx", error) from error
    levels: dict[str, int] = {}
    for style_id, name in styles:
        if found := _HEADING_STYLE.match(name):
            levels[style_id] = min(int(found[1]), 6)
        elif name.lower() in ("title", "表題"):
            levels[style_id] = 1
    return word, levels


def _lines(container: Any, levels: dict[str, int]) -> Iterator[str]:
    for child in container:
        if child.tag == _W + "p":
            yield from _paragraph(child, levels)
        elif child.tag == _W + "tbl":
            yield ""
            yield from _table(child)
            yield ""
        elif child.tag == _W + "sdt":
            for content in child.iterchildren(_W + "sdtContent"):
                yield from _lines(content, levels)
        elif child.tag in (_W + "ins", _W + "smartTag", _W + "customXml"):
            yield from _lines(child, levels)


def _paragraph(paragraph: Any, levels: dict[str, int]) -> Iterator[str]:
    text = _text(paragraph).strip()
    if not text:
        yield ""
        return
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    level = levels.get(style.get(_W + "val"), 0) if style is not None else 0
    if level:
        yield from ("", "#" * level + " " + " ".join(text.split()), "")
    elif paragraph.find(f"{_W}pPr/{_W}numPr") is not None:
        yield "- " + text
    else:
        yield text


def _table(table: Any) -> Iterator[str]:
    """`a | b` for each row; a cell that continues the one above it repeats that one's text."""
    above: dict[int, str] = {}
    for row in table.iterchildren(_W + "tr"):
        cells: list[str] = []
        column = 0
        for cell in row.iter(_W + "tc"):
            if next(cell.iterancestors(_W + "tr")) is not row:
                continue  # belongs to a nested table, whose text is in its outer cell
            merge = cell.find(f"{_W}tcPr/{_W}vMerge")
            if merge is not None and merge.get(_W + "val") != "restart":
                text = above.get(column, "")
            else:
                text = " ".join(" ".join(_text(p).split()) for p in cell.iter(_W + "p")).strip()
            above[column] = text
            cells.append(text)
            span = cell.find(f"{_W}tcPr/{_W}gridSpan")
            column += int(span.get(_W + "val")) if span is not None else 1
        if any(cells):
            yield " | ".join(cell for cell in cells if cell)


def _text(paragraph: Any) -> str:
    """Text as shown: insertions in, deletions and furigana out, a text box's text at its anchor."""
    pieces = []
    for node in paragraph.iter():
        if node.tag == _W + "t":
            if not any(up.tag in (_FALLBACK, _W + "rt") for up in node.iterancestors()):
                pieces.append(node.text or "")
        elif node.tag == _W + "tab" and node.getparent().tag == _W + "r":
            pieces.append("\t")
        elif node.tag in (_W + "br", _W + "cr"):
            pieces.append("\n")
    return "".join(pieces)
