"""Lines that the page broke: words hyphenated at its edge, and Japanese sentences cut in two.

Text → edits that mend them. A break that an author set (between items of a list, rows of a table,
a heading and its text, paragraphs) stays.

>>> apply(text := "委託先を選\\nんだときは、", (), join_edits(text, ()))[0]
'委託先を選んだときは、'
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from tokka.corpus.edits import Edit

_LETTERS = "A-Za-zÀ-ÖØ-öø-ž"
_CUT_WORD = re.compile(
    rf"(?<![{_LETTERS}0-9:/<@.*_-])([{_LETTERS}]{{2,}})(-)([ \t]*\n[ \t]*)([{_LETTERS}]{{2,}})"
)
_WORD = re.compile(rf"[{_LETTERS}]+(?:-[{_LETTERS}]+)*")
_COMPOUNDS = frozenset(["well", "self", "half", "long", "short", "high", "low", "full"])
_CJK = "々〆ぁ-ゖァ-ヺー㐀-\u4dbf一-\u9fff\uf900-\ufaff"
_JAPANESE = re.compile(f"[{_CJK}]")
_OPEN_END = re.compile(f"[{_CJK}0-9％、，」』）】〕々]$")
_RUNS_ON = re.compile(f"[{_CJK}0-9「『（、，。）」』％]")
_NEVER_FIRST = frozenset("をんぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮー々、。，）」』】％")
_NEVER_LAST = frozenset("、，をはがにのとへ")
_ITEM = re.compile(
    r"""(?:
        \#{1,6}\s | [-*+]\s | [•・●○◎◆◇■□▪▲△▼※→☆★✓] | > | 【 | [①-⑳㉑-㉟❶-❿Ⅰ-ⅿ]
      | [(（]\s?(?:\d{1,3}|[一二三四五六七八九十]{1,3}|[ぁ-んァ-ンa-zA-Z])\s?[)）]
      | (?:\d{1,3}|[一二三四五六七八九十]{1,3}|[ア-ンa-zA-Z])
        (?:[)）．：:]|\.(?!\d)|、(?!\d)|[ 　]+\D)
      | 第[0-9一二三四五六七八九十百千]+[編章節款目条] | 附\s*則 | [^\s。]{1,12}[：:](?=\s)
    )""",
    re.VERBOSE,
)
_TABLE = re.compile(r"[|\t│┃─━┌├└]|\S(?:[ 　]{2,}\S+){2,}|…{2}|\.{4}|・{4}")
_LIKELY, _SURE = 40, 24  # columns: narrower lines were hardly ever broken by a page
_SLACK = 6  # columns: line breaking rules carry up to two characters over


class _Line(NamedTuple):
    start: int
    end: int  # without the line break
    text: str  # stripped
    indent: str
    width: int


def hyphenation_edits(text: str) -> Iterator[Edit]:
    """Edits that put a hyphenated word together again.

    Without the hyphen where the document has the joined word elsewhere; with it where it has the
    hyphenated one, where both halves are words of the document, before a capital, and after well-,
    self- and the like; otherwise without. Japanese isn't hyphenated: there a hyphen at a line's
    end is a true one or an option's (list-, rw-), and only the document's own words speak.
    """
    cuts = list(_CUT_WORD.finditer(text))
    if not cuts:
        return
    halves = {place for cut in cuts for place in (cut.start(1), cut.start(4))}
    words = {mark[0].lower() for mark in _WORD.finditer(text) if mark.start() not in halves}
    japanese = 20 * len(_JAPANESE.findall(text)) > len(text)
    for cut in cuts:
        first, second = cut[1].lower(), cut[4].lower()
        if japanese and not {f"{first}-{second}", first + second} & words:
            continue
        kept = (
            f"{first}-{second}" in words
            or (cut[4][0].isupper() and not cut[1].isupper())
            or (first in _COMPOUNDS and len(second) >= 4)
            or (len(first) > 2 and len(second) > 2 and first in words and second in words)
        )
        if kept and first + second not in words:
            yield Edit(*cut.span(3))
        else:
            yield Edit(cut.start(2), cut.end(3))


def join_edits(text: str, page_starts: Sequence[int]) -> Iterator[Edit]:
    """Edits that take out the breaks inside Japanese sentences, blank lines at a page's edge
    included.

    A break is inside a sentence for sure where the next line begins with what can't begin one (を
    っ 。) or a long line ends with what doesn't end one (、 or a particle); and where lines are as
    wide as the page, in a document that was broken at one width throughout.
    """
    lines = _lines(text)
    if not lines:
        return
    broken = [
        (first, second)
        for first, second in pairwise(lines)
        if _may_continue(first, second, text, page_starts)
    ]
    width = _page_width(lines, broken)
    for first, second in broken:
        full = width - _SLACK <= first.width <= width + 4 if width else False
        surely = first.width >= _SURE and second.text[0] in _NEVER_FIRST
        likely = first.width >= _LIKELY and first.text[-1] in _NEVER_LAST
        if full or surely or likely:
            yield Edit(first.end, second.start + len(second.indent))


def _lines(text: str) -> list[_Line]:
    """The lines that hold something, outside of code fences."""
    lines = []
    position = 0
    fenced = False
    for line in text.split("\n"):
        start, position = position, position + len(line) + 1
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            fenced = not fenced
        elif stripped and not fenced:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(_Line(start, start + len(line.rstrip()), stripped, indent, _width(line)))
    return lines


def _width(line: str) -> int:
    line = line.rstrip()
    if line.isascii():
        return len(line)
    return sum(1 + (unicodedata.east_asian_width(c) in "WFA") for c in line)


def _may_continue(first: _Line, second: _Line, text: str, page_starts: Sequence[int]) -> bool:
    if not (_OPEN_END.search(first.text) and _RUNS_ON.match(second.text)):
        return False
    if text.count("\n", first.end, second.start) > 1:  # blank lines
        after = bisect_right(page_starts, first.end)
        if after == bisect_left(page_starts, second.start + 1):
            return False
    if second.indent == "　" or (second.indent and first.indent.strip(" \t")):
        return False  # a paragraph of its own
    return not (
        _ITEM.match(second.text)
        or first.text.startswith("#")
        or (first.text[0] == "【" and first.text[-1] == "】")
        or _TABLE.search(first.text)
        or _TABLE.search(second.text)
    )


def _page_width(lines: Sequence[_Line], broken: Sequence[tuple[_Line, _Line]]) -> int:
    """The width at which the page broke its lines, 0 where there is none.

    At least five breaks within six columns, more than half of all wide lines, and a quarter of them
    before hiragana: items of a list may be equally long, but they begin with nouns.
    """
    widths = Counter(first.width for first, _ in broken if first.width >= _LIKELY)
    if widths.total() < 5:
        return 0
    within = {
        wide: sum(widths[width] for width in range(wide - _SLACK, wide + 1)) for wide in widths
    }
    page = max(within, key=lambda wide: (within[wide], wide))
    wide = sum(line.width >= _LIKELY for line in lines)
    full = [second for first, second in broken if page - _SLACK <= first.width <= page]
    hiragana = sum("ぁ" <= second.text[0] <= "ん" for second in full)
    enough = len(full) >= 5 and 2 * len(full) >= wide and 4 * hiragana >= len(full)
    return page if enough else 0
