"""What an answer is worth: `score(answer, key, question, exam)`, by the question's form.

Refused and abstained answers are worth 0 and say so; an error has no value, so that it can neither
become a 0 nor vanish. A scorer is a function (answer, key, question, exam) → Score.

>>> score(answer, key, question, exam)
Score(question_id='q1', scorer='choice', value=1.0, status='scored', explanation='chose B …')
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tokka.errors import IntegrityError, UsageError
from tokka.exam.scorers.stance import stance_of
from tokka.records import Answer, Exam, Key, Question, Score, ScoreStatus

Scorer = Callable[[Answer, Key, Question, Exam], Score]

BUILTIN = {
    "choice": "tokka.exam.scorers.choice:choice",
    "exact": "tokka.exam.scorers.short:exact",
    "contained": "tokka.exam.scorers.short:contained",
    "f1": "tokka.exam.scorers.short:f1",
    "letters": "tokka.exam.scorers.letters:letters",
    "spans": "tokka.exam.scorers.spans:spans",
    "judge": "tokka.exam.scorers.judge:judge",
    "number": "tokka.exam.scorers.number:number",
    "exact_match": "tokka.exam.harness.marking:exact_match",
}


def score(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """The primary score: `choice` and `number` by form, short answers by `exam.scorer`, or as the
    key's own marking says.

    A text that says that it doesn't know, or won't say, counts as abstained or refused, unless it
    gives the right answer all the same. Where the documents don't hold the answer, such a text, or
    silence below the arm's threshold, is right; a refusal and an empty text aren't. Raises
    IntegrityError where answer, key and question don't belong together.
    """
    if not answer.question_id == key.question_id == question.id:
        raise IntegrityError(
            f"score: answer to {answer.question_id}, key of {key.question_id} and question "
            f"{question.id} don't belong together; import the exam again"
        )
    name = exam.scorer if question.form == "short" else question.form
    if key.marking is not None:
        name = "exact_match"
    if answer.status == "error":
        reason = f"no answer: {answer.error or 'unknown error'}"
        return Score(
            question_id=key.question_id, scorer=name, value=None, status="error", explanation=reason
        )
    if key.unanswerable:
        return _silence(answer, key, name)
    if answer.status in ("refused", "abstained"):
        return _unanswered(key, name, answer.status, "the candidate gave no answer")
    scored = scorer(name)(answer, key, question, exam)
    if scored.value == 0.0 and not answer.choice_loglikelihoods and answer.choice is None:
        stance = stance_of(answer.text)
        if stance != "answered":
            return _unanswered(key, name, stance, f"said: {answer.text.strip()[:80]!r}")
    return scored


def _silence(answer: Answer, key: Key, name: str) -> Score:
    """Right is whoever says that there is no answer. A refusal says something else."""
    said = answer.text.strip()
    stance = stance_of(said) if answer.status == "answered" and said else answer.status
    if stance == "refused":
        return _unanswered(key, name, stance, "there is no answer to find, but it refused to look")
    right = stance == "abstained"
    return Score(
        question_id=key.question_id,
        scorer=name,
        value=float(right),
        status="scored",
        explanation=f"{'says' if right else 'does not say'} that the documents hold no answer",
    )


def scorer(name: str) -> Scorer:
    """A scorer by name; raises UsageError naming the known ones."""
    if name not in BUILTIN:
        raise UsageError(f"scorer {name!r} is unknown; known are {', '.join(sorted(BUILTIN))}")
    module, _, function = BUILTIN[name].partition(":")
    found: Scorer = getattr(import_module(module), function)
    return found


def _unanswered(key: Key, name: str, status: ScoreStatus, reason: str) -> Score:
    return Score(
        question_id=key.question_id, scorer=name, value=0.0, status=status, explanation=reason
    )
