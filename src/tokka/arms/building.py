"""Arm → what it takes to build it: lessons for its weights, its identity.

lessons = lessons_of(examples, arm, spec, renderer, language, retriever)
candidate = candidate_of(arm, ...)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokka.dataset.examples import survey
from tokka.dataset.vetting import LEAVE_OUT
from tokka.errors import Mistakes, UsageError
from tokka.models.prompting import compose
from tokka.models.protocol import Renderer
from tokka.records import (
    Arm,
    Candidate,
    Dropped,
    Example,
    FinetuneSpec,
    Passage,
    PromptSpec,
    RetrievalSpec,
    fingerprint,
)
from tokka.retrieval.hybrid import Retriever
from tokka.training.lessons import Lesson, lesson

WITHOUT_GOLD = 0.2  # RAFT (Zhang et al. 2024) keeps the gold document for 80 % of the examples


def training_retrieval(arm: Arm) -> RetrievalSpec:
    """How passages for training are found: as the arm serves them, else with the defaults.

    Without what the arm's own model does for the search (reranking, other wordings): that model is
    what is about to be trained.
    """
    plain = {"queries": "question", "rerank": "none", "reranker": "", "silence": None}
    return (arm.retrieval or RetrievalSpec()).model_copy(update=plain)


def lessons_of(
    examples: Sequence[Example],
    arm: Arm,
    spec: FinetuneSpec,
    renderer: Renderer,
    language: str,
    context_tokens: int,
    retriever: Retriever | None = None,
    progress: Callable[[int], None] | None = None,
    file: Path | None = None,
) -> tuple[list[Lesson], list[Dropped]]:
    """One lesson per training example, rendered as the exam renders its questions, without shots.

    An example that doesn't fit the context, or of which nothing would be learnt, is a mistake.
    Raises Mistakes naming them all, with their lines in `file`; where the stage leaves them out,
    they are returned, and UsageError is raised if nothing else is left.
    """
    lessons: list[Lesson] = []
    mistakes: list[tuple[str, str]] = []  # example id, reason
    prompt = PromptSpec(system=arm.prompt.system, format=arm.prompt.format)
    for example in examples:
        passages: Sequence[Passage] = ()
        if spec.context == "retrieved" and retriever is not None:
            passages = training_passages(example, training_retrieval(arm), retriever)
        messages = compose(example.messages[:-1], spec=prompt, passages=passages, language=language)
        try:
            answer = example.messages[-1].content
            lessons.append(
                lesson(example.id, messages, answer, renderer, context_tokens, spec.thought)
            )
        except UsageError as error:
            mistakes.append((example.id, str(error)))
        if progress is not None:
            progress(1)
    if mistakes and not spec.leave_out_mistakes:
        places = survey(file).places if file is not None else {}
        raise Mistakes(
            f"arm {arm.name}: {len(mistakes)} mistakes in {spec.data}; correct them, or "
            f"{LEAVE_OUT}",
            [f"{why} ({places.get(name, spec.data)})" for name, why in mistakes],
        )
    if mistakes and not lessons:
        raise UsageError(f"arm {arm.name}: no example can be learnt; the first: {mistakes[0][1]}")
    return lessons, [_dropped(name, why) for name, why in mistakes]


def _dropped(example_id: str, message: str) -> Dropped:
    reason, _, action = message.removeprefix(f"example {example_id}: ").partition("; ")
    return Dropped(
        item=f"example {example_id}", reason=reason, stage="finetune", next_action=action
    )


def training_passages(
    example: Example, spec: RetrievalSpec, retriever: Retriever
) -> tuple[Passage, ...]:
    """What the search finds for an example's question; for four in five, with a gold passage in it.

    Where the search missed every gold document, its best passage from deeper down takes the last
    place. For one example in five (by hash of its id) the result stays as found, so that the model
    also learns to answer when the passage isn't there.
    """
    asked = example.messages[-2].content
    found = retriever.search(asked, spec.top_k, spec)
    gold = set(example.document_ids)
    if not gold or not found or any(p.document_id in gold for p in found):
        return tuple(found)
    share = int.from_bytes(hashlib.sha256(example.id.encode()).digest()[:4], "big") / 2**32
    if share < WITHOUT_GOLD:
        return tuple(found)
    for passage in retriever.search(asked, max(spec.candidates, spec.top_k), spec):
        if passage.document_id in gold:
            return (*found[:-1], passage.model_copy(update={"number": found[-1].number}))
    return tuple(found)


def candidate_of(
    arm: Arm,
    *,
    base_model: str,
    base_digest: str,
    language: str,
    artifacts: Mapping[str, str],
    embedder: str = "",
) -> Candidate:
    """The candidate's id covers everything that decides an answer: weights, tokenizer and template
    (in `base_digest`), prompt, shots, index and embedder (in `artifacts`), language, decoding."""
    identity = fingerprint(
        {
            "base": base_digest,
            "arm": arm.model_dump(mode="json", exclude={"name"}),
            "artifacts": {name: entry.partition("@")[2] for name, entry in artifacts.items()},
            "embedder": embedder,
            "language": language,
            "decoding": "greedy",
        }
    )
    return Candidate(
        id=identity[:16],
        arm=arm,
        base_model=base_model,
        base_digest=base_digest,
        artifacts=dict(artifacts),
        embedder=embedder,
        language=language,
    )
