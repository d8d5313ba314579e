"""An index gives passages with their place and their scores, and says what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tokka.corpus.chunking import chunk
from tokka.corpus.documents import build
from tokka.errors import UsageError
from tokka.records import Chunk, RetrievalSpec
from tokka.retrieval.hybrid import build_index, contextual, open_index

LEXICAL = RetrievalSpec(dense=False)
BOTH = RetrievalSpec()
TITLES = {"loan.md": "融資規程", "cost.md": "経費規程"}


@pytest.fixture
def chunks() -> list[Chunk]:
    loan = build("# 融資\n## 限度\n上限は300万円とする。\n## 期限\n翌月末日とする。\n", "loan.md")
    cost = build("# 経費\n## 限度\n上限は5万円とする。\n## 期限\n30日以内とする。\n", "cost.md")
    return [piece for document in (loan, cost) for piece in chunk(document, 40, len)]


@pytest.fixture
def folder(chunks: list[Chunk], pairs: Any, tmp_path: Path) -> Path:
    build_index(chunks, tmp_path / "i", BOTH, "ja", pairs(), titles=TITLES)
    return tmp_path / "i"


def test_passages_carry_their_place_their_scores_and_the_bare_text(
    chunks: list[Chunk], folder: Path, pairs: Any
) -> None:
    with open_index(folder, pairs()) as index:
        passages = index.search("融資の期限はいつか", 2, BOTH)
    assert [p.number for p in passages] == [1, 2]
    first = passages[0]
    assert (first.document_id, first.title) == ("loan.md", "融資規程")
    assert "翌月末日とする。" in first.text
    original = next(piece for piece in chunks if piece.id == first.chunk_id)
    assert (first.start, first.end, first.text) == (original.start, original.end, original.text)
    assert passages[0].score >= passages[1].score > 0
    assert first.lexical is not None and first.lexical > 0
    assert first.dense is not None and 0 < first.dense <= 1
    assert first.rerank is None


def test_a_chunk_is_found_by_its_title_and_headings(folder: Path, pairs: Any) -> None:
    with open_index(folder, pairs()) as index:
        for name, document in (("経費", "cost.md"), ("融資", "loan.md")):
            found = index.search(f"{name}の上限", 1, LEXICAL)[0]
            assert found.document_id == document
            assert "上限" in found.text
        assert index.search("鱧饂飩", 4, LEXICAL) == []


def test_what_a_chunk_shows_itself_isnt_put_in_front_again() -> None:
    piece = Chunk(
        id="c", document_id="d", text="# 融資\n文。", start=0, end=7, headings=("融資", "甲")
    )
    assert contextual(piece, "規程") == "規程 > 甲\n# 融資\n文。"
    assert contextual(piece.model_copy(update={"headings": ()}), "") == piece.text


def test_several_queries_are_fused(folder: Path, pairs: Any) -> None:
    with open_index(folder, pairs()) as index:
        one = index.rank("融資の期限", 9, LEXICAL)
        two = index.rank(["融資の期限", "経費の上限"], 9, LEXICAL)
    assert {part.query for hit in two for part in hit.parts} == {0, 1}
    assert two[0].lexical is not None and one[0].lexical is not None
    best = {hit.row: hit.lexical for hit in one}
    assert all(hit.lexical >= best[hit.row] for hit in two if hit.row in best)  # type: ignore[operator]


def test_weights_decide_what_counts(folder: Path, pairs: Any) -> None:
    def kinds(weights: tuple[float, float]) -> set[str]:
        spec = BOTH.model_copy(update={"weights": weights})
        return {part.kind for hit in index.rank("融資の期限", 9, spec) for part in hit.parts}

    with open_index(folder, pairs()) as index:
        assert kinds((1.0, 1.0)) == {"lexical", "dense"}
        assert kinds((2.0, 0.0)) == {"lexical"}
        assert kinds((0.0, 2.0)) == {"dense"}
        for weights, said in ((("tuned"), "tuned must be"), ((0.0, 0.0), "no search on")):
            spec = BOTH.model_copy(update={"weights": weights})
            with pytest.raises(UsageError, match=said):
                index.search("融資", 4, spec)
        with pytest.raises(UsageError, match="negative"):
            index.search("融資", 4, BOTH.model_copy(update={"weights": (-1.0, 2.0)}))
        with pytest.raises(UsageError, match="no query"):
            index.search([], 4, BOTH)


@pytest.mark.parametrize("fusion", ["scores", "ranks"])
def test_an_explanation_adds_up(folder: Path, pairs: Any, fusion: str) -> None:
    queries = ["融資の期限", "経費の上限"]
    spec = BOTH.model_copy(update={"fusion": fusion, "candidates": 2})
    with open_index(folder, pairs()) as index:
        explained = index.explain(queries, 9, spec)
        found = index.search(queries, 9, spec)
    assert [(e.number, e.chunk_id, e.score) for e in explained] == [
        (p.number, p.chunk_id, p.score) for p in found
    ]
    for one in explained:
        assert one.score == pytest.approx(sum(part.share for part in one.parts), abs=1e-7)
        for part in one.parts:
            if spec.fusion == "ranks" and part.rank is not None:
                assert part.share == pytest.approx(part.weight / (spec.rrf_k + part.rank))
            if part.kind == "lexical" and part.rank is not None:
                own = sum(term.score for term in one.terms if term.query == part.query)
                assert own == pytest.approx(part.score, abs=1e-3)
    assert {term.words for term in explained[0].terms} <= {
        (word,) for word in ("融資", "期限", "経費", "上限")
    }


class Backwards:
    """Prefers the texts that came last, and remembers what it read."""

    name = digest = "backwards"

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self.asked.append((query, list(texts)))
        return [float(number) for number in range(len(texts))]

    def close(self) -> None: ...


def test_a_reranker_puts_the_best_in_its_own_order(folder: Path, pairs: Any) -> None:
    spec = BOTH.model_copy(update={"rerank_depth": 3})
    reranker = Backwards()
    with open_index(folder, pairs()) as index:
        plain = index.search(["融資の期限", "期日"], 4, spec)
        found = index.search(["融資の期限", "期日"], 4, spec, reranker=reranker)
        top = index.search("融資の期限", 1, spec, reranker=reranker)
        reranker.asked = reranker.asked[:1]
        assert index.search("融資", 4, spec.model_copy(update={"where": {"language": "en"}}),
                            reranker=reranker) == []  # fmt: skip
    assert [p.chunk_id for p in found] == [plain[i].chunk_id for i in (2, 1, 0, 3)]
    assert [p.rerank for p in found] == [2.0, 1.0, 0.0, None]
    assert [p.number for p in found] == [1, 2, 3, 4]
    assert [(query, len(texts)) for query, texts in reranker.asked] == [("融資の期限", 3)]
    assert reranker.asked[0][1][0].startswith("融資規程")  # it reads where the text stands
    assert top[0].rerank == 2.0  # reranked before it is cut to one


def test_what_an_index_lacks_is_said(chunks: list[Chunk], pairs: Any, tmp_path: Path) -> None:
    build_index(chunks, tmp_path, LEXICAL, "ja", None)
    with open_index(tmp_path, None) as index, pytest.raises(UsageError, match="no dense part"):
        index.search("上限", 4, BOTH)
    with pytest.raises(UsageError, match="is closed"):
        index.search("上限", 4, LEXICAL)
    build_index(chunks, tmp_path, RetrievalSpec(lexical=False), "ja", pairs())
    with open_index(tmp_path, pairs()) as index, pytest.raises(UsageError, match="no lexical part"):
        index.search("上限", 4, BOTH)
