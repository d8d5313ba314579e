"""A document is named by its whole title with its number, and by nothing less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.retrieval.named import Titles

LAWS = {
    "5": "金融商品取引法第5条",
    "5-2": "金融商品取引法第5条の2",
    "order-5": "金融商品取引法施行令第5条",
    "form": "Form 12 Claim",
    "rule": "就業規則",
    "chapter": "手引き 第十",
}


def named(query: str, titles: dict[str, str] = LAWS) -> list[str]:
    return Titles(titles.items()).named(query)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("金融商品取引法第5条第6項により届け出る", ["5"]),
        ("金融商品取引法第５条の規定", ["5"]),
        ("金融商品取引法 第5条1項", ["5"]),
        ("金融商品取引法第5条の2第1項", ["5-2"]),
        ("金融商品取引法第5条の3", []),
        ("金融商品取引法第55条", []),
        ("金融商品取引法施行令第5条と金融商品取引法第5条", ["order-5", "5"]),
        ("which claim is FORM 12  CLAIM?", ["form"]),
        ("手引き第十", ["chapter"]),
        ("手引き第十二", []),
        ("就業規則によれば", []),
        ("第5条", []),
        ("", []),
    ],
)
def test_a_whole_title_with_its_number_names_a_document(query: str, found: list[str]) -> None:
    assert named(query) == found


def test_a_number_is_not_part_of_a_longer_one() -> None:
    titles = {"a": "様式1", "form": "Form 1", "deep": "1 様式の書き方"}
    for query in ("様式12", "Form 1.2", "21 様式の書き方"):
        assert named(query, titles) == []
    assert named("様式1と1 様式の書き方", titles) == ["a", "deep"]


def test_the_longer_title_counts_and_what_it_holds_does_not() -> None:
    titles = {"form": "様式1", "example": "様式1 記入例", "inside": "記入例 2", "2": "例 2 の様式1"}
    assert named("様式1 記入例", titles) == ["example"]
    assert named("例2の様式1", titles) == ["2"]


def test_a_title_that_two_documents_bear_names_neither() -> None:
    titles = {"a": "金融商品取引法第5条", "b": "金融商品取引法 第5条"}
    assert named("金融商品取引法第5条", titles) == []


@pytest.mark.parametrize("title", ["第十五条", "第15条の2", "15", "第3章", "融資規程"])
def test_a_number_or_a_word_alone_names_nothing(title: str) -> None:
    assert named(f"{title}により", {"a": title}) == []


@given(st.lists(st.integers(1, 40), unique=True, min_size=1), st.integers(1, 40))
def test_an_article_is_found_if_and_only_if_it_is_there(numbers: list[int], asked: int) -> None:
    titles = {str(n): f"銀行法第{n}条" for n in numbers}
    assert named(f"銀行法第{asked}条により", titles) == ([str(asked)] if asked in numbers else [])
