"""Japanese is cut into dictionary words, other languages into stems; nothing gets lost."""

from __future__ import annotations

import pytest

from tokka.retrieval.tokenise import tokens


def test_japanese_without_spaces_becomes_words_in_normal_form() -> None:
    assert tokens("附属の規程を確認しなければならない。", "ja") == [
        "付属",
        "規程",
        "確認",
        "為る",
        "成る",
    ]
    assert tokens("附属", "ja") == tokens("付属", "ja")


@pytest.mark.parametrize("text", ["300万円", "３００万円", "三百万円", "3,000,000円"])
def test_one_amount_is_one_token_however_it_is_written(text: str) -> None:
    assert tokens(text, "ja") == ["3000000", "円"]


def test_english_is_stemmed_and_numbers_stay_whole() -> None:
    found = tokens("The LIMITS were raised to 3,000 yen; 0.5 mg doses", "en")
    assert found == ["the", "limit", "were", "rais", "to", "3000", "yen", "0.5", "mg", "dose"]


def test_japanese_inside_another_language_is_still_searchable() -> None:
    assert set(tokens("規程", "en")) <= set(tokens("see 融資規程 here", "en"))


def test_width_doesnt_matter() -> None:
    assert tokens("Ｗｅｂｻｲﾄ", "ja") == tokens("Webサイト", "ja")


@pytest.mark.parametrize("language", ["ja", "en"])
def test_punctuation_and_space_alone_give_no_tokens(language: str) -> None:
    assert tokens("！？。 …\n", language) == []


def test_text_beyond_the_dictionarys_limit_is_cut_and_kept_whole() -> None:
    text = "融資の限度額。" * 4000
    assert len(tokens(text, "ja")) == 4000 * len(tokens("融資の限度額。", "ja"))
    assert len("".join(tokens("𠮷" * 30_000, "ja"))) >= 80
