"""`tokka search`: what a project's documents say to a query, as its arms would find it.

Query → passages with their place, their scores and the words that matched. The index is the
project's own: where it isn't built yet, that is done first, and only that.

>>> found = search(load_project(path), "融資の限度額", bars, top_k=3)
>>> found.hits[0].passage.document_id, found.hits[0].marks
('loan.md', ((0, 2), (5, 8)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.documents_steps import read_and_chunk
from tokka.errors import UsageError
from tokka.index_steps import index_of
from tokka.pipeline import (
    Build,
    Models,
    Observer,
    build_arm,
    embedder_of,
    load_candidate,
    open_arm,
    prepare,
)
from tokka.project import Project
from tokka.records import Arm, Caller, Candidate, Message, Passage, Question, RetrievalSpec
from tokka.retrieval.finding import Finder
from tokka.tuning_steps import tuned

if TYPE_CHECKING:
    from tokka.retrieval.hybrid import Explained, Index


@dataclass(frozen=True, slots=True)
class Hit:
    """`marks`: (start, end) in the passage's text of the words that the query holds. `why` says how
    the fused score came about, where that was asked for; None for what a reference added."""

    passage: Passage
    headings: tuple[str, ...]
    marks: tuple[tuple[int, int], ...]
    why: Explained | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            **self.passage.model_dump(mode="json", exclude={"schema_version"}),
            "headings": list(self.headings),
            "marks": [list(span) for span in self.marks],
            **({"why": asdict(self.why)} if self.why is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """`arm` is whose setting was searched with, empty for plain hybrid search."""

    arm: str
    spec: RetrievalSpec
    queries: tuple[str, ...]
    hits: tuple[Hit, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "retrieval": self.spec.model_dump(mode="json", exclude={"schema_version"}),
            "queries": list(self.queries),
            "hits": [hit.as_json() for hit in self.hits],
        }


def search(
    project: Project,
    text: str,
    observer: Observer,
    *,
    arm: str | None = None,
    top_k: int | None = None,
    labels: Sequence[str] | None = None,
    where: Mapping[str, str] | None = None,
    explain: bool = False,
) -> Found:
    """Search as an arm does: the one named, else the first that retrieves, else plain hybrid.

    `labels` None sees every document; else those without access labels and those that share one.
    `where` is added to the arm's own filter. Raises UsageError for an arm that isn't there, that
    searches nothing, or that searches with trained weights and isn't built yet.
    """
    chosen = chosen_arm(project, arm)
    build = prepare(project, observer)
    spec = RetrievalSpec() if chosen is None else resolved(build, chosen)
    spec = spec.model_copy(update={"where": {**spec.where, **(where or {})}})
    caller = Caller(labels=None if labels is None else tuple(labels))
    question = Question(id="search", messages=(Message(role="user", content=text),), form="short")
    models = Models(build)
    try:
        finder = finder_of(build, spec, None if chosen is None else chosen.name, models)
        try:
            memo = build.workspace.memo
            (queries,) = finder.queries([question], memo)
            (passages,) = finder.passages([question], top_k=top_k, caller=caller, memo=memo)
            hits = _hits(_index(finder), passages, queries, spec, caller, explain)
        finally:
            finder.close()
    finally:
        models.close()
    return Found("" if chosen is None else chosen.name, spec, tuple(queries), hits)


def chosen_arm(project: Project, name: str | None) -> Arm | None:
    """The arm of that name; without a name the first that retrieves, None where none does."""
    searching = {arm.name: arm for arm in project.arms.values() if arm.retrieval is not None}
    if name is None:
        return next(iter(searching.values()), None)
    if name not in searching:
        known = ", ".join(searching) or "none"
        kind = "searches nothing" if name in project.arms else "is no arm"
        raise UsageError(f"search: {name!r} {kind}; arms with retrieval: {known}")
    return searching[name]


# ---- what search and search-eval share ----------------------------------------------------------


def built_index(build: Build, spec: RetrievalSpec) -> Path:
    """The folder of the index for a setting; documents, chunks and index are built where they
    aren't there yet."""
    if build.chunks is None:
        read_and_chunk(build)
    return index_of(build, spec)


def resolved(build: Build, arm: Arm) -> RetrievalSpec:
    """An arm's setting with numbers where it says tuned. What decides when to be silent isn't
    asked for here."""
    assert arm.retrieval is not None
    spec = tuned(build, arm, built_index(build, arm.retrieval)).retrieval
    assert spec is not None
    return spec.model_copy(update={"silence": None})


def needs_model(spec: RetrievalSpec) -> bool:
    """Whether it searches with the arm's language model."""
    return spec.rerank == "likelihood" or spec.queries == "rewrite"


def candidate_with(build: Build, arm: Arm, spec: RetrievalSpec) -> Candidate:
    """The arm, built, with its setting `resolved`. One that trains nothing is put together here;
    for one that does, raises UsageError unless it was built by a run."""
    if arm.weights:
        return load_candidate(build, arm.name)
    return build_arm(build, arm.model_copy(update={"retrieval": spec}))


def finder_of(
    build: Build,
    spec: RetrievalSpec,
    arm: str | None,
    models: Models,
    index_for: RetrievalSpec | None = None,
) -> Finder:
    """A setting, ready to search. `arm` gives the model where one is needed; `index_for` names the
    setting whose index is opened where it isn't the same."""
    from tokka.candidates.opening import synonyms_of
    from tokka.retrieval.hybrid import open_index
    from tokka.retrieval.rerank import reranker_of

    project = build.project
    if needs_model(spec):
        if arm is None:
            raise UsageError("search: this setting needs the model of an arm; name one with --arm")
        candidate = candidate_with(build, project.arms[arm], spec)
        specialist = open_arm(build, candidate, models)
        finder: Finder = specialist.finder
        return replace(finder, spec=spec)
    wanted = index_for or spec
    index = open_index(
        built_index(build, wanted),
        embedder_of(build) if wanted.dense else None,
        synonyms_of(spec, project.root),
    )
    reranker = reranker_of(spec, None, project.root, project.language)
    return Finder(spec, index, project.language, None, reranker)


# ---- hits ---------------------------------------------------------------------------------------


def _index(finder: Finder) -> Index:
    from tokka.retrieval.hybrid import Index

    assert isinstance(finder.retriever, Index)
    return finder.retriever


def _hits(
    index: Index,
    passages: Sequence[Passage],
    queries: Sequence[str],
    spec: RetrievalSpec,
    caller: Caller,
    explain: bool,
) -> tuple[Hit, ...]:
    from tokka.retrieval.highlighting import marks

    depth = max(len(passages), spec.rerank_depth)
    rows = [index.chunk(ranked.row) for ranked in index.rank(queries, depth, spec, caller)]
    headings = {chunk.id: chunk.headings for chunk in rows}
    why = {}
    if explain:
        why = {one.chunk_id: one for one in index.explain(queries, depth, spec, caller)}
    return tuple(
        Hit(
            passage,
            headings.get(passage.chunk_id, ()),
            marks(passage.text, queries, index.language),
            why.get(passage.chunk_id),
        )
        for passage in passages
    )
