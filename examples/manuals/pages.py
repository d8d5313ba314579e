"""The publishers' rows as pages of an office: a path, a text, and the file that it is written as.

>>> pages = read_pages({"manpages-ja": rows, ...})
>>> pages[0].id, pages[0].manual
('debian-reference/en/apa.md', 'debian-reference-en')
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

SOURCES = ("debian-reference-en", "debian-reference-ja", "manpages-ja", "postgresql-doc-15")
SECTION = re.compile(r"(?:[A-Z]|\d+)((?:\.\d+)+)\. \S")
_NAVIGATION = re.compile(r"(?:Prev|Home|Next)\b.*|.*\bHome Next$")
_PARTS = {"Synopsis", "Description", "Parameters", "Notes", "Examples", "Compatibility", "See Also"}
_PARTS |= {"Options", "Environment", "Outputs", "Return Value", "Arguments", "Usage", "Exit Status"}


@dataclass(frozen=True, slots=True)
class Page:
    """`id` is the path below documents/, `text` the publisher's, `written` the file's content."""

    id: str
    manual: str
    title: str
    text: str
    written: str


def read_pages(sources: Mapping[str, Iterable[Mapping[str, str]]]) -> list[Page]:
    """All pages in the order of their ids."""
    pages = [_page(name, row) for name, rows in sources.items() for row in rows]
    return sorted(pages, key=lambda page: page.id)


def _page(manual: str, row: Mapping[str, str]) -> Page:
    title, text = row["title"], row["text"]
    parts = row["id"].split("/")
    if manual == "manpages-ja":
        name = f"manpages/{parts[-2]}/{parts[-1].removesuffix('.gz')}.txt"
        return Page(name, manual, title, text, text + "\n")
    if manual.startswith("debian-reference"):
        stem, language, _ = parts[-1].rsplit(".", 2)
        name = f"debian-reference/{language}/{stem}.md"
        return Page(name, manual, title, text, markdown(title, text))
    return Page(f"postgresql/{parts[-1]}", manual, title, text, webpage(title, text))


def markdown(title: str, text: str) -> str:
    """Numbered headings as #, tables as tables, commands in fences."""
    blocks = [f"# {title}"]
    table: list[list[str]] = []
    for block in text.split("\n\n"):
        cells = re.split(r" {3,}", block.strip())
        row = block.startswith("  ") and len(cells) > 1 and "\n" not in block.strip("\n")
        if table and not (row and len(cells) == len(table[0])):
            blocks.append(_table(table))
            table = []
        if row:
            table.append(cells)
        elif found := SECTION.match(block):
            blocks.append(f"{'#' * (1 + found[1].count('.'))} {block}")
        elif re.search(r"(?m)^[#$] ", block):
            blocks.append(f"```\n{block}\n```")
        elif block.strip() and block.strip() != title:
            blocks.append(block.strip("\n"))
    if table:
        blocks.append(_table(table))
    return "\n\n".join(blocks) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def webpage(title: str, text: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title></head>\n<body>\n"
        + "\n".join(_elements(title, text))
        + "\n</body>\n</html>\n"
    )


def _elements(title: str, text: str) -> Iterator[str]:
    yield f"<h1>{html.escape(title)}</h1>"
    for block in text.split("\n\n"):
        said = html.escape(block.strip("\n"))
        if not block.strip() or block.strip() == title:
            continue
        if _NAVIGATION.fullmatch(block.strip()):
            yield f"<nav>{said}</nav>"
        elif found := SECTION.match(block):
            level = min(6, 1 + found[1].count("."))
            yield f"<h{level}>{said}</h{level}>"
        elif block in _PARTS:
            yield f"<h2>{said}</h2>"
        elif "\n" in block.strip("\n"):
            yield f"<pre>{said}</pre>"
        else:
            yield f"<p>{said.strip()}</p>"
