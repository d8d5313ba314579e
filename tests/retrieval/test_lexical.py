"""BM25 finds Japanese, admits when it knows no word, and orders ties by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokka.errors import IntegrityError
from tokka.retrieval.lexical import Lexical, _schema, build_lexical

TEXTS = [
    "融資の限度額は会員一人につき300万円とする。",
    "出張旅費の精算は帰着後5日以内に行う。",
    "融資の承認は理事長が行う。",
    "窓口の振込手数料は550円である。",
]


def _open(folder: Path, texts: list[str], language: str = "ja") -> Lexical:
    build_lexical(texts, folder, language)
    return Lexical.open(folder, language)


def test_a_japanese_question_without_spaces_finds_its_text(tmp_path: Path) -> None:
    index = _open(tmp_path / "i", TEXTS)
    assert index.search("融資限度額はいくらですか", 4)[0].row == 0
    assert index.search("旅費精算の期限を教えてください", 4)[0].row == 1
    assert index.search("３，０００，０００円", 1)[0].row == 0


@pytest.mark.parametrize("query", ["xyzzy qwfp", "鱧饂飩", "", "？？", "はですか"])
def test_a_query_with_no_known_word_returns_no_hits(tmp_path: Path, query: str) -> None:
    assert _open(tmp_path / "i", TEXTS).search(query, 4) == []


def test_english_words_match_in_other_forms(tmp_path: Path) -> None:
    index = _open(tmp_path / "i", ["Dose limits for adults.", "Visiting hours end at 8."], "en")
    assert [hit.row for hit in index.search("limiting a dose", 2)] == [0]


def test_equal_scores_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    index = _open(tmp_path / "i", ["甲の規程。"] * 50 + TEXTS)
    assert [hit.row for hit in index.search("規程", 7)] == list(range(7))


def test_ties_at_the_cut_are_settled_by_row_wherever_the_rows_lie(tmp_path: Path) -> None:
    tantivy = pytest.importorskip("tantivy")
    writer = tantivy.Index(_schema(tantivy), path=str(tmp_path)).writer(num_threads=1)
    for row in reversed(range(40)):
        document = tantivy.Document()
        document.add_text("body", "規程")
        document.add_unsigned("row", row)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    assert [hit.row for hit in Lexical.open(tmp_path, "ja").search("規程", 3)] == [0, 1, 2]


def test_the_best_are_those_of_a_longer_list(tmp_path: Path) -> None:
    texts = [f"規程{'融資' * (i % 7 + 1)}" for i in range(60)]
    index = _open(tmp_path / "i", texts)
    assert index.search("融資", 5) == index.search("融資", 60)[:5]


def test_two_builds_answer_alike(tmp_path: Path) -> None:
    one, two = (_open(tmp_path / name, TEXTS * 20) for name in "ab")
    assert one.search("融資の承認", 30) == two.search("融資の承認", 30)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="build it again"):
        Lexical.open(tmp_path, "ja")
