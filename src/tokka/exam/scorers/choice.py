"""Score a multiple-choice answer: the option with the highest log-likelihood, or the letter given.

The normalisation is the exam's: `sum` takes the log-likelihood as it is, `tokens`, `characters` and
`bytes` divide it by the length of the option, so that long options aren't punished. A tie goes to
the first option, and the explanation says so.

>>> choice(answer, key, question, exam).explanation
'chose B (-1.25 by tokens), the key is B'
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokka.candidates.letters import letter, parse_letter
from tokka.exam.folding import same_text
from tokka.records import Answer, Exam, Key, Normalisation, Question, Score


def choice(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 for the right option, 0 for another or none, no value where the numbers are unusable."""
    if key.choice is None:
        return _score(key, None, "the key names no option; import the exam again")
    if not answer.choice_loglikelihoods:
        return _by_text(answer, key, question)
    lengths = answer.choice_lengths
    problem = _problem(answer, question, exam.normalisation)
    if problem:
        return _score(key, None, problem)
    values = normalised(answer.choice_loglikelihoods, question.choices, lengths, exam.normalisation)
    best = max(values)
    first, *others = [index for index, value in enumerate(values) if value == best]
    tie = f"; a tie with {', '.join(map(letter, others))}, the first counts" if others else ""
    return _score(
        key,
        float(first == key.choice),
        f"chose {letter(first)} ({best:.4g} by {exam.normalisation}), "
        f"the key is {letter(key.choice)}{tie}",
    )


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


def _problem(answer: Answer, question: Question, normalisation: Normalisation) -> str:
    wanted = len(question.choices)
    if len(answer.choice_loglikelihoods) != wanted:
        return f"{len(answer.choice_loglikelihoods)} log-likelihoods for {wanted} options"
    if any(math.isnan(value) for value in answer.choice_loglikelihoods):
        return "a log-likelihood is not a number; check the model's precision"
    if all(math.isinf(value) for value in answer.choice_loglikelihoods):
        return "no option has a finite log-likelihood; check the model's precision"
    if normalisation == "tokens" and len(answer.choice_lengths) != wanted:
        return f"{len(answer.choice_lengths)} token lengths for {wanted} options"
    return ""


def _by_text(answer: Answer, key: Key, question: Question) -> Score:
    chosen = answer.choice
    if chosen is None:
        chosen = _named(answer.text, question.choices)
    if chosen is None or key.choice is None:
        return _score(key, 0.0, f"named no option: {answer.text.strip()[:60]!r}")
    return _score(
        key,
        float(chosen == key.choice),
        f"answered {letter(chosen)}, the key is {letter(key.choice)}",
    )


def _named(text: str, choices: Sequence[str]) -> int | None:
    """An option's own text wins over a letter: options may be letters themselves."""
    whole = [index for index, option in enumerate(choices) if same_text(option) == same_text(text)]
    return whole[0] if len(whole) == 1 else parse_letter(text, len(choices))


def _score(key: Key, value: float | None, explanation: str) -> Score:
    return Score(
        question_id=key.question_id,
        scorer="choice",
        value=value,
        status="error" if value is None else "scored",
        explanation=explanation,
    )
