"""Chunks are spans of their document, within the limit, cut where a reader would cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokka.corpus.chunking import chunk
from tokka.corpus.documents import build
from tokka.corpus.headings import headings
from tokka.corpus.sentences import sentences
from tokka.errors import UsageError
from tokka.records import Document

RULES = """# 融資規程

## 第1章 総則

この規程は融資を定める。上限は300万円とする。

第2章　手続

（申請）
第三条　申請は書面による。期限は翌月末日とする。
２　理事長の承認を要する。
第三条の二（特例）
第三条の規定にかかわらず、部長とする。
附　則
令和6年4月1日から施行する。
"""
PLAIN_LINES = [
    "# 題", "## 節", "第1章 総則", "第二条　本文である。", "（見出し）", "",
    "文です。次の文です。", "長い" * 30, "a b c. D e.", "1. 発動", "・項目", "| a | b |", "【注】",
    "\u3000字下げ。", "附則",
]  # fmt: skip
PLAIN = st.sampled_from(PLAIN_LINES)
LINES = st.sampled_from([
    *PLAIN_LINES, "```", "~~~", "第三条　次のとおりとする。", "２　項である。文。", "３",
    "一　号である。", "二　号の二である。", "別表第一", "|---|---|", "| 一 | 二 |",
    "次のとおり：", "- a\n- b", "4.1 Title", "Section 4.2 Loans", "題\n===",
    "第一章　総則（第一条―第九条）",
])  # fmt: skip
TEXTS = st.one_of(
    st.lists(LINES, min_size=1, max_size=25).map("\n".join),
    st.lists(st.one_of(LINES, st.text(max_size=40)), min_size=1, max_size=12).map("\n".join),
    st.lists(LINES, min_size=1, max_size=12).map("\r\n\u2028".join),
).filter(str.strip)


def _document(text: str) -> Document:
    return build(text, "a.md")


@given(TEXTS, st.integers(1, 60), st.integers(0, 2))
def test_a_chunk_is_its_span_and_within_the_limit(text: str, limit: int, overlap: int) -> None:
    chunks = chunk(_document(text), limit, len, overlap)
    for piece in chunks:
        assert text[piece.start : piece.end] == piece.text == piece.text.strip() != ""
        assert len(piece.text) <= limit
        assert piece.id == f"a.md#{piece.start}-{piece.end}"
    assert len({piece.id for piece in chunks}) == len(chunks)
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)
    covered = {i for piece in chunks for i in range(piece.start, piece.end)}
    for mark in headings(text):  # a heading alone is no chunk: it goes with those below it
        covered |= set(range(mark.start, mark.body))
    assert all(i in covered or text[i].isspace() for i in range(len(text)))


@given(TEXTS, st.integers(1, 60), st.integers(0, 2))
def test_the_text_is_rebuilt_from_its_chunks(text: str, limit: int, overlap: int) -> None:
    rebuilt = ""
    for piece in chunk(_document(text), limit, len, overlap):
        if piece.start < len(rebuilt):
            assert piece.before == "" and overlap
            rebuilt += piece.text[len(rebuilt) - piece.start :]
        else:
            rebuilt += piece.before + piece.text
    assert text.startswith(rebuilt)
    assert not text[len(rebuilt) :].strip()


@given(TEXTS, st.integers(1, 40), st.integers(1, 9))
def test_the_limit_holds_for_a_counter_that_cant_be_estimated(
    text: str, limit: int, weight: int
) -> None:
    def count(piece: str) -> int:
        return sum(weight if character in "一の文a" else 1 for character in piece) + len(piece) // 7

    for piece in chunk(_document(text), limit, count):
        assert count(piece.text) <= limit or len(piece.text) == 1


@example("長い" * 30 + "\n（見出し）\n・項目\n・項目")
@given(st.lists(PLAIN, min_size=1, max_size=25).map("\n".join).filter(str.strip))
def test_no_border_falls_inside_a_sentence_that_fits(text: str) -> None:
    limit = 70
    heads = {mark.start for mark in headings(text)}
    borders = {
        edge for piece in chunk(_document(text), limit, len) for edge in (piece.start, piece.end)
    }
    for span in sentences(text):
        visible = len(text[span.start : span.end].rstrip())
        start = (
            span.start
            + len(text[span.start : span.end])
            - len(text[span.start : span.end].lstrip())
        )
        inside = [edge for edge in borders - heads if start < edge < span.start + visible]
        assert not inside or visible > limit or any(span.start < head < span.end for head in heads)


def test_headings_open_chunks_and_name_them() -> None:
    found = [(c.headings, c.text.split("\n")[0]) for c in chunk(_document(RULES), 200, len)]
    assert found == [
        (("融資規程", "第1章 総則"), "# 融資規程"),
        (("融資規程", "第1章 総則", "第2章 手続", "第三条（申請）"), "第2章　手続"),
        (("融資規程", "第1章 総則", "第2章 手続", "第三条の二（特例）"), "第三条の二（特例）"),
        (("融資規程", "第1章 総則", "附則"), "附　則"),
    ]


def test_a_reference_to_an_article_at_a_line_start_is_no_heading() -> None:
    [piece] = chunk(_document("第三条の規定による。\n第四条、第五条も同じ。"), 100, len)
    assert piece.headings == ()


def test_an_article_may_begin_right_after_its_caption() -> None:
    text = "第3条（預入額）普通預金は500円以上とする。\n第4条（店舗）最も近い店舗とする。\n"
    pieces = chunk(_document(text + "第3条（預入額）の規定による。"), 100, len)
    assert [piece.headings for piece in pieces] == [("第3条（預入額）",), ("第4条（店舗）",)]


def test_short_numbered_lines_are_headings_where_there_are_no_others() -> None:
    text = "業務継続計画\n1. 発動\n震度5強で発動する。\n2. 参集\n役席は集まる。"
    assert [c.headings for c in chunk(_document(text), 100, len)] == [
        (),
        ("1. 発動",),
        ("2. 参集",),
    ]
    items = "必要な書類\n1. 申込書\n2. 印鑑\n3. 通帳"
    assert len(chunk(_document(items), 100, len)) <= 2
    assert len(chunk(_document("# 題\n" + text), 100, len)) == 1


def test_a_hash_inside_a_code_fence_is_no_heading() -> None:
    pieces = chunk(_document("# 題\n```\n# comment\n```\n後の文。"), 100, len)
    assert [piece.headings for piece in pieces] == [("題",)]


def test_small_paragraphs_share_a_chunk_and_cuts_prefer_paragraphs() -> None:
    text = "一つ目。\n\n二つ目。\n\n三つ目の段落。続きの文。\n\n四つ目。"
    assert [c.text for c in chunk(_document(text), 22, len)] == [
        "一つ目。\n\n二つ目。",
        "三つ目の段落。続きの文。\n\n四つ目。",
    ]


def test_overlap_repeats_whole_sentences_of_the_same_section() -> None:
    text = "一の文。二の文。三の文。四の文。\n# 次\n五の文。"
    plain = [c.text for c in chunk(_document(text), 9, len)]
    lapped = [c.text for c in chunk(_document(text), 12, len, overlap_sentences=1)]
    assert plain == ["一の文。二の文。", "三の文。四の文。", "# 次\n五の文。"]
    assert lapped == ["一の文。二の文。三の文。", "三の文。四の文。", "# 次\n五の文。"]


def test_a_sentence_over_the_limit_is_cut_at_a_comma() -> None:
    text = "甲は乙に通知し、乙は丙に通知し、丙は丁に通知する。"
    assert [c.text for c in chunk(_document(text), 16, len)] == [
        "甲は乙に通知し、乙は丙に通知し、",
        "丙は丁に通知する。",
    ]


def test_a_chunk_knows_its_page() -> None:
    document = build("# 一頁\n文。\n# 二頁\n文。\n", "a.pdf", page_starts=(0, 8))
    assert [c.page for c in chunk(document, 50, len)] == [1, 2]
    assert chunk(_document("文。"), 50, len)[0].page is None


def test_a_counter_that_charges_for_joining_still_keeps_the_limit() -> None:
    def count(text: str) -> int:
        return len(text) + 3 * (text.count("。") - 1)

    pieces = chunk(_document("一の文。二の文。三の文。四の文。五の文。"), 12, count)
    assert [count(piece.text) <= 12 for piece in pieces] == [True] * len(pieces)
    assert "".join(piece.text for piece in pieces) == "一の文。二の文。三の文。四の文。五の文。"


def test_counting_stays_linear_in_the_text() -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text)

    text = "融資の限度額は三百万円とする。\n" * 2000 + "長" * 20_000
    chunk(_document(text), 200, count)
    assert counted < 6 * len(text)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="max_tokens must be at least 1"):
        chunk(_document("文。"), 0, len)


ARTICLE = (
    "第２章　貸付\n（承認）\n第九条　理事長は、承認する。ただし、小口を除く。\n"
    "２　部長は、次に掲げるものを承認する。\n一　百万円までの貸付\n"
    "二　期限の延長\n三の二　その他の変更\n"
    "３　前項の承認は、書面による。\n"
)


def test_an_article_that_fits_is_one_chunk() -> None:
    [piece] = chunk(_document(ARTICLE), 200, len)
    assert piece.headings == ("第２章 貸付", "第九条（承認）")


def test_a_long_article_is_cut_at_its_paragraphs_and_they_are_named() -> None:
    pieces = chunk(_document(ARTICLE), 60, len)
    assert [(p.headings[-1], p.text.split("\n")[0]) for p in pieces] == [
        ("第1項", "第２章　貸付"),
        ("第2項", "２　部長は、次に掲げるものを承認する。"),
        ("第3項", "３　前項の承認は、書面による。"),
    ]
    assert pieces[0].headings[:-1] == ("第２章 貸付", "第九条（承認）")


def test_small_paragraphs_of_a_long_article_share_a_chunk() -> None:
    text = "第一条　" + "長い文である。" * 9 + "\n２　短い。\n３　短い。\n"
    assert [p.headings[-1] for p in chunk(_document(text), 70, len)] == ["第1項", "第2項〜第3項"]


def test_a_long_paragraph_is_cut_at_its_items() -> None:
    text = (
        "第一条　甲とする。\n２　次のとおりとする。\n一　" + "甲" * 20 + "\n二　" + "乙" * 20 + "\n"
    )
    assert [p.headings[1:] for p in chunk(_document(text), 36, len)] == [
        ("第1項",),
        ("第2項", "第一号"),
        ("第2項", "第二号"),
    ]


def test_numbers_out_of_order_are_no_paragraphs() -> None:
    text = "第一条　次の率による。\n7　パーセント\n3　パーセント\n" + "文である。" * 10
    assert {p.headings for p in chunk(_document(text), 30, len)} == {("第一条",)}


def test_a_long_table_is_cut_between_rows_under_its_header() -> None:
    rows = [f"| 品目{n} | {n}円 |" for n in range(8)]
    text = "# 料金\n説明。\n\n| 品目 | 料金 |\n|---|---|\n" + "\n".join(rows) + "\n\n後の文。\n"
    pieces = chunk(_document(text), 50, len)
    table = [p for p in pieces if p.headings == ("料金", "品目 | 料金")]
    assert table[0].text.startswith("| 品目 | 料金 |\n|---|---|\n| 品目0")
    assert [row for p in table for row in p.text.split("\n")][2:] == rows
    assert [p.headings for p in pieces if p not in table] == [("料金",), ("料金",)]


def test_rows_that_name_their_cells_need_no_header() -> None:
    text = "\n".join(f"区分: 窓口{n} | 額: {n}円" for n in range(9))
    assert {p.headings for p in chunk(_document(text), 40, len)} == {()}


def test_a_list_stays_with_the_line_that_leads_to_it() -> None:
    text = "前の段落である。" * 3 + "\n\n必要な書類は次のとおり：\n\n- 申込書\n- 印鑑証明\n- 通帳\n"
    assert [p.text for p in chunk(_document(text), 40, len)] == [
        "前の段落である。" * 3,
        "必要な書類は次のとおり：\n\n- 申込書\n- 印鑑証明\n- 通帳",
    ]


def test_code_that_fits_stays_whole() -> None:
    code = "```\na = 1\n\nb = 2\n```"
    text = "長めの説明の文である。続きの文である。\n\n" + code + "\n\n後の文である。"
    assert code in [p.text for p in chunk(_document(text), 24, len)]


def test_a_table_without_rows_is_cut_like_text() -> None:
    assert [p.text for p in chunk(_document("| a | b |\n|---|---|\n"), 9, len)] == [
        "| a | b |",
        "|---|---|",
    ]


def test_a_mark_on_a_line_of_its_own_stays_with_its_sentence() -> None:
    text = "第一条\n　" + "文である。" * 8 + "\n２\n\n　" + "甲乙丙、" * 12 + "とする。\n"
    pieces = chunk(_document(text), 45, len)
    assert [p.text[:7] for p in pieces if "２" in p.text] == ["２\n\n　甲乙丙"]


def test_a_title_that_stands_twice_is_no_chunk_of_its_own() -> None:
    assert len(chunk(_document("Chapter 1. A\n\nChapter 1. A\n\nText here.\n"), 50, len)) == 1


def test_sentences_stay_whole_where_the_estimate_was_too_low() -> None:
    def count(text: str) -> int:
        return sum(1 if character > "z" else 0 for character in text) + len(text) // 10

    text = "Some words here. " * 150 + "\n\n" + "密な文である。" * 40
    pieces = chunk(_document(text), 30, count)
    assert all(piece.text.endswith((".", "。")) for piece in pieces)
    assert all(count(piece.text) <= 30 for piece in pieces)
    assert "".join(piece.before + piece.text for piece in pieces) == text
