"""A candidate sits an exam: questions in, answers, scores and the sitting's figures out.

    answers = sit(specialist, exam, questions, memo, progress)
    scores = score_all(exam, questions, keys, answers)
    sitting = summarise(exam, questions, answers, scores, arm="rag", limit=None)

Only questions of one split are asked. Whole batches are remembered while the exam runs, so a killed
sitting goes on where it was and ends in the same answers. An answer keeps the likelihoods of its
options: `decide` chooses again under another normalisation without asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tokka.candidates.evidence import cite, evidence_of
from tokka.candidates.specialist import Memo, Progress, Specialist
from tokka.errors import IntegrityError
from tokka.exam.rotating import askings, joined, position_bias
from tokka.exam.scorers import score
from tokka.exam.scorers.choice import chosen
from tokka.records import (
    OPTION_ORDER,
    ROTATED,
    Answer,
    Citation,
    Exam,
    Interval,
    Key,
    Passage,
    Question,
    RiskCoverage,
    Score,
    Sitting,
    Split,
    fingerprint,
)
from tokka.stats.coverage import area, curve
from tokka.stats.intervals import mean_interval

Cite = Callable[[Question, str, Sequence[Passage]], tuple[Citation, ...]]
NOT_ASKED = {"topic", "cluster_id", "document_ids", "gold", "split"}
AS_GIVEN = "as given: no options in the prompt, so their order can't matter"


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
    rotate: bool = False,
) -> list[Answer]:
    """Answer every question. A scored choice is filled in here, under the exam's normalisation.

    With `rotate`, a choice whose options stand in the prompt is asked once per rotation of them.
    `progress` counts questions, however often each is asked.
    """
    asked = askings(questions, lambda q: rotate and specialist.shows_options(q, show_options))
    answers = specialist.answer(
        [asking.question for asking in asked],
        exam_digest=exam.digest,
        memo=memo,
        progress=progress and _by_question(progress, len(asked), len(questions)),
        show_options=show_options,
    )
    return [
        decide(answer, question, exam, specialist.cite)
        for answer, question in zip(joined(asked, answers), questions, strict=True)
    ]


def decide(answer: Answer, question: Question, exam: Exam, cite: Cite) -> Answer:
    """The answer with its choice under the exam's normalisation, the chosen option's text and what
    that rests on. Texts, and letters asked for once, are answers as they stand."""
    answer = answer.model_copy(update={"exam_digest": exam.digest})
    scored = bool(answer.choice_loglikelihoods)
    if answer.status in ("error", "abstained") or not (scored or answer.rotations):
        return answer
    decoding = answer.decoding.model_copy(
        update={"normalisation": exam.normalisation if scored else None}
    )
    place = chosen(answer, question, exam.normalisation)
    text = answer.text if place is None else question.choices[place]
    changed: dict[str, object] = {"choice": place, "text": text, "decoding": decoding}
    if text != answer.text:
        changed["citations"] = cite(question, text, answer.passages)
    return answer.model_copy(update=changed)


def decide_all(
    exam: Exam, questions: Sequence[Question], answers: Iterable[Answer], language: str
) -> list[Answer]:
    """Stored answers as they count in this exam, in the order of its questions.

    Raises IntegrityError where a question has no answer.
    """
    by_id = {answer.question_id: answer for answer in answers}
    missing = [q.id for q in questions if q.id not in by_id]
    if missing:
        raise IntegrityError(
            f"exam {exam.name}: no stored answer to {', '.join(missing[:5])}; sit the exam again"
        )

    def cited(question: Question, text: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
        return cite(question, text, passages, language)

    return [decide(by_id[q.id], q, exam, cited) for q in questions]


def asked_digest(questions: Iterable[Question]) -> str:
    """SHA-256 of all that a candidate is asked; where it belongs and what is right isn't in it."""
    own = [q.model_dump(mode="json", exclude=NOT_ASKED) for q in questions]
    return fingerprint(sorted(own, key=lambda question: str(question["id"])))


def _by_question(progress: Progress, askings: int, questions: int) -> Progress:
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        before, done = done * questions // askings, done + n
        progress(done * questions // askings - before)

    return advance


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
    found = {
        f"{form[a.question_id]}: {a.decoding.method}{' rotated' if a.rotations else ''}"
        for a in answers
    }
    return ", ".join(sorted(found))


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
    rotate: bool = False,
    keys: Iterable[Key] = (),
) -> Sitting:
    """The sitting's figures. An error leaves it without a mean; a limit marks it partial.

    `rotate`: the options were to be rotated, which `keys` then tell the bias of.
    """
    errors = sum(s.status == "error" for s in scores)
    score_of = {s.question_id: s for s in scores}
    waiting = sum(s.status == "waiting" for s in scores)
    complete = errors == 0 and len(answers) == len(questions)
    rotated = any(a.rotations for a in answers)

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
            **({OPTION_ORDER: ROTATED if rotated else AS_GIVEN} if rotate else {}),
        },
        asked=len(questions),
        answered=len(answers) - errors,
        errors=errors,
        waiting=waiting,
        refused=sum(s.status in ("refused", "abstained") for s in scores),
        partial=limit is not None,
        primary=mean(questions, clustered=True) if complete else None,
        by_topic=groups([q.topic for q in questions]),
        by_form=groups([q.form for q in questions]),
        retrieval=_retrieval(questions, answers, seed, top_k) if top_k else {},
        positions=position_bias(exam, questions, keys, answers, scores, seed=seed),
        coverage=_coverage(questions, answers, score_of, seed) if complete else None,
        truncated=sum(a.truncated for a in answers),
        tokens_in=sum(a.tokens_in for a in answers),
        tokens_out=sum(a.tokens_out for a in answers),
        cost_usd=round(sum(a.cost_usd for a in answers), 9),
    )


def _retrieval(
    questions: Sequence[Question], answers: Sequence[Answer], seed: int, top_k: int
) -> dict[str, Interval]:
    """recall@k of the gold documents, citation precision and recall, over questions that name
    gold; support over answers that claim anything."""
    by_id = {q.id: q for q in questions}
    found: dict[str, list[float]] = {
        "recall@k": [],
        "citation_precision": [],
        "citation_recall": [],
        "support": [],
    }
    for answer in answers:
        if answer.status == "error":
            continue
        seen = evidence_of(answer, by_id[answer.question_id])
        measured = (seen.recall_at_k, seen.citation_precision, seen.citation_recall, seen.support)
        for name, value in zip(found, measured, strict=True):
            if value is not None:
                found[name].append(value)
    return {
        name.replace("@k", f"@{top_k}"): mean_interval(values, seed=seed, draws=2_000)
        for name, values in found.items()
        if values
    }


def _coverage(
    questions: Sequence[Question],
    answers: Sequence[Answer],
    score_of: Mapping[str, Score],
    seed: int,
) -> RiskCoverage | None:
    """None where an answer has no confidence or no score, and where nothing was answered."""
    cluster_of = {q.id: q.cluster_id or q.id for q in questions}
    spoken = [a for a in answers if a.status != "abstained"]
    sure = [a.confidence for a in answers if a.confidence is not None]
    values = [v for a in spoken if (v := score_of[a.question_id].value) is not None]
    if not spoken or len(sure) < len(answers) or len(values) < len(spoken):
        return None
    own = [a.confidence for a in spoken if a.confidence is not None]
    clusters = [cluster_of[a.question_id] for a in spoken]
    return RiskCoverage(
        points=tuple(curve(own, values, questions=len(answers))),
        aurc=area(own, values, clusters, seed=seed),
        silent=round(1 - len(spoken) / len(answers), 6),
    )
