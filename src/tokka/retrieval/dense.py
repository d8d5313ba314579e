"""Nearest vectors by cosine: every visible row is looked at, in 8 bits; the best in full.

Vectors → `quantise` → codes; codes, vectors, view → the k nearest rows. The scan runs in numkong,
usearch's own kernels. No graph: one that spans hidden or removed rows finds fewer than there are,
and its answers would change with them. The 8-bit scan keeps k × `_KEPT` rows, whose cosines are
then computed in float64, so a row's score doesn't depend on which others were looked at.

>>> codes, scales = quantise(embedder.passages(["融資の限度額は300万円。"]))
>>> nearest(parts, embedder.queries(["いくらまで借りられるか"])[0], 10, view)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokka.extras import require
from tokka.retrieval.access import View
from tokka.retrieval.packed import Array
from tokka.retrieval.parts import Part

_KEPT = 8  # times k: recall 1.0000 of the exact 50 best at 100,000 rows
_AT_LEAST = 256
_FEW = 0.125  # of the rows visible: cheaper to gather them than to scan all
_ROUNDING = 6
_LEVELS = 127


@dataclass(frozen=True, slots=True)
class Hits:
    """Rows and their scores, best first."""

    rows: Array
    scores: Array


NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float64))


def quantise(vectors: Array) -> tuple[Array, Array]:
    """float32 (n, d) → codes int8 (n, d) and scales float32 (n): vector ≈ scale × code."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scales = np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def nearest(vector: Array, k: int, view: View) -> Hits:
    """The k visible rows nearest to `vector`, shape (dimensions,); scores are cosines."""
    if k < 1 or not view.documents:
        return NO_HITS
    rows = None if view.found is None else np.flatnonzero(view.found)
    near = _scan(view.table.parts, vector, view, rows)
    if rows is None:
        rows = np.arange(len(near))
    kept = max(_KEPT * k, _AT_LEAST)
    if len(rows) > kept:
        # All that are equal to the last one stay in.
        kept_rows = near >= np.partition(near, -kept)[-kept]
        rows = rows[kept_rows]
    scores = np.round(_cosines(view, rows, vector), _ROUNDING)
    best = view.table.best(rows, scores, k)
    return Hits(rows[best], scores[best])


def cosines(vector: Array, rows: Array, view: View) -> Array:
    """The cosines of any rows, shape (rows,): what `nearest` gives them, however far down."""
    order = np.argsort(rows)
    out = np.empty(len(rows))
    out[order] = np.round(_cosines(view, rows[order], vector), _ROUNDING)
    return out


def _scan(parts: Sequence[Part], vector: Array, view: View, rows: Array | None) -> Array:
    """What the codes say of each of `rows` (None: all): proportional to the cosine, nearly."""
    numkong = require("numkong", extra="retrieval")
    code = quantise(np.asarray(vector, np.float32)[None, :])[0]
    few = rows is not None and len(rows) < _FEW * len(view.table)
    out = []
    for part, first in zip(parts, view.table.firsts.tolist(), strict=False):
        codes, scales = part.vectors["codes"], part.vectors["scales"]
        mine = None if rows is None else _of(part, first, rows) - first
        if few and mine is not None:
            codes, scales, mine = codes[mine], scales[mine], None
        if len(codes):
            dots = np.asarray(numkong.cdist(codes, code, "dot"), np.float64)[:, 0] * scales
            out.append(dots if mine is None else dots[mine])
    return np.concatenate(out) if out else np.empty(0)


def _of(part: Part, first: int, rows: Array) -> Array:
    """Those of the ascending `rows` that are the part's."""
    low, high = np.searchsorted(rows, (first, first + len(part)))
    return rows[low:high]


def _cosines(view: View, rows: Array, vector: Array) -> Array:
    wide = np.asarray(vector, np.float64)
    out = []
    for part, first in zip(view.table.parts, view.table.firsts.tolist(), strict=False):
        mine = _of(part, first, rows) - first
        out.append(part.vectors["vectors"][mine].astype(np.float64) @ wide)
    return np.concatenate(out) if out else np.empty(0)
