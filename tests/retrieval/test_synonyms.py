"""Other words for what is asked count, at a lower weight; lines that can't be read are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokka.errors import Mistakes, UsageError
from tokka.records import RetrievalSpec
from tokka.retrieval.lexical import Asked
from tokka.retrieval.synonyms import Synonyms, read_synonyms
from tokka.retrieval.tokenise import tokens

FILE = """# 言い換え
融資, 貸付、ローン

限度額，貸出枠   # 二語
繰上げ返済 => 期限前弁済
"""
SPEC = RetrievalSpec(dense=False, synonyms="words.txt")


def test_each_word_of_a_line_finds_the_others_for_half() -> None:
    asked = read_synonyms(FILE, "ja").asked(tokens("貸付", "ja"))
    assert asked == [
        Asked(("貸し付け",)),
        Asked(("融資",), 0.5),
        Asked(("ローン",), 0.5),
    ]


def test_words_of_several_tokens_are_met_whole_and_become_phrases() -> None:
    found = read_synonyms(FILE, "ja").asked(tokens("限度額はいくらですか", "ja"))
    assert Asked(tuple(tokens("貸出枠", "ja")), 0.5) in found
    assert len(tokens("貸出枠", "ja")) > 1
    assert read_synonyms(FILE, "ja").asked(["限度"]) == [Asked(("限度",))]


def test_an_arrow_works_from_left_to_right_only() -> None:
    synonyms = read_synonyms(FILE, "ja")
    right = tuple(tokens("期限前弁済", "ja"))
    assert Asked(right, 0.5) in synonyms.asked(tokens("繰上げ返済の手数料", "ja"))
    assert all(one.weight == 1.0 for one in synonyms.asked(list(right)))


def test_a_synonym_that_is_asked_for_itself_keeps_its_full_weight() -> None:
    asked = read_synonyms(FILE, "ja").asked(["融資", "貸し付け"])
    assert asked[:2] == [Asked(("融資",)), Asked(("貸し付け",))]
    assert [one.words for one in asked[2:]] == [("ローン",)]


def test_the_longest_word_wins() -> None:
    synonyms = Synonyms({("a", "b"): (("long",),), ("a",): (("short",),), ("b",): (("inside",),)})
    assert [one.words[0] for one in synonyms.asked(["a", "b"])] == ["a", "b", "long"]
    assert [one.words[0] for one in synonyms.asked(["a", "c"])] == ["a", "c", "short"]


def test_every_line_that_cant_be_read_is_named() -> None:
    with pytest.raises(Mistakes) as caught:
        read_synonyms(
            "融資\n融資, 貸付\na => b => c\n融資,,貸付\n=> 貸付\nは, 融資\n", "ja", "s.txt"
        )
    items = caught.value.items
    assert [item.split(" ")[0] for item in items] == [
        "s.txt:1:", "s.txt:3:", "s.txt:4:", "s.txt:5:", "s.txt:6:",
    ]  # fmt: skip
    assert "at least two words" in items[0] and "got '融資'" in items[0]
    assert "'は' holds no word" in items[4]


def test_a_search_finds_synonyms_below_the_word_itself(
    built: Any, new_piece: Any, tmp_path: Path
) -> None:
    chunks = [
        new_piece("a", "ローンの規程"),
        new_piece("b", "融資の規程"),
        new_piece("c", "旅費の規程"),
    ]
    index = built(tmp_path / "i", chunks, synonyms={"words.txt": FILE})
    assert [p.document_id for p in index.search("融資", 9, SPEC)] == ["b", "a"]
    plain = index.search("融資", 9, SPEC.model_copy(update={"synonyms": ""}))
    assert [p.document_id for p in plain] == ["b"]
    terms = index.explain("融資", 9, SPEC)[1].terms
    assert [(term.words, term.weight) for term in terms] == [(("ローン",), 0.5)]


def test_synonyms_that_were_not_given_are_missed(
    built: Any, new_piece: Any, tmp_path: Path
) -> None:
    index = built(tmp_path / "i", [new_piece("a", "ローンの規程")])
    with pytest.raises(UsageError, match=r"words\.txt were not given"):
        index.search("融資", 9, SPEC)
