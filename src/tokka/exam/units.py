"""Units of measure: their spellings, their kind, and what one is worth in the kind's first unit.

>>> canonical_unit("パーセント"), UNITS["時間"].factor
('%', Decimal('3600'))
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from tokka.exam.folding import fold


@dataclass(frozen=True, slots=True)
class Unit:
    kind: str
    factor: Decimal


_MONTH_SPELLINGS = "ヶ月 ケ月 カ月 ヵ月 箇月 か月間 ヶ月間 ケ月間 カ月間 ヵ月間 箇月間 months month"
# kind: (canonical unit, factor, other spellings), after NFKC and case folding
_TABLE: dict[str, tuple[tuple[str, str, str], ...]] = {
    "yen": (("円", "1", "¥ jpy yen 圓"),),
    "dollar": (("ドル", "1", "$ usd dollars dollar 米ドル us$"), ("セント", "0.01", "cents cent")),
    "euro": (("ユーロ", "1", "€ eur euros euro"),),
    "pound": (("ポンド", "1", "£ gbp"),),
    "share": (
        ("%", "1", "パーセント percent per-cent pct プロセント"),
        ("bp", "0.01", "bps ベーシスポイント basis-points basis-point"),
        ("割", "10", ""),
        ("‰", "0.1", "パーミル"),
    ),
    "time": (
        ("秒", "1", "秒間 seconds second secs sec s"),
        ("分", "60", "分間 minutes minute mins min"),
        ("時間", "3600", "hours hour hrs hr h"),
        ("日", "86400", "日間 days day"),
        ("週", "604800", "週間 weeks week"),
    ),
    "months": (
        (
            "か月",
            "1",
            "ヶ月 ケ月 カ月 ヵ月 箇月 か月間 ヶ月間 ケ月間 カ月間 ヵ月間 箇月間 months month",
        ),
        ("年", "12", "年間 か年 カ年 ヶ年 years year yrs yr"),
    ),
    "business days": (("営業日", "1", "business-days business-day working-days working-day"),),
    "mass": (
        ("mcg", "0.000001", "μg ug マイクログラム micrograms microgram"),
        ("mg", "0.001", "ミリグラム milligrams milligram"),
        ("g", "1", "グラム grams gram"),
        ("kg", "1000", "キログラム kilograms kilogram"),
        ("t", "1000000", "トン tonnes tonne tons ton"),
    ),
    "volume": (
        ("ml", "0.001", "cc ミリリットル millilitres milliliters"),
        ("dl", "0.1", "デシリットル"),
        ("l", "1", "リットル litres liters litre liter"),
    ),
    "length": (
        ("mm", "0.001", "ミリメートル ミリ"),
        ("cm", "0.01", "センチメートル センチ"),
        ("m", "1", "メートル metres meters metre meter"),
        ("km", "1000", "キロメートル kilometres kilometers"),
    ),
    "area": (("m2", "1", "平方メートル 平米"),),
    "temperature": (("°c", "1", "度 度c 摂氏度 degrees-celsius"),),
    "people": (("人", "1", "名 people persons person"),),
    "age": (("歳", "1", "才 years-old years-of-age"),),
    "cases": (("件", "1", "cases case"),),
    "times": (("回", "1", "times time"),),
    "pieces": (("個", "1", "箇 pieces piece"),),
    "points": (("点", "1", "ポイント points point"),),
    "beds": (("床", "1", "beds bed"),),
}

# Units that a key may ask for; in a text, 300万円 is read as 3,000,000円.
_MULTIPLES = {"千": 10**3, "万": 10**4, "百万": 10**6, "億": 10**8, "十億": 10**9}

UNITS: dict[str, Unit] = {}
_SPELLINGS: dict[str, str] = {}
for _kind, _rows in _TABLE.items():
    for _name, _factor, _others in _rows:
        UNITS[_name] = Unit(_kind, Decimal(_factor))
        for _spelling in (_name, *_others.split()):
            _SPELLINGS[_spelling.replace("-", " ")] = _name
for _prefix, _times in _MULTIPLES.items():
    for _money in ("円", "ドル", "人", "件"):
        UNITS[_prefix + _money] = Unit(UNITS[_money].kind, UNITS[_money].factor * Decimal(_times))
        _SPELLINGS[_prefix + _money] = _prefix + _money
_LONGEST = max(map(len, _SPELLINGS))


def canonical_unit(unit: str) -> str:
    """The one spelling of a unit; an unknown one comes back folded."""
    folded = fold(unit).strip()
    return _SPELLINGS.get(folded, folded)


class Found(NamedTuple):
    name: str
    end: int


def find_unit(text: str, position: int) -> Found:
    """The longest known unit at `position` of a folded text (one space may precede it), in its
    canonical spelling, and where it ends; ("", position) for none."""
    start = position + (text[position : position + 1] == " ")
    for length in range(min(_LONGEST, len(text) - start), 0, -1):
        name = _SPELLINGS.get(text[start : start + length])
        if name is not None and not _goes_on(text, start + length):
            return Found(name, start + length)
    return Found("", position)


def _goes_on(text: str, end: int) -> bool:
    """A Latin unit ends where the word ends: 5 mg is no 5 m."""
    return all(c.isascii() and c.isalpha() for c in text[end - 1 : end + 1].ljust(2))
