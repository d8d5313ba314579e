"""Where sentences end, in Japanese and English, as spans that cover the text.

Text → spans. A span holds its trailing white space, so that spans laid side by side are the text.

>>> text = "上限は1.5万円である。「異議はない。」と答えた。"
>>> [text[s.start : s.end] for s in sentences(text)]
['上限は1.5万円である。', '「異議はない。」と答えた。']
"""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from typing import NamedTuple


class Span(NamedTuple):
    """Offsets in characters: `text[start:end]`."""

    start: int
    end: int


_ENDS = "。．.！？!?｡"
_CLOSERS = "」』）)】〕》〉］]”’\"'"
_PAIRS = dict(zip("「『（(【〔《〈［", "」』）)】〕》〉］", strict=True))
_OPENER_OF = {closer: opener for opener, closer in _PAIRS.items()}
_STOP = re.compile(f"[{re.escape(_ENDS)}]+[{re.escape(_CLOSERS)}]*")
_BRACKET = re.compile(f"[{re.escape(''.join(_PAIRS) + ''.join(_OPENER_OF))}]")
_LONGEST_QUOTE = 300
# モーニング娘。の新曲: no sentence begins with these particles, except のち and the like.
_NAME_GOES_ON = re.compile("を|の(?![ちびべぼみん])|[がはもに](?=[一-鿿ァ-ヶ、])")
_TITLE = re.compile(
    r"(?<![A-Za-z0-9.])(?:(?i:mr|mrs|ms|dr|prof|st|jr|sr|vs|e\.g|i\.e|cf|et al|u\.s|u\.k)|[A-Z])$"
)
_NUMBERED = re.compile(
    r"(?<![A-Za-z0-9.])(?i:no|nos|fig|figs|eq|sec|art|ch|vol|p|pp|approx|max|min|temp|ca)$"
)
_LIST_NUMBER = re.compile(r"(?:\A|\n)[ \t　]*[(（]?(?:\d{1,3}(?:\.\d{1,3})*|[a-zA-Z]|[ivx]{1,4})$")
# A line that begins something of its own: a heading, a list item, a table row, a quotation.
_OWN_LINE = re.compile(
    r"""[ \t　]*(?:
        \#{1,6}[ \t] | [-*+][ \t] | [•・●○◆◇■□▪※→] | > | \| | 【 | [①-⑳]
        | [(（]?(?:\d{1,3}|[一二三四五六七八九十]{1,3}|[ア-ンa-zA-Z])[)）.．、:：]\s?
        | 第[0-9０-９一二三四五六七八九十百千]+[編章節款条項号] | 附[ \t　]*則
        | (?:\d{1,3}|[一二三四五六七八九十百]{1,5})(?:の[一二三四五六七八九十]+)*(?:　|\s*$)
        | [^|\n]+[ ]\|[ ] | \S{1,20}[:：][ \t]
    )""",
    re.VERBOSE,
)
_WRAPPED_WIDTH = 40


def sentences(text: str) -> list[Span]:
    """Spans in order, disjoint, together the whole text; [] for "".

    A full stop ends a sentence except in decimals, abbreviations, list numbers, initials and names
    (モーニング娘。の), and inside a bracket or quotation that the sentence goes on after
    (「…。」と述べた, （…という。）を).
    A line break ends one at a blank line, before a list item, heading or table row, and after a
    line too short to have been wrapped (under 40 columns).
    """
    cuts = {0, len(text)}
    for start, end in _blocks(text):
        cuts.add(start)
        cuts.update(_stops(text, start, end))
    ordered = sorted(cuts)
    spans: list[Span] = []
    for start, end in itertools.pairwise(ordered):
        if spans and text[start:end].isspace():
            spans[-1] = Span(spans[-1].start, end)
        else:
            spans.append(Span(start, end))
    if len(spans) > 1 and text[spans[0].start : spans[0].end].isspace():
        spans[:2] = [Span(0, spans[1].end)]
    return spans


def _blocks(text: str) -> list[Span]:
    """Runs of lines that read on into each other."""
    blocks = []
    start = position = 0
    previous = ""
    for line in text.splitlines(keepends=True):
        if position > start and breaks(previous, line):
            blocks.append(Span(start, position))
            start = position
        previous = line
        position += len(line)
    if position > start:
        blocks.append(Span(start, position))
    return blocks


def breaks(previous: str, line: str) -> bool:
    """Whether a line begins something new, and isn't the one above read on."""
    before = previous.strip()
    if not before or not line.strip():
        return True
    if before[-1] in "。！？：:|" or before.startswith(("#", "|", "【")):
        return True
    return bool(_OWN_LINE.match(line)) or _columns(before) < _WRAPPED_WIDTH


def _columns(line: str) -> int:
    if line.isascii():
        return len(line)
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line)


def _stops(text: str, start: int, end: int) -> list[int]:
    nested = _nested(text, start, end)
    stops = []
    for found in _STOP.finditer(text, start, end):
        mark = found[0].rstrip(_CLOSERS) or found[0]
        after = found.end()
        if after >= end or not _is_end(text, found.start(), mark, after, end):
            continue
        if after in nested:
            continue
        while after < end and text[after].isspace():
            after += 1
        stops.append(after)
    return stops


def _nested(text: str, start: int, end: int) -> set[int]:
    """Ends of the stops inside matched brackets that the stop's own closers don't close.

    A pair longer than 300 characters holds sentences of its own and doesn't count.
    """
    nested: set[int] = set()
    open_at: list[tuple[str, int]] = []
    stops = [found.end() for found in _STOP.finditer(text, start, end)]
    for found in _BRACKET.finditer(text, start, end):
        character, position = found[0], found.start()
        if character in _PAIRS:
            open_at.append((character, position))
        else:
            while open_at:
                opener, opened = open_at.pop()
                if opener == _OPENER_OF[character]:
                    if position - opened <= _LONGEST_QUOTE:
                        first = bisect.bisect_right(stops, opened)
                        nested.update(stops[first : bisect.bisect_right(stops, position)])
                    break
    return nested


def _is_end(text: str, at: int, mark: str, after: int, end: int) -> bool:
    following = text[after]
    closed = after > at + len(mark)
    if mark[-1] in "。！？｡．":
        if mark == "．" and text[at - 1 : at].isdigit() and following.isdigit():
            return False
        if closed:
            return not ("ぁ" <= following <= "ん" or following in "、，,")
        return mark[-1] not in "。｡" or not _NAME_GOES_ON.match(text, after, end)
    if not following.isspace():
        # "版.次の文" ends, ".com", "3.5" and "Yahoo!ニュース" don't
        latin = mark[0] == "!" and text[at - 1 : at].isascii()
        return following > "\u2fff" and not latin and not closed
    if mark != ".":
        return True
    upcoming = text[after:end].lstrip()[:1]
    if _NUMBERED.search(text, max(0, at - 8), at) and upcoming.isdigit():
        return False
    if _TITLE.search(text, max(0, at - 8), at) or _LIST_NUMBER.search(text, max(0, at - 12), at):
        return False
    return not upcoming.islower()
