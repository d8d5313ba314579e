"""Rankings are fused by rank; an index answers only with what it was built from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokka.corpus.chunking import chunk
from tokka.corpus.documents import build
from tokka.errors import IntegrityError, UsageError
from tokka.records import Chunk, RetrievalSpec
from tokka.retrieval.dense import Dense, build_dense
from tokka.retrieval.hybrid import build_index, contextual, fuse, open_index

LEXICAL = RetrievalSpec(dense=False)
BOTH = RetrievalSpec()
TITLES = {"loan.md": "融資規程", "cost.md": "経費規程"}


class HashedPairs:
    """An embedder of character pairs: near where texts share them, and quick."""

    name = "pairs"
    dimensions = 64

    def __init__(self, digest: str = "d1") -> None:
        self.digest = digest

    def passages(self, texts: Sequence[str]) -> Any:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for i in range(len(text) - 1):
                rows[row, hashlib.md5(text[i : i + 2].encode()).digest()[0] % 64] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    queries = passages


@pytest.fixture
def chunks() -> list[Chunk]:
    loan = build("# 融資\n## 限度\n上限は300万円とする。\n## 期限\n翌月末日とする。\n", "loan.md")
    cost = build("# 経費\n## 限度\n上限は5万円とする。\n## 期限\n30日以内とする。\n", "cost.md")
    return [piece for document in (loan, cost) for piece in chunk(document, 40, len)]


def test_fusion_follows_cormack_clarke_and_buettcher() -> None:
    fused = dict(fuse([["a", "b", "c"], ["c", "a"]], k=60))
    assert fused == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})
    assert [item for item, _ in fuse([["a", "b", "c"], ["c", "a"]])] == ["a", "c", "b"]


def test_fusion_breaks_ties_by_the_earlier_ranking() -> None:
    assert [item for item, _ in fuse([["z"], ["a"]])] == ["z", "a"]
    assert fuse([[], []]) == []


def test_passages_carry_their_place_and_the_bare_text(chunks: list[Chunk], tmp_path: Path) -> None:
    build_index(chunks, tmp_path / "i", BOTH, "ja", HashedPairs(), titles=TITLES)
    with open_index(tmp_path / "i", HashedPairs()) as index:
        passages = index.search("融資の期限はいつか", 2, BOTH)
    assert [p.number for p in passages] == [1, 2]
    first = passages[0]
    assert (first.document_id, first.title) == ("loan.md", "融資規程")
    assert first.text == "## 期限\n翌月末日とする。"
    original = next(piece for piece in chunks if piece.id == first.chunk_id)
    assert (first.start, first.end) == (original.start, original.end)
    assert passages[0].score >= passages[1].score > 0


def test_a_chunk_is_found_by_its_title_and_headings(chunks: list[Chunk], tmp_path: Path) -> None:
    build_index(chunks, tmp_path / "i", LEXICAL, "ja", None, titles=TITLES)
    with open_index(tmp_path / "i", None) as index:
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


def test_two_builds_have_one_digest_and_another_corpus_another(
    chunks: list[Chunk], tmp_path: Path
) -> None:
    for name, some in (("a", chunks), ("b", chunks), ("c", chunks[1:])):
        build_index(some, tmp_path / name, BOTH, "ja", HashedPairs())
    a, b, c = (open_index(tmp_path / name, HashedPairs()) for name in "abc")
    assert a.digest == b.digest != c.digest
    assert a.search("上限", 4, BOTH) == b.search("上限", 4, BOTH)
    same = [(tmp_path / name / "dense.usearch").read_bytes() for name in "ab"]
    assert same[0] == same[1]


def test_another_embedder_than_the_built_one_is_refused(
    chunks: list[Chunk], tmp_path: Path
) -> None:
    build_index(chunks, tmp_path, BOTH, "ja", HashedPairs("d1"))
    with pytest.raises(IntegrityError, match="built with another embedder"):
        open_index(tmp_path, HashedPairs("d2"))
    with pytest.raises(UsageError, match="vectors of pairs"):
        open_index(tmp_path, None)


def test_an_unfinished_or_changed_index_is_refused(chunks: list[Chunk], tmp_path: Path) -> None:
    build_index(chunks, tmp_path, LEXICAL, "ja", None)
    file = tmp_path / "chunks.jsonl"
    file.write_text(file.read_text("utf-8").replace("300万円", "900万円"), encoding="utf-8")
    with pytest.raises(IntegrityError, match="was changed"):
        open_index(tmp_path, None)
    (tmp_path / "index.json").unlink()
    with pytest.raises(IntegrityError, match="no finished index"):
        open_index(tmp_path, None)


def test_a_build_replaces_what_a_killed_one_left(chunks: list[Chunk], tmp_path: Path) -> None:
    build_index(chunks, tmp_path, BOTH, "ja", HashedPairs())
    (tmp_path / "index.json").unlink()
    (tmp_path / "lexical" / ".tantivy-writer.lock").touch()
    build_index(chunks, tmp_path, LEXICAL, "ja", None)
    with open_index(tmp_path, None) as index:
        assert len(index.search("上限", 9, LEXICAL)) == 2
    assert not (tmp_path / "dense.usearch").exists()


def test_what_an_index_lacks_is_said(chunks: list[Chunk], tmp_path: Path) -> None:
    build_index(chunks, tmp_path, LEXICAL, "ja", None)
    with open_index(tmp_path, None) as index, pytest.raises(UsageError, match="no dense part"):
        index.search("上限", 4, BOTH)
    with pytest.raises(UsageError, match="no chunks"):
        build_index([], tmp_path, LEXICAL, "ja", None)
    with pytest.raises(UsageError, match="needs an embedder"):
        build_index(chunks, tmp_path, BOTH, "ja", None)


def test_dense_search_is_exact_and_orders_ties_by_row(tmp_path: Path) -> None:
    texts = ["融資の規程", "経費の規程", "融資の規程"] * 40
    embedder = HashedPairs()
    seen: list[tuple[int, int]] = []
    build_dense(texts, tmp_path / "d", embedder, lambda done, total: seen.append((done, total)))
    hits = Dense.open(tmp_path / "d").search(embedder.queries(["融資の規程"])[0], 5)
    assert [hit.row for hit in hits] == [0, 2, 3, 5, 6]
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert seen == [(64, 120), (120, 120)]


def test_a_missing_or_damaged_vector_file_is_refused(tmp_path: Path) -> None:
    for data in (None, b"", b"rubbish" * 50):
        if data is not None:
            (tmp_path / "d").write_bytes(data)
        with pytest.raises(IntegrityError, match="build it again"):
            Dense.open(tmp_path / "d")
