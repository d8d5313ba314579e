"""The index of a project's chunks as a step: built once, then changed.

Where an earlier run left an index with the same settings, the new one starts as a copy of it (files
that never change are linked, not copied) and only documents that came, went or changed are worked
on. It answers like one built afresh, and has the same digest.

>>> index_of(build, arm.retrieval)
PosixPath('.tokka/steps/index-7b6e…')
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokka.documents_steps import facts_of
from tokka.errors import IntegrityError, UsageError
from tokka.pipeline import VERSIONS, Build, embedder_name, embedder_of
from tokka.records import Chunk, DocumentFacts, RetrievalSpec, canonical_json
from tokka.store import read_json, stream_records, write_json

_MOST_CHANGED = 0.5  # of the documents; above, a fresh index is as quick
_HELD = "documents.json"  # a digest of each document's chunks and facts
_CONTENT = "content.json"  # what later steps depend on, however the index came to be


def index_of(build: Build, spec: RetrievalSpec) -> Path:
    """The index that a retrieval setting needs: one for all arms that share its parts."""
    if build.chunks is None:
        raise UsageError("retrieval: the project has no corpus; add one under corpus:")
    chunks = build.chunks
    shared = {
        "lexical": spec.lexical,
        "dense": spec.dense,
        "embedder": embedder_name(build) if spec.dense else "",
        "language": build.project.language,
    }

    def make(folder: Path) -> None:
        from tokka.retrieval.hybrid import open_index

        facts = facts_of(chunks)
        held = _digests(chunks, facts)
        embedder = embedder_of(build) if spec.dense else None
        earlier, changes = _nearest(build, shared, held)
        with build.observer.task(f"index {len(held):,} documents", 1) as task:
            done = 0.0

            def embedded(now: int, total: int) -> None:
                nonlocal done
                share = now / max(1, total)
                task.advance(max(0.0, share - done), f"{now:,} chunks embedded")
                done = max(done, share)

            _build(folder, chunks, spec, build, embedder, facts, earlier, changes, embedded)
        with open_index(folder, embedder) as index:
            write_json(folder / _CONTENT, {"digest": index.digest, "chunks": len(index)})
        write_json(folder / _HELD, held)
        (folder / ".lock").unlink(missing_ok=True)  # of changing it, which is over

    return build.step("index", {"chunks": build.workspace.digest(chunks), **shared}, make)


def _build(
    folder: Path,
    chunks: Path,
    spec: RetrievalSpec,
    build: Build,
    embedder: Any,
    facts: Mapping[str, DocumentFacts],
    earlier: Path | None,
    changes: tuple[set[str], set[str]],
    progress: Any,
) -> None:
    from tokka.retrieval.building import build_index, update_index

    _emptied(
        folder
    )  # what a killed run left is linked or made again; embeddings are kept elsewhere
    if earlier is None:
        found = list(stream_records(chunks / "chunks.jsonl", Chunk))
        language = build.project.language
        build_index(found, folder, spec, language, embedder, progress, documents=facts)
        return
    _linked(earlier, folder)
    removed, added = changes
    update_index(folder, list(_of(chunks, added)), removed, facts, embedder, progress)


def _of(chunks: Path, documents: Collection[str]) -> Iterator[Chunk]:
    for chunk in stream_records(chunks / "chunks.jsonl", Chunk):
        if chunk.document_id in documents:
            yield chunk


def _digests(chunks: Path, facts: Mapping[str, DocumentFacts]) -> dict[str, str]:
    """By document id: of all that the index would hold of it."""
    digests: dict[str, Any] = {}
    for chunk in stream_records(chunks / "chunks.jsonl", Chunk):
        if chunk.document_id not in digests:
            known = canonical_json(facts[chunk.document_id].model_dump(mode="json"))
            digests[chunk.document_id] = hashlib.sha256(known.encode())
        digests[chunk.document_id].update(chunk.model_dump_json().encode())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _nearest(
    build: Build, shared: Mapping[str, Any], held: Mapping[str, str]
) -> tuple[Path | None, tuple[set[str], set[str]]]:
    """The finished index that differs in fewest documents, with those to take out and to put in."""
    best: tuple[Path | None, tuple[set[str], set[str]]] = (None, (set(), set()))
    fewest = _MOST_CHANGED * max(1, len(held))
    for folder in build.workspace.finished():
        if not folder.name.startswith("index-") or not (folder / _HELD).is_file():
            continue
        manifest = build.workspace.manifest(folder)
        if any(manifest.inputs.get(key) != value for key, value in shared.items()):
            continue
        if manifest.inputs.get("version") != VERSIONS["index"]:
            continue
        before: dict[str, str] = read_json(folder / _HELD)
        removed = {name for name, digest in before.items() if held.get(name) != digest}
        added = {name for name, digest in held.items() if before.get(name) != digest}
        if len(removed | added) < fewest and len(removed) < len(before):
            try:
                build.workspace.check(folder)
            except IntegrityError:
                continue  # damaged: nothing is lost by building afresh
            best, fewest = (folder, (removed, added)), len(removed | added)
    return best


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith(".seconds"):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _linked(earlier: Path, folder: Path) -> None:
    """The earlier index's files under the same names. What is written later gets new names or takes
    a name's place as a whole, so that links never change what they share."""
    own = {"manifest.json", _HELD, _CONTENT}
    for path in sorted(earlier.rglob("*")):
        name = path.relative_to(earlier)
        if path.is_dir():
            (folder / name).mkdir(parents=True, exist_ok=True)
        elif name.as_posix() not in own and not path.name.startswith("."):
            try:
                os.link(path, folder / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, folder / name)
