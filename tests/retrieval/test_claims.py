"""Numbers, dates and names are compared by what they mean, not by how they are written."""

from __future__ import annotations

import pytest

from tokka.retrieval.claims import Amount, Claim, Date, claims, holds


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("令和6年4月1日から", [(2024, 4, 1)]),
        ("Ｒ６．４．１", [(2024, 4, 1)]),
        ("二〇二四年四月一日", [(2024, 4, 1)]),
        ("平成元年度", [(1989, None, None)]),
        ("昭和64年1月7日", [(1989, 1, 7)]),
        ("2024/4/1と2024-05-02", [(2024, 4, 1), (2024, 5, 2)]),
        ("毎年4月1日", [(None, 4, 1)]),
        ("on 1 April 2024, and on May 3rd", [(2024, 4, 1), (None, 5, 3)]),
        ("in April 2024", [(2024, 4, None)]),
        ("3年と13月45日", []),
    ],
)
def test_a_date_is_read_in_any_spelling(text: str, dates: list[Date]) -> None:
    assert claims(text).dates == dates


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("３００万円", [("3000000", "円")]),
        ("三百万円、3,000,000円", [("3000000", "円")]),
        ("¥3,000 or 3000 yen", [("3000", "円")]),
        ("1億2千万円", [("120000000", "円")]),
        ("3割と30％と30パーセント", [("30", "%")]),
        ("5営業日以内、三十日以内", [("5", "営業日"), ("30", "日")]),
        ("6か月と6ヶ月", [("6", "月")]),
        ("3 days, 3 mice", [("3", "日"), ("3", "")]),
        ("2024年4月1日", []),
        ("form RX-12", []),
        (
            "一回90分、1件820円、年1,320円",
            [("1", "回"), ("90", "分"), ("1", "件"), ("820", "円"), ("1320", "円")],
        ),
    ],
)
def test_a_number_has_a_value_and_a_unit(text: str, amounts: list[Amount]) -> None:
    assert claims(text).amounts == amounts


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("コンプライアンス統括室長が決める。", ["コンプライアンス", "統括室長"]),
        ("The duty officer asks Ines Calloway.", ["Ines Calloway"]),
        ("The Harbour Master signs form RX-12.", ["Harbour Master", "RX-12"]),
        ("Blue. It is blue.", []),
        ("300万円以内", []),
    ],
)
def test_names_are_runs_of_one_script_or_capitalised(text: str, names: list[str]) -> None:
    assert claims(text).names == names


@pytest.mark.parametrize(
    ("claim", "held"),
    [
        ((2024, 4, 1), True),
        ((None, 4, 1), True),
        ((2024, 4, None), True),
        ((2023, 4, 1), False),
        (("3000000", "円"), True),
        (("3000000", ""), True),
        (("3000000", "日"), False),
        (("300", "円"), False),
        ("審査部長", True),
        ("理事長", False),
    ],
)
def test_a_text_holds_what_it_says_in_other_words(claim: Claim, held: bool) -> None:
    assert holds("令和６年４月１日、審査部長が三百万円まで決裁する。")(claim) is held


def test_a_vaguer_date_holds_no_sharper_one() -> None:
    assert not holds("2024年4月")((2024, 4, 1))
