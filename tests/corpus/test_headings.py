"""Headings are found where a reader sees one, and not where a text only looks like one."""

from __future__ import annotations

import pytest

from tokka.corpus.headings import headings


def _labels(text: str) -> list[str]:
    return [mark.label for mark in headings(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("題名\n====\n文。\n\n節\n---\n文。", [("題名", 1), ("節", 2)]),
        ("<h2 id='a'>融資 <b>規程</b></h2>\n文。", [("融資 規程", 2)]),
        ("第一編　総則\n第２章の二　貸付\n文。", [("第一編 総則", 11), ("第２章の二 貸付", 12)]),
        ("　　　附　則　（昭和四三年四月一日法律第一一号）　抄\n文。",
         [("附則（昭和四三年四月一日法律第一一号）", 12)]),
        ("別表第一（第五条関係）\n文。", [("別表第一（第五条関係）", 12)]),
        ("第三十八条から第八十四条まで　削除\n", [("第三十八条から第八十四条まで", 16)]),
        ("Chapter 3 Loans\n\nSection 3.1: Limits\nText.",
         [("Chapter 3 Loans", 12), ("Section 3.1: Limits", 13)]),
        ("Article 1 Scope\nText.\n\nSection 1.1 Terms\nText.",
         [("Article 1 Scope", 16), ("Section 1.1 Terms", 17)]),
        ("4.1 Scope\n\nText.\n\n4.2 Limits\n\nText.", [("4.1 Scope", 19), ("4.2 Limits", 19)]),
        ("LS(1)   User Commands   LS(1)\n\nNAME\n       ls - list\n\nオプション\n       -a\n",
         [("NAME", 1), ("オプション", 1)]),
    ],
)  # fmt: skip
def test_each_kind_of_heading_is_found(text: str, expected: list[tuple[str, int]]) -> None:
    assert [(mark.label, mark.level) for mark in headings(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "会社法\n第三条\nの規定による。",
        "---\ntitle: a\ndate: b\n---\n文。",
        "| a | b |\n---\n",
        "the rules in\nSection 4.2 of the plan\n\nText.",
        "A rate of\n4.2 Percent\n\nText.",
        "Table of Contents\n\nA.1 One\n\nA.2 Two\n\nText.",
        "````\n```\n# comment\n```\n````\n",
        "別表第三、勤労者財産形成促進法第六条",
    ],
)
def test_what_only_looks_like_a_heading_is_none(text: str) -> None:
    assert _labels(text) == []


@pytest.mark.parametrize("title", ["", "目　次\n"])
def test_a_table_of_contents_holds_no_headings(title: str) -> None:
    contents = "第一章　総則（第一条―第九条）\n\n第二章　業務（第十条）\n\n　第一節　通則\n\n附則\n"
    body = "第一章　総則\n第一条　目的。\n第二章　業務\n第十条　業務。\n"
    assert _labels(title + contents + body) == ["第一章 総則", "第一条", "第二章 業務", "第十条"]


def test_a_table_of_contents_in_english_holds_no_headings() -> None:
    text = "Chapter 8. Text\n\nChapter 8. Text\n\n 8.1.\xa0One\n\n 8.1.1. Two\n\n 8.1.2. Three\n\n"
    text += "8.1.\xa0One\n\nText.\n\n8.1.1. Two\n\nText.\n\n8.1.2. Three\n\nText.\n"
    assert _labels(text)[2:] == ["8.1. One", "8.1.1. Two", "8.1.2. Three"]


def test_a_number_out_of_order_is_no_heading() -> None:
    assert _labels("4.1 Scope\n\nText.\n\n9.7 Percent\n\nText.") == ["4.1 Scope"]


def test_a_caption_above_an_article_is_part_of_it() -> None:
    [mark] = headings("（目的）\n第一条\n\n　この法律は…\n")
    assert (mark.start, mark.label) == (0, "第一条（目的）")
