"""The nearest vectors are found exactly, among those that may be found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.records import Caller, Chunk
from tokka.retrieval.access import Table, View
from tokka.retrieval.building import build_index
from tokka.retrieval.dense import cosines, nearest, quantise
from tokka.retrieval.hybrid import RetrievalSpec
from tokka.retrieval.manifest import open_parts

SPEC = RetrievalSpec(lexical=False)


class Given:
    """An embedder whose texts are row numbers of `vectors`."""

    name = digest = "given"

    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        self.dimensions = vectors.shape[1]

    def passages(self, texts: Any) -> Any:
        return self.vectors[[int(text) for text in texts]].astype(np.float32)

    queries = passages


def _table(folder: Path, vectors: Any) -> Table:
    chunks = [
        Chunk(id=f"{i:06d}", document_id=f"{i:06d}", text=str(i), start=0, end=1)
        for i in range(len(vectors))
    ]
    build_index(chunks, folder, SPEC, "ja", Given(vectors))
    opened = open_parts(folder)[1]
    return Table([part for part, _ in opened], [live for _, live in opened])


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_the_best_fifty_of_many_are_the_exact_ones(tmp_path: Path, share: float) -> None:
    random = np.random.default_rng(1)
    # As e5's are: all in one direction, with small differences.
    vectors = random.standard_normal((6000, 96)) + 4.0
    table = _table(tmp_path, vectors)
    found = None if share == 1.0 else random.random(6000) < share
    view = View(table, found, found)
    normal = Given(vectors).vectors
    for query in random.standard_normal((5, 96)).astype(np.float32) + 4.0:
        exact = np.round(normal.astype(np.float32).astype(np.float64) @ query, 6)
        if found is not None:
            exact[~found] = -np.inf
        order = np.lexsort((np.arange(6000), -exact))[:50]
        hits = nearest(query, 50, view)
        assert hits.rows.tolist() == order.tolist()
        assert hits.scores == pytest.approx(exact[order], abs=2e-6)
        assert cosines(query, hits.rows, view).tolist() == hits.scores.tolist()


def test_equal_vectors_come_in_the_order_of_their_documents(tmp_path: Path) -> None:
    vectors = np.tile(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), (300, 1))
    view = _table(tmp_path, vectors).view(Caller(), {})
    hits = nearest(np.array([1.0, 0.0], np.float32), 5, view)
    assert hits.rows.tolist() == [0, 2, 3, 5, 6]
    assert hits.scores.tolist() == [1.0] * 5


def test_fewer_rows_than_asked_for_are_all_there(tmp_path: Path) -> None:
    view = _table(tmp_path, np.eye(3)).view(Caller(), {})
    assert sorted(nearest(np.array([1, 0.5, 0], np.float32), 9, view).rows.tolist()) == [0, 1, 2]
    assert nearest(np.array([1, 0.5, 0], np.float32), 0, view).rows.tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_codes_come_within_half_a_step(n: int, d: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    vectors[0] = 0
    codes, scales = quantise(vectors)
    assert codes.dtype == np.int8
    assert (np.abs(vectors - codes * scales[:, None]).max(axis=1) <= scales / 2 + 1e-6).all()
