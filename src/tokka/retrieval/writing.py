"""Chunks → the files of one part of an index; and several parts → one, without what was removed.

Everything is synced before the part is named anywhere: see `building`. Equal chunks give equal
files.

>>> write_part(folder / "part-000001", chunks, facts, "ja", embedder)
>>> merge_parts(folder / "part-000007", [(part, live), (other, None)])
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tokka.errors import UsageError
from tokka.models.protocol import Embedder
from tokka.records import Chunk, DocumentFacts, canonical_json
from tokka.retrieval.dense import quantise
from tokka.retrieval.packed import Array, sync_folder, write_arrays, write_synced
from tokka.retrieval.parts import (
    CHUNKS,
    DIGEST_BYTES,
    DOCUMENTS,
    HEADINGS,
    NAMES,
    ROWS,
    TERMS,
    VECTORS,
    Access,
    Part,
    digest_of,
)
from tokka.retrieval.tokenise import tokens

Progress = Callable[[int, int], None]

_EMBEDDED_AT_ONCE = 64


class _Rows:
    """What is gathered of a part, row by row, while its lines go to disk."""

    def __init__(self) -> None:
        self.lines = bytearray()
        self.facts = bytearray()
        self.line_starts, self.facts_starts = array("q", [0]), array("q", [0])
        self.digests, self.facts_digests = bytearray(), bytearray()
        self.documents: dict[str, int] = {}
        self.titles: list[str] = []
        self.groups: dict[Access, int] = {}
        self.headings: dict[tuple[str, ...], int] = {}
        self.terms: dict[str, int] = {}
        self.document, self.group, self.start = array("i"), array("i"), array("q")
        self.heading = array("i")
        self.tokens, self.token_starts = array("i"), array("q", [0])

    def add(
        self, line: bytes, document_id: str, access: Access, headings: tuple[str, ...], start: int
    ) -> None:
        self.lines += line
        self.line_starts.append(len(self.lines))
        self.digests += digest_of(line)
        self.document.append(self.documents[document_id])
        self.group.append(self.groups.setdefault(access, len(self.groups)))
        self.heading.append(self.headings.setdefault(headings, len(self.headings)))
        self.start.append(start)

    def add_facts(self, document_id: str, title: str, line: bytes) -> None:
        self.documents[document_id] = len(self.documents)
        self.titles.append(title)
        self.facts += line
        self.facts_starts.append(len(self.facts))
        self.facts_digests += digest_of(line)

    def say(self, words: Iterable[str]) -> None:
        """The tokens of the row that was added last."""
        terms = self.terms
        self.tokens.extend(terms.setdefault(word, len(terms)) for word in words)
        self.token_starts.append(len(self.tokens))

    def write(self, folder: Path) -> None:
        write_synced(folder / CHUNKS, [memoryview(self.lines)])
        write_synced(folder / DOCUMENTS, [memoryview(self.facts)])
        names = {
            "documents": list(self.documents),
            "titles": self.titles,
            "groups": list(self.groups),
        }
        write_synced(folder / NAMES, [json.dumps(names, ensure_ascii=False).encode()])
        paths = json.dumps(list(self.headings), ensure_ascii=False)
        write_synced(folder / HEADINGS, [paths.encode()])
        write_synced(folder / TERMS, ["\n".join(self.terms).encode()])
        said = np.array(self.tokens, np.int32)
        starts = np.array(self.token_starts, np.int64)
        arrays = {
            "line_starts": np.array(self.line_starts, np.int64),
            "facts_starts": np.array(self.facts_starts, np.int64),
            "digests": _digests(self.digests),
            "facts_digests": _digests(self.facts_digests),
            "document": np.array(self.document, np.int32),
            "group": np.array(self.group, np.int32),
            "headings": np.array(self.heading, np.int32),
            "start": np.array(self.start, np.int64),
        }
        if len(starts) > 1 or not len(self.document):
            arrays |= {"tokens": said, "token_starts": starts}
            arrays |= {"lengths": np.diff(starts).astype(np.int32)}
            arrays |= _postings(said, starts, len(self.terms))
        write_arrays(folder / ROWS, arrays)


def write_part(
    folder: Path,
    chunks: Iterable[Chunk],
    facts: Mapping[str, DocumentFacts],
    language: str | None,
    embedder: Embedder | None,
    progress: Progress | None = None,
) -> None:
    """Write chunks to the new folder. `language` None: without tokens; `embedder`
    None: without vectors. Raises UsageError for a chunk whose document `facts` doesn't know."""
    folder.mkdir(parents=True)
    gathered = _Rows()
    texts = []
    for chunk in chunks:
        name = chunk.document_id
        if name not in facts:
            raise UsageError(
                f"retrieval: the chunk {chunk.id} is of the document {name}, of which no facts "
                "were given; give them under documents"
            )
        if name not in gathered.documents:
            gathered.add_facts(name, facts[name].title, _line(facts[name]))
        title = facts[name].title
        access = (tuple(sorted(chunk.access)), tuple(sorted(facts[name].access)))
        line = _line({"title": title, "chunk": chunk})
        gathered.add(line, name, access, chunk.headings, chunk.start)
        if language is not None:
            gathered.say(tokens(headed(chunk, title), language))
        if embedder is not None:
            texts.append(contextual(chunk, title))
    if embedder is not None:
        _write_vectors(folder, _embedded(texts, embedder, progress))
    gathered.write(folder)
    sync_folder(folder)


def merge_parts(folder: Path, parts: Sequence[tuple[Part, Array | None]]) -> None:
    """Write the live rows of `parts`, in their order, to the new folder. The second of a pair says
    which rows live, shape (rows,); None: all."""
    folder.mkdir(parents=True)
    gathered = _Rows()
    vectors = []
    for part, live in parts:
        kept = np.arange(len(part)) if live is None else np.flatnonzero(live)
        words = list(part.terms)
        for row in kept.tolist():
            document = int(part.arrays["document"][row])
            name = part.document_ids[document]
            if name not in gathered.documents:
                gathered.add_facts(name, part.titles[document], part.facts_line(document))
            access = part.groups[part.arrays["group"][row]]
            headings = part.headings[part.arrays["headings"][row]]
            start = int(part.arrays["start"][row])
            gathered.add(part.line(row), name, access, headings, start)
            if "tokens" in part.arrays:
                first, last = part.arrays["token_starts"][row : row + 2]
                gathered.say(words[number] for number in part.arrays["tokens"][first:last])
        if part.vectors:
            vectors.append(part.vectors["vectors"][kept])
    if vectors:
        _write_vectors(folder, np.concatenate(vectors))
    gathered.write(folder)
    sync_folder(folder)


def headed(chunk: Chunk, title: str) -> str:
    """What words are counted in: the title and the headings, then the text. A word of the title
    that stands in the text as well counts twice: half a point of JaQuAD's recall@1."""
    return "\n".join(
        [*dict.fromkeys(name for name in (title, *chunk.headings) if name), chunk.text]
    )


def contextual(chunk: Chunk, title: str) -> str:
    """What is embedded, and read by a reranker: title and headings where the text doesn't show
    them, then the text."""
    opening = chunk.text[:200]
    names = dict.fromkeys(name for name in (title, *chunk.headings) if name and name not in opening)
    return " > ".join(names) + "\n" + chunk.text if names else chunk.text


def _line(value: object) -> bytes:
    return (canonical_json(value) + "\n").encode()


def _digests(joined: bytearray) -> Array:
    return np.frombuffer(bytes(joined), np.uint8).reshape(-1, DIGEST_BYTES)


def _postings(said: Array, starts: Array, terms: int) -> dict[str, Array]:
    rows = len(starts) - 1
    of_row = np.repeat(np.arange(rows, dtype=np.int64), np.diff(starts))
    pairs, counts = np.unique(said.astype(np.int64) * max(rows, 1) + of_row, return_counts=True)
    term, row = np.divmod(pairs, max(rows, 1))
    return {
        "posting_rows": row.astype(np.int32),
        "posting_counts": np.minimum(counts, 65_535).astype(np.uint16),
        "posting_starts": np.searchsorted(term, np.arange(terms + 1)).astype(np.int64),
    }


def _embedded(texts: Sequence[str], embedder: Embedder, progress: Progress | None) -> Array:
    out = np.empty((len(texts), embedder.dimensions), np.float32)
    for first in range(0, len(texts), _EMBEDDED_AT_ONCE):
        some = texts[first : first + _EMBEDDED_AT_ONCE]
        out[first : first + len(some)] = embedder.passages(some)
        if progress:
            progress(first + len(some), len(texts))
    return out


def _write_vectors(folder: Path, vectors: Array) -> None:
    codes, scales = quantise(vectors)
    write_arrays(folder / VECTORS, {"vectors": vectors, "codes": codes, "scales": scales})
