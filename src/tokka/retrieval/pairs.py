"""Words that stand side by side in the query and in the text: the best rows, put in a better order.

For the first rows of a lexical search, each pair of adjacent tokens of the query that stands so in
a row adds ln(1 + (n − df + ½) / (df + ½)): n is the number of these rows, df of those that hold the
pair. It is the ordered window of the sequential dependence model (Metzler and Croft 2005), with the
rarity counted among the rows that were found; so nothing is counted that the caller may not see.
JaQuAD's recall@1 rises from 0.829 to 0.856 (2,000 questions, 11,144 passages).

>>> found = pairs_in(tokens("融資の限度額", "ja"), hits.rows, view)
>>> hits.scores + found.sums()
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokka.retrieval.access import View
from tokka.retrieval.packed import Array
from tokka.retrieval.parts import Part

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pairs:
    """`holds[i, j]`: whether row i holds pair j; `rarity[j]` is what that adds."""

    pairs: tuple[Pair, ...]
    holds: Array
    rarity: Array

    def sums(self) -> Array:
        """What the pairs add to each row, shape (rows,)."""
        out = np.zeros(len(self.holds))
        # One after the other: a product of matrices would round by how many rows there are.
        for j, rarity in enumerate(self.rarity.tolist()):
            out += np.where(self.holds[:, j], rarity, 0.0)
        return out


def pairs_in(words: Sequence[str], rows: Array, view: View) -> Pairs:
    """Which pairs of adjacent `words` stand side by side in which of `rows`."""
    pairs = tuple(dict.fromkeys(itertools.pairwise(words)))
    holds = np.zeros((len(rows), len(pairs)), bool)
    firsts = view.table.firsts
    for part, first in zip(view.table.parts, firsts.tolist(), strict=False):
        mine = np.flatnonzero((rows >= first) & (rows < first + len(part)))
        if len(mine) and pairs:
            holds[mine] = _held(part, pairs, rows[mine] - first)
    holding = holds.sum(axis=0)
    return Pairs(pairs, holds, np.log(1 + (len(rows) - holding + 0.5) / (holding + 0.5)))


def _held(part: Part, pairs: Sequence[Pair], rows: Array) -> Array:
    holds = np.zeros((len(rows), len(pairs)), bool)
    starts, said = part.arrays["token_starts"], part.arrays["tokens"]
    spans = zip(starts[rows].tolist(), starts[rows + 1].tolist(), strict=True)
    pieces = [said[first:last] for first, last in spans]
    ends = np.cumsum([len(piece) for piece in pieces])
    joined = np.concatenate(pieces)
    for j, (one, other) in enumerate(pairs):
        a, b = part.terms.get(one), part.terms.get(other)
        if a is None or b is None:
            continue
        at = np.flatnonzero((joined[:-1] == a) & (joined[1:] == b))
        row = np.searchsorted(ends, at, side="right")
        holds[row[at + 1 < ends[row]], j] = True  # not from one row's end into the next
    return holds
