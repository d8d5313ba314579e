"""Score a multiple-choice answer: the option with the highest log-likelihood, or the letter given.

The normalisation is the exam's: `sum` takes the log-likelihood as it is, `tokens`, `characters` and
`bytes` divide it by the length of the option, so that long options aren't punished. Where the
options were asked in every order, the mean over the orders counts, or the letter's option that was
named most often. A tie goes to the first option, and the explanation says so.

>>> choice(answer, key, question, exam).explanation
'chose B (-1.25 by tokens), the key is B'
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from tokka.candidates.letters import letter, parse_letter
from tokka.exam.folding import same_text
from tokka.records import Answer, Exam, Key, Normalisation, Question, Rotation, Score


def choice(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 for the right option, 0 for another or none, no value where the numbers are unusable."""
    right = key.choice
    if right is None:
        return _score(key, None, "the key names no option; import the exam again")
    if not answer.choice_loglikelihoods:
        return _by_letter(answer, key, question, right)
    for part in answer.rotations or (answer,):
        problem = _problem(part, question, exam.normalisation)
        if problem:
            return _score(key, None, problem)
    values = option_values(answer, question, exam.normalisation)
    best = max(values)
    first, *others = [index for index, value in enumerate(values) if value == best]
    by = f"{exam.normalisation}{_orders(answer)}"
    return _score(
        key,
        float(first == right),
        f"chose {letter(first)} ({best:.4g} by {by}), the key is {letter(right)}{_tie(others)}",
    )


def chosen(answer: Answer, question: Question, normalisation: Normalisation) -> int | None:
    """The place in `question.choices` of the option that the answer chose; None where it chose
    none. Numbers that can't be compared choose something; `choice` marks them as an error."""
    if answer.choice_loglikelihoods:
        return _likeliest(option_values(answer, question, normalisation))
    return next(iter(_named(answer, question)), None)


def picks(answer: Answer, question: Question, normalisation: Normalisation) -> list[int | None]:
    """What was chosen in each order, as places in `question.choices`; empty without rotations."""
    return [
        _likeliest(_values(part, question, normalisation))
        if part.choice_loglikelihoods
        else part.choice
        for part in answer.rotations
    ]


def option_values(answer: Answer, question: Question, normalisation: Normalisation) -> list[float]:
    """The normalised log-likelihood of each option; over all orders its mean."""
    parts = [_values(part, question, normalisation) for part in answer.rotations or (answer,)]
    return [fmean(values) for values in zip(*parts, strict=True)]


def normalised(
    loglikelihoods: Sequence[float],
    choices: Sequence[str],
    token_lengths: Sequence[int],
    normalisation: Normalisation,
) -> list[float]:
    """Log-likelihoods (natural log, sums over tokens) divided by the options' lengths.

    `token_lengths` is only used for `tokens`. All lengths are at least 1.
    """
    match normalisation:
        case "sum":
            lengths = [1] * len(choices)
        case "tokens":
            lengths = list(token_lengths)
        case "characters":
            lengths = [len(text) for text in choices]
        case "bytes":
            lengths = [len(text.encode()) for text in choices]
    return [value / max(1, n) for value, n in zip(loglikelihoods, lengths, strict=True)]


def _values(
    part: Answer | Rotation, question: Question, normalisation: Normalisation
) -> list[float]:
    return normalised(
        part.choice_loglikelihoods, question.choices, part.choice_lengths, normalisation
    )


def _likeliest(values: list[float]) -> int:
    return values.index(max(values))


def _problem(part: Answer | Rotation, question: Question, normalisation: Normalisation) -> str:
    wanted = len(question.choices)
    if len(part.choice_loglikelihoods) != wanted:
        return f"{len(part.choice_loglikelihoods)} log-likelihoods for {wanted} options"
    if any(math.isnan(value) for value in part.choice_loglikelihoods):
        return "a log-likelihood is not a number; check the model's precision"
    if all(math.isinf(value) for value in part.choice_loglikelihoods):
        return "no option has a finite log-likelihood; check the model's precision"
    if normalisation == "tokens" and len(part.choice_lengths) != wanted:
        return f"{len(part.choice_lengths)} token lengths for {wanted} options"
    return ""


def _by_letter(answer: Answer, key: Key, question: Question, right: int) -> Score:
    found = _named(answer, question)
    if not found:
        return _score(key, 0.0, f"named no option: {answer.text.strip()[:60]!r}")
    given, *others = found
    return _score(
        key,
        float(given == right),
        f"answered {letter(given)}{_orders(answer)}, the key is {letter(right)}{_tie(others)}",
    )


def _named(answer: Answer, question: Question) -> list[int]:
    """The options named by letter, those of most orders, the exam's first one first; may be
    empty."""
    if not answer.rotations:
        own = answer.choice
        place = named(answer.text, question.choices) if own is None else own
        return [] if place is None else [place]
    counts = Counter(part.choice for part in answer.rotations if part.choice is not None)
    most = max(counts.values(), default=0)
    return sorted(option for option, n in counts.items() if n == most)


def named(text: str, choices: Sequence[str]) -> int | None:
    """The option that a text names. Its own text wins over a letter: options may be letters
    themselves."""
    whole = [index for index, option in enumerate(choices) if same_text(option) == same_text(text)]
    return whole[0] if len(whole) == 1 else parse_letter(text, len(choices))


def _orders(answer: Answer) -> str:
    return f" over {len(answer.rotations)} orders" if answer.rotations else ""


def _tie(others: Sequence[int]) -> str:
    return f"; a tie with {', '.join(map(letter, others))}, the first counts" if others else ""


def _score(key: Key, value: float | None, explanation: str) -> Score:
    return Score(
        question_id=key.question_id,
        scorer="choice",
        value=value,
        status="error" if value is None else "scored",
        explanation=explanation,
    )
