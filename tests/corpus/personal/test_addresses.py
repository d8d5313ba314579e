"""Addresses down to the house are found; places, articles and sums are not."""

from __future__ import annotations

import pytest

from tokka.corpus.personal.addresses import japanese, western
from tokka.corpus.personal.findings import fold, joined, settle


def found(text: str) -> list[str]:
    folded = fold(text)
    return [
        text[f.start : f.end] for f in joined(folded, settle([*japanese(folded), *western(folded)]))
    ]


@pytest.mark.parametrize(
    "text",
    [
        "住所が{〒231-0868 神奈川県横浜市中区石川町3丁目14番地5}に",
        "甲：{東京都世田谷区経堂一丁目二番三号}　村上",
        "は{埼玉県川口市並木2-14-8 メゾン並木301号室}に独居",
        "住所は{札幌市中央区旭ケ丘４－３－１}です",
        "{千葉県船橋市本町四丁目二十番三号}の長女宅",
        "所在は、{京都府京都市左京区下鴨松ノ木町48番地の2}である",
        "新居は{つくば市吾妻1-2-3}",
        "{港区芝公園4-2-8}の事務所",
        "郵便番号：{064-0941}",
        "lives at {221B Baker Street, London} now",
        "Ship to {5 Main St Apt. 3\nSpringfield, IL 62704}",
        "They moved to {12 Elm Park, Ely}, and liked it.",
        "{PO Box 1234}",
        "ZIP: {62704}",
    ],
)
def test_an_address(text: str) -> None:
    before, _, rest = text.partition("{")
    value, _, after = rest.partition("}")
    assert found(before + value + after) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "東京都千代田区と大阪市では料率が異なる",
        "石川県金沢市には兼六園がある",
        "募集地区1-2と学区3-1",
        "市場金利は1-2％上昇した",
        "第百二十三条の四　取締役は、次に掲げる事項",
        "東京都の人口は約1,400万人で、面積は2,194平方キロメートル",
        "最判昭和43年11月15日・民集22巻12号2614頁",
        "Section 4 of the Act applies to 3 persons.",
        "The street is 12 metres wide and 3 Boys play.",
        "It came in at number 15 on 4 May 2010.",
    ],
)
def test_no_address(text: str) -> None:
    assert found(text) == []
