"""Numbers that identify people, in the forms in which offices write them, and their look-alikes."""

from __future__ import annotations

import pytest

from tokka.corpus.personal.digits import driving_licence_digit, luhn_digit, my_number_digit
from tokka.corpus.personal.findings import fold, joined, settle
from tokka.corpus.personal.japan import numbers

MINE = "12345678901" + my_number_digit("12345678901")
LICENCE = "3090123456" + driving_licence_digit("3090123456") + "0"
CARD = "453212345678901" + luhn_digit("453212345678901")
INSURER = "0613001" + luhn_digit("0613001")


def found(text: str) -> list[tuple[str, str]]:
    folded = fold(text)
    spans = joined(folded, settle(numbers(folded)))
    return [(f.kind, text[f.start : f.end]) for f in spans]


@pytest.mark.parametrize(
    "text",
    [
        f"個人番号は{{{MINE}}}です",
        f"マイナンバー：{{{MINE[:4]}-{MINE[4:8]}-{MINE[8:]}}}",
        f"{{{MINE[:4]} {MINE[4:8]} {MINE[8:]}}}を記入",
        "番号{" + MINE.translate(str.maketrans("0123456789", "０１２３４５６７８９")) + "}（本人）",
        f"マイナンバー{{{MINE[:11]}{(int(MINE[11]) + 1) % 10}}}",  # mistyped, but named
    ],
)
def test_my_number(text: str) -> None:
    before, _, rest = text.partition("{")
    value, _, after = rest.partition("}")
    assert found(before + value + after) == [("my_number", value)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("driving_licence", f"運転免許証番号　第{{{LICENCE}}}号"),
        ("driving_licence", f"写しに{{{LICENCE}}}とある"),
        ("phone", "電話{03-6271-4458}まで"),
        ("phone", "携帯{090 8812 3047}です"),
        ("phone", "（{０４５－６６１－７７２３}）"),
        ("phone", "{(03)5981-4472}"),
        ("phone", "{0463(21)8845}"),
        ("phone", "{+81-90-2277-5813}"),
        ("phone", "フリーダイヤル{0120-447-812}"),
        ("phone", "IP電話は{050-3188-7420}"),
        ("phone", "TEL {0312345678}"),
        ("phone", "ご登録の電話番号（{090-4417-2286}）"),
        ("email", "{taro.y+a@mail.example.co.jp}へ"),
        ("email", "{hiro＿８８＠example．com}へ"),
        ("card", f"カード番号{{{CARD}}}"),
        ("card", f"Visa {{{CARD[:4]}-{CARD[4:8]}-{CARD[8:12]}-{CARD[12:]}}}"),
        ("health_insurance", f"保険者番号{{{INSURER}}}"),
        ("health_insurance", "被保険者番号 {40128837}"),
        ("health_insurance", "被保険者記号・番号：{301・882745}"),
        ("residence_card", "在留カード番号{UH48210937ER}"),
        ("passport", "旅券（番号{TK4829173}）"),
        ("pension_number", "基礎年金番号：{4182-337195}"),
        ("bank_account", "みなと銀行 桜木支店 普通 {4820917}"),
        ("bank_account", "当座預金口座番号{0123884}"),
        ("bank_account", "口座番号：{7719203}（普通）"),
        ("birth_date", "生年月日：{1987/05/30}"),
        ("birth_date", "（{昭和42年11月3日}生）"),
        ("birth_date", "{昭和五十年三月四日}生まれ"),
        ("birth_date", "Date of birth: {4 March 1975}"),
        ("birth_date", "誕生日は{3月9日}"),
        ("ip_address", "サーバー{203.0.113.45}へ"),
        ("ip_address", "{2001:db8:85a3::8a2e:370:7334}"),
    ],
)
def test_one_number_of_its_kind(kind: str, text: str) -> None:
    before, _, rest = text.partition("{")
    value, _, after = rest.partition("}")
    assert found(before + value + after) == [(kind, value)]


def test_symbol_and_number_mean_what_stands_before_them() -> None:
    bank = "ゆうちょ銀行 記号11940 番号28461731"
    assert found(bank) == [("bank_account", "11940"), ("bank_account", "28461731")]
    card = "保険証の記号は7820、番号は331945です"
    assert found(card) == [("health_insurance", "7820"), ("health_insurance", "331945")]
    assert found("図の記号7820、番号331945を参照") == []


@pytest.mark.parametrize(
    "text",
    [
        "法人番号7010001234560",  # thirteen digits: a company's
        f"注文番号{MINE}を承りました",  # right digit, other label
        f"お問い合わせ番号 {MINE[:4]}-{MINE[4:8]}-{MINE[8:]}",
        f"整理番号{MINE[:11]}{(int(MINE[11]) + 1) % 10}",  # wrong digit, nothing that names it
        f"会員番号{CARD}",
        "JANコード：4901234567894",
        "ISBN 978-4-06-519981-0",
        "融資額1234567円、普通7.5％",
        "第415条第1項第2号、民集22巻12号2614頁",
        "令和7年4月1日から施行する",
        "バージョン10.2.14.3に更新",
        "商品コード：TK8820193",
        "定価1,234,567円 2025-04-15 10:30:00",
        "普通株式1234567株",
        "受付：2025-000481237",
        "3.14159265358979",
    ],
)
def test_look_alikes_are_left_alone(text: str) -> None:
    assert found(text) == []
