"""The numbers in a text, by value: 300万円, 3,000,000円 and 三百万円 hold the same one.

>>> sorted(numbers("１億2千万円、三十日以内、0.50％"))
['0.5', '120000000', '30']
"""

from __future__ import annotations

import functools
import re
import unicodedata
from decimal import Decimal

_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "億": 10**8, "兆": 10**12}
KANJI = "".join((*_DIGITS, *_TENS, *_MYRIADS))
RUN = re.compile(rf"\d+(?:\.\d+)?(?:[{KANJI}]|\d+(?:\.\d+)?)*|[{KANJI}]+")
_PART = re.compile(rf"\d+(?:\.\d+)?|[{KANJI}]")
# One kanji alone is a number before a counter (三年) and mostly a word elsewhere (一般, 唯一).
COUNTERS = frozenset("円年月日条項号人名件回歳時分秒週か箇ヶヵ個割%倍以階枚通口点章節級つ")


@functools.lru_cache(maxsize=8192)
def numbers(text: str) -> frozenset[str]:
    """Values as plain decimals ("3000000", "0.5"). Signs and units aren't part of them."""
    folded = re.sub(r"(?<=\d),(?=\d{3})", "", unicodedata.normalize("NFKC", text))
    found = set()
    for run in RUN.finditer(folded):
        alone = len(run[0]) == 1 and run[0] in KANJI
        if alone and folded[run.end() : run.end() + 1] not in COUNTERS:
            continue
        found.add(format(value_of(run[0]).normalize(), "f"))
    return frozenset(found)


def value_of(run: str) -> Decimal:
    total, section, current = Decimal(0), Decimal(0), Decimal(0)
    counted = False  # whether `current` holds a number that the next unit multiplies
    for part in _PART.findall(run):
        if part in _DIGITS:
            current = current * 10 + _DIGITS[part]  # positional: 二〇二四
            counted = True
        elif part in _TENS:
            section += (current if counted else 1) * _TENS[part]
            current, counted = Decimal(0), False
        elif part in _MYRIADS:
            total += (section + current if section or counted else 1) * _MYRIADS[part]
            section, current, counted = Decimal(0), Decimal(0), False
        else:
            current, counted = Decimal(part), True
    return total + section + current
