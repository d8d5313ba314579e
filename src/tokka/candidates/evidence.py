"""How well an answer rests on the right documents: search and citations of one answer.

>>> evidence_of(answer, question.document_ids)
Evidence(recall_at_k=1.0, citation_precision=1.0, citation_recall=1.0)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tokka.records import Answer, Citation, Passage, Question
from tokka.retrieval.citations import attribute, citation_scores, recall_at_k


@dataclass(frozen=True, slots=True)
class Evidence:
    """All None where the question names no gold documents; citations None where they say
    nothing."""

    recall_at_k: float | None
    citation_precision: float | None
    citation_recall: float | None


def evidence_of(answer: Answer, gold_document_ids: Collection[str]) -> Evidence:
    if not gold_document_ids:
        return Evidence(None, None, None)
    marks = citation_scores(answer.citations, answer.passages, gold_document_ids)
    recall = recall_at_k(answer.passages, gold_document_ids)
    return Evidence(recall, marks.precision, marks.recall)


def cite(
    question: Question, text: str, passages: Sequence[Passage], language: str
) -> tuple[Citation, ...]:
    """What a text rests on, among the passages that were in the prompt: attributed after
    answering."""
    if not passages or not text:
        return ()
    return attribute(text, passages, language, question.messages[-1].content)
