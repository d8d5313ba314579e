"""Lexical and dense rankings fused into the passages of a prompt; the index as one folder.

Chunks → folder → `Passage`s:

    chunks.jsonl     {"title": …, "chunk": …} a line, in the order of the rows
    lexical/         tantivy, when the spec asks for lexical search
    dense.usearch    vectors, when it asks for dense search
    index.json       written last: what the folder was built from; its digest stands for the index

tantivy names its files at random, so two builds of one index differ there: compare `index.json`.

>>> build_index(chunks, folder, RetrievalSpec(), "ja", embedder, titles={"loan.md": "融資規程"})
>>> with open_index(folder, embedder) as index:
...     passages = index.search("融資の限度額は？", 4, RetrievalSpec())
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tokka.errors import IntegrityError, UsageError
from tokka.models.protocol import Embedder
from tokka.records import Chunk, Passage, RetrievalSpec, canonical_json
from tokka.retrieval.dense import Dense, build_dense
from tokka.retrieval.lexical import Lexical, build_lexical
from tokka.retrieval.tokenise import tokeniser_version

Item = TypeVar("Item", bound=Hashable)

MANIFEST = "index.json"
_CHUNKS, _LEXICAL, _DENSE = "chunks.jsonl", "lexical", "dense.usearch"
_FORMAT = 1


class Retriever(Protocol):
    """Finds passages for a query. `digest` changes whenever a search could answer differently."""

    digest: str

    def search(self, query: str, top_k: int, spec: RetrievalSpec) -> list[Passage]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Retriever: ...
    def __exit__(self, *exc: object) -> None: ...


def fuse(rankings: Sequence[Sequence[Item]], k: int = 60) -> list[tuple[Item, float]]:
    """Reciprocal rank fusion: score = Σ 1 / (k + rank), ranks from 1, best first.

    Cormack, Clarke and Büttcher (2009), who set k = 60. Equal scores: the better single rank
    first, then the earlier ranking.
    """
    scores: dict[Item, float] = {}
    best: dict[Item, tuple[int, int]] = {}
    for order, ranking in enumerate(rankings):
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
            best[item] = min(best.get(item, (rank, order)), (rank, order))
    return sorted(scores.items(), key=lambda pair: (-pair[1], best[pair[0]]))


def build_index(
    chunks: Sequence[Chunk],
    folder: Path,
    spec: RetrievalSpec,
    language: str,
    embedder: Embedder | None,
    progress: Callable[[int, int], None] | None = None,
    *,
    titles: Mapping[str, str] | None = None,
) -> None:
    """Build the parts that `spec` asks for; what a killed build left in `folder` is replaced.

    A chunk is indexed with its document's title (`titles` by document id) and its headings in
    front: "期限" alone doesn't say of what. `progress(done, total)` counts embedded chunks.
    Raises UsageError without chunks, or for dense search without an embedder.
    """
    if not chunks:
        raise UsageError("retrieval: there are no chunks to index; add documents to the corpus")
    if spec.dense and embedder is None:
        raise UsageError(
            "retrieval: dense search needs an embedder; name one or set dense to false"
        )
    _clear(folder)
    known = titles or {}
    rows = [(known.get(chunk.document_id, ""), chunk) for chunk in chunks]
    written = "".join(canonical_json({"title": title, "chunk": c}) + "\n" for title, c in rows)
    (folder / _CHUNKS).write_text(written, encoding="utf-8", newline="\n")
    texts = [contextual(chunk, title) for title, chunk in rows]
    if spec.lexical:
        build_lexical(texts, folder / _LEXICAL, language)
    if spec.dense and embedder is not None:
        build_dense(texts, folder / _DENSE, embedder, progress)
    manifest = {
        "format": _FORMAT,
        "chunks": len(chunks),
        "chunks_sha256": hashlib.sha256(written.encode()).hexdigest(),
        "language": language,
        "tokeniser": tokeniser_version(language) if spec.lexical else "",
        "embedder": embedder.name if spec.dense and embedder else "",
        "embedder_digest": embedder.digest if spec.dense and embedder else "",
    }
    unfinished = folder / (MANIFEST + ".part")
    unfinished.write_text(canonical_json(manifest) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / MANIFEST)


def open_index(folder: Path, embedder: Embedder | None) -> Index:
    """Open a finished index. `embedder` may be None when it has no vectors.

    Raises IntegrityError when the build isn't finished, a file was changed, or the embedder or the
    tokeniser isn't the one it was built with; UsageError when an embedder is missing.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"retrieval: {folder} holds no finished index; build it again")
    raw = path.read_bytes()
    try:
        manifest: dict[str, Any] = json.loads(raw)
        content = (folder / _CHUNKS).read_bytes()
    except (ValueError, OSError) as error:
        raise IntegrityError(f"retrieval: {folder} is damaged ({error}); build it again") from error
    if manifest.get("format") != _FORMAT:
        raise IntegrityError(
            f"retrieval: {folder} has the index format {manifest.get('format')}, "
            f"this version reads {_FORMAT}; build it again"
        )
    if hashlib.sha256(content).hexdigest() != manifest["chunks_sha256"]:
        raise IntegrityError(f"retrieval: {folder / _CHUNKS} was changed; build the index again")
    here = tokeniser_version(manifest["language"]) if manifest["tokeniser"] else ""
    if here != manifest["tokeniser"]:
        raise IntegrityError(
            f"retrieval: {folder} was built with {manifest['tokeniser']}, installed is {here}; "
            "build it again"
        )
    if manifest["embedder_digest"]:
        if embedder is None:
            raise UsageError(
                f"retrieval: {folder} has vectors of {manifest['embedder']}; open it with that "
                "embedder"
            )
        if embedder.digest != manifest["embedder_digest"]:
            raise IntegrityError(
                f"retrieval: {folder} was built with another embedder "
                f"({manifest['embedder']} {manifest['embedder_digest'][:12]}, now "
                f"{embedder.name} {embedder.digest[:12]}); build it again"
            )
    return Index(folder, manifest, content, embedder, hashlib.sha256(raw).hexdigest())


def contextual(chunk: Chunk, title: str) -> str:
    """What is indexed for a chunk: its title and headings where it doesn't show them, its text."""
    opening = chunk.text[:200]
    names = dict.fromkeys(name for name in (title, *chunk.headings) if name and name not in opening)
    return " > ".join(names) + "\n" + chunk.text if names else chunk.text


class Index:
    """A built index, opened. The one `Retriever` there is."""

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        content: bytes,
        embedder: Embedder | None,
        digest: str,
    ) -> None:
        self.digest = digest
        self.language: str = manifest["language"]
        self._folder = folder
        self._embedder = embedder
        rows = [json.loads(line) for line in content.decode().split("\n") if line]
        self._titles: list[str] = [row["title"] for row in rows]
        self._chunks = [Chunk.model_validate(row["chunk"]) for row in rows]
        self._lexical = (
            Lexical.open(folder / _LEXICAL, self.language) if manifest["tokeniser"] else None
        )
        self._dense = Dense.open(folder / _DENSE) if manifest["embedder_digest"] else None
        if self._dense is not None and len(self._dense) != len(self._chunks):
            raise IntegrityError(
                f"retrieval: {folder} has {len(self._dense)} vectors for {len(self._chunks)} "
                "chunks; build it again"
            )

    def search(self, query: str, top_k: int, spec: RetrievalSpec) -> list[Passage]:
        """At most `top_k` passages, numbered from 1, best first; fewer when fewer are found.

        `spec` says which rankings are fused and how deep (`candidates`, `rrf_k`); `score` is the
        fused score. Raises UsageError when it asks for a ranking that the index lacks.
        """
        depth = max(spec.candidates, top_k)
        rankings: list[list[int]] = []
        if spec.lexical:
            if self._lexical is None:
                raise self._lacks("lexical")
            rankings.append([hit.row for hit in self._lexical.search(query, depth)])
        if spec.dense:
            if self._dense is None or self._embedder is None:
                raise self._lacks("dense")
            vector = self._embedder.queries([query])[0]
            rankings.append([hit.row for hit in self._dense.search(vector, depth)])
        fused = fuse(rankings, spec.rrf_k)[:top_k]
        return [self._passage(n, row, score) for n, (row, score) in enumerate(fused, start=1)]

    def close(self) -> None:
        """Let go of the index files."""
        self._lexical = self._dense = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _passage(self, number: int, row: int, score: float) -> Passage:
        chunk = self._chunks[row]
        return Passage(
            number=number,
            chunk_id=chunk.id,
            document_id=chunk.document_id,
            title=self._titles[row] or " > ".join(chunk.headings),
            text=chunk.text,
            start=chunk.start,
            end=chunk.end,
            page=chunk.page,
            score=round(score, 8),
        )

    def _lacks(self, kind: str) -> UsageError:
        return UsageError(
            f"retrieval: the index in {self._folder} is closed or has no {kind} part; "
            f"build it with {kind}: true or turn {kind} off in the arm"
        )


def _clear(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, _CHUNKS, _DENSE):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / _LEXICAL, ignore_errors=True)
