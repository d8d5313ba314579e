"""Mark a written answer as lm-evaluation-harness does: filters, then an exact match.

Answer + Key with a `Marking` → Score. Each chain of filters makes one prediction of the text; what
is to be ignored is taken out of prediction and target alike, and one equal target is enough. The
first chain decides the score; the others stand in the explanation and in the results.

>>> exact_match(answer, key, question, exam).explanation
"strict-match: '18' is '18'; flexible-extract: '18.' is not '18'"
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from tokka.records import Answer, Exam, FilterChain, Key, Marking, Question, Score

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


def exact_match(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 where the first chain's prediction equals a target, else 0."""
    marking = key.marking
    if marking is None:
        reason = "the key says nothing of filters; import the task again"
        return Score(
            question_id=key.question_id,
            scorer="exact_match",
            value=None,
            status="error",
            explanation=reason,
        )
    right = {
        chain.name: right_by(chain, marking, answer.text, key.targets) for chain in marking.chains
    }
    return Score(
        question_id=key.question_id,
        scorer="exact_match",
        value=float(right[marking.chains[0].name]),
        status="scored",
        explanation="; ".join(
            _explained(chain, answer.text, key.targets, right[chain.name])
            for chain in marking.chains
        ),
    )


def right_by(chain: FilterChain, marking: Marking, text: str, targets: Sequence[str]) -> bool:
    """Whether the chain's prediction of the text equals one of the targets."""
    predicted = prediction(chain, text)
    if predicted is None:
        return False
    said = _compared(predicted, marking)
    return any(said == _compared(target, marking) for target in targets)


def prediction(chain: FilterChain, text: str) -> str | None:
    """What the filters make of a text; None where a map knows no value for it."""
    current: str | None = text
    for step in chain.steps:
        if current is None:
            return None
        match step.function:
            case "regex":
                current = _found(step.pattern, step.match, step.fallback, current)
            case "remove_whitespace":
                current = current.strip()
            case "lowercase":
                current = current.lower()
            case "uppercase":
                current = current.upper()
            case "map":
                current = step.mapping.get(current, step.default)
    return current


def _found(pattern: str, place: int, fallback: str, text: str) -> str:
    """The match at `place` (−1 is the last), stripped; of several groups the first that isn't
    empty."""
    matches = re.findall(pattern, text)
    if not -len(matches) <= place < len(matches):
        return fallback
    match = matches[place]
    if isinstance(match, tuple):
        match = next((group for group in match if group), fallback)
    return str(match).strip()


def _compared(text: str, marking: Marking) -> str:
    for pattern in marking.regexes_to_ignore:
        text = re.sub(pattern, "", text)
    if marking.ignore_case:
        text = text.lower()
    if marking.ignore_punctuation:
        text = text.translate(_PUNCTUATION)
    if marking.ignore_numbers:
        text = text.translate(_DIGITS)
    return text


def _explained(chain: FilterChain, text: str, targets: Sequence[str], right: bool) -> str:
    shown = ", ".join(repr(target) for target in targets[:3])
    verb = "is" if right else "is not"
    return f"{chain.name}: {(prediction(chain, text) or '')[:80]!r} {verb} {shown}"
