"""How well an answer rests on the right documents: search and citations of one answer.

>>> evidence_of(answer, question)
Evidence(recall_at_k=1.0, citation_precision=1.0, citation_recall=1.0, support=0.5)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokka.records import Answer, Citation, Passage, Question
from tokka.retrieval.citations import (
    attribute,
    citation_scores,
    cited_text,
    recall_at_k,
    statements,
)
from tokka.retrieval.claims import claims, holds


@dataclass(frozen=True, slots=True)
class Evidence:
    """The first three are None where the question names no gold, citations where they say nothing,
    and all but recall where the arm was silent. `support` is the share of the answer's numbers,
    dates and names that stand in what it cites, None where it has none."""

    recall_at_k: float | None = None
    citation_precision: float | None = None
    citation_recall: float | None = None
    support: float | None = None


def evidence_of(answer: Answer, question: Question) -> Evidence:
    gold = question.document_ids
    recall = recall_at_k(answer.passages, gold) if gold else None
    if answer.status == "abstained":
        return Evidence(recall)
    marks = citation_scores(answer.citations, answer.passages, gold, question.gold)
    return Evidence(recall, marks.precision, marks.recall, support_of(answer, question))


def support_of(answer: Answer, question: Question) -> float | None:
    """The share of the numbers, dates and names of an answer that stand in what the same statement
    cites, or in that passage's title. What the question said itself isn't claimed by the answer; a
    statement that cites nothing supports nothing. None where nothing is claimed."""
    asked = holds(question.messages[-1].content)
    titles = {passage.number: passage.title for passage in answer.passages}
    supported: list[bool] = []
    for begin, end in statements(answer.text):
        said = [claim for claim in claims(answer.text[begin:end]).every if not asked(claim)]
        cited = [
            f"{titles.get(citation.passage, '')}\n{cited_text(citation, answer.passages)}"
            for citation in answer.citations
            if citation.answer_start < end and begin < citation.answer_end
        ]
        held = holds("\n".join(cited))
        supported += [held(claim) for claim in said]
    return sum(supported) / len(supported) if supported else None


def cite(
    question: Question, text: str, passages: Sequence[Passage], language: str
) -> tuple[Citation, ...]:
    """What a text rests on, among the passages that were in the prompt: attributed after
    answering."""
    if not passages or not text:
        return ()
    return attribute(text, passages, language, question.messages[-1].content)
