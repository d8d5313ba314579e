"""Find exam questions that stand, word for word or nearly, in training examples or documents.

Plain strings in, `Leak`s out. A shared name, term or turn of phrase is no leak: the exam and the
documents speak of the same things. A question leaks into a text when one of these holds, after
NFKC, case folding and removal of spaces and punctuation:

- **verbatim**: the question stands in the text (one under 8 characters or 4 words must be a whole
  line of it);
- **near**: edits worth at most a tenth of the question turn it into some stretch of the text that
  holds the same numbers. A character (word, where words are spaced) weighs 1; a hiragana or an
  English function word weighs ¼, and costs ¼ to add, ½ to change, 1 to leave out: a question whose
  asking part is missing is a statement of the fact, which documents and examples are for;
- **copied**: 80 % of the question's windows of 13 characters (8 words) stand in the text, and so do
  its numbers. Windows that a tenth of the questions share are boilerplate and don't count.

>>> leaks({"q1": "店長の決裁限度額はいくらですか。"}, {"ex9": "問：店長の決裁限度額はいくらですか"})
[Leak(question_id='q1', item_id='ex9', overlap=1.0, kind='verbatim')]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tokka.dataset.asked import Asked, Numbers, Tokens, is_spaced, tokens_of
from tokka.records import Dropped, Example

NEAR_SIMILARITY = 0.9
COPIED_SHARE = 0.8
WINDOW_CHARACTERS = 13
WINDOW_WORDS = 8
_SHORT_CHARACTERS, _SHORT_WORDS = 8, 4
_CANDIDATE_SHARE = 0.4  # of short grams: only such pairs are aligned
_MIN_SEGMENT = 240
_LIGHT, _LIGHT_CHANGE = 0.25, 0.5
_HIRAGANA = re.compile(r"[\u3041-\u309f]")
_WORD = re.compile(r"\w+")
_NUMBERS = re.compile(r"\d+|[一二三四五六七八九十百千万億]+")
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an the of in on at to for by with from as is are was were be do does did and or that "
        "which this it its there please"
    )
)

Weights = npt.NDArray[np.float64]
Kind = Literal["verbatim", "near", "copied"]


@dataclass(frozen=True, slots=True)
class Leak:
    """`overlap` is 1 for verbatim, the similarity for near, the share of windows for copied."""

    question_id: str
    item_id: str
    overlap: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Kept:
    """What `refuse_leaks` let through, and what it left out with the reason."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A question that stands in a text: its number in `Asked`, and the tokens of the text that it
    begins and ends at (None where that is not known)."""

    question: int
    overlap: float
    kind: Kind
    span: tuple[int, int] | None


def leaks(questions: Mapping[str, str], texts: Mapping[str, str]) -> list[Leak]:
    """Every pair of question and text that leaks, strongest kind first within a pair (one a pair).

    `questions` and `texts` map ids to plain text; options belong to neither. Sorted by question id,
    then item id. Time grows with the length of the texts, hardly with the number of questions.
    """
    found: list[Leak] = []
    for asked in by_script(questions):
        for item, text in texts.items():
            tokens = tokens_of(text, asked.spaced)
            for one in standing(asked, text, tokens, asked.encoded(tokens)):
                found.append(Leak(asked.ids[one.question], item, one.overlap, one.kind))
    return sorted(found, key=lambda leak: (leak.question_id, leak.item_id))


def refuse_leaks(examples: Sequence[Example], question_texts: Mapping[str, str]) -> Kept:
    """Leave out the examples in which an exam question stands, and say which and why.

    `question_texts` maps question ids to what is asked; an example counts with all its messages.
    """
    texts = {example.id: "\n".join(m.content for m in example.messages) for example in examples}
    by_example: dict[str, Leak] = {}
    for leak in leaks(question_texts, texts):
        by_example.setdefault(leak.item_id, leak)
    dropped = tuple(
        Dropped(
            item=f"example {example.id}",
            reason=f"exam question {by_example[example.id].question_id} stands in it "
            f"({by_example[example.id].kind}, overlap {by_example[example.id].overlap:.2f})",
            stage="dataset",
            next_action="reword the example so that it teaches the fact and not the question",
        )
        for example in examples
        if example.id in by_example
    )
    return Kept(tuple(e for e in examples if e.id not in by_example), dropped)


def by_script(questions: Mapping[str, str]) -> list[Asked]:
    """The questions whose words are not set apart, and those whose are, where there are any."""
    both = [
        Asked({key: text for key, text in questions.items() if is_spaced(text) == spaced}, spaced)
        for spaced in (False, True)
    ]
    return [asked for asked in both if asked.ids]


def standing(asked: Asked, text: str, tokens: Tokens, encoded: Numbers) -> list[Standing]:
    """The questions that leak into one text, given as it is, as tokens and as numbers."""
    best: dict[int, Standing] = {}
    if any(_is_short(question, asked.spaced) for question in asked.tokens):
        lines = {tokens_of(line, asked.spaced) for line in text.splitlines()}
        for number, question in enumerate(asked.tokens):
            if _is_short(question, asked.spaced) and question in lines:
                best[number] = Standing(number, 1.0, "verbatim", None)
    for number, begin, segment in _candidates(asked, tokens, encoded):
        found = _similarity(asked.tokens[number], segment, asked.spaced)
        if found and found[0] > (best[number].overlap if number in best else 0.0):
            overlap, start, end = found
            kind: Kind = "verbatim" if overlap == 1.0 else "near"
            best[number] = Standing(number, round(overlap, 4), kind, (begin + start, begin + end))
    window = WINDOW_WORDS if asked.spaced else WINDOW_CHARACTERS
    totals = asked.runs(window, boilerplate=False).totals
    has: Counter[str] | None = None
    for run in asked.runs_in(encoded, window):
        share = run.count / int(totals[run.question])
        question = asked.tokens[run.question]
        if share < COPIED_SHARE or run.question in best or _is_short(question, asked.spaced):
            continue
        has = Counter(_numbers(tokens, asked.spaced)) if has is None else has
        if not Counter(_numbers(question, asked.spaced)) - has:
            span = (run.first, run.first + window)
            best[run.question] = Standing(run.question, round(share, 4), "copied", span)
    return list(best.values())


def _candidates(
    asked: Asked, tokens: Tokens, encoded: Numbers
) -> Iterator[tuple[int, int, Tokens]]:
    """Questions with stretches of the text that may hold them, and where the stretch begins."""
    longest = max(len(question) for question in asked.tokens)
    length = max(_MIN_SEGMENT, 3 * longest)
    step = length - longest * 6 // 5
    size = 2 if asked.spaced else 3
    weights: dict[int, Weights] = {}
    whole = _weights(tokens)
    for number, at in asked.dense_stretches(encoded, size, _CANDIDATE_SHARE, length, step):
        question = asked.tokens[number]
        if _is_short(question, asked.spaced):
            continue
        if number not in weights:
            weights[number] = _weights(question)
        span = slice(at * step, at * step + length)
        if _can_be_near(asked.encoded(question), weights[number], encoded[span], whole[span]):
            yield number, span.start, tokens[span]


def _can_be_near(question: Numbers, weights: Weights, segment: Numbers, others: Weights) -> bool:
    """Whether `_similarity` would come to `NEAR_SIMILARITY` but for the numbers: the same sums, a
    row at once. What comes before a place by insertions is a running minimum."""
    budget = (1.0 - NEAR_SIMILARITY) * float(weights.sum()) + 1e-9
    added = np.concatenate([[0.0], np.cumsum(others)])
    changed = np.where(others == _LIGHT, _LIGHT_CHANGE, 1.0)
    costs = np.zeros(len(segment) + 1)
    for token, weight in zip(question.tolist(), weights.tolist(), strict=True):
        change = changed if weight == _LIGHT else 1.0
        replaced = costs[:-1] + np.where(segment == token, 0.0, change)
        costs = costs + 1.0
        np.minimum(costs[1:], replaced, out=costs[1:])
        costs = np.minimum.accumulate(costs - added) + added
        if costs.min() > budget:
            return False
    return True


def _similarity(question: Tokens, segment: Tokens, spaced: bool) -> tuple[float, int, int] | None:
    """1 − cheapest edits ÷ weight of the question, against any stretch of the segment.

    With where that stretch begins and ends; None below `NEAR_SIMILARITY`, or where it holds other
    numbers. Edit distance with a free start and end: Sellers (1980), The theory and computation of
    evolutionary distances.
    """
    weights = [_weight(token) for token in question]
    others = [(token, _weight(token)) for token in segment]
    budget = (1.0 - NEAR_SIMILARITY) * sum(weights) + 1e-9
    costs = [0.0] * (len(segment) + 1)
    starts = list(range(len(segment) + 1))  # where the stretch that ends here began
    for token, weight in zip(question, weights, strict=True):
        above, above_starts = costs, starts
        costs, starts = [above[0] + 1.0], [above_starts[0]]
        for column, (other, other_weight) in enumerate(others):
            changed = _LIGHT_CHANGE if weight == other_weight == _LIGHT else 1.0
            replace = above[column] + (0.0 if other == token else changed)
            delete = above[column + 1] + 1.0
            insert = costs[column] + other_weight
            if replace <= delete and replace <= insert:
                costs.append(replace)
                starts.append(above_starts[column])
            elif delete <= insert:
                costs.append(delete)
                starts.append(above_starts[column + 1])
            else:
                costs.append(insert)
                starts.append(starts[column])
        if min(costs) > budget:
            return None
    end = min(range(len(costs)), key=costs.__getitem__)
    if costs[end] > 0 and _numbers(segment[starts[end] : end], spaced) != _numbers(
        question, spaced
    ):
        return None
    return 1.0 - costs[end] / sum(weights), starts[end], end


def _weight(token: str) -> float:
    return _LIGHT if _HIRAGANA.match(token) or token in _FUNCTION_WORDS else 1.0


def _weights(tokens: Tokens) -> Weights:
    known = {token: _weight(token) for token in set(tokens)}
    return np.array([known[token] for token in tokens], dtype=np.float64)


def _is_short(question: Tokens, spaced: bool) -> bool:
    return len(question) < (_SHORT_WORDS if spaced else _SHORT_CHARACTERS)


def _numbers(tokens: Tokens, spaced: bool) -> list[str]:
    return sorted(_NUMBERS.findall((" " if spaced else "").join(tokens)))
