"""References point to the article that a reader would turn to, and to nothing hidden."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokka.retrieval.places import place_of
from tokka.retrieval.reference_table import ReferenceTable, follow
from tokka.retrieval.references import Reference, references

DATA = Path(__file__).parents[3] / "shared" / "data" / "japanese_articles"
LOAN = [
    ("第一章 総則", "第一条（目的）"),
    ("第二章 貸付", "第二条", "第1項"),
    ("第二章 貸付", "第二条", "第2項〜第3項"),
    ("第二章 貸付", "第二条の二"),
    ("第二章 貸付", "第三条から第五条まで"),
    ("第二章 貸付", "第六条"),
    ("附則", "第一条（施行期日）"),
    ("別表第一（第二条関係）",),
]
ENGLISH = [
    ("Chapter 3 Loans",),
    ("Chapter 3 Loans", "3.1 Scope"),
    ("Chapter 3 Loans", "3.2 Limits"),
    ("Appendix A. Forms", "A.1 Form"),
    ("Article IX Notices",),
]
TABLE = ReferenceTable(
    [
        *(("loan.md", "融資規程（２０２４年版）", path) for path in LOAN),
        *(("law.md", "銀行法", (f"第{n}条",)) for n in "一二三四五"),
        *(("rule.md", "銀行法施行規則", (f"第{n}条",)) for n in "一二三四五"),
        *(("plan.md", "Loan Policy", path) for path in ENGLISH),
    ]
)
LAW, RULE, PLAN = len(LOAN), len(LOAN) + 5, len(LOAN) + 10


def _rows(text: str, *here: str, document_id: str = "loan.md") -> list[int]:
    found = []
    for reference in references(text, here):
        found += TABLE.resolve(reference, document_id)
    return found


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("第二条の規定", [1, 2]),
        ("第２条第２項の規定", [2]),
        ("第二条の二の規定", [3]),
        ("第四条は削除された。", [4]),
        ("第一条から第二条の二までの規定", [0, 1, 2, 3]),
        ("別表第一に掲げる", [7]),
        ("第二章の規定", [1, 2, 3, 4, 5]),
        ("附則第一条の規定", [6]),
        ("第九条の規定", []),
        ("第二条第一項及び第六条", [1, 5]),
        ("第二条第一項のほか、同条第三項", [1, 2]),
        ("第六条にかかわらず、本規程第一条", [5, 0]),
    ],
)
def test_a_number_is_found_by_the_headings(text: str, rows: list[int]) -> None:
    assert _rows(text, "第二章 貸付", "第七条") == rows


@pytest.mark.parametrize(
    ("text", "here", "rows"),
    [
        ("前条の規定", ("第六条",), [4]),
        ("次条の規定", ("第二条",), [3]),
        ("前二条の規定", ("第二条の二",), [0, 1, 2]),
        ("前条第二項の規定", ("第二条の二",), [2]),
        ("前項の規定", ("第二条", "第2項"), [1]),
        ("第三項の規定", ("第二条", "第1項"), [2]),
        ("前条の規定", ("附則", "第二条"), []),
        ("前条の規定", (), []),
    ],
)
def test_what_stands_beside_is_counted_from_here(
    text: str, here: tuple[str, ...], rows: list[int]
) -> None:
    assert _rows(text, *here) == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("銀行法第三条の規定", [LAW + 2]),
        ("「銀行法」第三条の規定", [LAW + 2]),
        ("に規定する銀行法\n（昭和五十六年法律第五十九号）\n第三条第一項", [LAW + 2]),
        ("銀行法第三条及び第五条並びに同法第一条", [LAW + 2, LAW + 4, LAW]),
        ("銀行法施行規則第一条", [RULE]),
        ("会社法第三条", []),
        ("会社法第三条及び第一条", []),
        ("旧銀行法第三条", []),
    ],
)
def test_another_document_is_found_by_its_title_and_never_guessed(
    text: str, rows: list[int]
) -> None:
    assert _rows(text, "第七条") == rows


def test_the_law_of_an_enforcement_rule_needs_no_name() -> None:
    assert _rows("法第三条の規定", "第九条", document_id="rule.md") == [LAW + 2]
    assert _rows("法第三条の規定", "第九条") == []


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("as described in Section 3.2 below", [PLAN + 2]),
        ("see Chapter 3 and Appendix A", [PLAN, PLAN + 1, PLAN + 2, PLAN + 3]),
        ("Sections 3.1 and 3.2 apply", [PLAN + 1, PLAN + 2]),
        ("under Article 9 of this policy", [PLAN + 4]),
        ("see § 3.1", [PLAN + 1]),
        ("a particular section 4 times", []),
    ],
)
def test_english_references_are_found(text: str, rows: list[int]) -> None:
    assert _rows(text, document_id="plan.md") == rows


def test_an_english_title_names_another_document() -> None:
    assert _rows("See Section 3.2 of the Loan Policy.") == [PLAN + 2]


def test_a_heading_is_no_reference_to_itself() -> None:
    assert (
        references("第二章　貸付\n（申請）\n第三条　文。", ("第二章 貸付", "第三条（申請）")) == []
    )


def test_the_articles_of_an_amending_law_are_not_those_of_this_one() -> None:
    here = ("附則（令和五年法律第二八号）", "第二条")
    assert [r.scope for r in references("第三条及び附則第一条", here)] == [here[0]]
    assert [r.scope for r in references("この法律第三条", here)] == [""]


def test_what_is_hidden_is_not_resolved_and_changes_nothing() -> None:
    entries = [("a", "法", ("第一条",)), ("b", "銀行法", ("第一条",)), ("c", "他", ("第一条",))]
    table = ReferenceTable(entries)
    [reference] = references("銀行法第一条", ())
    assert table.resolve(reference, "c") == [1]
    assert table.resolve(reference, "c", allowed=lambda row: row != 1) == [0]
    assert ReferenceTable([entries[0], entries[2]]).resolve(reference, "c") == [0]


def test_a_hidden_row_of_a_visible_document_is_left_out() -> None:
    [reference] = references("第二条による。", ("第七条",))
    assert TABLE.resolve(reference, "loan.md", allowed=lambda row: row != 1) == [2]


def test_following_adds_what_the_best_passages_refer_to_first() -> None:
    texts = {3: "第六条による。第一条による。", 5: "銀行法第二条による。前条による。"}

    def text_of_row(row: int) -> tuple[str, str, tuple[str, ...]]:
        return "loan.md", texts[row], LOAN[row]

    assert follow([3, 5], text_of_row, TABLE, 10, lambda row: True) == [0, LAW + 1, 4]
    assert follow([5, 3], text_of_row, TABLE, 1, lambda row: True) == [LAW + 1]
    assert follow([3, 5], text_of_row, TABLE, 10, lambda row: row < LAW) == [0, 4]


def test_a_reference_knows_where_it_stands() -> None:
    text = "借入れは、民法第三条の二第一項第二号による。"
    [found] = references(text, ())
    assert text[found.start : found.end] == "第三条の二第一項第二号"
    assert found == Reference(7, 18, "条", (3, 2), paragraph=1, item="二", title="借入れは、民法")


def test_headings_say_where_a_chunk_stands() -> None:
    place = place_of(("第２編", "附則（抄）", "第十一条の三（特例）", "第2項〜第4項"))
    assert (place.scope, place.article, place.paragraphs) == ("附則（抄）", (11, 3), (2, 4))


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data/japanese_articles is absent")
def test_citations_between_the_codes_are_resolved() -> None:
    """Against another extractor's edges, which of 第一条から第五条まで hold the ends only."""
    articles = [row for row in _lines("articles.jsonl.gz") if row["part"] == "main"]
    ids = [row["id"] for row in articles]
    paths = [(row["text"].split("\n")[0].replace(" ", ""),) for row in articles]
    gold = {
        (edge["source"], edge["target"])
        for edge in _lines("edges.jsonl.gz")
        if edge["type"] == "refs" and {edge["source"], edge["target"]} <= set(ids)
    }
    table = ReferenceTable(
        (row["law"], row["law"], path) for row, path in zip(articles, paths, strict=True)
    )
    found = set()
    inside = set()
    for row, path in zip(articles, paths, strict=True):
        for reference in references(row["text"], path):
            text = row["text"][reference.start : reference.end]
            rows = table.resolve(reference, row["law"])
            if text.startswith("第"):
                found.update((row["id"], ids[r]) for r in rows)
            if reference.until:
                inside.update((row["id"], ids[r]) for r in rows[1:-1])
    different = {(one, other) for one, other in found if one != other}
    gold = {(one, other) for one, other in gold if one != other}
    assert len(gold & different) / len(gold) >= 0.99
    compared = different - (inside - gold)
    assert len(gold & compared) / len(compared) >= 0.975
