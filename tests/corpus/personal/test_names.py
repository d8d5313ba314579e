"""Which candidates count as somebody's name, with tokens and entities as the models give them."""

from __future__ import annotations

import pytest

from tokka.corpus.personal.findings import fold, joined, settle
from tokka.corpus.personal.japanese_names import Entity, Token, cued, japanese_names
from tokka.corpus.personal.western_names import western_names

SURNAME, GIVEN = "名詞-固有名詞-人名-姓", "名詞-固有名詞-人名-名"
OTHER = "名詞-普通名詞-一般"


def tokens(*parts: tuple[str, str]) -> list[Token]:
    position, made = 0, []
    for text, tag in parts:
        made.append(Token(text, position, tag))
        position += len(text)
    return made


def names(text: str, parts: list[Token] | None = None, people: tuple[str, ...] = ()) -> list[str]:
    folded = fold(text)
    entities = [Entity("Person", folded.index(p), folded.index(p) + len(p)) for p in people]
    found = japanese_names(folded, parts or [], entities)
    return [text[f.start : f.end] for f in joined(folded, settle(found))]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("氏名：阿部 千夏　性別：女", "阿部 千夏"),
        ("フリガナ：アベ チナツ", "アベ チナツ"),
        ("氏名（ローマ字）：NGUYEN VAN MINH", "NGUYEN VAN MINH"),
        ("代表取締役深山 剛志を甲とする", "深山 剛志"),
        ("保護者の大空様へ", "大空"),
        ("大空 翔くんが1位", "大空 翔"),
        ("振込口座：普通 0048213 アキバ スミレ", "アキバ スミレ"),
        ("グエン・ティ・ランさんは", "グエン・ティ・ラン"),
        ("マイケルさん", "マイケル"),
        ("英訳はLeeさん", "Lee"),
    ],
)
def test_labels_and_titles_give_a_name_away(text: str, name: str) -> None:
    assert names(text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "お客様へ",
        "皆様、奥様",
        "患者様の同意",
        "契約者様",
        "仕様書と模様",
        "オーナーさん",
        "同様の措置",
        "担当部署：営業部",
    ],
)
def test_titles_of_nobody_in_particular_are_left_alone(text: str) -> None:
    assert names(text) == []


def test_surname_and_given_name_are_a_name_and_a_surname_alone_is_not() -> None:
    full = tokens(("松永", SURNAME), ("ひかり", GIVEN), ("は", "助詞"))
    assert names("松永ひかりは", full) == ["松永ひかり"]
    assert names("松永は", tokens(("松永", SURNAME), ("は", "助詞"))) == []
    with_post = tokens(("松永", SURNAME), ("部長", OTHER))
    assert names("松永部長", with_post) == ["松永"]


def test_a_place_before_a_title_is_a_name_but_not_before_a_post() -> None:
    place = "名詞-固有名詞-地名-一般"
    assert names("千葉さん", tokens(("千葉", place), ("さん", "接尾辞"))) == ["千葉"]
    assert names("千葉支店長", tokens(("千葉", place), ("支店長", OTHER))) == []


@pytest.mark.parametrize(
    ("text", "person"),
    [
        ("夏目漱石『こころ』", "夏目漱石"),
        ("ニュートンの運動の法則", "ニュートン"),
        ("鈴木建設の合併", "鈴木建設"),
        ("鈴木建設の合併", "鈴木"),
        ("株式会社山田", "山田"),
        ("アルツハイマー型認知症", "アルツハイマー"),
        ("田中(1998)によれば", "田中"),
        ("昭和23年", "昭和"),
    ],
)
def test_authors_namesakes_and_companies_are_no_personal_data(text: str, person: str) -> None:
    assert names(text, people=(person,)) == []


def test_the_models_span_loses_titles_and_brackets() -> None:
    assert names("患者の田中様", people=("田中様",)) == ["田中"]
    assert names("本件、吉岡部長にも", people=("吉岡部",)) == ["吉岡"]
    assert names("（神崎医師）", people=("(神崎医師)",)) == ["神崎"]


def test_only_a_sentence_with_a_sign_of_a_name_is_read_by_the_model() -> None:
    assert cued("鈴木様はお元気ですか。", surnames=False)
    assert cued(fold("署名：小早川 秀"), surnames=False)
    assert cued("何もない。", surnames=True)
    assert not cued("この法律は、公布の日から施行する。", surnames=False)


def western(text: str, *people: str) -> list[str]:
    spans = [(text.index(p), text.index(p) + len(p)) for p in people]
    return [text[f.start : f.end] for f in settle(western_names(text, spans))]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Please ask Dr. Ito-Smith about it.", "Ito-Smith"),
        ("My name is Ada van Dyke.", "Ada van Dyke"),
        ("What's your last name? Magnusson", "Magnusson"),
        ("Dear Šárka Ottová,", "Šárka Ottová"),
    ],
)
def test_titles_and_phrases_in_english(text: str, name: str) -> None:
    assert western(text) == [name]


def test_citations_and_greetings_to_nobody_are_left_alone() -> None:
    assert western("As Li et al. (2018) show", "Li") == []
    assert western("Smith (1998) says so", "Smith") == []
    assert western("Dear Customer, Dear Sir or Madam") == []


def test_the_english_models_span_loses_title_and_possessive() -> None:
    assert western("It is Mrs. Jones's house", "Mrs. Jones's") == ["Jones"]
    assert western("call 123 now", "123") == []
