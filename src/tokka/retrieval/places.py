"""Numbers of articles, and what a path of headings says about where a chunk stands.

>>> place_of(("第二章 貸付", "第三条の二（特例）", "第2項〜第4項")).article
(3, 2)
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

Numbers = tuple[int, ...]  # 第三条の二 is (3, 2), Section 4.2 is (4, 2)

NUMERAL = "[0-9０-９一二三四五六七八九十百千〇]+"
BRANCHED = rf"{NUMERAL}(?:の{NUMERAL})*"
UNITS = "編章節款目条"


class Place(NamedTuple):
    """Where a chunk stands: what its headings say."""

    scope: str
    parts: tuple[tuple[str, Numbers], ...]
    article: Numbers
    until: Numbers
    paragraphs: tuple[int, int] | None


_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")}
_TENS = {"十": 10, "百": 100, "千": 1000}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


@functools.lru_cache(maxsize=65536)
def number_of(numeral: str) -> int:
    plain = unicodedata.normalize("NFKC", numeral)
    if plain.isdigit() and plain.isascii():
        return int(plain)
    total, current, counted = 0, 0, False
    for character in plain:
        if character in _TENS:
            total += (current if counted else 1) * _TENS[character]
            current, counted = 0, False
        else:
            value = _DIGITS.get(character)
            current = current * 10 + (int(character) if value is None else value)
            counted = True
    return total + current


def numbers_of(name: str) -> Numbers:
    """第三条の二 → (3, 2)."""
    head, *branches = name.lstrip("第").split("の")
    return (number_of(head.rstrip(UNITS + "項号")), *(number_of(branch) for branch in branches))


def branches_of(text: str) -> Numbers:
    return tuple(number_of(branch) for branch in text.split("の") if branch)


def english_numbers_of(number: str) -> Numbers:
    """4.2 → (4, 2), IX → (9,), A.1 → (-1, 1): letters count below zero, apart from numbers."""
    first, *rest = number.split(".")
    if first.isdigit():
        head = int(first)
    elif len(first) > 1 or first in "IVX":
        values = [_ROMAN.get(letter, 0) for letter in first.upper()]
        pairs = zip(values, [*values[1:], 0], strict=True)
        head = sum(-value if value < after else value for value, after in pairs)
    else:
        head = -(ord(first.upper()) - ord("A") + 1)
    return (head, *(int(part) for part in rest))


def folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


_PART_LABEL = re.compile(rf"第({NUMERAL})([{UNITS}])((?:の{NUMERAL})*)")
_UNTIL_LABEL = re.compile(rf"(?:から|及び|、)第({NUMERAL})条((?:の{NUMERAL})*)")
_PARAGRAPHS = re.compile(r"第(\d+)項(?:〜第(\d+)項)?$")
_TABLE_LABEL = re.compile(rf"(別表|別記様式|様式)(?:第?({BRANCHED}))?")
_ENGLISH_LABEL = re.compile(
    r"(?:(part|chapter|appendix|annex|schedule|section|article)\s+)?"
    r"(\d{1,3}(?:\.\d{1,3})*|[A-Z](?:\.\d{1,3})+|(?<=\s)(?:[IVXLC]{1,7}|[A-Z])\b)(?=[\s.:．、—–-]|$)",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=65536)
def place_of(headings: tuple[str, ...]) -> Place:
    """What a path of headings says: 附則 or not, its parts, its article and its 項."""
    scope = ""
    article: Numbers = ()
    until: Numbers = ()
    paragraphs: tuple[int, int] | None = None
    parts: list[tuple[str, Numbers]] = []
    for label in headings:
        if label.startswith("附則"):
            scope = label
        elif mark := _PART_LABEL.match(label):
            numbers = (number_of(mark[1]), *branches_of(mark[3]))
            parts.append((mark[2], numbers))
            if mark[2] == "条":
                article = numbers
                more = _UNTIL_LABEL.match(label, mark.end())
                until = (number_of(more[1]), *branches_of(more[2])) if more else ()
        elif mark := _PARAGRAPHS.match(label):
            paragraphs = (int(mark[1]), int(mark[2] or mark[1]))
        elif mark := _TABLE_LABEL.match(label):
            parts.append((mark[1], branches_of("の" + mark[2]) if mark[2] else ()))
        elif mark := _ENGLISH_LABEL.match(label):
            kind = (mark[1] or "section").lower()
            parts.append((kind, english_numbers_of(mark[2])))
    return Place(scope, tuple(parts), article, until, paragraphs)
