"""`retrieval.weights: tuned`: the numbers in its place, chosen by the development questions.

    arm + its index + development questions with document_ids → step tune-…/tuning.json → arm

The arm that comes back names the weights, so that a candidate's id covers them. Only questions of
the development split that name their documents take part; no answer, no key and no test question
does. What comes after the fusion (reranking, references, widening) is left out: it can only reorder
what the fusion found.

    arm = tuned(build, arm, index_of(build, arm.retrieval))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.pipeline import Build, embedder_of, files_with
from tokka.records import Arm, Question, RetrievalSpec
from tokka.retrieval.tuning import EQUAL, Tried, Tuned, Weights
from tokka.store import read_json, write_json

TUNING = "tuning.json"


def tuned(build: Build, arm: Arm, index_folder: Path) -> Arm:
    """The arm with numbers in place of `weights: tuned`; any other arm as it is.

    `index_folder` is the finished index step of `arm.retrieval`. Raises UsageError where no
    development question names a document.
    """
    spec = arm.retrieval
    if spec is None or spec.weights != "tuned":
        return arm
    if not (spec.lexical and spec.dense):
        return _with(arm, EQUAL)  # one ranking alone: nothing to weigh
    questions = gold_questions(build)
    if not questions:
        raise UsageError(
            f"arm {arm.name}: retrieval.weights: tuned needs development questions that name their "
            'documents; give some rows of an exam "split": "dev" and "document_ids", or write '
            "weights: [1, 1]"
        )
    fusion = fusion_of(spec)

    def make(folder: Path) -> None:
        write_json(folder / TUNING, _tune(build, arm, fusion, questions, index_folder))

    inputs = {
        "index": build.workspace.digest(index_folder),
        "spec": fusion.model_dump(mode="json"),
        "files": files_with(build, arm.model_copy(update={"retrieval": fusion})),
        "questions": [
            [q.id, q.messages[-1].content, q.choices, sorted(q.document_ids)] for q in questions
        ],
    }
    folder = build.step("tune", inputs, make, arm.name)
    found = read_tuning(folder)
    _tell(build, arm, found)
    return _with(arm, found.weights)


def read_tuning(folder: Path) -> Tuned:
    """What a finished step says: the weights, every pair that was tried, how many questions."""
    said = read_json(folder / TUNING)
    tried = tuple(Tried(_pair(one["weights"]), one["mrr"]) for one in said["tried"])
    return Tuned(_pair(said["weights"]), tried, said["questions"])


def stands_for(built: Arm, asked: Arm | None) -> bool:
    """Whether `built` is what the project asks for, numbers standing where it says "tuned"."""
    if asked is None or asked.retrieval is None or built.retrieval is None:
        return built == asked
    open_ones = [name for name in ("weights", "silence") if _says_tuned(asked.retrieval, name)]
    chosen = {name: getattr(built.retrieval, name) for name in open_ones}
    return built == asked.model_copy(
        update={"retrieval": asked.retrieval.model_copy(update=chosen)}
    )


def gold_questions(build: Build) -> list[Question]:
    """The development questions of all exams that name the documents with their answer."""
    return [
        question
        for step in build.exams.values()
        for question in step.questions()
        if question.split == "dev" and question.document_ids
    ]


def fusion_of(spec: RetrievalSpec) -> RetrievalSpec:
    """The part of a setting that its weights decide: what is searched for and fused."""
    queries = "question" if spec.queries == "rewrite" else spec.queries
    plain: dict[str, Any] = {
        "weights": EQUAL, "queries": queries, "rerank": "none", "reranker": "", "follow": 0,
        "neighbours": 0, "parent": False, "silence": None, "top_k": 1,
    }  # fmt: skip
    return spec.model_copy(update=plain)


def _tune(
    build: Build, arm: Arm, fusion: RetrievalSpec, questions: Sequence[Question], index_folder: Path
) -> dict[str, Any]:
    from tokka.candidates.opening import synonyms_of
    from tokka.retrieval.hybrid import open_index
    from tokka.retrieval.queries import queries_of
    from tokka.retrieval.tuning import tune

    with (
        open_index(
            index_folder, embedder_of(build), synonyms_of(fusion, build.project.root)
        ) as index,
        build.observer.task(f"{arm.name}: tune the search", len(questions)) as task,
    ):

        def rank(question: Question, weights: Weights) -> list[str]:
            spec = fusion.model_copy(update={"weights": weights})
            found = index.search(queries_of(question, spec), fusion.candidates, spec)
            return [passage.document_id for passage in found]

        result = tune(questions, rank, lambda n: task.advance(n))
    return {
        "weights": list(result.weights),
        "questions": result.questions,
        "tried": [{"weights": list(one.weights), "mrr": one.mrr} for one in result.tried],
    }


def _tell(build: Build, arm: Arm, found: Tuned) -> None:
    mrr = {one.weights: one.mrr for one in found.tried}
    lexical, dense = found.weights
    build.observer.notice(
        f"{arm.name}: weights lexical {lexical:g}, dense {dense:g}: MRR {mrr[found.weights]:.3f} "
        f"over {found.questions} development questions, {mrr[EQUAL]:.3f} with equal weights"
    )
    if build.project.policy.split == "dev":
        build.observer.notice(
            f"{arm.name}: policy.split is dev, so the questions that chose its weights also judge "
            "them; set it to test for a verdict"
        )


def _with(arm: Arm, weights: Weights) -> Arm:
    assert arm.retrieval is not None
    spec = arm.retrieval.model_copy(update={"weights": weights})
    return arm.model_copy(update={"retrieval": spec})


def _says_tuned(spec: RetrievalSpec, name: str) -> bool:
    return bool(getattr(spec, name) == "tuned")


def _pair(value: Sequence[float]) -> Weights:
    lexical, dense = value
    return float(lexical), float(dense)
