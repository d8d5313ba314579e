"""An embedder of character pairs, and small indexes of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokka.records import Chunk, DocumentFacts, RetrievalSpec
from tokka.retrieval.hybrid import Index, build_index, open_index


class HashedPairs:
    """Near where texts share pairs of characters, and quick."""

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


def piece(document: str, text: str, number: int = 0, access: tuple[str, ...] = ()) -> Chunk:
    start = 1000 * number
    return Chunk(
        id=f"{document}#{number}", document_id=document, text=text, start=start,
        end=start + len(text), access=access,
    )  # fmt: skip


def facts_of(chunks: Sequence[Chunk], **more: Any) -> dict[str, DocumentFacts]:
    return {
        chunk.document_id: DocumentFacts(
            document_id=chunk.document_id,
            source=chunk.document_id,
            title="",
            language="ja",
            access=chunk.access,
            **more,
        )
        for chunk in chunks
    }


Builder = Callable[..., Index]


@pytest.fixture(scope="session", autouse=True)
def _no_sync() -> Iterator[None]:
    """Syncing is for power cuts, which no test makes; on a busy disk it takes most of the time."""
    synced, os.fsync = os.fsync, lambda handle: None
    yield
    os.fsync = synced


@pytest.fixture(scope="session")
def pairs() -> type[HashedPairs]:
    return HashedPairs


@pytest.fixture(scope="session")
def new_piece() -> Callable[..., Chunk]:
    return piece


@pytest.fixture(scope="session")
def new_facts() -> Callable[..., dict[str, DocumentFacts]]:
    return facts_of


@pytest.fixture(scope="session")
def built() -> Builder:
    """built(folder, chunks, language="ja", documents=…, synonyms=…): an opened index of both
    kinds."""

    def build(folder: Path, chunks: Sequence[Chunk], language: str = "ja", **more: Any) -> Index:
        documents = more.pop("documents", None) or facts_of(chunks)
        build_index(chunks, folder, RetrievalSpec(), language, HashedPairs(), documents=documents)
        return open_index(folder, HashedPairs(), **more)

    return build
