"""One part of an index: rows that were written together and never change.

A folder → a `Part`, whose arrays are mapped from disk; a chunk is read when somebody asks for it.

    chunks.jsonl     {"chunk": …, "title": …} a line: one row
    documents.jsonl  the facts of the documents, a line each
    part.json        the documents' ids and titles; the access labels, by group
    headings.json    the paths of headings, by number
    terms.txt        the tokens, by number
    rows.bin         arrays over rows, tokens and postings
    vectors.bin      vectors, where the index has any

>>> part = Part.open(folder)
>>> part.chunk(0).text
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokka.errors import IntegrityError
from tokka.records import Chunk, DocumentFacts
from tokka.retrieval.packed import Array, map_bytes, read_arrays

CHUNKS, DOCUMENTS, NAMES, TERMS = "chunks.jsonl", "documents.jsonl", "part.json", "terms.txt"
HEADINGS, ROWS, VECTORS = "headings.json", "rows.bin", "vectors.bin"
FILES = (CHUNKS, DOCUMENTS, NAMES, HEADINGS, TERMS, ROWS)
DIGEST_BYTES = 16

Access = tuple[tuple[str, ...], tuple[str, ...]]  # labels of the chunk, labels of its document


class Line(NamedTuple):
    title: str
    chunk: Chunk


def digest_of(line: bytes | memoryview) -> bytes:
    """What a stored line is known by."""
    return hashlib.blake2b(line, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True)
class Part:
    """`rows` and `vectors` by name, with n rows, t tokens, p postings and d dimensions:

    line_starts (n+1), document, group, headings, start, lengths (n), digests (n, 16),
    facts_starts (m+1), facts_digests (m, 16); tokens (t) by `token_starts` (n+1): what each row
    says, in order; posting_rows, posting_counts (p) by `posting_starts`: the rows that hold a term,
    ascending.
    vectors (n, d) float32; codes (n, d) int8 times `scales` (n) come near them.
    """

    folder: Path
    document_ids: tuple[str, ...]
    titles: tuple[str, ...]
    groups: tuple[Access, ...]
    arrays: Mapping[str, Array]
    vectors: Mapping[str, Array]
    _lines: Any
    _facts: Any
    _terms: Any
    _headings: Any

    @classmethod
    def open(cls, folder: Path, vectors: bool) -> Part:
        """Raises FileNotFoundError without its files, IntegrityError when one is damaged."""
        try:
            names = json.loads((folder / NAMES).read_bytes())
            ids, titles = tuple(names["documents"]), tuple(names["titles"])
            groups = tuple((tuple(chunk), tuple(whole)) for chunk, whole in names["groups"])
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"retrieval: {folder / NAMES} is damaged; build again") from error
        return cls(
            folder,
            ids,
            titles,
            groups,
            read_arrays(folder / ROWS),
            read_arrays(folder / VECTORS) if vectors else {},
            map_bytes(folder / CHUNKS),
            map_bytes(folder / DOCUMENTS),
            map_bytes(folder / TERMS),
            map_bytes(folder / HEADINGS),
        )

    def __len__(self) -> int:
        return len(self.arrays["document"])

    @functools.cached_property
    def terms(self) -> dict[str, int]:
        """Token → its number."""
        text = bytes(self._terms).decode()
        return {term: number for number, term in enumerate(text.split("\n"))} if text else {}

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Document id → its number."""
        return {name: number for number, name in enumerate(self.document_ids)}

    @functools.cached_property
    def headings(self) -> list[tuple[str, ...]]:
        """The paths of headings that rows name by number."""
        return [tuple(path) for path in json.loads(bytes(self._headings))]

    def line(self, row: int) -> bytes:
        """The stored bytes of a row. Raises IntegrityError when they were changed."""
        return self._stored(self._lines, "line_starts", "digests", row, CHUNKS)

    def read(self, row: int) -> Line:
        found = json.loads(self.line(row))
        return Line(found["title"], Chunk.model_validate(found["chunk"]))

    def facts_line(self, document: int) -> bytes:
        return self._stored(self._facts, "facts_starts", "facts_digests", document, DOCUMENTS)

    def facts(self, document: int) -> DocumentFacts:
        return DocumentFacts.model_validate_json(self.facts_line(document))

    def postings(self, term: str) -> tuple[Array, Array]:
        """The rows that hold `term`, ascending, and how often."""
        number = self.terms.get(term)
        if number is None:
            return _NOWHERE, _NOWHERE
        first, last = self.arrays["posting_starts"][number : number + 2]
        return self.arrays["posting_rows"][first:last], self.arrays["posting_counts"][first:last]

    def _stored(self, mapped: Any, starts: str, digests: str, number: int, name: str) -> bytes:
        first, last = self.arrays[starts][number : number + 2]
        line: bytes = mapped[first:last]
        if digest_of(line) != self.arrays[digests][number].tobytes():
            raise IntegrityError(
                f"retrieval: {self.folder / name} was changed at line {number + 1}; build the "
                "index again"
            )
        return line


_NOWHERE: Array = np.empty(0, np.int32)
