"""Search an index: lexical and dense rankings, fused, reranked, and made into passages.

Queries + a setting + a caller → `Passage`s. Where each step lives: what a caller may see `access`,
facts `filters`, BM25 `lexical`, vectors `dense`, ranks `fusion`, references and widening
`passages`; building and changing `building`.

>>> build_index(chunks, folder, RetrievalSpec(), "ja", embedder, documents=facts)
>>> with open_index(folder, embedder) as index:
...     passages = index.search("融資の限度額は？", 4, RetrievalSpec(), Caller(labels=("staff",)))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from tokka.errors import UsageError
from tokka.models.protocol import Embedder
from tokka.records import Caller, Chunk, Passage, RetrievalSpec
from tokka.retrieval.access import Table, View
from tokka.retrieval.building import build_index, compact_index, update_index
from tokka.retrieval.dense import Hits, cosines, nearest
from tokka.retrieval.fusion import Fused, Kind, Ranking, RankPart, fuse, sum_scores
from tokka.retrieval.lexical import Asked, Lexical
from tokka.retrieval.manifest import MANIFEST, Manifest, Opened, check_tools, open_parts
from tokka.retrieval.pairs import Pairs, pairs_in
from tokka.retrieval.passages import passages_of, titles_of
from tokka.retrieval.synonyms import Synonyms, read_synonyms
from tokka.retrieval.tokenise import OF_QUESTIONS, tokens
from tokka.retrieval.writing import contextual

if TYPE_CHECKING:
    from tokka.retrieval.rerank import Reranker

__all__ = [
    "MANIFEST",
    "Explained",
    "Index",
    "Ranked",
    "Retriever",
    "build_index",
    "compact_index",
    "contextual",
    "open_index",
    "update_index",
]

EVERYTHING = Caller()

Queries = str | Sequence[str]


class Retriever(Protocol):
    """Finds passages for queries. `digest` changes whenever a search could answer differently."""

    @property
    def digest(self) -> str: ...
    def search(
        self,
        queries: Queries,
        top_k: int,
        spec: RetrievalSpec,
        caller: Caller = EVERYTHING,
        reranker: Reranker | None = None,
    ) -> list[Passage]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Retriever: ...
    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """A row and why it is there. `row` is for this process alone: its number counts rows that the
    caller may not see."""

    row: int
    score: float
    lexical: float | None
    dense: float | None
    parts: tuple[RankPart, ...]


@dataclass(frozen=True, slots=True)
class TermShare:
    """What a token, the phrase of a synonym, or a pair of words side by side adds to a passage's
    lexical score: `score` = `weight` × `rarity` × what standing there `times` times is worth (a
    pair counts once). `query` counts from 0."""

    query: int
    words: tuple[str, ...]
    weight: float
    times: int
    rarity: float
    score: float


@dataclass(frozen=True, slots=True)
class Explained:
    """A hit, as it is before reranking: its `score` is the sum of the shares of `parts`."""

    number: int
    chunk_id: str
    document_id: str
    title: str
    score: float
    lexical: float | None
    dense: float | None
    parts: tuple[RankPart, ...]
    terms: tuple[TermShare, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """One search: for which query, what was asked (words, or a vector), what it found."""

    kind: Kind
    query: int
    weight: float
    hits: Hits
    asked: Any

    def ranking(self, others: Mapping[int, float]) -> Ranking[int]:
        rows, scores = self.hits.rows.tolist(), self.hits.scores.tolist()
        return Ranking(self.kind, self.query, self.weight, rows, scores, others)


def open_index(
    folder: Path, embedder: Embedder | None, synonyms: Mapping[str, str] | None = None
) -> Index:
    """Open a finished index. `embedder` may be None when it has no vectors. `synonyms`: the texts
    of the files that settings name under `synonyms`, by that name.

    Raises IntegrityError when the build isn't finished, a file was changed, or the embedder or the
    tokeniser isn't the one it was built with; UsageError when an embedder is missing; Mistakes
    for the lines of a synonym file that can't be read.
    """
    manifest, opened = open_parts(folder)
    check_tools(folder, manifest, embedder)
    read = {
        name: read_synonyms(text, manifest.language, name)
        for name, text in (synonyms or {}).items()
    }
    return Index(folder, manifest, opened, embedder, read)


class Index:
    """An opened index; it goes on as it was when somebody changes the folder."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        opened: Sequence[Opened],
        embedder: Embedder | None,
        synonyms: Mapping[str, Synonyms],
    ) -> None:
        self.digest = manifest.digest
        self.language = manifest.language
        self._folder = folder
        self._manifest = manifest
        self._embedder = embedder
        self._synonyms = {"": Synonyms(), **synonyms}
        self._lexical = Lexical()
        self._table: Table | None = Table([p for p, _ in opened], [live for _, live in opened])

    def __len__(self) -> int:
        """How many chunks there are, whoever may see them."""
        return self._manifest.rows

    def rank(
        self, queries: Queries, depth: int, spec: RetrievalSpec, caller: Caller = EVERYTHING
    ) -> list[Ranked]:
        """At most `depth` rows that the caller may see, best first: the rankings of all queries,
        each `spec.candidates` deep, fused. Raises UsageError when `spec` asks for a ranking that
        the index lacks, for synonyms that it wasn't given, or for weights yet to be tuned."""
        view = self._view(spec, caller)
        return [_ranked(one) for one in self._fused(_listed(queries), depth, spec, view)]

    def search(
        self,
        queries: Queries,
        top_k: int,
        spec: RetrievalSpec,
        caller: Caller = EVERYTHING,
        reranker: Reranker | None = None,
    ) -> list[Passage]:
        """At most `top_k` passages (and what references add), numbered from 1, best first.

        The best `spec.rerank_depth` are put in the order of the `reranker`, which reads the first
        query. `score` is the fused score, `lexical` and `dense` the best over the queries.
        """
        asked = _listed(queries)
        view = self._view(spec, caller)
        depth = max(top_k, spec.rerank_depth if reranker is not None else 0)
        found = self._fused(asked, depth, spec, view)
        reranked: dict[int, float] = {}
        if reranker is not None and found:
            first = [one.item for one in found[: spec.rerank_depth]]
            texts = [contextual(line.chunk, line.title) for line in map(view.table.line, first)]
            scores = reranker.scores(asked[0], texts)
            reranked = dict(zip(first, scores, strict=True))
            # The sort is stable: equals keep the order of the search.
            best = sorted(found[: len(first)], key=lambda one: -reranked[one.item])
            found = best + found[len(first) :]
        return passages_of(found[:top_k], spec, view, reranked)

    def explain(
        self, queries: Queries, top_k: int, spec: RetrievalSpec, caller: Caller = EVERYTHING
    ) -> list[Explained]:
        """Why the best `top_k` are where they are, before reranking and widening. Whatever is
        counted here is counted over what the caller may see."""
        asked = _listed(queries)
        view = self._view(spec, caller)
        depth = max(spec.candidates, top_k)
        found = self._fused(asked, top_k, spec, view)
        return [
            self._explained(number, one, asked, depth, spec, view)
            for number, one in enumerate(found, start=1)
        ]

    def chunk(self, row: int) -> Chunk:
        """The chunk of a row that `rank` gave."""
        return self._rows().line(row).chunk

    def close(self) -> None:
        """Let go of the index files."""
        self._table = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _rows(self) -> Table:
        if self._table is None:
            raise UsageError(f"retrieval: the index in {self._folder} is closed; open it again")
        return self._table

    def _view(self, spec: RetrievalSpec, caller: Caller) -> View:
        return self._rows().view(caller, spec.where)

    def _fused(
        self, queries: Sequence[str], depth: int, spec: RetrievalSpec, view: View
    ) -> list[Fused[int]]:
        searched = max(spec.candidates, depth)
        found: list[_Found] = []
        lexical, dense = self._weights(spec)
        for number, query in enumerate(queries if lexical else ()):
            hits, asked, _ = self._lexically(query, searched, spec, view)
            found.append(_Found("lexical", number, lexical, hits, asked))
        if dense and self._embedder is not None:
            for number, vector in enumerate(self._embedder.queries(queries)):
                found.append(
                    _Found("dense", number, dense, nearest(vector, searched, view), vector)
                )
        if spec.named:
            found += self._named(queries, found, spec, view)
        if spec.fusion == "ranks":
            return fuse([one.ranking({}) for one in found], spec.rrf_k, depth)
        return sum_scores([one.ranking(self._others(one, found, view)) for one in found], depth)

    def _named(
        self, queries: Sequence[str], found: Sequence[_Found], spec: RetrievalSpec, view: View
    ) -> Iterator[_Found]:
        """Of each document that a query calls by its title, the row that says most of the query:
        by words, else the first."""
        asked = {one.query: one.asked for one in found if one.kind == "lexical"}
        for number, query in enumerate(queries):
            best = []
            for document in titles_of(view).named(query):
                rows = view.table.rows_of(document, view)
                if number in asked:
                    scores = self._lexical.scores(asked[number], rows, view)
                else:
                    scores = np.zeros(len(rows))
                best.append(int(rows[view.table.best(rows, scores, 1)[0]]))
            if best:
                hits = Hits(np.array(best), np.ones(len(best)))
                yield _Found("named", number, spec.named, hits, None)

    def _others(self, one: _Found, found: Sequence[_Found], view: View) -> dict[int, float]:
        """The scores of what other searches found and this one didn't."""
        rows = np.setdiff1d(np.concatenate([other.hits.rows for other in found]), one.hits.rows)
        if one.kind == "named":
            return {}
        if one.kind == "lexical":
            scores = self._lexical.scores(one.asked, rows, view)
        else:
            scores = cosines(one.asked, rows, view)
        return dict(zip(rows.tolist(), scores.tolist(), strict=True))

    def _lexically(
        self, query: str, depth: int, spec: RetrievalSpec, view: View
    ) -> tuple[Hits, list[Asked], Pairs | None]:
        """The lexical ranking; what was asked for; and the pairs of words in the first
        `spec.candidates` rows, which are put in order with them."""
        words = tokens(query, self.language)
        asked = self._asked(words, spec)
        hits = self._lexical.search(asked, depth, view)
        if not (spec.pairs and len(words) > 1 and len(hits.rows)):
            return hits, asked, None
        first = spec.candidates
        pairs = pairs_in(words, hits.rows[:first], view)
        scores = np.round(hits.scores[:first] + spec.pairs * pairs.sums(), 4)
        best = view.table.best(hits.rows[:first], scores, first)
        ordered = Hits(
            np.concatenate([hits.rows[:first][best], hits.rows[first:]]),
            np.concatenate([scores[best], hits.scores[first:]]),
        )
        return ordered, asked, Pairs(pairs.pairs, pairs.holds[best], pairs.rarity)

    def _weights(self, spec: RetrievalSpec) -> tuple[float, float]:
        """What each kind of search counts; 0 where it is off."""
        if spec.weights == "tuned":
            raise UsageError(
                "retrieval: weights: tuned must be replaced by numbers before searching; run the "
                "project, which chooses them, or give two numbers"
            )
        if min(spec.weights) < 0:
            raise UsageError(f"retrieval: weights can't be negative, got {spec.weights}")
        lexical = spec.weights[0] if spec.lexical else 0.0
        dense = spec.weights[1] if spec.dense else 0.0
        if not (lexical or dense):
            raise UsageError(
                f"retrieval: weights {spec.weights} leave no search on; give one more than 0"
            )
        if lexical and not self._manifest.tokeniser:
            raise self._lacks("lexical")
        if dense and not self._manifest.embedder_digest:
            raise self._lacks("dense")
        return lexical, dense

    def _asked(self, words: Sequence[str], spec: RetrievalSpec) -> list[Asked]:
        if spec.synonyms not in self._synonyms:
            raise UsageError(
                f"retrieval: the synonyms {spec.synonyms} were not given when the index was opened"
            )
        asked = self._synonyms[spec.synonyms].asked(words)
        plain = OF_QUESTIONS.get(self.language, frozenset())
        return [one for one in asked if not plain.issuperset(one.words)] or asked

    def _explained(
        self,
        number: int,
        found: Fused[int],
        queries: Sequence[str],
        depth: int,
        spec: RetrievalSpec,
        view: View,
    ) -> Explained:
        title, chunk = view.table.line(found.item)
        terms: list[TermShare] = []
        for at, query in enumerate(queries if self._weights(spec)[0] else ()):
            terms += self._terms(at, query, depth, found.item, spec, view)
        return Explained(
            number,
            chunk.id,
            chunk.document_id,
            title or " > ".join(chunk.headings),
            round(found.score, 8),
            found.lexical,
            found.dense,
            found.parts,
            tuple(terms),
        )

    def _terms(
        self, at: int, query: str, depth: int, row: int, spec: RetrievalSpec, view: View
    ) -> list[TermShare]:
        """What a row's lexical score for one query is made of: words, then pairs of words."""
        hits, asked, pairs = self._lexically(query, depth, spec, view)
        terms = [
            TermShare(at, share.words, share.weight, share.times, share.rarity, share.score)
            for share in self._lexical.explain(asked, row, view)
        ]
        place = np.flatnonzero(hits.rows == row)
        if pairs is not None and len(place) and place[0] < len(pairs.holds):
            for j in np.flatnonzero(pairs.holds[place[0]]).tolist():
                rarity = round(float(pairs.rarity[j]), 4)
                gain = round(spec.pairs * rarity, 4)
                terms.append(TermShare(at, pairs.pairs[j], spec.pairs, 1, rarity, gain))
        return terms

    def _lacks(self, kind: str) -> UsageError:
        return UsageError(
            f"retrieval: the index in {self._folder} has no {kind} part; "
            f"build it with {kind}: true or turn {kind} off in the arm"
        )


def _listed(queries: Queries) -> list[str]:
    listed = [queries] if isinstance(queries, str) else list(queries)
    if not listed:
        raise UsageError("retrieval: there is no query; give one")
    return listed


def _ranked(found: Fused[int]) -> Ranked:
    return Ranked(found.item, round(found.score, 8), found.lexical, found.dense, found.parts)
