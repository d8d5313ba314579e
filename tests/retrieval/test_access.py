"""A caller gets what an index of only the visible documents would give: nothing else leaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokka.errors import IntegrityError
from tokka.records import Caller, Chunk, DocumentFacts, RetrievalSpec
from tokka.retrieval.hybrid import Index, update_index

WORDS = ("融資", "規程", "期限", "窓口", "上限", "限度額", "300万円", "第2条", "次条", "規則1第1条")
LABELS = ("staff", "board", "legal")
ACCESS = st.lists(st.sampled_from(LABELS), max_size=2, unique=True).map(tuple)
PIECE = st.tuples(ACCESS, st.lists(st.sampled_from(WORDS), max_size=5))
DOCUMENT = st.tuples(ACCESS, st.lists(PIECE, min_size=1, max_size=4))
CALLERS = st.one_of(st.just(Caller()), ACCESS.map(lambda labels: Caller(labels=labels)))
SPECS = st.sampled_from(
    [
        RetrievalSpec(candidates=3),
        RetrievalSpec(dense=False, candidates=20),
        RetrievalSpec(lexical=False, candidates=2),
        RetrievalSpec(weights=(0.3, 1.7), synonyms="s", candidates=20),
        RetrievalSpec(fusion="ranks", candidates=2),
        RetrievalSpec(dense=False, follow=3, neighbours=1),
        RetrievalSpec(follow=1, parent=True, where={"source": "d*"}),
    ]
)
SYNONYMS = {"s": "期限, 限度額\n窓口 => 上限"}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    documents=st.lists(DOCUMENT, min_size=1, max_size=6),
    caller=CALLERS,
    spec=SPECS,
    queries=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    top_k=st.integers(1, 8),
)
def test_hidden_documents_change_nothing(
    built: Any,
    new_piece: Any,
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[Any],
    caller: Caller,
    spec: RetrievalSpec,
    queries: list[str],
    top_k: int,
) -> None:
    chunks, facts = [], {}
    for i, (access, pieces) in enumerate(documents):
        text = ""
        for number, (stricter, words) in enumerate(pieces):
            before, said = "\n" if text else "", "。".join(words)
            start = len(text) + len(before)
            text += before + said
            chunks.append(
                Chunk(
                    id=f"d{i}#{number}",
                    document_id=f"d{i}",
                    text=said,
                    start=start,
                    end=len(text),
                    headings=(f"第{number + 1}条",),
                    access=stricter,
                    before=before,
                )
            )
        facts[f"d{i}"] = DocumentFacts(
            document_id=f"d{i}", source=f"d{i}", title=f"規則{i}", language="ja", access=access
        )
    visible = [
        chunk
        for chunk in chunks
        if caller.may_see(chunk.access) and caller.may_see(facts[chunk.document_id].access)
    ]
    folder = tmp_path_factory.mktemp("i")
    everything = built(folder / "all", chunks, documents=facts, synonyms=SYNONYMS)
    if not visible:
        assert everything.search(queries, top_k, spec, caller) == []
        assert everything.explain(queries, top_k, spec, caller) == []
        return
    only = built(folder / "only", visible, documents=facts, synonyms=SYNONYMS)
    assert _seen(everything, queries, top_k, spec, caller) == _seen(only, queries, top_k, spec)
    if caller.labels is None:
        assert len(visible) == len(chunks)


def _seen(
    index: Index,
    queries: Sequence[str],
    top_k: int,
    spec: RetrievalSpec,
    caller: Caller | None = None,
) -> Any:
    caller = caller or Caller()
    return (
        index.search(queries, top_k, spec, caller),
        index.explain(queries, top_k, spec, caller),
        [
            (index.chunk(one.row), one.score, one.lexical, one.dense, one.parts)
            for one in index.rank(queries, top_k, spec, caller)
        ],
    )


def test_a_word_in_hidden_documents_doesnt_make_it_common(
    built: Any, new_piece: Any, tmp_path: Path
) -> None:
    hidden = [new_piece(f"h{i}", "合併の計画", access=("board",)) for i in range(30)]
    shown = [new_piece("a", "合併の沿革"), new_piece("b", "支店の沿革")]
    spec = RetrievalSpec(dense=False)
    index = built(tmp_path / "i", [*hidden, *shown])
    found = index.search("合併", 4, spec, Caller(labels=()))
    assert [passage.document_id for passage in found] == ["a"]
    alone = built(tmp_path / "j", shown).search("合併", 4, spec)
    assert found[0].lexical == alone[0].lexical
    assert index.search("合併の沿革", 4, spec)[0].lexical != alone[0].lexical


def test_one_of_the_labels_is_enough_and_chunks_can_be_stricter_than_their_document(
    built: Any, new_piece: Any, new_facts: Any, tmp_path: Path
) -> None:
    chunks = [
        new_piece("a", "融資の規程", 0, ("staff", "board")),
        new_piece("a", "融資の役員報酬", 1, ("board",)),
        new_piece("b", "融資の案内"),
    ]
    facts = new_facts(chunks)
    facts["a"] = facts["a"].model_copy(update={"access": ("staff", "board")})
    index = built(tmp_path / "i", chunks, documents=facts)

    def seen(caller: Caller) -> list[str]:
        return sorted(p.chunk_id for p in index.search("融資", 9, RetrievalSpec(), caller))

    assert seen(Caller(labels=("staff",))) == ["a#0", "b#0"]
    assert seen(Caller(labels=("board",))) == ["a#0", "a#1", "b#0"]
    assert seen(Caller(labels=("sales",))) == ["b#0"] == seen(Caller(labels=()))
    assert seen(Caller()) == ["a#0", "a#1", "b#0"]


def test_a_documents_labels_bind_chunks_that_carry_none(
    built: Any, new_piece: Any, new_facts: Any, tmp_path: Path
) -> None:
    chunks = [new_piece("a", "融資の規程")]
    facts = new_facts(chunks)
    facts["a"] = facts["a"].model_copy(update={"access": ("board",)})
    index = built(tmp_path / "i", chunks, documents=facts)
    assert index.search("融資", 9, RetrievalSpec(), Caller(labels=("staff",))) == []


def test_a_reranker_reads_nothing_that_is_hidden(
    built: Any, new_piece: Any, tmp_path: Path
) -> None:
    class Nosy:
        name = digest = "nosy"

        def __init__(self) -> None:
            self.read: list[str] = []

        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            self.read += texts
            return [0.0] * len(texts)

        def close(self) -> None: ...

    index = built(
        tmp_path / "i", [new_piece("a", "融資", access=("board",)), new_piece("b", "融資の案内")]
    )
    nosy = Nosy()
    index.search("融資", 9, RetrievalSpec(), Caller(labels=()), nosy)
    assert nosy.read == ["融資の案内"]


def test_a_hidden_chunk_isnt_even_read(
    built: Any, new_piece: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [new_piece("a", "融資", access=("board",)), new_piece("b", "融資の案内")]
    index = built(tmp_path / "i", chunks)
    file = tmp_path / "i" / "part-000001" / "chunks.jsonl"
    data = bytearray(file.read_bytes())
    data[data.index("融資".encode())] ^= 1  # whoever reads this line gets an error
    file.write_bytes(data)
    found = index.search("融資", 9, RetrievalSpec(), Caller(labels=()))
    assert [passage.document_id for passage in found] == ["b"]
    with pytest.raises(IntegrityError, match="was changed"):
        index.search("融資", 9, RetrievalSpec())


def test_removed_documents_are_hidden_from_everybody(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path
) -> None:
    from tokka.retrieval.hybrid import open_index

    chunks: list[Chunk] = [new_piece(f"d{i}", f"融資の規程{'。期限' * i}") for i in range(9)]
    built(tmp_path / "i", chunks).close()
    update_index(tmp_path / "i", [], ["d0"], {}, pairs())
    index = open_index(tmp_path / "i", pairs())
    assert len(index) == 8
    scratch = built(tmp_path / "j", chunks[1:])
    assert _seen(index, ["融資の期限"], 9, RetrievalSpec()) == _seen(
        scratch, ["融資の期限"], 9, RetrievalSpec()
    )
