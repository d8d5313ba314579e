"""Numbers are read as people write them, in both languages, and units convert within their kind."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.exam.folding import fold
from tokka.exam.numbers import Number, parse_number, plain, quantities


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("3億5,000万円", "350000000", "円"),
        ("上限は三百万円です", "3000000", "円"),
        ("1.5億円", "150000000", "円"),
        ("千円", "1000", "円"),
        ("５千円", "5000", "円"),
        ("-5", "-5", ""),
        ("△3.5％", "-3.5", "%"),
        ("マイナス2度", "-2", "°c"),
        ("10-5", "10", ""),
        ("- 300円", "300", "円"),
        ("25bp", "25", "bp"),
        ("3割5分", "35", "%"),
        ("十四・六パーセント", "14.6", "%"),
        ("five million", "5000000", ""),
        ("two hours", "2", "時間"),
        ("1.5k", "1500", ""),
        ("5 mg twice", "5", "mg"),
        ("5 metres", "5", "m"),
        ("twelve", "12", ""),
        ("3分の2", "0.66", ""),
        ("2週間以内", "2", "週"),
        ("10営業日", "10", "営業日"),
        ("1,234,567", "1234567", ""),
        ("12,34", "12", ""),
    ],
)
def test_a_number_and_its_unit_are_read(text: str, value: str, unit: str) -> None:
    number = parse_number(text)
    assert number is not None
    assert plain(number.value).startswith(value)
    assert len(plain(number.value)) == len(value) or text == "3分の2"
    assert number.unit == unit


@pytest.mark.parametrize(
    "text", ["", "一般", "十分な説明", "万全", "千葉", "someone", "なし", "年々"]
)
def test_words_that_hold_a_numeral_are_no_numbers(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (3_000_000, "円", "万円", "300"),
        (90, "分", "時間", "1.5"),
        (2, "週", "日", "14"),
        (2, "年", "か月", "24"),
        (1, "%", "bp", "100"),
        (35, "%", "割", "3.5"),
        (250, "mg", "g", "0.25"),
        (1, "l", "mL", "1000"),
        (7, "", "日", "7"),
        (7, "名", "人", None),
    ],
)
def test_units_convert_within_their_kind(
    value: int, unit: str, wanted: str, expected: str | None
) -> None:
    found = Number(Decimal(value), unit).in_unit(wanted)
    assert found is None if expected is None else found is not None and plain(found) == expected


@pytest.mark.parametrize(("unit", "wanted"), [("日", "か月"), ("円", "ドル"), ("%", "円")])
def test_units_of_different_kinds_do_not_convert(unit: str, wanted: str) -> None:
    assert Number(Decimal(1), unit).in_unit(wanted) is None


def _kanji(number: int) -> str:
    """Written out as a Japanese reader would, independently of the parser."""
    if number == 0:
        return "〇"
    digits = "〇一二三四五六七八九"
    text = ""
    for big, name in ((10**12, "兆"), (10**8, "億"), (10**4, "万"), (1, "")):
        section, number = divmod(number, big)
        if not section:
            continue
        for small, small_name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
            digit, section = divmod(section, small)
            if digit:
                text += ("" if digit == 1 and small_name else digits[digit]) + small_name
        text += name
    return text


def _mixed(number: int) -> str:
    text = ""
    for big, name in ((10**12, "兆"), (10**8, "億"), (10**4, "万"), (1, "")):
        section, number = divmod(number, big)
        if section:
            text += f"{section:,}{name}"
    return text or "0"


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0, max_value=10**16 - 1))
def test_every_whole_number_survives_being_written_in_japanese(number: int) -> None:
    full_width = str(number).translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)})
    for text in (_kanji(number), _mixed(number), f"{number:,}", full_width):
        parsed = parse_number(text + "円")
        assert parsed == Number(Decimal(number), "円"), text


@settings(max_examples=100, deadline=None)
@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3, allow_nan=False))
def test_every_decimal_survives_being_written_plainly(value: Decimal) -> None:
    parsed = parse_number(plain(value))
    assert parsed is not None and parsed.value == value


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789,.一二十百千万億割分の円%-△ kつ", max_size=24))
def test_numbers_stand_in_order_and_never_overlap(text: str) -> None:
    folded = fold(text)
    found = list(quantities(folded))
    for one, next_one in pairwise(found):
        assert one.end <= next_one.start
    assert all(0 <= q.start < q.end <= q.unit_end <= len(folded) for q in found)
