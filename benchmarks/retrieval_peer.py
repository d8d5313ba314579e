"""bm25s and rank-bm25 on tokens made by tokka; runs in an environment of their own.

Job: `rows` (a text file, a row's tokens a line), `queries` (lists of tokens), `k`, `k1`, `b`,
`ways`. Found: by way the seconds of building, of each query, and the rows found.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

from measuring import Facts, contestant, tell

WARM = 20
_SLOW_QUERIES = 100


def main(job: Facts) -> Facts:
    rows = [line.split() for line in Path(job["rows"]).read_text(encoding="utf-8").split("\n")]
    ways: dict[str, Facts] = {}
    for way in job["ways"]:
        tell(way)
        started = time.perf_counter()
        search = WAYS[way](rows, job)
        built = time.perf_counter() - started
        queries = job["queries"]
        if way == "rank-bm25":
            queries = queries[: WARM + _SLOW_QUERIES]
        ways[way] = {"build_seconds": built, **_timed(search, queries)}
    return {"ways": ways}


def _timed(search: Callable[[list[str]], list[int]], queries: list[list[str]]) -> Facts:
    """The first queries warm up (numba compiles), and aren't counted."""
    gc.collect()
    gc.freeze()  # as on the other side
    seconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        rows = search(query)
        seconds.append(time.perf_counter() - started)
        found.append(rows)
    return {"seconds": seconds[WARM:], "found": found[WARM:]}


def _bm25s(backend: str) -> Callable[[list[list[str]], Facts], Callable[[list[str]], list[int]]]:
    def build(rows: list[list[str]], job: Facts) -> Callable[[list[str]], list[int]]:
        import bm25s

        index = bm25s.BM25(method="lucene", k1=job["k1"], b=job["b"], backend=backend)
        index.index(rows, show_progress=False)

        def search(query: list[str]) -> list[int]:
            found = index.retrieve([query], k=job["k"], show_progress=False)
            return [int(row) for row in found.documents[0]]

        return search

    return build


def _rank_bm25(rows: list[list[str]], job: Facts) -> Callable[[list[str]], list[int]]:
    import numpy as np
    from rank_bm25 import BM25Okapi

    index = BM25Okapi(rows, k1=job["k1"], b=job["b"])

    def search(query: list[str]) -> list[int]:
        scores = index.get_scores(query)
        best = np.argpartition(scores, -job["k"])[-job["k"] :]
        return [int(row) for row in best[np.argsort(-scores[best])]]

    return search


WAYS = {
    "bm25s": _bm25s("numpy"),
    "bm25s, numba": _bm25s("numba"),
    "rank-bm25": _rank_bm25,
}

if __name__ == "__main__":
    contestant(main)
