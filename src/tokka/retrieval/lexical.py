"""BM25 over the rows that a caller may see.

Tokens + view → the k best rows. The score of a row is the sum over what is asked for (a token, or a
phrase of a synonym) of

    weight × idf × (k₁ + 1) · tf / (tf + k₁ · (1 − b + b · length / mean length))
    idf = ln(1 + (N − n + ½) / (n + ½))

after Robertson and Zaragoza (2009, eq. 3.15), with Lucene's idf, which is never negative; k₁ = 0.9,
b = 0.75. N, n and the mean length are counted over the view (see `access`): exact for every caller,
and after every update, without a rebuild.

What one word adds to each row is computed once per view and kept. A word that stands in many rows
is kept as one array over all rows: adding that is ten times quicker than adding at places.

>>> lexical = Lexical()
>>> lexical.search([Asked(("融資",)), Asked(("貸付",), weight=0.5)], 10, view)
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tokka.retrieval.access import View
from tokka.retrieval.dense import NO_HITS, Hits
from tokka.retrieval.packed import Array
from tokka.retrieval.parts import Part

K1, B = 0.9, 0.75  # 0.9: 1.2 points more of JaQuAD's passages first than with 1.2

_KEPT_BYTES = 1 << 27
_COMMON = 1 / 32  # of all rows: from here on, one array over all rows is quicker
_ROUNDING = 4


class Asked(NamedTuple):
    """A token, or several that must stand in a row."""

    words: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one asked thing adds to a row's score: `times` it stands there, `rarity` is its idf."""

    words: tuple[str, ...]
    weight: float
    times: int
    rarity: float
    score: float


class _Gains(NamedTuple):
    """What a word adds to rows: at `rows`, or to all rows where that is None."""

    rows: Array | None
    gains: Array
    rarity: float


class Lexical:
    """BM25 with what it computed before at hand. One for each opened index."""

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[int, tuple[str, ...]], _Gains] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def search(self, asked: Iterable[Asked], k: int, view: View) -> Hits:
        """The k best rows; none when no word is known. Scores are float32 sums in the order of
        `asked`, equal whichever other rows there are."""
        found = [(one.weight, self._gains(one.words, view)) for one in asked]
        found = [(weight, gains) for weight, gains in found if len(gains.gains)]
        if not found or k < 1:
            return NO_HITS
        scores = np.zeros(len(view.table), np.float32)
        fewest: Array | None = None
        for weight, (rows, gains, _) in found:
            added = gains if weight == 1.0 else gains * np.float32(weight)
            if rows is None:
                scores += added
                continue
            scores[rows] += added
            if len(rows) >= k and (fewest is None or len(rows) < len(fewest)):
                fewest = rows
        # At least k rows reach the k-th best of those that hold one of the words.
        floor = scores[fewest] if fewest is not None else None
        least = np.partition(floor, -k)[-k] if floor is not None else np.float32(0)
        rows = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores)
        values = scores[rows]
        if len(rows) > 4 * k:
            high = values >= np.partition(values, -k)[-k]
            rows, values = rows[high], values[high]
        best = view.table.best(rows, values, k)
        return Hits(rows[best], np.round(values[best].astype(np.float64), _ROUNDING))

    def scores(self, asked: Iterable[Asked], rows: Array, view: View) -> Array:
        """BM25 of any rows, shape (rows,): what `search` gives them, however far down."""
        scores = np.zeros(len(rows), np.float32)
        for one in asked:
            known, gains, _ = self._gains(one.words, view)
            if not len(gains):
                continue
            weight = np.float32(one.weight)
            if known is None:
                scores += gains[rows] * weight
            else:
                at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
                scores += np.where(known[at] == rows, gains[at] * weight, np.float32(0))
        return np.round(scores.astype(np.float64), _ROUNDING)

    def explain(self, asked: Iterable[Asked], row: int, view: View) -> list[Share]:
        """What the score of a row is made of, in the order of `asked`."""
        shares = []
        for one in asked:
            rows, gains, rarity = self._gains(one.words, view)
            if rows is not None:
                at = int(np.searchsorted(rows, row))
                gain = float(gains[at]) if at < len(rows) and rows[at] == row else 0.0
            else:
                gain = float(gains[row])
            if gain:
                part, place = view.table.place(row)
                times = _times(part, one.words, place)
                shares.append(
                    Share(
                        one.words,
                        one.weight,
                        times,
                        round(rarity, _ROUNDING),
                        round(one.weight * gain, _ROUNDING),
                    )
                )
        return shares

    def _gains(self, words: tuple[str, ...], view: View) -> _Gains:
        key = (view.serial, words)
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
        gains = _compute(words, view, _norms(view))
        with self._lock:
            self._kept[key] = gains
            self._bytes += _size(gains)
            while self._bytes > self._kept_bytes and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return gains


def _norms(view: View) -> Array:
    """k₁ · (1 − b + b · length / mean length) of each row."""
    if view.norms is None:
        mean = view.tokens / view.documents if view.tokens else 1.0
        view.norms = (K1 * (1 - B + B * view.table.lengths / mean)).astype(np.float32)
    return view.norms


def _compute(words: tuple[str, ...], view: View, norms: Array) -> _Gains:
    found = [
        (first, *_found(part, words))
        for part, first in zip(view.table.parts, view.table.firsts.tolist(), strict=False)
    ]
    if not found:
        return _Gains(None, np.empty(0, np.float32), 0.0)
    rows = np.concatenate([rows.astype(np.int64) + first for first, rows, _ in found])
    times = np.concatenate([times for _, _, times in found]).astype(np.float32)
    if view.counted is not None:
        seen = view.counted[rows]
        rows, times = rows[seen], times[seen]
    holding = len(rows)
    kept = view.keep(rows)
    if kept is not None and view.found is not view.counted:
        rows, times = rows[kept], times[kept]
    if not len(rows):
        return _Gains(rows, times, 0.0)
    rarity = math.log(1 + (view.documents - holding + 0.5) / (holding + 0.5))
    gains = np.float32(rarity * (K1 + 1)) * times / (times + norms[rows])
    if len(rows) < _COMMON * len(view.table):
        return _Gains(rows, gains, rarity)
    over_all = np.zeros(len(view.table), np.float32)
    over_all[rows] = gains
    return _Gains(None, over_all, rarity)


def _found(part: Part, words: tuple[str, ...]) -> tuple[Array, Array]:
    """The rows of a part in which `words` stand one after the other, and how often."""
    rows, times = part.postings(words[0])
    if len(words) == 1 or not len(rows):
        return rows, times
    for word in words[1:]:
        rows = np.intersect1d(rows, part.postings(word)[0], assume_unique=True)
    numbers = [part.terms[word] for word in words] if len(rows) else []
    counts = np.array([_count(part, numbers, row) for row in rows.tolist()], np.int64)
    return rows[counts > 0], counts[counts > 0]


def _times(part: Part, words: tuple[str, ...], row: int) -> int:
    return _count(part, [part.terms[word] for word in words], row)


def _count(part: Part, numbers: Sequence[int], row: int) -> int:
    first, last = part.arrays["token_starts"][row : row + 2]
    said = part.arrays["tokens"][first:last]
    size = len(said) - len(numbers) + 1
    if size < 1:
        return 0
    stands = np.ones(size, bool)
    for i, number in enumerate(numbers):
        stands &= said[i : i + size] == number
    return int(np.count_nonzero(stands))


def _size(gains: _Gains) -> int:
    return gains.gains.nbytes + (0 if gains.rows is None else gains.rows.nbytes) + 200
