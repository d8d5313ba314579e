"""What the retrieval benchmark searches and asks: corpora with questions whose passages are known.

The publishers' files → `Work`: chunks, the facts of their documents, and questions with the ids of
the documents that answer them.

>>> work = jaquad(folder)
>>> len(work.chunks), len(work.asked)
(11144, 2000)
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from public_data import jaquad_passages, statutes

from tokka.records import Chunk, Document, DocumentFacts, RetrievalSpec

LAWQA = Path(__file__).parents[1] / "examples" / "lawqa"
EXAM = "exam/domain.jsonl"
QUESTIONS = 2000
CHUNK_CHARACTERS = 240
DIMENSIONS = 384
_CENTRES = 2000


@dataclass(frozen=True)
class Asked:
    id: str
    queries: list[str]
    gold: frozenset[str]


@dataclass(frozen=True)
class Work:
    chunks: list[Chunk]
    facts: dict[str, DocumentFacts]
    asked: list[Asked]


def jaquad(folder: Path, passages: int | None = None, *, tuning: bool = False) -> Work:
    """Every passage a document, and the 2,000 questions whose ids' SHA-256 come first. `tuning`:
    the next 2,000, which parameters were chosen on. `passages`: only the first so many, and a
    quarter of the questions."""
    rows = jaquad_passages(folder)[:passages]
    documents = [_document(f"{n:05}", row["title"], row["context"]) for n, row in enumerate(rows)]
    asked = [
        Asked(question["id"], [question["question"]], frozenset([document.id]))
        for document, row in zip(documents, rows, strict=True)
        for question in row["questions"]
    ]
    asked.sort(key=lambda one: hashlib.sha256(one.id.encode()).hexdigest())
    count = QUESTIONS if passages is None else QUESTIONS // 4
    first = count if tuning else 0
    chunks = [_whole(document) for document in documents]
    facts = {document.id: document.facts for document in documents}
    return Work(chunks, facts, asked[first : first + count])


def lawqa(folder: Path, spec: RetrievalSpec, others: int | None = None) -> Work:
    """The lawqa project as its prepare.py makes it, cut as its project file says. `others`: only
    the documents that answer a question and so many of the others."""
    from tokka.corpus.chunking import chunk
    from tokka.models.opening import locate, open_renderer
    from tokka.project import load_project
    from tokka.records import Message, Question
    from tokka.retrieval.queries import queries_of

    sys.path.insert(0, str(LAWQA))
    from prepare import prepare

    with tempfile.TemporaryDirectory(prefix="tokka-lawqa-") as place:
        prepare(folder, Path(place))
        file = Path(place, "tokka.yaml")
        file.write_bytes((LAWQA / "tokka.yaml").read_bytes())
        project = load_project(file)
        articles, rows = (_lines(Path(place, name)) for name in ("documents.jsonl", EXAM))
    documents = [_document(one["id"], one["title"], one["text"]) for one in articles]
    gold = {name for row in rows for name in row["document_ids"]}
    if others is not None:
        rest = [document.id for document in documents if document.id not in gold][:others]
        kept = gold.union(rest)
        documents = [document for document in documents if document.id in kept]
    renderer = open_renderer(locate(project.base_model, Path()), project.language)
    cut = project.chunks
    chunks = [
        piece
        for document in documents
        for piece in chunk(document, cut.max_tokens, renderer.count, cut.overlap_sentences)
    ]
    asked = []
    for row in rows:
        question = Question(
            id=row["id"],
            messages=(Message(role="user", content=row["question"]),),
            form="choice",
            choices=tuple(row["choices"]),
        )
        asked.append(Asked(row["id"], queries_of(question, spec), frozenset(row["document_ids"])))
    return Work(chunks, {document.id: document.facts for document in documents}, asked)


def many(folder: Path, count: int) -> Work:
    """`count` chunks of real text: JaQuAD's passages, then statutes in pieces of at most 240
    characters; JaQuAD's questions."""
    first = jaquad(folder)
    chunks, facts = list(first.chunks), dict(first.facts)
    for number, law in enumerate(statutes(folder)):
        if len(chunks) >= count:
            break
        document = _document(f"law-{number:04}", law["title"], law["text"])
        facts[document.id] = document.facts
        chunks += _pieces(document)
    if len(chunks) < count:
        sys.exit(f"data: {folder} holds {len(chunks)} chunks of text, wanted are {count}")
    return Work(chunks[:count], facts, first.asked)


class Synthetic:
    """An embedder that embeds nothing: directions drawn around 2,000 centres, as topics lie. A
    query's lies near that of some passage. All are drawn beforehand, so none is timed."""

    name, digest, dimensions = "synthetic", "synthetic", DIMENSIONS

    def __init__(self, passages: int, queries: Sequence[str]) -> None:
        draw = np.random.default_rng(0)
        centres = draw.standard_normal((_CENTRES, DIMENSIONS), np.float32)
        near = centres[draw.integers(_CENTRES, size=passages)]
        self._passages = _unit(near + draw.standard_normal(near.shape, np.float32))
        place = draw.integers(passages, size=len(queries))
        noise = 0.05 * draw.standard_normal((len(queries), DIMENSIONS), np.float32)
        self._queries = dict(zip(queries, _unit(self._passages[place] + noise), strict=True))
        self._given = 0

    def passages(self, texts: Sequence[str]) -> Any:
        self._given += len(texts)
        return self._passages[self._given - len(texts) : self._given]

    def queries(self, texts: Sequence[str]) -> Any:
        return np.stack([self._queries[text] for text in texts])


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _unit(rows: Any) -> Any:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _document(name: str, title: str, text: str) -> Document:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Document(id=name, text=text, source=name, title=title, language="ja", sha256=sha256)


def _whole(document: Document) -> Chunk:
    text = document.text
    return Chunk(id=document.id, document_id=document.id, text=text, start=0, end=len(text))


def _pieces(document: Document) -> Iterator[Chunk]:
    """Lines and sentences, joined while they fit."""
    start = end = 0
    for found in re.finditer(r"[^。\n]*[。\n]+|[^。\n]+$", document.text):
        if found.end() - start > CHUNK_CHARACTERS and end > start:
            yield _piece(document, start, end)
            start = end
        end = found.end()
        while end - start > CHUNK_CHARACTERS:
            yield _piece(document, start, start + CHUNK_CHARACTERS)
            start += CHUNK_CHARACTERS
    if end > start:
        yield _piece(document, start, end)


def _piece(document: Document, start: int, end: int) -> Chunk:
    return Chunk(
        id=f"{document.id}-{start}",
        document_id=document.id,
        text=document.text[start:end],
        start=start,
        end=end,
    )


def embed(work: Work, embedder: Any, tell: Callable[[int, int], None]) -> None:
    """Put the vectors of a work's passages and queries into the embedder's cache."""
    from tokka.retrieval.writing import contextual

    texts = [contextual(one, work.facts[one.document_id].title) for one in work.chunks]
    for first in range(0, len(texts), 256):
        embedder.passages(texts[first : first + 256])
        tell(min(first + 256, len(texts)), len(texts))
    embedder.queries([query for one in work.asked for query in one.queries])
