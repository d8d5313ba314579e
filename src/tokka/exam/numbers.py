"""Numbers as people write them, in Japanese and English: where they stand, what they are worth.

Text → `Quantity`s. 3億5,000万円, 三百二十, 壱百, 十四・六パーセント, 3割5分, 5 million, 1.5k, three
and △200 are read; units are converted within their kind (money, shares, time, mass …).

>>> parse_number("融資の上限は3億5,000万円です")
Number(value=Decimal('350000000'), unit='円')
>>> Number(Decimal(90), "分").in_unit("時間")
Decimal('1.5')
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext
from typing import NamedTuple

from tokka.exam.folding import fold
from tokka.exam.units import UNITS, canonical_unit, find_unit

_MAX_DIGITS = 40
_CONTEXT = Context(prec=80)
_KANJI = str.maketrans("〇零一二三四五六七八九壱弐参", "00123456789123")
_KANJI_DIGITS = "〇零一二三四五六七八九壱弐参"
_SMALL = {"十": 10, "拾": 10, "百": 100, "千": 1000}
_BIG = {"万": 10**4, "萬": 10**4, "億": 10**8, "兆": 10**12, "京": 10**16}
_TOKEN = re.compile(
    r"(?P<arabic>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)?)"
    rf"|(?P<kanji>[{_KANJI_DIGITS}]+(?:・[{_KANJI_DIGITS}]+)?)"
    r"|(?P<small>[十拾百千])|(?P<big>[万萬億兆京])"
)
_START = re.compile(rf"[\d{_KANJI_DIGITS}十拾百千]")
_WORD = re.compile(
    r"\b(?P<word>zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b"
)
_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)
_TIMES = re.compile(r"\s?(hundred|thousand|million|billion|trillion|k|bn)(?![a-z\d])")
_TIMES_VALUE = {
    **{"hundred": 10**2, "thousand": 10**3, "k": 10**3, "million": 10**6},
    **{"billion": 10**9, "bn": 10**9, "trillion": 10**12},
}
_MINUS = re.compile(r"(?:(?<![\w)\]%.,])(?:-|[△▲]\s?)|マイナス\s?|\bminus )$")
_CURRENCY = re.compile(r"(?:(?P<sign>[¥$€£])|\b(?P<code>jpy|usd|eur|gbp))\s?$")
_PARTS = re.compile(rf"分の(?=[\d{_KANJI_DIGITS}十百千])")
_WARI = re.compile(r"\s?割(?:\s?(?P<bu>[\d一二三四五六七八九])分)?")
# A single kanji numeral is a number only before a counter: 一般, 三井 and 十分 hold none.
_BRANCH = re.compile(r"[\d一二三四五六七八九十][条項号]の$")  # 第五条の三
_COUNTER = re.compile(
    r"\s?(?:[円年月日時秒人名件%割歳才条項号回個台枚週か箇ヶヵカケ階点級倍社店行通冊度床泊種桁箱校]"
    r"|パーセント|分の|分間|分以|営業日|親等)"
)


class Number(NamedTuple):
    """`unit` is canonical ("" where there is none)."""

    value: Decimal
    unit: str

    def in_unit(self, unit: str) -> Decimal | None:
        """The value in another unit of the same kind; None where there is no way from one to the
        other (日 and か月, 円 and ドル). A number without unit is taken to be in `unit`."""
        wanted = canonical_unit(unit)
        if self.unit == wanted:
            return self.value
        there = UNITS.get(wanted)
        if there is None:
            return None if self.unit else self.value
        if not self.unit:
            return self.value
        here = UNITS.get(self.unit)
        if here is None or here.kind != there.kind:
            return None
        return _CONTEXT.divide(_CONTEXT.multiply(self.value, here.factor), there.factor)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number at `text[start:end]` of the folded text, its unit (if any) ending at `unit_end`."""

    number: Number
    start: int
    end: int
    unit_end: int
    plain_digits: bool


def parse_number(text: str) -> Number | None:
    """The first number in the text with its unit, or None.

    Money in 千円, 万円 or 百万円 comes back in 円; other units as written (canonical spelling).
    """
    found = next(quantities(fold(text)), None)
    return found.number if found else None


def plain(value: Decimal) -> str:
    """Digits without exponent, separators or trailing zeros; never '-0'."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def quantities(folded: str) -> Iterator[Quantity]:
    """All numbers of a folded text, from left to right, without overlap."""
    position = 0
    while position < len(folded):
        with localcontext(_CONTEXT):
            found = _at(folded, position)
        if found is None:
            token = _TOKEN.match(folded, position)  # a run of digits too long for a number
            position += len(token[0]) if token and len(token[0]) > _MAX_DIGITS else 1
        else:
            yield found
            position = max(found.unit_end, position + 1)


def _at(text: str, position: int) -> Quantity | None:
    character = text[position]
    if word := _WORD.match(text, position):
        value, end, digits = Decimal(_WORDS.index(word["word"])), word.end(), False
    elif _START.match(character):
        run = _run(text, position)
        if run is None:
            return None
        value, end, digits = run
    else:
        return None
    if times := _TIMES.match(text, end):
        value, end, digits = value * _TIMES_VALUE[times[1]], times.end(), False
    if parts := _PARTS.match(text, end):
        above = _run(text, parts.end())
        if above is not None and value:
            value, end, digits = _CONTEXT.divide(above[0], value), above[1], False
    start = position
    before = text[max(0, position - 8) : position]
    currency = _CURRENCY.search(before)
    if currency:
        start -= len(before) - currency.start()
        before = before[: currency.start()]
    if minus := _MINUS.search(before):
        value, start, digits = -value, start - (len(before) - minus.start()), False
    if wari := _WARI.match(text, end):
        tenths = value + Decimal((wari["bu"] or "0").translate(_KANJI)) / 10
        return Quantity(Number(tenths * 10, "%"), start, wari.end(), wari.end(), False)
    if currency:
        unit = canonical_unit(currency["sign"] or currency["code"])
        again = find_unit(text, end)  # ¥500円
        unit_end = again.end if again.name == unit else end
        return Quantity(Number(value, unit), start, end, unit_end, False)
    found = find_unit(text, end)
    return Quantity(Number(value, found.name), start, end, found.end, digits)


def _run(text: str, position: int) -> tuple[Decimal, int, bool] | None:
    """The longest well-formed numeral from here: (value, end, written in plain digits)."""
    total, section, part = Decimal(0), Decimal(0), None
    last_small, last_big = 10**4, 10**20
    tokens: list[str] = []
    end = position
    while match := _TOKEN.match(text, _gap(text, end) if tokens else end):
        token = match[0]
        if match["arabic"] or match["kanji"]:
            if part is not None or len(token) > _MAX_DIGITS:
                break
            part = Decimal(token.translate(_KANJI).replace(",", "").replace("・", "."))
        elif match["small"]:
            if _SMALL[token] >= last_small:
                break
            last_small = _SMALL[token]
            section += (Decimal(1) if part is None else part) * last_small
            part = None
        else:
            if (part is None and not section) or _BIG[token] >= last_big:
                break
            last_big, last_small = _BIG[token], 10**4
            total += (section + (part or 0)) * last_big
            section, part = Decimal(0), None
        tokens.append(token)
        end = match.end()
    if not tokens or not _is_numeral(text, position, end, tokens):
        return None
    plain_digits = len(tokens) == 1 and tokens[0][0].isascii()
    return total + section + (part or 0), end, plain_digits


def _gap(text: str, end: int) -> int:
    """'300 万円': a space may stand before 万 and 億."""
    return end + 1 if text[end : end + 1] == " " and text[end + 1 : end + 2] in _BIG else end


def _is_numeral(text: str, start: int, end: int, tokens: list[str]) -> bool:
    written = "".join(tokens)
    if any(c.isascii() and c.isdigit() for c in written) or len(written) > 1:
        return True
    return (
        (written != "十" and text[end : end + 1] == "分")
        or (start == 0 and end == len(text))
        or text[start - 1 : start] == "第"
        or _BRANCH.search(text, 0, start) is not None
        or _COUNTER.match(text, end) is not None
    )


def is_exact(value: Decimal) -> bool:
    """Whether 40 digits hold the value: 3分の1 is not rewritten as a decimal."""
    context = Context(prec=_MAX_DIGITS, traps=[])
    context.plus(value)
    return not context.flags[Inexact]
