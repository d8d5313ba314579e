"""BM25 over tokens that were made beforehand, in a tantivy index on disk.

Texts → a folder → `Hit`s. Rows are positions in the sequence that was indexed.

>>> build_lexical(["融資の限度額は300万円。"], folder, "ja")
>>> Lexical.open(folder, "ja").search("融資はいくらまで", 10)
[Hit(row=0, score=0.28)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.extras import require
from tokka.retrieval.tokenise import tokens

_HEAP_BYTES = 128_000_000
_ROUNDING = 4  # decimals: BM25 sums of equal texts may differ in the last bits between segments


@dataclass(frozen=True, slots=True)
class Hit:
    row: int
    score: float


def build_lexical(texts: Sequence[str], folder: Path, language: str) -> None:
    """Index `texts` in the empty or absent `folder`. One thread: rows keep their order."""
    tantivy = require("tantivy", extra="retrieval")
    folder.mkdir(parents=True, exist_ok=True)
    index = tantivy.Index(_schema(tantivy), path=str(folder))
    writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    for row, text in enumerate(texts):
        document = tantivy.Document()
        document.add_text("body", " ".join(tokens(text, language)))
        document.add_unsigned("row", row)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()


class Lexical:
    """An index opened for searching. Scores are BM25 with tantivy's k1 = 1.2, b = 0.75."""

    def __init__(self, index: Any, language: str) -> None:
        self._tantivy = require("tantivy", extra="retrieval")
        self._searcher = index.searcher()
        self._schema = index.schema
        self._language = language

    @classmethod
    def open(cls, folder: Path, language: str) -> Lexical:
        """`language` is the one it was built with. Raises IntegrityError without an index."""
        tantivy = require("tantivy", extra="retrieval")
        try:
            return cls(tantivy.Index.open(str(folder)), language)
        except ValueError as error:
            raise IntegrityError(
                f"lexical: {folder} holds no readable index ({error}); build it again"
            ) from error

    def search(self, query: str, k: int) -> list[Hit]:
        """The k best rows, score first and row second; [] when no word of the query is known."""
        words = list(dict.fromkeys(tokens(query, self._language)))
        if not words or k < 1:
            return []
        tantivy = self._tantivy
        asked = tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "body", word, "freq"))
                for word in words
            ]
        )
        limit = k
        while True:
            found = self._searcher.search(asked, limit, count=False).hits
            scores = [round(score, _ROUNDING) for score, _ in found]
            # Which of several equal rows come last depends on segment names: fetch them all.
            if len(found) < limit or scores[-1] < scores[k - 1] or limit >= self._searcher.num_docs:
                break
            limit *= 2
        rows = self._searcher.fast_field_values("row", [address for _, address in found])
        hits = (Hit(int(row), score) for row, score in zip(rows, scores, strict=True))
        return sorted(hits, key=lambda hit: (-hit.score, hit.row))[:k]


def _schema(tantivy: Any) -> Any:
    fields = tantivy.SchemaBuilder()
    fields.add_text_field("body", tokenizer_name="whitespace", index_option="freq")
    fields.add_unsigned_field("row", fast=True)
    return fields.build()
