"""Build an index, and change it: whatever is killed, it opens as it was before or as it is after.

Chunks → a folder:

    index.json       written last, in one step: which parts there are; stands for the whole index
    part-000001/     rows that were written together and never change, see `parts`
    removed-000002   which rows of the parts were removed

A change adds a part and a list of removed rows beside the old ones, puts the new `index.json` in
the old one's place, and only then throws away what nobody names any more. So an index costs its
changes, not its size; when too much of it is dead or scattered, its parts are merged, again beside
the old ones. Searching it is like searching one built afresh from the chunks that are left.

>>> build_index(chunks, folder, RetrievalSpec(), "ja", embedder, documents=facts)
>>> update_index(folder, new_chunks, ["loan.md"], facts, embedder)
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from tokka.errors import IntegrityError, UsageError
from tokka.models.protocol import Embedder
from tokka.records import Chunk, DocumentFacts, RetrievalSpec, canonical_json
from tokka.retrieval.manifest import (
    MANIFEST,
    Manifest,
    Named,
    Opened,
    check_tools,
    open_parts,
    read_manifest,
    sizes_of,
)
from tokka.retrieval.packed import Array, sync_folder, write_synced
from tokka.retrieval.parts import Part
from tokka.retrieval.tokenise import tokeniser_version
from tokka.retrieval.writing import Progress, merge_parts, write_part
from tokka.store import write_text

_ROWS_OF_A_PART = 65_536
_DEAD = 0.25  # share of removed rows from which on a part is written afresh
_MANY_PARTS = 8
_OURS = re.compile(
    r"part-\d{6,}|removed-\d{6,}-\d{3,}|\.index\.json\..*\.tmp"
    # of the format before this one
    r"|chunks\.jsonl|lexical|dense\.usearch|index\.json\.part"
)
_LOCK = ".lock"


def build_index(
    chunks: Iterable[Chunk],
    folder: Path,
    spec: RetrievalSpec,
    language: str,
    embedder: Embedder | None,
    progress: Progress | None = None,
    *,
    documents: Mapping[str, DocumentFacts] | None = None,
    titles: Mapping[str, str] | None = None,
) -> None:
    """Build the parts that `spec` asks for; what was in `folder` is replaced.

    A chunk is indexed with its document's title and its headings in front: "期限" alone doesn't
    say of what. `documents` tells the facts by document id; without it, a document has the title
    of `titles` and no other. `progress(done, total)` counts embedded chunks; where `chunks` has no
    length, the total is what was read so far. Raises UsageError without chunks, for a chunk
    without facts, or for dense search without an embedder.
    """
    if spec.dense and embedder is None:
        raise UsageError(
            "retrieval: dense search needs an embedder; name one or set dense to false"
        )
    total = len(chunks) if isinstance(chunks, Sized) else None
    pieces = iter(chunks)
    first = next(pieces, None)
    if first is None:
        raise UsageError("retrieval: there are no chunks to index; add documents to the corpus")
    folder.mkdir(parents=True, exist_ok=True)
    facts = documents if documents is not None else _Bare(titles or {}, language)
    before = _before(folder)
    embedder = embedder if spec.dense else None
    manifest = Manifest(
        language,
        tokeniser_version(language) if spec.lexical else "",
        embedder.name if embedder else "",
        embedder.digest if embedder else "",
        0,
        "",
        before.generation + 1 if before else 1,
    )
    _clear(folder, keep=_names(before) if before else ())
    pieces = itertools.chain([first], pieces)
    parts = _add(folder, manifest, pieces, facts, embedder, progress, total)
    _commit(folder, manifest, [(part, None) for part in parts], {})


def update_index(
    folder: Path,
    added: Iterable[Chunk],
    removed_document_ids: Collection[str],
    documents: Mapping[str, DocumentFacts],
    embedder: Embedder | None,
    progress: Progress | None = None,
) -> None:
    """Take documents out and put chunks in, at the cost of these alone.

    A changed document is removed and added in one call. `documents` holds the facts of the added
    ones. Raises UsageError for a document that is added, and there already, and not removed; for
    chunks without facts; IntegrityError as `open_index` does. A document that is removed and was
    never there is fine: a change that was made already can be made again.
    """
    from filelock import FileLock

    with FileLock(str(folder / _LOCK)):
        manifest, opened = open_parts(folder)
        check_tools(folder, manifest, embedder)
        generation = manifest.generation + 1
        _clear(folder, keep=_names(manifest))
        gone = set(removed_document_ids)
        left: list[Opened] = []
        files: dict[str, str] = {}
        for number, (part, live) in enumerate(opened):
            rest, changed = _without(part, live, gone)
            if changed and rest is not None and rest.any():
                name = f"removed-{generation:06d}-{number:03d}"
                write_synced(folder / name, [np.packbits(~rest).tobytes()])
                files[part.folder.name] = name
            elif manifest.parts[number].removed:
                files[part.folder.name] = manifest.parts[number].removed
            if rest is None or rest.any():
                left.append((part, rest))
        present = {name for part, live in left for name in _documents(part, live)}
        manifest = replace(manifest, generation=generation)
        fresh = _add(folder, manifest, _new(added, present), documents, embedder, progress, None)
        _commit(folder, manifest, [*left, *((part, None) for part in fresh)], files)
        _compact(folder)


def compact_index(folder: Path) -> None:
    """Merge parts where a quarter of the rows is dead, or where there are many small ones."""
    from filelock import FileLock

    with FileLock(str(folder / _LOCK)):
        _compact(folder)


# ---- changes ------------------------------------------------------------------------------------


def _add(
    folder: Path,
    manifest: Manifest,
    chunks: Iterator[Chunk],
    facts: Mapping[str, DocumentFacts],
    embedder: Embedder | None,
    progress: Progress | None,
    total: int | None,
) -> list[Part]:
    """Write the chunks as new parts that nobody names yet."""
    parts: list[Part] = []
    done = 0
    number = _free_number(folder)
    for first in chunks:
        some = itertools.chain([first], itertools.islice(chunks, _ROWS_OF_A_PART - 1))

        def told(now: int, of: int, before: int = done) -> None:
            if progress:
                progress(before + now, total if total is not None else before + of)

        target = folder / f"part-{number + len(parts):06d}"
        write_part(
            target,
            some,
            facts,
            manifest.language if manifest.tokeniser else None,
            embedder if manifest.embedder_digest else None,
            told,
        )
        parts.append(Part.open(target, bool(manifest.embedder_digest)))
        done += len(parts[-1])
    return parts


def _commit(
    folder: Path, manifest: Manifest, parts: Sequence[Opened], removed: Mapping[str, str]
) -> None:
    """Name the parts, in one step; then throw away what was named before."""
    named = tuple(
        Named(part.folder.name, len(part), sizes_of(part.folder), removed.get(part.folder.name, ""))
        for part, _ in parts
    )
    rows = sum(len(part) if live is None else int(live.sum()) for part, live in parts)
    manifest = replace(manifest, parts=named, rows=rows, content=_content(parts))
    sync_folder(folder)
    write_text(folder / MANIFEST, canonical_json(asdict(manifest)) + "\n")
    sync_folder(folder)
    _clear(folder, keep=_names(manifest))


def _compact(folder: Path) -> None:
    manifest, opened = open_parts(folder)
    merged = [
        number
        for number, (part, live) in enumerate(opened)
        if live is not None and np.count_nonzero(~live) > _DEAD * len(part)
    ]
    if len(opened) > _MANY_PARTS:
        small = [n for n, (part, _) in enumerate(opened) if len(part) < _ROWS_OF_A_PART // 2]
        merged = sorted({*merged, *small}) if len(small) > 1 else merged
    if not merged:
        return
    manifest = replace(manifest, generation=manifest.generation + 1)
    target = folder / f"part-{_free_number(folder):06d}"
    merge_parts(target, [opened[number] for number in merged])
    kept = [number for number in range(len(opened)) if number not in merged]
    removed = {manifest.parts[n].name: manifest.parts[n].removed for n in kept}
    parts = [*(opened[n] for n in kept), (Part.open(target, bool(manifest.embedder_digest)), None)]
    _commit(folder, manifest, parts, removed)


def _without(part: Part, live: Array | None, gone: set[str]) -> tuple[Array | None, bool]:
    """Which rows live without the documents `gone`, and whether that is new."""
    leaving = np.array([name in gone for name in part.document_ids], bool)
    if not leaving.any():
        return live, False
    dead = leaving[part.arrays["document"]]
    rest = ~dead if live is None else live & ~dead
    return rest, live is None or bool((live & dead).any())


def _documents(part: Part, live: Array | None) -> Iterator[str]:
    numbers = part.arrays["document"] if live is None else part.arrays["document"][live]
    return (part.document_ids[number] for number in np.unique(numbers).tolist())


def _new(added: Iterable[Chunk], present: set[str]) -> Iterator[Chunk]:
    for chunk in added:
        if chunk.document_id in present:
            raise UsageError(
                f"retrieval: the document {chunk.document_id} is in the index already; name it "
                "among the removed ones to replace it"
            )
        yield chunk


def _content(parts: Sequence[Opened]) -> str:
    """SHA-256 over the digests of the living lines, in an order of their own."""
    lines: set[bytes] = set()
    rows: list[bytes] = []
    for part, live in parts:
        kept = slice(None) if live is None else live
        rows += [digest.tobytes() for digest in part.arrays["digests"][kept]]
        used = np.unique(part.arrays["document"][kept])
        lines |= {digest.tobytes() for digest in part.arrays["facts_digests"][used]}
    return hashlib.sha256(b"".join([*sorted(rows), b"\0", *sorted(lines)])).hexdigest()


# ---- names --------------------------------------------------------------------------------------


class _Bare(Mapping[str, DocumentFacts]):
    """Facts of documents of which only titles are known."""

    def __init__(self, titles: Mapping[str, str], language: str) -> None:
        self._titles, self._language = titles, language

    def __getitem__(self, name: str) -> DocumentFacts:
        title = self._titles.get(name, "")
        return DocumentFacts(document_id=name, source="", title=title, language=self._language)

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._titles)

    def __len__(self) -> int:
        return len(self._titles)


def _names(manifest: Manifest) -> tuple[str, ...]:
    return (*(part.name for part in manifest.parts), *(part.removed for part in manifest.parts))


def _before(folder: Path) -> Manifest | None:
    """The index that a build replaces; it stays until the new one is named. Raises OSError when
    that can't be told."""
    if (folder / MANIFEST).is_file():
        (folder / MANIFEST).read_bytes()
    try:
        return read_manifest(folder)
    except IntegrityError:
        (folder / MANIFEST).unlink(missing_ok=True)
        return None


def _free_number(folder: Path) -> int:
    taken = [int(path.name.rpartition("-")[2]) for path in folder.glob("part-*")]
    return max(taken, default=0) + 1


def _clear(folder: Path, keep: Collection[str]) -> None:
    """Throw away what an index wrote and nobody names: a killed change's files, or old ones."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in keep:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
