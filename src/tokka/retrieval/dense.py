"""Nearest vectors by cosine, in a usearch index on disk.

Texts → a file → `Hit`s. Up to 200,000 vectors the search is exact; above, it follows usearch's
graph. Both give the same hits every time: the graph is built by one thread.

>>> build_dense(["融資の限度額は300万円。"], path, embedder)
>>> Dense.open(path).search(embedder.queries(["いくらまで借りられるか"])[0], 10)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.extras import require
from tokka.models.protocol import Embedder
from tokka.retrieval.lexical import Hit

_EXACT_UP_TO = 200_000
_SLICE = 64
_ROUNDING = 6


def build_dense(
    texts: Sequence[str],
    path: Path,
    embedder: Embedder,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Embed `texts` as passages and save them. `progress(done, total)` after every 64."""
    numpy = require("numpy", extra="retrieval")
    usearch = require("usearch.index", extra="retrieval")
    index = usearch.Index(ndim=embedder.dimensions, metric="ip", dtype="f32")
    for first in range(0, len(texts), _SLICE):
        rows = embedder.passages(texts[first : first + _SLICE])
        keys = numpy.arange(first, first + len(rows), dtype=numpy.uint64)
        index.add(keys, rows, threads=1)
        if progress:
            progress(first + len(rows), len(texts))
    index.save(str(path))


class Dense:
    """An index opened for searching. Scores are cosines, -1 to 1."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def open(cls, path: Path) -> Dense:
        """Raises IntegrityError when the file is missing or damaged."""
        usearch = require("usearch.index", extra="retrieval")
        try:
            index = usearch.Index.restore(str(path)) if path.is_file() else None
        except (ValueError, RuntimeError) as error:
            raise IntegrityError(f"dense: {path} is damaged ({error}); build it again") from error
        if index is None:
            raise IntegrityError(f"dense: {path} holds no index; build it again")
        return cls(index)

    def search(self, vector: Any, k: int) -> list[Hit]:
        """The k rows nearest to `vector`, shape (dimensions,); equal scores by row."""
        size = len(self._index)
        limit = min(max(k, 1), size)
        while True:
            exact = size <= _EXACT_UP_TO
            found = self._index.search(vector, limit, exact=exact, threads=1)
            hits = [
                Hit(int(row), round(1.0 - float(distance), _ROUNDING))
                for row, distance in zip(found.keys, found.distances, strict=True)
            ]
            # Rows equal to the last one may stand outside: fetch them all.
            if len(hits) < limit or hits[-1].score < hits[min(k, limit) - 1].score or limit >= size:
                break
            limit = min(limit * 2, size)
        return sorted(hits, key=lambda hit: (-hit.score, hit.row))[:k]

    def __len__(self) -> int:
        return len(self._index)
