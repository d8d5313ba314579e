"""A candidate sits an exam: questions in, answers, scores and the sitting's figures out.

    answers = sit(specialist, exam, questions, memo, progress)
    scores = score_all(exam, questions, keys, answers)
    sitting = summarise(exam, questions, answers, scores, arm="rag", limit=None)

Only questions of one split are asked. Whole batches are remembered while the exam runs, so a killed
sitting goes on where it was and ends in the same answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokka.candidates.evidence import evidence_of
from tokka.candidates.specialist import Memo, Progress, Specialist
from tokka.exam.scorers import score
from tokka.exam.scorers.choice import normalised
from tokka.records import (
    Answer,
    Exam,
    Interval,
    Key,
    Question,
    Score,
    Sitting,
    Split,
)
from tokka.stats.intervals import mean_interval


def asked_in(questions: Sequence[Question], split: Split, limit: int | None) -> list[Question]:
    """The questions of a split, in the order of the file; the first `limit` of them."""
    chosen_split = [q for q in questions if q.split == split]
    return chosen_split if limit is None else chosen_split[:limit]


def sit(
    specialist: Specialist,
    exam: Exam,
    questions: Sequence[Question],
    memo: Memo | None = None,
    progress: Progress | None = None,
    show_options: bool = False,
) -> list[Answer]:
    """Answer every question. A scored choice is filled in here, under the exam's normalisation."""
    by_id = {q.id: q for q in questions}
    answers = []
    for answer in specialist.answer(
        questions,
        exam_digest=exam.digest,
        memo=memo,
        progress=progress,
        show_options=show_options,
    ):
        if answer.choice_loglikelihoods:
            question = by_id[answer.question_id]
            values = normalised(
                answer.choice_loglikelihoods,
                question.choices,
                answer.choice_lengths,
                exam.normalisation,
            )
            index = values.index(max(values))
            text = question.choices[index]
            cited = specialist.cite(question, text, answer.passages)
            answer = answer.model_copy(update={"choice": index, "text": text, "citations": cited})
        answers.append(answer)
    return answers


def score_all(
    exam: Exam, questions: Sequence[Question], keys: Iterable[Key], answers: Sequence[Answer]
) -> list[Score]:
    by_id = {q.id: q for q in questions}
    key_of = {k.question_id: k for k in keys}
    return [
        score(answer, key_of[answer.question_id], by_id[answer.question_id], exam)
        for answer in answers
    ]


def method_of(questions: Sequence[Question], answers: Sequence[Answer]) -> str:
    """How this sitting was scored, by form: sittings of different methods are not compared."""
    form = {q.id: q.form for q in questions}
    return ", ".join(sorted({f"{form[a.question_id]}: {a.decoding.method}" for a in answers}))


def summarise(
    exam: Exam,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    scores: Sequence[Score],
    *,
    arm: str,
    candidate_id: str,
    split: Split,
    limit: int | None,
    seed: int = 0,
    top_k: int = 0,
) -> Sitting:
    """The sitting's figures. An error leaves it without a mean; a limit marks it partial."""
    errors = sum(s.status == "error" for s in scores)
    score_of = {s.question_id: s for s in scores}
    complete = errors == 0 and len(answers) == len(questions)

    def mean(chosen_questions: Sequence[Question], clustered: bool) -> Interval | None:
        values = [score_of[q.id].value for q in chosen_questions if q.id in score_of]
        numbers = [v for v in values if v is not None]
        if not numbers or len(numbers) < len(chosen_questions):
            return None
        clusters = [q.cluster_id or q.id for q in chosen_questions] if clustered else None
        return mean_interval(numbers, clusters, seed=seed)

    def groups(names: Sequence[str]) -> dict[str, Interval]:
        found = {}
        for name in sorted(set(names) - {""}):
            part = [q for q, own in zip(questions, names, strict=True) if own == name]
            interval = mean(part, clustered=False)
            if interval is not None:
                found[name] = interval
        return found

    return Sitting(
        candidate_id=candidate_id,
        arm=arm,
        exam=exam.name,
        exam_digest=exam.digest,
        split=split,
        settings={
            "scoring": method_of(questions, answers),
            "normalisation": exam.normalisation,
            "short answers": exam.scorer,
        },
        asked=len(questions),
        answered=len(answers) - errors,
        errors=errors,
        refused=sum(s.status in ("refused", "abstained") for s in scores),
        partial=limit is not None,
        primary=mean(questions, clustered=True) if complete else None,
        by_topic=groups([q.topic for q in questions]),
        by_form=groups([q.form for q in questions]),
        retrieval=_retrieval(questions, answers, seed, top_k) if top_k else {},
        truncated=sum(a.truncated for a in answers),
        tokens_in=sum(a.tokens_in for a in answers),
        tokens_out=sum(a.tokens_out for a in answers),
        cost_usd=round(sum(a.cost_usd for a in answers), 9),
    )


def _retrieval(
    questions: Sequence[Question], answers: Sequence[Answer], seed: int, top_k: int
) -> dict[str, Interval]:
    """recall@k of the gold documents, citation precision and recall, over questions that name
    gold."""
    gold = {q.id: q.document_ids for q in questions}
    found: dict[str, list[float]] = {
        "recall@k": [],
        "citation_precision": [],
        "citation_recall": [],
    }
    for answer in answers:
        if answer.status == "error":
            continue
        evidence = evidence_of(answer, gold[answer.question_id])
        for name, value in zip(
            found,
            (evidence.recall_at_k, evidence.citation_precision, evidence.citation_recall),
            strict=True,
        ):
            if value is not None:
                found[name].append(value)
    return {
        name.replace("@k", f"@{top_k}"): mean_interval(values, seed=seed, draws=2_000)
        for name, values in found.items()
        if values
    }
