"""What in an answer can be looked up word for word: numbers, dates and names.

Text → `Claims`, in one spelling: 令和6年4月1日 is 2024-04-01, 300万円 is 3000000 円, 3割 is 30 %.
An answer's claims are held against what it cites (`holds`).

>>> found = claims("令和6年4月1日から、審査部長が三百万円まで決裁する。")
>>> found.every
[(2024, 4, 1), ('3000000', '円'), '審査部長', '決裁']
>>> holds("2024年4月1日")((None, 4, 1))
True
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from tokka.retrieval.numerals import COUNTERS, KANJI, RUN, value_of

Date = tuple[int | None, int | None, int | None]  # year, month, day; None where it isn't said
Amount = tuple[str, str]  # a plain decimal and its unit, "" where it has none
Claim = Date | Amount | str

_ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018}
_LETTERS = {"M": 1867, "T": 1911, "S": 1925, "H": 1988, "R": 2018}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_N = r"(\d{1,2}|[〇一二三四五六七八九十]{1,3})"
_MONTH = (
    r"(Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|"
    r"Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_YEAR = r"(?<![\d.])((?:1[5-9]|20)\d\d|[一二][〇一二三四五六七八九]{3})"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_END = r"(?![\d一二三四五六七八九十])"
# Units in one spelling; a word that isn't here is no unit.
_UNITS = {
    "円": "円", "yen": "円", "¥": "円", "$": "$", "dollar": "$", "€": "€", "euro": "€", "£": "£",
    "%": "%", "パーセント": "%", "percent": "%", "per cent": "%", "割": "割",
    "営業日": "営業日", "日間": "日", "日": "日", "day": "日", "週間": "週", "週": "週",
    "week": "週", "か月": "月", "ヶ月": "月", "カ月": "月", "ヵ月": "月", "箇月": "月",
    "month": "月", "年間": "年", "年": "年", "year": "年", "時間": "時間", "hour": "時間",
    "分間": "分", "分": "分", "minute": "分", "秒間": "秒", "秒": "秒", "second": "秒",
    "歳": "歳", "才": "歳", "人": "人", "名": "人", "people": "人", "件": "件", "回": "回",
    "time": "回", "枚": "枚", "通": "通", "部": "部", "階": "階", "条": "条", "項": "項",
    "号": "号", "章": "章", "kg": "kg", "キロ": "kg", "mg": "mg", "ml": "ml", "g": "g",
    "km": "km", "cm": "cm", "mm": "mm", "m": "m", "メートル": "m", "℃": "℃", "度": "度",
    "点": "点", "倍": "倍", "unit": "単位", "単位": "単位",
}  # fmt: skip
_MONEY_BEFORE = "¥$€£"
_UNIT = re.compile(
    rf"\s?({'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})(s(?![a-z]))?",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"[ァ-ヴ][ァ-ヴー・]+|[一-鿿々]{2,}"
    r"|(?<![\w.])[A-Z][\w&'’-]*(?: (?:of |de |the )?[A-Z][\w&'’-]*)*"
)
_LETTERS_RUN = re.compile(r"[A-Za-z]{2}")
_KANJI_RUN = re.compile(r"[一-鿿々]{2,}")
_BEGINS = re.compile(r"(?:^|[.!?:。！？：\n]\s*|^\s*(?:the|a|an)\s+)$", re.IGNORECASE)


class Claims(NamedTuple):
    """Each once, in the order of the text."""

    dates: list[Date]
    amounts: list[Amount]
    names: list[str]

    @property
    def every(self) -> list[Claim]:
        return [*self.dates, *self.amounts, *self.names]


def claims(text: str) -> Claims:
    """Numbers with their units, dates, and names: runs of katakana, of two or more kanji, and
    capitalised words that don't open a sentence. What stands in a date or number is no name."""
    folded = unicodedata.normalize("NFKC", text)
    dates, rest = _dates(folded)
    amounts, rest = _amounts(rest)
    names: dict[str, None] = {}
    for found in _NAME.finditer(rest):
        name = found[0]
        latin = name[0].isascii()
        opens = latin and _BEGINS.search(rest[: found.start()])
        if opens and " " in name:  # "The Harbour Master": what follows is a name all the same
            name = name.partition(" ")[2]
        elif opens and not re.search(r"[\dA-Z]", name[1:]):
            continue
        names[name] = None
    return Claims(dates, amounts, list(names))


@functools.lru_cache(maxsize=8192)
def holds(text: str) -> Callable[[Claim], bool]:
    """Whether a text holds a claim: a date that says as much or more, a number with the same unit
    or one of both without, a name as it stands."""
    folded = unicodedata.normalize("NFKC", text)
    dates, rest = _dates(folded)
    amounts, _ = _amounts(rest)
    letters = re.sub(r"\s+", "", folded).casefold()

    def held(claim: Claim) -> bool:
        if isinstance(claim, str):
            return re.sub(r"\s+", "", claim).casefold() in letters
        if len(claim) == 3:
            return any(
                all(mine in (None, theirs) for mine, theirs in zip(claim, date, strict=True))
                for date in dates
            )
        value, unit = claim
        return any(
            value == theirs and (unit == other or not unit or not other)
            for theirs, other in amounts
        )

    return held


# ---- dates ------------------------------------------------------------------------------------


def _dates(text: str) -> tuple[list[Date], str]:
    """The dates, and the text with spaces in their places."""
    found: dict[Date, int] = {}
    for pattern, read in _DATES:
        for match in pattern.finditer(text):
            date = read(match)
            if _is_date(date):
                found.setdefault(date, match.start())
                text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    return sorted(found, key=lambda date: found[date]), text


def _is_date(date: Date) -> bool:
    _, month, day = date
    return (month is None or 1 <= month <= 12) and (day is None or 1 <= day <= 31)


def _int(text: str | None) -> int | None:
    return None if not text else 1 if text == "元" else int(value_of(text))


def _of_era(match: re.Match[str]) -> Date:
    return _ERAS[match[1]] + (_int(match[2]) or 0), _int(match[3]), _int(match[4])


def _of_letter(match: re.Match[str]) -> Date:
    return _LETTERS[match[1]] + int(match[2]), int(match[3]), int(match[4])


def _month(name: str) -> int:
    return _MONTHS.index(name[:3].lower()) + 1


_DATES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Date]], ...] = (
    (
        re.compile(
            rf"({'|'.join(_ERAS)})\s?(元|{_N[1:-1]})\s?年度?(?:\s?{_N}\s?月(?:\s?{_N}\s?日)?)?"
        ),
        _of_era,
    ),
    (
        re.compile(r"(?<![A-Za-z\d])([MTSHR])\.?(\d{1,2})[./](\d{1,2})[./](\d{1,2})(?!\d)"),
        _of_letter,
    ),
    (
        re.compile(rf"{_YEAR}\s?年度?(?:\s?{_N}\s?月(?:\s?{_N}\s?日)?)?"),
        lambda m: (_int(m[1]), _int(m[2]), _int(m[3])),
    ),
    (
        re.compile(r"(?<![\d./-])(\d{4})([./-])(\d{1,2})\2(\d{1,2})(?![\d./-])"),
        lambda m: (int(m[1]), int(m[3]), int(m[4])),
    ),
    (
        re.compile(rf"\b{_MONTH} {_DAY}(?:,? (\d{{4}}))?{_END}"),
        lambda m: (_int(m[3]), _month(m[1]), int(m[2])),
    ),
    (
        re.compile(rf"(?<!\d){_DAY} (?:of )?{_MONTH}(?:,? (\d{{4}}))?{_END}"),
        lambda m: (_int(m[3]), _month(m[2]), int(m[1])),
    ),
    (re.compile(rf"\b{_MONTH} (\d{{4}})(?!\d)"), lambda m: (int(m[2]), _month(m[1]), None)),
    (
        re.compile(rf"(?<![\d一二三四五六七八九十]){_N}\s?月\s?{_N}\s?日(?!間)"),
        lambda m: (None, _int(m[1]), _int(m[2])),
    ),
)


# ---- numbers ----------------------------------------------------------------------------------


def _amounts(text: str) -> tuple[list[Amount], str]:
    """Numbers with their units, and the text with spaces in their places."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    found: dict[Amount, None] = {}
    rest = list(text)
    for run in RUN.finditer(text):
        alone = len(run[0]) == 1 and run[0] in KANJI
        if alone and text[run.end() : run.end() + 1] not in COUNTERS:
            continue
        before = text[: run.start()][-1:]
        if (before.isascii() and before.isalpha()) or text[: run.start()].endswith("-"):
            continue  # RX-12 is a name
        after = _UNIT.match(text, run.end())
        money = _UNITS[before] if before and before in _MONEY_BEFORE else ""
        unit = money or (_UNITS[after[1].lower()] if after else "")
        if after and _LETTERS_RUN.match(text, after.end() - 1):
            after, unit = None, money  # "3 mice" aren't metres
        value = value_of(run[0])
        if unit == "割":
            value, unit = value * 10, "%"
        found[format(Decimal(value).normalize(), "f"), unit] = None
        end = after.end() if after else run.end()
        words = _KANJI_RUN.match(text, end)  # 300万円以内: what follows a number is no name
        end = words.end() if words else end
        rest[run.start() : end] = " " * (end - run.start())
    return list(found), "".join(rest)
