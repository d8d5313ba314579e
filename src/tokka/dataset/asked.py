"""Exam questions as numbers, made once, and what of them stands in a text: millions of characters
are looked through in seconds.

Questions and a text → for each question how many of its runs of tokens the text has, and where. A
token is a character, or a word where words are spaced; both after NFKC and case folding, without
spaces and punctuation.

>>> asked = prepare({"q1": "店長の決裁限度額はいくらですか。"}, spaced=False, window=13)
>>> asked.runs_in(asked.encoded(tokens_of("店長の決裁限度額はいくらですか", False)), 13)
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Tokens = tuple[str, ...]

_WORD = re.compile(r"\w+")
_CJK = re.compile(r"[\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_STEP = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 18  # tokens looked through at once


def is_spaced(text: str) -> bool:
    """Whether the words of a text are set apart by spaces."""
    letters = sum(character.isalpha() for character in text)
    return len(_CJK.findall(text)) * 5 < letters


def tokens_of(text: str, spaced: bool) -> Tokens:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(words) if spaced else tuple("".join(words))


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of tokens (n-grams) as sorted hashes, and which questions have them: run i is in
    `questions[starts[i]:starts[i + 1]]`. `totals[q]` counts the different runs of question q."""

    keys: npt.NDArray[np.uint64]
    starts: Numbers
    questions: Numbers
    totals: Numbers


@dataclass(frozen=True, slots=True)
class Found:
    """Different runs of a question that stand in a text, and the place of the first one."""

    question: int
    count: int
    first: int


class Asked:
    """The questions of one kind of script. `ids`, `tokens` and all indexes are in the same order;
    `boilerplate` is how many questions may share a run before it counts for none of them."""

    def __init__(self, questions: Mapping[str, str], spaced: bool) -> None:
        tokenised = {key: tokens_of(text, spaced) for key, text in questions.items()}
        self.spaced = spaced
        self.ids = tuple(key for key, tokens in tokenised.items() if tokens)
        self.tokens = tuple(tokens for tokens in tokenised.values() if tokens)
        self.boilerplate = max(3, len(self.ids) // 10)
        self._runs: dict[tuple[int, bool], Runs] = {}

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        words = dict.fromkeys(word for tokens in self.tokens for word in tokens)
        return {word: number for number, word in enumerate(words, start=1)}

    def encoded(self, tokens: Sequence[str]) -> Numbers:
        """A number for each token: its code point, or its place among the questions' words and 0
        for another word."""
        if self.spaced:
            known = self._vocabulary
            return np.array([known.get(word, 0) for word in tokens], dtype=np.int64)
        whole = "".join(tokens).encode("utf-32-le", "surrogatepass")
        return np.frombuffer(whole, dtype="<u4").astype(np.int64)

    def runs(self, size: int, boilerplate: bool) -> Runs:
        """All runs of `size` tokens of the questions; with `boilerplate` also those many share."""
        if (size, boilerplate) not in self._runs:
            each = [np.unique(hashed(self.encoded(tokens), size)) for tokens in self.tokens]
            if not boilerplate and each:
                shared, counts = np.unique(np.concatenate(each), return_counts=True)
                common = shared[counts > self.boilerplate]
                each = [keys[~np.isin(keys, common)] for keys in each]
            self._runs[size, boilerplate] = _inverted(each)
        return self._runs[size, boilerplate]

    def runs_in(self, text: Numbers, size: int) -> Iterator[Found]:
        """The questions of which the text has runs of `size` tokens, boilerplate aside."""
        runs = self.runs(size, boilerplate=False)
        places, which = _hits(hashed(text, size), runs)
        _, first = np.unique(which, return_index=True)
        for question, count, place in _by_question(runs, which[first], places[first]):
            yield Found(question, count, place)

    def dense_stretches(
        self, text: Numbers, size: int, share: float, length: int, step: int
    ) -> Iterator[tuple[int, int]]:
        """Pairs of a question and the number of a stretch of the text, `[n·step, n·step + length)`,
        that holds at least `share` of the question's runs of `size` tokens. `step` is at least half
        of `length`."""
        runs = self.runs(size, boilerplate=True)
        if not len(runs.keys):
            return
        count = len(range(0, max(1, len(text) - (length - step)), step))
        per_block = max(1, _BLOCK // step)
        for lowest in range(0, count, per_block):
            highest = min(lowest + per_block, count)
            begin, end = lowest * step, min((highest - 1) * step + length, len(text))
            places, which = _hits(hashed(text[begin:end], size), runs)
            places += begin
            later = np.minimum(places // step, highest - 1)
            # A place lies in two stretches where they overlap.
            both = [(later, later * step + length), (later - 1, (later - 1) * step + length)]
            inside = [(of >= lowest) & (places + size <= end_of) for of, end_of in both]
            stretch = np.concatenate([of[ok] for (of, _), ok in zip(both, inside, strict=True)])
            run = np.concatenate([which[ok] for ok in inside])
            pairs = np.unique((stretch - lowest) * len(runs.keys) + run)
            stretch, run = np.divmod(pairs, len(runs.keys))
            lengths = runs.starts[run + 1] - runs.starts[run]
            of = _expanded(runs, run, lengths)
            cells = np.bincount(
                np.repeat(stretch, lengths) * len(self.ids) + of,
                minlength=(highest - lowest) * len(self.ids),
            ).reshape(-1, len(self.ids))
            wanted = np.maximum(share * runs.totals, 1)
            for row, question in np.argwhere(cells >= wanted):
                yield int(question), int(row) + lowest


def hashed(tokens: Numbers, size: int) -> npt.NDArray[np.uint64]:
    """One hash for each run of `size` tokens: Σ token_i · STEP^i modulo 2**64, by doubling."""
    if len(tokens) < size:
        return np.zeros(0, dtype=np.uint64)
    single = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    single ^= single >> np.uint64(31)
    single *= np.uint64(0x94D049BB133111EB)
    total, done = np.zeros(len(tokens) + 1, dtype=np.uint64), 0  # of no tokens, at each place
    power, span = single, 1
    while True:
        if size & span:
            keep = len(power) - done
            total = total[:keep] + _raised(done) * power[done:]
            done += span
        if done == size:
            return total
        power = power[:-span] + _raised(span) * power[span:]
        span *= 2


def _raised(exponent: int) -> np.uint64:
    return np.uint64(pow(int(_STEP), exponent, 1 << 64))


def _inverted(each: Sequence[npt.NDArray[np.uint64]]) -> Runs:
    lengths = [len(keys) for keys in each]
    flat = np.concatenate([np.zeros(0, dtype=np.uint64), *each])
    of = np.repeat(np.arange(len(each)), lengths)
    order = np.argsort(flat, kind="stable")
    keys, starts = np.unique(flat[order], return_index=True)
    return Runs(keys, np.append(starts, len(flat)), of[order], np.array(lengths, dtype=np.int64))


def _hits(text: npt.NDArray[np.uint64], runs: Runs) -> tuple[Numbers, Numbers]:
    """The places in a text at which a run of a question stands, and which one."""
    if not len(runs.keys) or not len(text):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    at = np.searchsorted(runs.keys, text)
    at[at == len(runs.keys)] = 0
    places = np.flatnonzero(runs.keys[at] == text)
    return places, at[places]


def _expanded(runs: Runs, which: Numbers, lengths: Numbers) -> Numbers:
    """The questions of each of these runs, in a row."""
    ends = np.cumsum(lengths)
    offsets = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return np.asarray(runs.questions[np.repeat(runs.starts[which], lengths) + offsets])


def _by_question(runs: Runs, which: Numbers, places: Numbers) -> Iterator[tuple[int, int, int]]:
    lengths = runs.starts[which + 1] - runs.starts[which]
    of = _expanded(runs, which, lengths)
    counts = Counter(of.tolist())
    first: dict[int, int] = {}
    for question, place in zip(of.tolist(), np.repeat(places, lengths).tolist(), strict=True):
        first[question] = min(place, first.get(question, place))
    for question in sorted(counts):
        yield question, counts[question], first[question]
