"""Score stored answers again without the model: after a corrected key, or by another measure.

A sitting's folder → the same sitting with new scores. The folder holds `exam/` (as `write_exam`
leaves it), `answers.jsonl`, `scores.jsonl`, `sitting.json`, and `shots.jsonl` where examples were
shown; keys are corrected in `exam/keys.jsonl`.

    stored = read_stored(folder)
    again = rescore(stored, normalisation="characters")
    for change in changes(stored.scores, again.scores): ...
    write_stored(out, again)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args

from tokka.errors import IntegrityError, Mistakes, UsageError
from tokka.exam.folding import same_text
from tokka.exam.importing import (
    exam_digest,
    load_exam,
    load_keys,
    load_questions,
    write_exam,
)
from tokka.exam.sitting import decide_all, score_all, summarise
from tokka.records import (
    OPTION_ORDER,
    Answer,
    Exam,
    Example,
    Key,
    Normalisation,
    Question,
    Record,
    Rotation,
    Score,
    ShortScorer,
    Sitting,
    Split,
)
from tokka.store import read_record, read_records, write_json, write_records

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Stored:
    """One sitting with all that its scores are made from. `questions` and `keys` are the whole
    exam's, `answers` those of the questions that were asked. `scores` and `sitting` are as last
    written: empty and None where nothing was. `top_k` is 0 where nothing was retrieved."""

    exam: Exam
    questions: tuple[Question, ...]
    keys: tuple[Key, ...]
    answers: tuple[Answer, ...]
    arm: str
    candidate_id: str
    split: Split = "test"
    partial: bool = False
    language: str = ""
    seed: int = 0
    top_k: int = 0
    rotate: bool = False
    scores: tuple[Score, ...] = ()
    sitting: Sitting | None = None
    shots: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A question whose score isn't what it was; `old` is None where none was stored."""

    old: Score | None
    new: Score


def rescore(
    stored: Stored, *, normalisation: str | None = None, scorer: str | None = None
) -> Stored:
    """Choices, scores and the sitting's figures from the answers as they lie there.

    `normalisation` and `scorer` (of short answers) replace the exam's. Raises UsageError for a name
    that is none, Mistakes where answers, questions and keys don't belong together.
    """
    _known("normalisation", normalisation, get_args(Normalisation))
    _known("scorer", scorer, get_args(ShortScorer))
    mistakes = list(_mismatches(stored))
    if mistakes:
        raise Mistakes(f"exam {stored.exam.name}: {len(mistakes)} mistakes", mistakes)
    by = scorer or stored.exam.scorer
    per = normalisation or stored.exam.normalisation
    exam = stored.exam.model_copy(update={"scorer": by, "normalisation": per})
    digest = exam_digest(stored.questions, stored.keys, exam.scorer, exam.normalisation)
    exam = exam.model_copy(update={"digest": digest})
    given = {answer.question_id for answer in stored.answers}
    asked = [question for question in stored.questions if question.id in given]
    answers = decide_all(exam, asked, stored.answers, stored.language or exam.language)
    scores = score_all(exam, asked, stored.keys, answers)
    sitting = summarise(
        exam,
        asked,
        answers,
        scores,
        arm=stored.arm,
        candidate_id=stored.candidate_id,
        split=stored.split,
        limit=len(asked) if stored.partial else None,
        seed=stored.seed,
        top_k=stored.top_k,
        rotate=stored.rotate,
        keys=stored.keys,
    )
    return replace(stored, exam=exam, answers=tuple(answers), scores=tuple(scores), sitting=sitting)


def changes(old: Sequence[Score], new: Sequence[Score]) -> list[Change]:
    """The questions whose value or status changed, in the order of the new scores."""
    before = {score.question_id: score for score in old}
    found = [Change(before.get(score.question_id), score) for score in new]
    return [
        change
        for change in found
        if change.old is None
        or (change.old.value, change.old.status) != (change.new.value, change.new.status)
    ]


# ---- files ------------------------------------------------------------------------------------


def is_stored(folder: Path) -> bool:
    return (folder / "answers.jsonl").is_file() and (folder / "exam").is_dir()


def read_stored(folder: Path) -> Stored:
    """Raises IntegrityError where a file is missing or damaged, or answers are missing."""
    exam = load_exam(folder / "exam")
    answers = read_records(folder / "answers.jsonl", Answer)
    if not answers:
        raise IntegrityError(f"{folder / 'answers.jsonl'} is empty; sit the exam again")
    written = folder / "sitting.json"
    sitting = read_record(written, Sitting) if written.is_file() else None
    if sitting is not None and sitting.asked != len(answers):
        raise IntegrityError(
            f"{folder}: {len(answers)} answers to {sitting.asked} questions; sit the exam again"
        )
    stored = Stored(
        exam,
        tuple(load_questions(folder / "exam")),
        tuple(load_keys(folder / "exam")),
        tuple(answers),
        arm=exam.name,
        candidate_id=answers[0].candidate_id,
        scores=_optional(folder / "scores.jsonl", Score),
        shots=_optional(folder / "shots.jsonl", Example),
    )
    if sitting is None:
        return stored
    return replace(
        stored,
        arm=sitting.arm,
        candidate_id=sitting.candidate_id,
        split=sitting.split,
        partial=sitting.partial,
        top_k=_top_k(sitting),
        rotate=OPTION_ORDER in sitting.settings,
        sitting=sitting,
    )


def write_stored(folder: Path, stored: Stored) -> None:
    """Write the sitting's folder, file by file and each whole; `sitting.json` is the last."""
    write_exam(folder / "exam", stored.exam, stored.questions, stored.keys)
    write_records(folder / "answers.jsonl", stored.answers)
    write_records(folder / "scores.jsonl", stored.scores)
    if stored.shots:
        write_records(folder / "shots.jsonl", stored.shots)
    if stored.sitting is not None:
        write_json(folder / "sitting.json", stored.sitting)


def _known(what: str, name: str | None, names: tuple[str, ...]) -> None:
    if name is not None and name not in names:
        raise UsageError(f"rescore: {what} {name!r} is none of {', '.join(names)}")


def _optional(path: Path, kind: type[R]) -> tuple[R, ...]:
    return tuple(read_records(path, kind)) if path.is_file() else ()


def _top_k(sitting: Sitting) -> int:
    found = (name.partition("recall@")[2] for name in sitting.retrieval)
    return next((int(k) for k in found if k.isdigit()), 0)


def _mismatches(stored: Stored) -> Iterator[str]:
    """What a corrected file may have broken, one sentence a mistake."""
    questions = {question.id: question for question in stored.questions}
    keys = {key.question_id: key for key in stored.keys}
    repeated = [name for name, n in Counter(k.question_id for k in stored.keys).items() if n > 1]
    yield from (f"two keys of {name}; remove one from keys.jsonl" for name in repeated)
    for answer in stored.answers:
        name = answer.question_id
        question, key = questions.get(name), keys.get(name)
        if question is None:
            yield f"{name} was answered, but is no question any more; restore it in questions.jsonl"
        elif key is None:
            yield f"{name} has no key; add one to keys.jsonl"
        elif question.form == "choice":
            yield from _misfits(answer, question, key)


def _misfits(answer: Answer, question: Question, key: Key) -> Iterator[str]:
    options = question.choices
    parts: tuple[Answer | Rotation, ...] = (answer, *answer.rotations)
    for part in parts:
        given = len(part.choice_loglikelihoods)
        if given not in (0, len(options)):
            yield (
                f"{question.id} has {given} log-likelihoods for {len(options)} options; restore "
                "its choices in questions.jsonl"
            )
            return
    if key.choice is None or not 0 <= key.choice < len(options):
        yield (f"{question.id}: key choice is {key.choice}; it counts from 0 to {len(options) - 1}")
    elif same_text(options[key.choice]) not in map(same_text, key.targets):
        yield (
            f"{question.id}: key choice {key.choice} is {options[key.choice]!r}, but targets say "
            f"{', '.join(key.targets)!r}; correct both"
        )
