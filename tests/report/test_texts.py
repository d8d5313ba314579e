import string

import pytest

from tokka.report.texts import CATALOGUE, both, shown_language, text


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_both_languages_say_the_same_things():
    assert set(CATALOGUE["ja"]) == set(CATALOGUE["en"])


def test_both_languages_take_the_same_values():
    japanese, english = CATALOGUE["ja"], CATALOGUE["en"]
    different = [k for k in english if placeholders(japanese[k]) != placeholders(english[k])]
    assert different == []


def test_an_unknown_text_is_an_error():
    with pytest.raises(KeyError):
        text("no_such_text", "en")


def test_a_language_without_a_catalogue_is_shown_english():
    assert [shown_language(code) for code in ("ja", "ja-JP", "de")] == ["ja", "ja", "en"]


def test_a_text_inside_a_text_follows_the_language():
    assert both("exam_role", exam="x", role=both("role_domain")) == {
        "ja": "x（専門）",
        "en": "x (domain)",
    }
