"""`tokka search-eval`: how well each way of searching finds the documents that hold the answers.

Questions that name their documents → for lexical, dense and hybrid search, and for every arm's own
setting: recall@1, 5 and 10, MRR and nDCG@10 with intervals, all of them and per topic, and the
difference from hybrid search on the same questions. Nothing is answered; a model is opened only for
a setting that reranks or rewrites with it.

>>> evaluation = evaluate(load_project(path), bars, split="dev")
>>> evaluation.systems[2].overall["MRR"]
Interval(estimate=0.83, low=0.76, high=0.9, n=60, …)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokka.documents_steps import facts_of
from tokka.errors import UsageError
from tokka.pipeline import Build, Models, Observer, prepare
from tokka.project import Project
from tokka.records import Interval, Question, RetrievalSpec, Split
from tokka.retrieval.finding import Finder
from tokka.retrieval.metrics import METRICS, measure
from tokka.searching import built_index, candidate_with, finder_of, needs_model, resolved
from tokka.stats.intervals import mean_interval
from tokka.stats.paired import paired_bootstrap

DEPTH = 50  # passages that a ranking is looked at for: MRR counts nothing behind
LEXICAL, HYBRID = "lexical", "hybrid"
PLAIN = {
    LEXICAL: RetrievalSpec(dense=False),
    "dense": RetrievalSpec(lexical=False),
    HYBRID: RetrievalSpec(),
}
LEVEL = 0.025  # of each side: 95 % intervals


@dataclass(frozen=True, slots=True)
class Gold:
    """A question that names its documents, and where it stands."""

    exam: str
    question: Question


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of searching. `overall` by metric, `topics` by topic and metric, `difference` from
    the last plain way by metric (hybrid, or lexical where nothing embeds; empty for itself),
    `values` by metric in the questions' order.
    """

    name: str
    arms: tuple[str, ...]
    spec: RetrievalSpec
    values: dict[str, tuple[float, ...]]
    overall: dict[str, Interval]
    topics: dict[str, dict[str, Interval]]
    difference: dict[str, Interval]

    def as_json(self) -> dict[str, Any]:
        def plain(found: dict[str, Interval]) -> dict[str, Any]:
            return {
                name: one.model_dump(mode="json", exclude={"schema_version"})
                for name, one in found.items()
            }

        return {
            "name": self.name,
            "arms": list(self.arms),
            "retrieval": self.spec.model_dump(mode="json", exclude={"schema_version"}),
            "overall": plain(self.overall),
            "topics": {topic: plain(found) for topic, found in self.topics.items()},
            "difference": plain(self.difference),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`without_gold`: questions of the split that name no document and were left out. `absent`:
    gold documents that the corpus lacks, so that nothing can find them; their questions count.
    `unmeasured` says of each arm that couldn't be measured why."""

    split: Split
    questions: tuple[Gold, ...]
    without_gold: int
    absent: tuple[str, ...]
    systems: tuple[Measured, ...]
    unmeasured: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "questions": len(self.questions),
            "without_gold": self.without_gold,
            "absent_documents": list(self.absent),
            "systems": [system.as_json() for system in self.systems],
            "unmeasured": list(self.unmeasured),
        }


def evaluate(project: Project, observer: Observer, *, split: Split = "dev") -> Evaluation:
    """Measure every way of searching on one split; what is missing of the index is built first.

    Raises UsageError where the project has no corpus or no question of the split names a document.
    """
    build = prepare(project, observer)
    asked = [
        Gold(name, question)
        for name, step in build.exams.items()
        for question in step.questions()
        if question.split == split
    ]
    gold = [one for one in asked if one.question.document_ids]
    if not gold:
        raise UsageError(
            f"search-eval: none of the {len(asked)} {split} questions names the documents with its "
            'answer; add "document_ids" to the rows of an exam, or choose another --split'
        )
    systems, unmeasured = _systems(build, split)
    models = Models(build)
    try:
        ranked = []
        for name, arms, spec in systems:
            with _finder(build, spec, arms, models) as finder:
                ranked.append((name, arms, spec, _rank(build, name, finder, gold)))
    finally:
        models.close()
    beside = last_plain(project)
    (baseline,) = (values for name, arms, _, values in ranked if name == beside and not arms)
    return Evaluation(
        split=split,
        questions=tuple(gold),
        without_gold=len(asked) - len(gold),
        absent=_absent(build, gold),
        systems=tuple(
            measured(
                name, arms, spec, gold, values, None if values is baseline else baseline,
                draws=project.policy.draws, seed=project.policy.seed,
            )
            for name, arms, spec, values in ranked
        ),
        unmeasured=tuple(unmeasured),
    )  # fmt: skip


def plain_ways(project: Project) -> dict[str, RetrievalSpec]:
    """What is measured beside the arms. A project whose arms never embed isn't made to: of a large
    corpus that would take hours."""
    searching = [arm.retrieval for arm in project.arms.values() if arm.retrieval is not None]
    if searching and not any(spec.dense for spec in searching):
        return {LEXICAL: PLAIN[LEXICAL]}
    return PLAIN


def last_plain(project: Project) -> str:
    """What the others are compared with: hybrid search, lexical where nothing embeds."""
    return list(plain_ways(project))[-1]


def measured(
    name: str,
    arms: Sequence[str],
    spec: RetrievalSpec,
    gold: Sequence[Gold],
    values: Sequence[dict[str, float]],
    baseline: Sequence[dict[str, float]] | None,
    *,
    draws: int,
    seed: int,
) -> Measured:
    """Means with 95 % intervals. `values` and `baseline` hold every question's metrics.

    Questions of one cluster are resampled together; a difference is that of the same questions.
    """
    clusters = [
        f"{one.exam}/{one.question.cluster_id}" if one.question.cluster_id else "" for one in gold
    ]
    columns = {metric: tuple(one[metric] for one in values) for metric in METRICS}

    def means(places: Sequence[int]) -> dict[str, Interval]:
        own = [clusters[i] for i in places]
        return {
            metric: mean_interval([column[i] for i in places], own, draws=draws, seed=seed)
            for metric, column in columns.items()
        }

    topics: dict[str, list[int]] = {}
    for place, one in enumerate(gold):
        topics.setdefault(one.question.topic, []).append(place)
    difference = {}
    for metric, column in columns.items() if baseline is not None else ():
        drawn = paired_bootstrap(
            column, [one[metric] for one in baseline or ()], clusters, draws=draws, seed=seed
        )
        difference[metric] = Interval(
            estimate=round(drawn.estimate, 12),
            low=round(drawn.low(LEVEL), 12),
            high=round(drawn.high(LEVEL), 12),
            n=drawn.n,
            method=f"paired bootstrap over {drawn.clusters} clusters 95 %",
        )
    return Measured(
        name=name,
        arms=tuple(arms),
        spec=spec,
        values=columns,
        overall=means(range(len(gold))),
        topics={topic: means(places) for topic, places in sorted(topics.items())},
        difference=difference,
    )


def _systems(
    build: Build, split: Split
) -> tuple[list[tuple[str, tuple[str, ...], RetrievalSpec]], list[str]]:
    """(name, arms, setting) of what can be measured, and why the rest can't. Arms that search alike
    are measured once."""
    systems: list[tuple[str, tuple[str, ...], RetrievalSpec]] = [
        (name, (), spec) for name, spec in plain_ways(build.project).items()
    ]
    unmeasured = []
    shared: dict[str, list[str]] = {}
    specs: dict[str, RetrievalSpec] = {}
    for name, arm in build.project.arms.items():
        if arm.retrieval is None:
            continue
        try:
            spec = resolved(build, arm)
            if needs_model(spec):
                candidate_with(build, arm, spec)
        except UsageError as error:
            unmeasured.append(str(error))
            continue
        if "tuned" in (arm.retrieval.weights, arm.retrieval.silence) and split == "dev":
            build.observer.notice(
                f"{name}: it was tuned on these very questions; --split test is the fair measure"
            )
        key = spec.model_dump_json() + (name if needs_model(spec) else "")
        shared.setdefault(key, []).append(name)
        specs[key] = spec
    systems += [(f"arm {', '.join(own)}", tuple(own), specs[key]) for key, own in shared.items()]
    return systems, unmeasured


@contextmanager
def _finder(
    build: Build, spec: RetrievalSpec, arms: Sequence[str], models: Models
) -> Iterator[Finder]:
    index = None if arms else PLAIN[last_plain(build.project)]
    finder = finder_of(build, spec, arms[0] if arms else None, models, index)
    try:
        yield finder
    finally:
        finder.close()


def _rank(build: Build, name: str, finder: Finder, gold: Sequence[Gold]) -> list[dict[str, float]]:
    memo = build.workspace.memo
    found = []
    with build.observer.task(f"search: {name}", len(gold)) as task:
        searches = finder.passages([one.question for one in gold], top_k=DEPTH, memo=memo)
        for one, passages in zip(gold, searches, strict=True):
            ranking = [passage.document_id for passage in passages]
            found.append(measure(ranking, one.question.document_ids))
            task.advance()
    return found


def _absent(build: Build, gold: Sequence[Gold]) -> tuple[str, ...]:
    built_index(build, PLAIN[last_plain(build.project)])
    assert build.chunks is not None
    held = facts_of(build.chunks)
    return tuple(sorted({name for one in gold for name in one.question.document_ids} - set(held)))
