"""Widened passages are the document's text, keep their rank, and show nobody what is hidden."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.chunking import chunk
from tokka.corpus.documents import build
from tokka.records import Chunk
from tokka.retrieval.widening import Span, section_of, text_of, widen

LINES = st.sampled_from(
    ["# 題", "## 節", "文です。次の文です。", "", "第二条　本文である。", "長い" * 15]
)
TEXTS = st.lists(LINES, min_size=1, max_size=12).map("\n".join).filter(str.strip)


def _chunk(row: int, document_id: str = "a.md", *headings: str) -> Chunk:
    text = f"文{row}。"
    start = row * 5
    return Chunk(
        id=f"{document_id}#{row}", document_id=document_id, text=text, start=start,
        end=start + len(text), headings=headings, before="\n" * (5 - len(text)),
    )  # fmt: skip


def _rows(spans: list[Span]) -> list[tuple[int, int]]:
    return [(span.first_row, span.last_row) for span in spans]


SECTIONS = [_chunk(row, "a.md", "第一条" if row < 6 else "第二条") for row in range(10)]


def test_neighbours_stand_on_both_sides_within_the_document() -> None:
    chunks = [*(_chunk(row) for row in range(3)), *(_chunk(row, "b.md") for row in range(3))]
    assert _rows(widen([2, 3], chunks, 1, False, lambda row: True)) == [(1, 2), (3, 4)]


def test_without_widening_each_row_is_its_own_span_once() -> None:
    assert _rows(widen([4, 5, 4], SECTIONS, 0, False, lambda row: True)) == [(4, 4), (5, 5)]


def test_spans_that_meet_keep_the_rank_of_the_best() -> None:
    spans = widen([8, 2, 9, 3], SECTIONS, 1, False, lambda row: True)
    assert spans == [Span(7, 9, 8), Span(1, 4, 2)]


def test_a_parent_is_the_section_within_reach() -> None:
    assert _rows(widen([2], SECTIONS, 0, True, lambda row: True)) == [(0, 5)]
    assert _rows(widen([0], SECTIONS, 0, True, lambda row: True, reach=2)) == [(0, 2)]
    assert _rows(widen([5], SECTIONS, 2, True, lambda row: True)) == [(1, 7)]


def test_the_parent_of_a_paragraph_is_its_article_and_of_rows_their_table() -> None:
    assert section_of(("第2章", "第九条", "第2項", "第三号〜第五号")) == ("第2章", "第九条")
    assert section_of(("第九条", "第1項〜第2項")) == ("第九条",)
    assert section_of(("料金", "品目 | 料金")) == ("料金",)
    assert section_of(("第九条の二",)) == ("第九条の二",)


def test_a_hidden_chunk_is_in_no_span_and_none_reaches_over_it() -> None:
    def allowed(row: int) -> bool:
        return row != 3

    assert _rows(widen([3, 4, 2], SECTIONS, 2, True, allowed)) == [(4, 6), (0, 2)]


def test_chunks_of_another_version_are_no_neighbours() -> None:
    chunks = [_chunk(0), _chunk(1), _chunk(0), _chunk(4)]
    assert _rows(widen([1, 2], chunks, 1, False, lambda row: True)) == [(0, 1), (2, 2)]


def test_what_two_chunks_share_stands_once() -> None:
    chunks = chunk(build("一の文。二の文。三の文。四の文。", "a.md"), 12, len, overlap_sentences=1)
    [span] = widen([0], chunks, 1, False, lambda row: True)
    assert chunks[1].start < chunks[0].end
    assert text_of(span, chunks) == "一の文。二の文。三の文。四の文。"


@given(TEXTS, st.integers(5, 40), st.integers(0, 2), st.integers(0, 3), st.booleans(), st.data())
def test_a_span_is_the_documents_text(
    text: str, limit: int, overlap: int, neighbours: int, parent: bool, data: st.DataObject
) -> None:
    chunks = chunk(build(text, "a.md"), limit, len, overlap)
    rows = data.draw(st.lists(st.integers(0, len(chunks) - 1), min_size=1, max_size=6))
    hidden = data.draw(st.sets(st.integers(0, len(chunks) - 1), max_size=3))
    spans = widen(rows, chunks, neighbours, parent, lambda row: row not in hidden)
    held = [row for span in spans for row in range(span.first_row, span.last_row + 1)]
    assert len(held) == len(set(held)) and not hidden & set(held)
    assert set(rows) - hidden <= set(held)
    for span in spans:
        start, end = chunks[span.first_row].start, chunks[span.last_row].end
        assert text_of(span, chunks) == text[start:end]
