"""How well an answer rests on the right documents: search and citations of one answer.

>>> evidence_of(answer, question.document_ids)
Evidence(recall_at_k=1.0, citation_precision=1.0, citation_recall=1.0)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tokka.records import Answer
from tokka.retrieval.citations import citation_scores, recall_at_k


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
