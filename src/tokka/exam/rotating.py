"""Ask a choice once for each rotation of its options, and tell what their order decides.

Question → n questions with the options moved on by one each → one answer that holds them all; the
answers of a sitting → the bias of the positions. Models pick by place as well as by content (Zheng
et al. 2024, "Large Language Models Are Not Robust Multiple Choice Selectors"); over all rotations
every option has stood once at every place, so that the place decides nothing.

    asked = askings(questions)
    answers = list(joined(asked, specialist.answer([a.question for a in asked])))
    bias = position_bias(exam, questions, keys, answers, scores)

Where the options aren't in the prompt, as in exams scored by log-likelihood without `show_options`,
each option is scored by itself: their order can't matter, and each question is asked once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tokka.exam.scorers.choice import named, picks
from tokka.records import (
    Answer,
    Exam,
    Interval,
    Key,
    Normalisation,
    PositionBias,
    Question,
    Rotation,
    Score,
)
from tokka.stats.intervals import mean_interval
from tokka.stats.positions import equal_places

DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Asking:
    """A question as it is asked: `order[i]` is the place in `original.choices` of the option shown
    at place i. `order` is empty where the question is asked as it stands."""

    original: Question
    question: Question
    order: tuple[int, ...] = ()


def askings(
    questions: Iterable[Question], rotates: Callable[[Question], bool] = lambda question: True
) -> list[Asking]:
    """Choices for which `rotates` holds once per rotation, all others once, in the order given."""
    found: list[Asking] = []
    for question in questions:
        n = len(question.choices)
        if question.form != "choice" or n < 2 or not rotates(question):
            found.append(Asking(question, question))
            continue
        for first in range(n):
            order = tuple((place + first) % n for place in range(n))
            shown = tuple(question.choices[place] for place in order)
            found.append(Asking(question, question.model_copy(update={"choices": shown}), order))
    return found


def joined(asked: Sequence[Asking], answers: Iterable[Answer]) -> Iterator[Answer]:
    """One answer per question. Likelihoods are means over the orders, tokens, seconds and costs
    sums. A failure in one order makes the question an error, and silence in one makes it silence: a
    mean over the others would favour a place. The choice is left open, as it is in a scored
    answer."""
    own: list[tuple[Asking, Answer]] = []
    for asking, answer in zip(asked, answers, strict=True):
        if not asking.order:
            yield answer
            continue
        own.append((asking, answer))
        if len(own) == len(asking.order):
            yield _joined(own)
            own = []


def position_bias(
    exam: Exam,
    questions: Sequence[Question],
    keys: Iterable[Key],
    answers: Sequence[Answer],
    scores: Iterable[Score],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[PositionBias, ...]:
    """The bias by number of options, fewest first; nothing where no options were rotated, or a
    question with so many options has no score: what is incomplete has no figures.

    A question counts once: shares are means over questions with the clustered interval of the
    scores, and the test shifts the places of whole questions (`stats.positions.equal_places`).
    """
    by_id = {question.id: question for question in questions}
    failed = {score.question_id for score in scores if score.status == "error"}
    right = {key.question_id: key.choice for key in keys}
    groups: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.rotations and answer.status != "abstained":
            groups[len(answer.rotations)].append(answer)
    return tuple(
        _bias(group, by_id, right, exam.normalisation, seed, draws)
        for _, group in sorted(groups.items())
        if not any(answer.question_id in failed for answer in group)
    )


def _joined(own: Sequence[tuple[Asking, Answer]]) -> Answer:
    rotations = tuple(_rotation(asking, answer) for asking, answer in own)
    answers = [answer for _, answer in own]
    failed = [(n, a) for n, a in enumerate(answers, 1) if a.status == "error"]
    likelihoods = [r.choice_loglikelihoods for r in rotations if r.choice_loglikelihoods]
    whole = len(likelihoods) == len(rotations)
    silent = next((answer for answer in answers if answer.status == "abstained"), None)
    said = rotations[0].text if silent is None else silent.text
    sure = [answer.confidence for answer in answers if answer.confidence is not None]
    return answers[0].model_copy(
        update={
            "text": "" if failed else said,
            "choice": None,
            "choice_loglikelihoods": tuple(map(fmean, zip(*likelihoods, strict=True)))
            if whole and silent is None
            else (),
            "choice_lengths": rotations[0].choice_lengths,
            "rotations": rotations,
            "truncated": any(a.truncated for a in answers),
            "tokens_in": sum(a.tokens_in for a in answers),
            "tokens_out": sum(a.tokens_out for a in answers),
            "seconds": sum(a.seconds for a in answers),
            "cost_usd": sum(a.cost_usd for a in answers),
            "confidence": min(sure, default=None),
            "status": "error" if failed else (silent or answers[0]).status,
            "error": f"order {failed[0][0]} of {len(own)}: {failed[0][1].error}" if failed else "",
        }
    )


def _rotation(asking: Asking, answer: Answer) -> Rotation:
    """An answer to the options as shown, counted by the options as the exam has them."""
    place_of = {option: place for place, option in enumerate(asking.order)}

    def back(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[place_of[option]] for option in sorted(place_of)) if values else ()

    said = answer.text
    choice = None if answer.choice is None else asking.order[answer.choice]
    if choice is None and said:
        place = named(said, asking.question.choices)
        choice = None if place is None else asking.order[place]
    return Rotation(
        order=asking.order,
        prompt_sha256=answer.prompt_sha256,
        choice=choice,
        text=said,
        choice_loglikelihoods=back(answer.choice_loglikelihoods),
        choice_lengths=tuple(map(int, back(answer.choice_lengths))),
        truncated=answer.truncated,
    )


def _bias(
    answers: Sequence[Answer],
    questions: Mapping[str, Question],
    right: Mapping[str, int | None],
    normalisation: Normalisation,
    seed: int,
    draws: int,
) -> PositionBias:
    options = len(answers[0].rotations)
    clusters = [questions[answer.question_id].cluster_id for answer in answers]
    picked = [picks(answer, questions[answer.question_id], normalisation) for answer in answers]
    counts = [[0] * options for _ in answers]
    hits = [[0] * options for _ in answers]
    for q, answer in enumerate(answers):
        key = right.get(answer.question_id)
        for pick, rotation in zip(picked[q], answer.rotations, strict=True):
            if pick is not None:
                counts[q][rotation.order.index(pick)] += 1
            if pick is not None and pick == key:
                hits[q][rotation.order.index(key)] = 1

    def mean(values: Iterable[float]) -> Interval:
        return mean_interval(list(values), clusters, seed=seed)

    return PositionBias(
        options=options,
        questions=len(answers),
        picks=tuple(mean(row[place] / options for row in counts) for place in range(options)),
        accuracy=tuple(mean(float(row[place]) for row in hits) for place in range(options)),
        unchanged=mean(float(len(set(own)) == 1 and None not in own) for own in picked),
        unnamed=sum(pick is None for own in picked for pick in own),
        p_value=equal_places(counts, clusters, draws=draws, seed=seed),
        method=f"places of whole questions shifted at random, {draws:,} draws, seed {seed}",
    )
