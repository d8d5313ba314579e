"""The retrieval benchmark reports on questions that nothing was chosen on, and the same work."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="numpy is not installed")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """JaQuAD in two files, with two questions a passage, and one statute."""
    for part, count in (("train", 7), ("dev", 3)):
        rows = [
            {
                "title": f"記事{n // 2}",
                "context": f"{part}の本文{n}。",
                "questions": [{"id": f"{part}-{n}-{i}", "question": f"問{n}{i}"} for i in (0, 1)],
            }
            for n in range(count)
        ]
        path = tmp_path / "jaquad" / f"{part}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    law = {"title": "銀行法", "text": "第一条　この法律は銀行を定める。\n" * 40 + "長" * 700}
    path = tmp_path / "japanese_laws_2013" / "laws.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(law), encoding="utf-8")
    return tmp_path


def test_the_reported_questions_are_not_those_that_parameters_were_chosen_on(
    module: Callable[[str], Any], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_of = module("retrieval_work")
    monkeypatch.setattr(work_of, "QUESTIONS", 8)
    reported, tuning = work_of.jaquad(data), work_of.jaquad(data, tuning=True)
    assert len(reported.asked) == len(tuning.asked) == 8
    assert not {one.id for one in reported.asked} & {one.id for one in tuning.asked}
    assert [one.id for one in work_of.jaquad(data).asked] == [one.id for one in reported.asked]
    assert len(reported.chunks) == 10
    by_id = {chunk.document_id: chunk.text for chunk in reported.chunks}
    for one in reported.asked:
        part, number, _ = one.id.split("-")
        assert [by_id[name] for name in one.gold] == [f"{part}の本文{number}。"]


def test_a_law_is_cut_into_pieces_that_are_its_text_again(
    module: Callable[[str], Any], data: Path
) -> None:
    work_of = module("retrieval_work")
    pieces = work_of.many(data, 13).chunks[10:]
    text = work_of.statutes(data)[0]["text"]
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
    whole = list(work_of._pieces(work_of._document("law", "銀行法", text)))
    assert "".join(piece.text for piece in whole) == text
    assert max(len(piece.text) for piece in whole) <= work_of.CHUNK_CHARACTERS
    with pytest.raises(SystemExit, match="wanted are 1000"):
        work_of.many(data, 1000)


def test_drawn_vectors_are_the_same_every_time_and_a_query_lies_near_a_passage(
    module: Callable[[str], Any],
) -> None:
    synthetic = module("retrieval_work").Synthetic
    first, again = synthetic(300, ["甲", "乙"]), synthetic(300, ["甲", "乙"])
    rows = np.concatenate([first.passages(["x"] * 200), first.passages(["x"] * 100)])
    assert np.array_equal(rows, again.passages(["x"] * 300))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    cosines = np.sort(rows @ first.queries(["乙"])[0])
    assert cosines[-1] > 0.6 > cosines[-2]


def test_recall_is_the_share_of_the_gold_documents(module: Callable[[str], Any]) -> None:
    retrieval, asked = module("retrieval"), module("retrieval_work").Asked
    found = {"問": ["a", "x", "b", "y", "z", "c"]}
    index = SimpleNamespace(
        search=lambda queries, k, spec: [SimpleNamespace(document_id=d) for d in found[queries[0]]]
    )
    shares = retrieval._recalls(index, [asked("1", ["問"], frozenset("abcd"))], None)
    assert shares == {"recall1": 0.25, "recall5": 0.5, "recall10": 0.75}


def test_a_ratio_is_the_peers_time_to_ours(module: Callable[[str], Any]) -> None:
    retrieval = module("retrieval")
    shares = {"recall1": 0.5, "recall5": 0.6, "recall10": 0.7}
    ways = {"tokka": 0.001, "bm25s": 0.004, "bm25s, numba": 0.002, "rank-bm25": 0.1}
    measured = {
        "jaquad": {"ways": {"hybrid": shares}},
        "lawqa": {"ways": {"hybrid": shares}},
        "speed": {
            "chunks": 100,
            "build_seconds": 4.0,
            "search_seconds": [0.003] * 99 + [0.009],
            "tokenise_seconds": [0.0001] * 100,
            "ways": {way: {"seconds": [seconds] * 100} for way, seconds in ways.items()},
            "agreement": {"bm25s": 1.0},
        },
    }
    found = retrieval.summary(measured)
    assert (found["ratio_vs_bm25s"], found["ratio_vs_rank_bm25"]) == (4.0, 100.0)
    assert (found["p50_ms_100k"], found["index_docs_per_second"]) == (3.0, 25.0)
    assert found["p99_ms_100k"] > 3.0
    assert (found["jaquad_recall1"], found["lawqa_recall5"]) == (0.5, 0.6)


def test_a_peers_first_queries_are_not_counted(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = module("retrieval_peer")
    seen: list[list[list[str]]] = []

    def build(rows: list[list[str]], job: Any) -> Callable[[list[str]], list[int]]:
        seen.append(rows)
        return lambda query: [len(query)]

    monkeypatch.setattr(peer, "WAYS", {"one": build})
    monkeypatch.setattr(peer, "WARM", 2)
    path = tmp_path / "rows.txt"
    path.write_text("融資 限度\n\n期限", encoding="utf-8")
    job = {"rows": str(path), "queries": [["a"]] * 2 + [["b", "c"]] * 3, "k": 1, "ways": ["one"]}
    found = peer.main(job)["ways"]["one"]
    assert seen == [[["融資", "限度"], [], ["期限"]]]
    assert found["found"] == [[2]] * 3
    assert len(found["seconds"]) == 3
