"""BM25 finds Japanese, admits when it knows no word, and computes what its formula says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokka.records import Caller, RetrievalSpec
from tokka.retrieval import lexical as module
from tokka.retrieval.hybrid import Index
from tokka.retrieval.lexical import Asked, Lexical
from tokka.retrieval.tokenise import tokens

TEXTS = [
    "融資の限度額は会員一人につき300万円とする。",
    "出張旅費の精算は帰着後5日以内に行う。",
    "融資の承認は理事長が行う。",
    "窓口の振込手数料は550円である。",
]
SPEC = RetrievalSpec(dense=False, pairs=0)
WORDS = ("融資", "規程", "期限", "窓口", "上限")


@pytest.fixture
def opened(built: Any, new_piece: Any) -> Callable[..., Index]:
    def build(folder: Path, texts: Sequence[str], language: str = "ja") -> Index:
        chunks = [new_piece(f"d{i:03d}", text) for i, text in enumerate(texts)]
        index: Index = built(folder, chunks, language)
        return index

    return build


def _rows(index: Index, query: str, k: int) -> list[int]:
    return [one.row for one in index.rank(query, k, SPEC.model_copy(update={"candidates": k}))]


def test_a_japanese_question_without_spaces_finds_its_text(opened: Any, tmp_path: Path) -> None:
    index = opened(tmp_path / "i", TEXTS)
    assert _rows(index, "融資限度額はいくらですか", 4)[0] == 0
    assert _rows(index, "旅費精算の期限を教えてください", 4)[0] == 1
    assert _rows(index, "３，０００，０００円", 1)[0] == 0


def test_a_query_with_no_known_word_returns_no_hits(opened: Any, tmp_path: Path) -> None:
    index = opened(tmp_path / "i", TEXTS)
    for query in ("xyzzy qwfp", "鱧饂飩", "", "？？", "はですか"):
        assert _rows(index, query, 4) == []


def test_the_words_that_questions_are_made_of_arent_searched_for(
    opened: Any, tmp_path: Path
) -> None:
    index = opened(tmp_path / "i", ["何をするものか", "融資の規程", "誰がする"])
    assert _rows(index, "融資はどのようなものか", 4) == [1]
    assert _rows(index, "誰がするのか", 4) == [2, 0]  # nothing else is asked for


def test_english_words_match_in_other_forms(opened: Any, tmp_path: Path) -> None:
    index = opened(tmp_path / "i", ["Dose limits for adults.", "Visiting hours end at 8."], "en")
    assert _rows(index, "limiting a dose", 2) == [0]


def test_ties_are_settled_by_document_and_place(built: Any, new_piece: Any, tmp_path: Path) -> None:
    chunks = [new_piece("b", "甲の規程。", number) for number in (3, 1, 2)]
    chunks += [new_piece("a", "甲の規程。", number) for number in (5, 0)]
    index = built(tmp_path / "i", chunks)
    for k in (2, 5):
        found = index.search("規程", k, SPEC)
        assert [p.chunk_id for p in found] == ["a#0", "a#5", "b#1", "b#2", "b#3"][:k]


def test_the_best_are_those_of_a_longer_list(opened: Any, tmp_path: Path) -> None:
    texts = [f"規程{'融資' * (i % 7 + 1)}窓口{'甲' * (i % 3)}" for i in range(200)]
    index = opened(tmp_path / "i", texts)
    for k in (1, 5, 20):
        assert _rows(index, "融資の窓口", k) == _rows(index, "融資の窓口", 200)[:k]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=6), min_size=1, max_size=12),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
)
def test_scores_are_those_of_the_formula(
    opened: Any,
    tmp_path_factory: pytest.TempPathFactory,
    said: list[list[str]],
    asked: list[str],
) -> None:
    index = opened(tmp_path_factory.mktemp("i"), ["。".join(words) for words in said])
    expected = _by_hand(said, asked)
    spec = SPEC.model_copy(update={"candidates": 50})
    found = {one.row: one.lexical for one in index.rank("。".join(asked), 50, spec)}
    assert found == pytest.approx(expected, abs=2e-4)


def _by_hand(said: list[list[str]], asked: list[str]) -> dict[int, float]:
    n, mean = len(said), sum(map(len, said)) / len(said) or 1.0
    scores: dict[int, float] = {}
    for word in dict.fromkeys(asked):
        holding = sum(word in words for words in said)
        idf = math.log(1 + (n - holding + 0.5) / (holding + 0.5))
        for row, words in enumerate(said):
            if times := Counter(words)[word]:
                norm = 0.9 * (1 - 0.75 + 0.75 * len(words) / mean)
                scores[row] = scores.get(row, 0.0) + idf * 1.9 * times / (times + norm)
    return scores


def test_rows_kept_over_all_and_at_their_places_score_alike(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(tmp_path / "i", TEXTS * 5)
    view = index._rows().view(Caller(), {})
    asked = [Asked((word,)) for word in tokens("融資の承認と精算の期限", "ja")]
    results = []
    for common in (0.0, 2.0):
        monkeypatch.setattr(module, "_COMMON", common)
        lexical = Lexical()
        hits = lexical.search(asked, 7, view)
        assert lexical.scores(asked, hits.rows, view).tolist() == hits.scores.tolist()
        shares = [lexical.explain(asked, row, view) for row in hits.rows.tolist()]
        results.append((hits.rows.tolist(), hits.scores.tolist(), shares))
    assert results[0] == results[1]
    assert len(results[0][0]) == 7


def test_a_phrase_counts_only_where_its_words_follow_each_other(
    opened: Any, tmp_path: Path
) -> None:
    index = opened(tmp_path / "i", ["限度額の規程", "限度 と 額", "額限度", "限度額と限度額"])
    view = index._rows().view(Caller(), {})
    assert tokens("限度額", "ja") == ["限度", "額"]
    lexical = Lexical()
    phrase = [Asked(("限度", "額"))]
    hits = lexical.search(phrase, 9, view)
    assert sorted(hits.rows.tolist()) == [0, 1, 3]
    assert [share.times for share in lexical.explain(phrase, 3, view)] == [2]
    assert lexical.explain(phrase, 2, view) == []


def test_what_was_computed_is_kept_within_bounds(opened: Any, tmp_path: Path) -> None:
    view = opened(tmp_path / "i", TEXTS)._rows().view(Caller(), {})
    lexical = Lexical(kept_bytes=500)
    before = [lexical.search([Asked((word,))], 9, view).scores for word in ("融資", "行う", "円")]
    assert lexical._bytes <= 500 and 1 <= len(lexical._kept) <= 2
    after = [lexical.search([Asked((word,))], 9, view).scores for word in ("融資", "行う", "円")]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_weight_scales_what_a_word_adds(opened: Any, tmp_path: Path) -> None:
    view = opened(tmp_path / "i", TEXTS)._rows().view(Caller(), {})
    full, half = (Lexical().search([Asked(("融資",), w)], 9, view) for w in (1.0, 0.5))
    assert half.scores == pytest.approx(full.scores / 2, abs=1e-4)
    assert full.rows.tolist() == half.rows.tolist()
