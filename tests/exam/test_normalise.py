"""Answers that mean the same are spelt the same, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokka.exam.folding import same_text
from tokka.exam.normalise import normalise_text

SAME = [
    ("３億５，０００万円", "350,000,000円"),
    ("三百二十", "320"),
    ("壱百弐拾参円", "123円"),
    ("二千二十四年", "2024年"),
    ("一〇〇人", "100人"),
    ("300 万円", "３００万円"),
    ("5百万円", "500万円"),
    ("¥500", "500円"),
    ("$1.5k", "1500ドル"),
    ("5 million yen", "5,000,000円"),
    ("１０％", "10パーセント"),
    ("10 percent", "10%"),
    ("3割5分", "35%"),
    ("年十四・六パーセント", "年14.6%"),
    ("令和6年4月1日", "2024-04-01"),
    ("令和元年五月一日", "2019年5月1日"),
    ("平成三十一年四月三十日", "H31.4.30"),
    ("2024/4/1", "2024年４月１日"),
    ("April 1, 2024", "1 Apr 2024"),
    ("令和6年度", "2024年度"),
    ("午後3時30分", "15:30"),
    ("午前０時", "0時"),
    ("3ヶ月", "3カ月"),
    ("△200", "-200"),
    ("「理事長」（常勤）", "理事長 常勤"),
    ("第五条の三", "第5条の3"),
    ("three days", "3 days"),
    ("5mg", "5 mg"),
    ("Ｃｈａｒｇｅ　Ｎｕｒｓｅ", "charge nurse"),
    ("1.50", "1.5"),
]
DIFFERENT = [
    ("十分な担保", "10分な担保"),
    ("一般", "1般"),
    ("三井", "3井"),
    ("3〜5日", "35日"),
    ("03-1234", "31234"),
    ("2024年13月1日", "2024年1月1日"),
    ("-5", "5"),
    ("1.2.3", "123"),
    ("one of them", "1 of them"),
    ("therapist", "the rapist"),
    ("300円", "300ドル"),
    ("30%", "30"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_spellings_of_one_answer_become_equal(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalise_text(one) != normalise_text(other)


_PIECES = st.sampled_from(
    [
        *"0123456789〇一二三四五六七八九十百千万億兆割分%％.・,、。-−〜～/:()（）「」 　年月日時円",
        *(
            "令和",
            "平成",
            "元",
            "午後",
            "三割",
            "$",
            "¥",
            "k",
            " million",
            "one",
            "three",
            "か",
            "ヶ",
        ),
        *("②", "ﾊﾟ", "İ", "ß", "½", "x²", "㍻", "㌫", "ー", "April ", "A", "△", "マイナス"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=30), st.lists(_PIECES, max_size=12).map("".join)))
@example("三・百")
@example("3割割5分")
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once


def test_the_same_text_ignores_width_and_idle_spaces_and_nothing_more() -> None:
    assert same_text("ＡＢＣ　銀行 法") == same_text("ABC銀行法")
    assert same_text("x²") != same_text("x2")
    assert same_text("a ab") != same_text("aab")
    assert same_text("Polish") != same_text("polish")
