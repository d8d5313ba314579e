"""What is marked is what the search matched, at its place in the text as it stands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.retrieval.highlighting import marks, window


def marked(text: str, query: str, language: str = "ja") -> list[str]:
    return [text[begin:end] for begin, end in marks(text, [query], language)]


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("上限は300万円。融資の上限は別に定める。", "融資の上限", ["上限", "融資", "上限"]),
        ("貸し付けの期限", "貸付期限", ["貸し付け", "期限"]),  # neighbours but for a particle
        ("融資限度額は別表", "限度額", ["限度額"]),
        ("ﾛｰﾝの金利は㌫で示す", "ローンの金利", ["ﾛｰﾝ", "金利"]),  # ﾛｰﾝ is three characters
        ("ガスのｶﾞｽ代", "ガス", ["ガス", "ｶﾞｽ"]),
        ("融資ｶｰﾄﾞの枚数", "カード", ["ｶｰﾄﾞ"]),  # the last sound is two characters
        ("これは有る", "有る", []),
    ],
)
def test_japanese_words_are_marked_in_any_spelling(text: str, query: str, found: list[str]) -> None:
    assert marked(text, query) == found


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("The limits were raised to 3,000 crowns.", "limit 3000", ["limits", "3,000"]),
        ("The limit of the loan", "what is the limit of it", ["limit"]),
        ("a loan limit, twice", "limit loan", ["loan limit"]),  # neighbours are joined
        ("Ｌｏａｎ limit", "loan", ["Ｌｏａｎ"]),
        ("İstanbul loan", "loan", ["loan"]),
        ("営業日 loan", "営業", ["営業"]),
        ("nothing of it", "loan", []),
        ("", "loan", []),
        ("loan", "", []),
    ],
)
def test_words_are_marked_by_their_stems(text: str, query: str, found: list[str]) -> None:
    assert marked(text, query, "en") == found


def test_every_query_marks() -> None:
    text = "red and blue"
    assert marks(text, ["red", "blue"], "en") == ((0, 3), (8, 12))


wild = st.text(
    st.characters(codec="utf-8") | st.sampled_from("融資ｶﾞ゛ﾞガが㍿ﬁ①İ\u0301 \n"), max_size=60
)


@settings(deadline=None)
@given(wild, wild, st.sampled_from(["ja", "en"]))
def test_marks_are_in_order_and_in_the_text(text: str, query: str, language: str) -> None:
    found = marks(text, [query, text[:10]], language)
    last = -1
    for begin, end in found:
        assert last < begin < end <= len(text)
        last = end


def test_a_short_text_is_shown_whole() -> None:
    assert window("short", [], 10) == (0, 5)


def test_the_part_with_most_marks_is_shown_from_the_end_of_a_sentence() -> None:
    text = (
        "loan. " + "filler words here. " * 20 + "Now the loan limit of a loan is 3. " + "tail " * 30
    )
    begin, end = window(text, marks(text, ["loan limit"], "en"), 80)
    assert "loan limit of a loan" in text[begin:end]
    assert text[begin:].startswith("Now the loan") and end - begin <= 80


def test_without_marks_the_beginning_is_shown() -> None:
    assert window("x" * 500, [], 100) == (0, 100)


@given(st.text("ab 。.\n", max_size=300), st.data(), st.integers(10, 100))
def test_a_window_lies_in_the_text_and_is_no_longer_than_asked(
    text: str, data: st.DataObject, characters: int
) -> None:
    places = data.draw(st.lists(st.integers(0, max(0, len(text) - 1)), max_size=5, unique=True))
    spans = [(place, place + 1) for place in sorted(places) if place < len(text)]
    begin, end = window(text, spans, characters)
    assert 0 <= begin <= end <= len(text) and end - begin <= characters
    if spans:
        assert any(begin <= start < end for start, _ in spans)
