"""The data of the question browser: one JSON block, small enough for a file that is mailed around.

Sheets → JSON text. A passage is stored once however many answers retrieved it; when the block
exceeds its budget, passages, then answers, then questions are cut, and what was cut is returned.

>>> block = browser_data(sheets, control="base", max_bytes=4_000_000)
>>> block.json, block.passage_characters, block.shown, block.total
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokka.records import Answer, Exam, Key, Passage, Question, Score
from tokka.report.sheet import ExamSheet

# Each step roughly halves the block; the last ones leave out questions.
# (characters of a passage, characters of an answer, share of the questions)
STEPS = (
    (1200, 4000, 1.0),
    (600, 2000, 1.0),
    (300, 1000, 1.0),
    (120, 400, 1.0),
    (0, 400, 1.0),
    (0, 200, 0.5),
    (0, 200, 0.25),
    (0, 100, 0.1),
    (0, 0, 0.0),
)
HASH_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class BrowserData:
    """`json` is safe inside a <script> element; `cut` says that something was left out."""

    json: str
    passage_characters: int
    answer_characters: int
    shown: int
    total: int
    cut: bool


def browser_data(sheets: Mapping[str, ExamSheet], control: str, max_bytes: int) -> BrowserData:
    """The fullest block of at most `max_bytes` bytes of UTF-8."""
    for passage_characters, answer_characters, share in STEPS:
        block = _block(sheets, control, passage_characters, answer_characters, share)
        if len(block.json.encode()) <= max_bytes:
            return block
    return block


def script_json(value: Any) -> str:
    """JSON that can't end its <script> element or open a comment: `<`, `>`, `&` are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@dataclass(slots=True)
class _Passages:
    """Passages by chunk and text, numbered as they come; `cut` once one was shortened."""

    limit: int
    numbers: dict[tuple[str, int, int, str], int]
    rows: list[dict[str, Any]]
    cut: bool = False

    def number(self, passage: Passage) -> int:
        key = (passage.chunk_id, passage.start, passage.end, passage.text)
        if key not in self.numbers:
            self.numbers[key] = len(self.rows)
            self.cut |= len(passage.text) > self.limit
            self.rows.append(
                {
                    "chunk": passage.chunk_id,
                    "document": passage.document_id,
                    "title": passage.title or passage.document_id,
                    "page": passage.page,
                    "start": passage.start,
                    "end": passage.end,
                    "text": passage.text[: self.limit],
                    "length": len(passage.text),
                }
            )
        return self.numbers[key]


def _block(
    sheets: Mapping[str, ExamSheet],
    control: str,
    passage_characters: int,
    answer_characters: int,
    share: float,
) -> BrowserData:
    passages = _Passages(passage_characters, {}, [])
    exams: list[dict[str, Any]] = []
    shown = total = 0
    answers_cut = False
    for sheet in sheets.values():
        kept = sheet.questions[: round(len(sheet.questions) * share)]
        shown, total = shown + len(kept), total + len(sheet.questions)
        answers_cut |= any(
            len(answers[question.id].text) > answer_characters
            for answers in sheet.answers.values()
            for question in kept
            if question.id in answers
        )
        rows = [_question(sheet, question, passages, answer_characters) for question in kept]
        exams.append({**_exam(sheet.exam), "arms": list(sheet.answers), "questions": rows})
    value = {"control": control, "exams": exams, "passages": passages.rows}
    cut = passages.cut or answers_cut or shown < total
    return BrowserData(script_json(value), passage_characters, answer_characters, shown, total, cut)


def _exam(exam: Exam) -> dict[str, Any]:
    return {"name": exam.name, "role": exam.role, "normalisation": exam.normalisation}


def _question(
    sheet: ExamSheet, question: Question, passages: _Passages, answer_characters: int
) -> dict[str, Any]:
    return {
        "id": question.id,
        "form": question.form,
        "topic": question.topic,
        "cluster": question.cluster_id,
        "documents": list(question.document_ids),
        "messages": [[message.role, message.content] for message in question.messages],
        "choices": list(question.choices),
        "key": _key(sheet.keys.get(question.id)),
        "answers": {
            arm: _answer(
                answers.get(question.id),
                sheet.scores.get(arm, {}).get(question.id),
                passages,
                answer_characters,
            )
            for arm, answers in sheet.answers.items()
        },
    }


def _key(key: Key | None) -> dict[str, Any] | None:
    if key is None:
        return None
    return {
        "targets": list(key.targets),
        "unanswerable": key.unanswerable,
        "choice": key.choice,
        "unit": key.unit,
        "tolerance": key.tolerance,
        "points": list(key.points),
        "prohibited": list(key.prohibited),
    }


def _answer(
    answer: Answer | None, score: Score | None, passages: _Passages, answer_characters: int
) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "text": answer.text[:answer_characters],
        "length": len(answer.text),
        "choice": answer.choice,
        "options": [round(value, 3) for value in answer.choice_loglikelihoods],
        "lengths": list(answer.choice_lengths),
        "passages": [[p.number, passages.number(p), round(p.score, 4)] for p in answer.passages],
        "citations": [
            {
                "passage": citation.passage,
                "start": citation.start,
                "end": citation.end,
                "from": citation.answer_start,
                "to": citation.answer_end,
                "support": round(citation.support, 3),
            }
            for citation in answer.citations
        ],
        "confidence": answer.confidence,
        "status": score.status if score else answer.status,
        "value": score.value if score else None,
        "scorer": score.scorer if score else "",
        "explanation": (score.explanation if score else "") or answer.error,
        "truncated": answer.truncated,
        "tokens": [answer.tokens_in, answer.tokens_out],
        "seconds": round(answer.seconds, 3),
        "hash": answer.prompt_sha256[:HASH_CHARACTERS],
    }
