"""Headers, footers and page numbers: what a page prints around its text, on page after page.

Text and page starts → edits that cut them. Only lines at a page's edge count. A running line keeps
one copy (a header its first, a footer its last), so that no words are lost, nor a form that is
printed on every page; a page number is cut everywhere.

>>> [(kind, text[e.start : e.end]) for kind, e in running_edits(text, page_starts)]
[('page numbers', '- 1 -\\n'), ('running lines', 'あおば規程\\n'), ('page numbers', '- 2 -\\n')]
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from tokka.corpus.edits import Edit

_DEPTH = 4  # lines looked at from a page's edge inwards
_RUN = 3  # pages in a row, or every other page, that must repeat a line
_DASH = "[-–—―−‐~]"
_NUMBER = re.compile(
    rf"""(?ix)
    (?P<sure>
        {_DASH}\s*(\d{{1,4}})\s*{_DASH} | [(（<〈\[【]?\s*p(?:age|g|\.)\s*(\d{{1,4}})
            (?:\s*(?:of|/)\s*\d{{1,4}})?\s*[)）>〉\]】]?
      | (\d{{1,4}})\s*(?:頁|ページ)(?:\s*[/中]\s*(?:全\s*)?\d{{1,4}}\s*(?:頁|ページ)?(?:中)?)?
      | 第\s*(\d{{1,4}})\s*(?:頁|ページ) | (\d{{1,4}})\s*[/／]\s*\d{{1,4}}\s*(?:頁|ページ)
    )
  | (?P<counted>[(（\[<〈]?\s*(\d{{1,4}})\s*(?:[/／]\s*\d{{1,4}})?\s*[)）\]>〉]?|([ivxlc]{{1,7}}))
    """
)
_DIGITS = re.compile(r"\d+")
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_APART_BEFORE = re.compile(r"(?i)[\s/(\[|<-]$|\bp\.?$|第$")
_APART_AFTER = re.compile(r"[\s/)\]|>-]|頁|ページ")
_REST = re.compile(
    r"(?i)[-\s(\[<]*(?:p(?:age|\.)?\s*)?|\s*(?:(?:/|of)\s*\d+)?\s*(?:頁|ページ)?[-\s)\]>]*"
)
_ITEM = re.compile(
    r"(?i)(?:第|別[紙表記添]|様式|付[録表]|附[録属]|資料|参考|設?問|図|表|例|その|no\.|appendix|annex"
    r"|attachment|form|table|fig|chapter|section|part|article|question|exhibit|schedule|step)"
)
_TABLE = re.compile(r"[|\t│┃]")


class _Line(NamedTuple):
    start: int
    end: int  # with its line break
    text: str  # NFKC, white space as one blank


@dataclass(slots=True)
class _Page:
    """`top` and `bottom`: the outermost lines that nothing has explained yet."""

    lines: list[_Line]
    top: int
    bottom: int


def running_edits(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    """(kind, edit) in order. Kinds: "running lines" and "page numbers".

    A line runs when it stands at the same edge of three pages in a row or of every other page, or
    first or last on both pages of two. A figure may differ where it counts the pages; other figures
    tell lines apart (合計 12,000円, 様式 3), and rows of tables are never cut. A page number is
    decorated (- 3 -, Page 3 of 12, ３頁), or plain (3, 3/12, iii) where it counts the pages.
    """
    pages = _pages(text, page_starts)
    cuts: dict[int, tuple[str, Edit]] = {}
    for _ in range(_DEPTH):
        found = 0
        for at_top in (True, False):
            edge = {
                number: page.lines[page.top if at_top else page.bottom]
                for number, page in enumerate(pages)
                if page.top <= page.bottom
            }
            numbers = _page_numbers(edge)
            runs = _runs({n: line for n, line in edge.items() if n not in numbers}, len(pages))
            for number in numbers:
                line = edge[number]
                cuts[line.start] = ("page numbers", Edit(line.start, line.end))
            for run in runs:
                for number in run[1:] if at_top else run[:-1]:
                    line = edge[number]
                    cuts[line.start] = ("running lines", Edit(line.start, line.end))
            explained = numbers.union(*runs)
            for number in explained:
                if at_top:
                    pages[number].top += 1
                else:
                    pages[number].bottom -= 1
            found += len(explained)
        if not found:
            break
    for start in sorted(cuts):
        yield cuts[start]


def lone_numbers(text: str) -> Iterator[Edit]:
    """Page numbers in a text without pages: decorated, alone on their lines, and counting on."""
    lines = []
    for found in re.finditer(r"(?m)^[ \t　]*(\S[^\n]{0,23})$\n?", text):
        mark = _NUMBER.fullmatch(" ".join(unicodedata.normalize("NFKC", found[1]).split()))
        if mark and mark["sure"]:
            value = int(next(group for group in mark.groups()[1:] if group))
            lines.append((value, Edit(found.start(), found.end())))
    before = [None, *(value + 1 for value, _ in lines)]
    after = [*(value - 1 for value, _ in lines[1:]), None]
    for (value, edit), expected, following in zip(lines, before, after, strict=False):
        if value in (expected, following):
            yield edit


def _pages(text: str, page_starts: Sequence[int]) -> list[_Page]:
    pages = []
    for start, end in pairwise([*page_starts, len(text)]):
        lines = []
        position = start
        for line in text[start:end].split("\n"):
            following = min(position + len(line) + 1, end)
            if visible := " ".join(unicodedata.normalize("NFKC", line).split()):
                lines.append(_Line(position, following, visible))
            position = following
        pages.append(_Page(lines, 0, len(lines) - 1))
    return pages


def _page_numbers(edge: dict[int, _Line]) -> set[int]:
    """The pages whose line is a page number: decorated, or in step with at least one other."""
    found: set[int] = set()
    steps: dict[int, list[int]] = defaultdict(list)
    for page, line in edge.items():
        if len(line.text) > 24 or not (mark := _NUMBER.fullmatch(line.text)):
            continue
        if mark["sure"]:
            found.add(page)
        else:
            written = next(group for group in mark.groups()[-2:] if group)
            value = int(written) if written.isdigit() else _roman(written)
            steps[value - page].append(page)
    for offset, pages in steps.items():
        if len(pages) >= 2 and offset >= -len(edge):
            found.update(pages)
    return found


def _roman(written: str) -> int:
    values = [_ROMAN[letter] for letter in written.lower()]
    signed = (-a if a < b else a for a, b in pairwise([*values, 0]))
    return sum(signed)


def _runs(edge: dict[int, _Line], pages: int) -> list[list[int]]:
    """Groups of pages on whose edge the same line stands."""
    where: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for page, line in edge.items():
        if not _TABLE.search(line.text):
            where[tuple(_DIGITS.split(line.text))].append(page)
    runs: list[list[int]] = []
    for members in where.values():
        if len(members) < 2:
            continue
        figures = {page: [int(n) for n in _DIGITS.findall(edge[page].text)] for page in members}
        counts = [
            _may_number(edge[members[0]].text, column) and _counts_pages(figures, column)
            for column in range(len(figures[members[0]]))
        ]
        same: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for page in members:
            key = (n - page * c for n, c in zip(figures[page], counts, strict=True))
            same[tuple(key)].append(page)
        for group in same.values():
            runs += _unbroken(group, pages)
    return runs


def _may_number(line: str, column: int) -> bool:
    """Whether a figure stands where a page number does: set apart, first or last in the line. The
    figure of 様式 1 or Form 1 numbers what is on the page."""
    figure = list(_DIGITS.finditer(line))[column]
    before, after = line[: figure.start()], line[figure.end() :]
    last = _APART_BEFORE.search(before) and _REST.fullmatch(after)
    first = _REST.fullmatch(before) and _APART_AFTER.match(after)
    return bool(last or first) and not _ITEM.match(line)


def _counts_pages(figures: dict[int, list[int]], column: int) -> bool:
    """Whether a figure grows with the page: more often than it stays the same."""
    growing = Counter(row[column] - page for page, row in figures.items())
    staying = Counter(row[column] for row in figures.values())
    return max(growing.values()) > max(staying.values())


def _unbroken(group: list[int], pages: int) -> Iterator[list[int]]:
    run = group[:1]
    for page in group[1:]:
        if page - run[-1] > 2:
            if len(run) >= _RUN:
                yield run
            run = []
        run.append(page)
    if len(run) >= _RUN or len(run) == pages == 2:
        yield run
