"""What was found brings along what it refers to, and grows by what stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokka.records import Caller, Chunk, DocumentFacts, RetrievalSpec
from tokka.retrieval.hybrid import Index, open_index, update_index

PLAIN = RetrievalSpec(dense=False, top_k=1)


def _document(name: str, title: str, *articles: str) -> tuple[list[Chunk], DocumentFacts]:
    chunks: list[Chunk] = []
    at = 0
    for number, text in enumerate(articles, start=1):
        before = "\n" if chunks else ""
        start = at + len(before)
        at = start + len(text)
        chunks.append(
            Chunk(
                id=f"{name}#{number}", document_id=name, text=text, start=start, end=at,
                headings=(f"第{number}条",), before=before,
            )
        )  # fmt: skip
    return chunks, DocumentFacts(document_id=name, source=name, title=title, language="ja")


LOAN = _document(
    "loan", "融資規程", "この規程の目的。", "限度額は別に定める。", "承認は前条の額による。"
)
COST = _document("cost", "経費規程", "旅費の精算。", "特例は融資規程第二条による。")


@pytest.fixture
def index(built: Any, tmp_path: Path) -> Index:
    facts = {one.document_id: one for _, one in (LOAN, COST)}
    opened: Index = built(tmp_path / "i", [*LOAN[0], *COST[0]], documents=facts)
    return opened


def _ids(index: Index, query: str, **more: Any) -> list[str]:
    return [p.chunk_id for p in index.search(query, 1, PLAIN.model_copy(update=more))]


def test_a_reference_brings_its_article_along_at_the_end_and_without_a_score(
    index: Index,
) -> None:
    assert _ids(index, "承認") == ["loan#3"]
    found = index.search("承認", 1, PLAIN.model_copy(update={"follow": 2}))
    assert [(p.number, p.chunk_id) for p in found] == [(1, "loan#3"), (2, "loan#2")]
    assert found[0].score > 0 == found[1].score
    assert found[1].lexical is None
    assert _ids(index, "特例", follow=1) == ["cost#2", "loan#2"]
    assert _ids(index, "旅費", follow=1) == ["cost#1"]


def test_a_passage_grows_by_its_neighbours_and_its_text_is_the_documents(index: Index) -> None:
    found = index.search("限度額", 1, PLAIN.model_copy(update={"neighbours": 1}))
    assert [p.text for p in found] == [
        "この規程の目的。\n限度額は別に定める。\n承認は前条の額による。"
    ]
    assert (found[0].chunk_id, found[0].start, found[0].end) == ("loan#2", 0, 31)
    assert found[0].lexical is not None
    parts = found[0].parts  # what a citation in it is traced to
    assert [part[0] for part in parts] == ["loan#1", "loan#2", "loan#3"]
    assert [found[0].text[start:end] for _, start, end, _ in parts] == [
        "この規程の目的。", "限度額は別に定める。", "承認は前条の額による。",
    ]  # fmt: skip
    assert index.search("限度額", 1, PLAIN)[0].parts == ()


@pytest.mark.parametrize("more", [{"neighbours": 2}, {"parent": True}])
def test_a_hidden_neighbour_stays_out_and_nothing_reaches_over_it(
    built: Any, tmp_path: Path, more: dict[str, Any]
) -> None:
    chunks, facts = LOAN
    guarded = [chunks[0], chunks[1].model_copy(update={"access": ("board",)}), chunks[2]]
    guarded = [chunk.model_copy(update={"headings": ()}) for chunk in guarded]
    index = built(tmp_path / "g", guarded, documents={"loan": facts})
    spec = PLAIN.model_copy(update=more)
    found = index.search("目的", 1, spec, Caller(labels=()))
    assert [p.text for p in found] == ["この規程の目的。"]
    assert len(index.search("目的", 1, spec, Caller(labels=("board",)))[0].text) == 31


def test_what_is_followed_and_met_is_one_passage(index: Index) -> None:
    assert _ids(index, "承認", follow=1, neighbours=1) == ["loan#3"]


def test_after_a_change_references_lead_to_what_is_there_now(
    index: Index, pairs: Any, tmp_path: Path
) -> None:
    chunks, facts = _document("loan", "融資規程", "新しい目的。", "新しい限度額。")
    update_index(tmp_path / "i", chunks, ["loan"], {"loan": facts}, pairs())
    with open_index(tmp_path / "i", pairs()) as changed:
        found = changed.search("特例", 1, PLAIN.model_copy(update={"follow": 1}))
    assert [p.text for p in found][1:] == ["新しい限度額。"]
    assert _ids(index, "特例", follow=1) == ["cost#2", "loan#2"]  # opened before


def test_neither_step_leaves_what_is_searched(index: Index) -> None:
    only = PLAIN.model_copy(update={"follow": 2, "where": {"document_id": "cost"}})
    assert [p.chunk_id for p in index.search("特例", 1, only, Caller())] == ["cost#2"]


def test_a_document_that_is_called_by_its_title_comes_first(
    built: Any, new_facts: Any, pairs: Any, tmp_path: Path
) -> None:
    chunks, facts = [], {}
    for number in range(1, 5):
        some, its = _document(f"d{number}", f"融資規則第{number}条", "貸付の期限。", "手数料。")
        chunks += some
        facts[its.document_id] = its
    index = built(tmp_path / "i", chunks, documents=facts)
    hidden = {**facts, "d4": facts["d4"].model_copy(update={"access": ("board",)})}
    query = "融資規則第4条の手数料"
    for fusion in ("scores", "ranks"):
        spec = RetrievalSpec(fusion=fusion)
        assert [p.chunk_id for p in index.search(query, 1, spec)] == ["d4#2"]
        parts = index.explain(query, 1, spec)[0].parts
        assert [part.kind for part in parts] == ["lexical", "dense", "named"]
    assert index.search(query, 1, RetrievalSpec(lexical=False))[0].document_id == "d4"
    spec = RetrievalSpec(named=0)
    assert all(p.kind != "named" for e in index.explain(query, 9, spec) for p in e.parts)
    guarded = built(tmp_path / "g", chunks, documents=hidden)
    found = guarded.explain(query, 9, RetrievalSpec(), Caller(labels=()))
    assert found and all(part.kind != "named" for one in found for part in one.parts)
