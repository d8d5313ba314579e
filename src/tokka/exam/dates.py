"""Dates in one spelling: 令和6年4月1日, R6.4.1, 2024/4/1 and April 1, 2024 become 2024-04-01.

Folded text → text. A date that no calendar has (13月) stays as it is; years alone become 2024年.

>>> rewrite_dates("令和元年五月に始まり、平成30年度に終わる")
'2019-05に始まり、2018年度に終わる'
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018}
_LETTERS = {"m": "明治", "t": "大正", "s": "昭和", "h": "平成", "r": "令和"}
_DIGIT = {c: i for i, c in enumerate("〇一二三四五六七八九")} | {"零": 0, "元": 1}
_N = r"(\d{1,2}|[〇一二三四五六七八九十]{1,3})"
_YEAR = r"(元|\d{1,2}|[〇一二三四五六七八九十]{1,3})"
_ERA = rf"({'|'.join(_ERAS)})\s?{_YEAR}\s?年"
_WESTERN = r"(?<![\d.])((?:1[5-9]|20)\d\d|[一二][〇一二三四五六七八九]{3})\s?年"
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_MONTH_DAY = rf"\s?{_N}\s?月(?:\s?{_N}\s?日)?"


def rewrite_dates(text: str) -> str:
    """All dates of a folded (NFKC, lower case) text in ISO order; the rest is untouched."""
    for pattern, replace in _RULES:
        text = pattern.sub(replace, text)
    return text


def _number(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    if "十" in text:
        tens, _, ones = text.partition("十")
        return (_DIGIT.get(tens, 1) if tens else 1) * 10 + (_DIGIT.get(ones, 0) if ones else 0)
    value = 0
    for character in text:
        value = value * 10 + _DIGIT.get(character, 0)
    return value


def _iso(match: re.Match[str], year: int, month: int, day: int | None) -> str:
    if not 1 <= month <= 12 or (day is not None and not 1 <= day <= 31):
        return match[0]
    return f"{year:04d}-{month:02d}" + (f"-{day:02d}" if day is not None else "")


def _of_era(match: re.Match[str]) -> str:
    year = _ERAS[match[1]] + _number(match[2])
    return _iso(match, year, _number(match[3]), _number(match[4]) if match[4] else None)


def _era_letter(match: re.Match[str]) -> str:
    year = _ERAS[_LETTERS[match[1]]] + int(match[2])
    return _iso(match, year, int(match[3]), int(match[4]))


def _western(match: re.Match[str]) -> str:
    day = _number(match[3]) if match[3] else None
    return _iso(match, _number(match[1]), _number(match[2]), day)


def _slashed(match: re.Match[str]) -> str:
    return _iso(match, int(match[1]), int(match[3]), int(match[4]))


def _month_first(match: re.Match[str]) -> str:
    return _iso(match, int(match[3]), _MONTH_NAMES.index(match[1][:3]) + 1, int(match[2]))


def _day_first(match: re.Match[str]) -> str:
    return _iso(match, int(match[3]), _MONTH_NAMES.index(match[2][:3]) + 1, int(match[1]))


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(_ERA + _MONTH_DAY), _of_era),
    (re.compile(r"(?<![a-z\d])([mtshr])\.?(\d{1,2})[./](\d{1,2})[./](\d{1,2})(?!\d)"), _era_letter),
    (re.compile(_ERA), lambda m: f"{_ERAS[m[1]] + _number(m[2])}年"),
    (re.compile(_WESTERN + _MONTH_DAY), _western),
    (re.compile(r"(?<![\d./-])(\d{4})([./-])(\d{1,2})\2(\d{1,2})(?![\d./-])"), _slashed),
    (re.compile(rf"\b{_MONTH}\.? (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})(?!\d)"), _month_first),
    (re.compile(rf"(?<!\d)(\d{{1,2}})(?:st|nd|rd|th)? {_MONTH}\.?,? (\d{{4}})(?!\d)"), _day_first),
)
