"""Several rankings fused into one: by their scores, or by weighted reciprocal ranks.

>>> rankings = [
...     Ranking("lexical", 0, 1.0, ["a", "b"], [9.1, 2.0]),
...     Ranking("dense", 0, 0.5, ["b"], [0.83], {"a": 0.79}),
... ]
>>> [fused.item for fused in sum_scores(rankings)], [fused.item for fused in fuse(rankings)]
(['a', 'b'], ['b', 'a'])
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item", bound=Hashable)
Kind = Literal["lexical", "dense", "named"]

# How much a cosine counts beside a lexical score of at most 1: the best MRR on 2,000 questions of
# JaQuAD, which aren't those that `make bench-retrieval` reports, and flat from 3 to 6.
COSINES = 4.0


@dataclass(frozen=True, slots=True)
class Ranking(Generic[Item]):
    """What one search found for the query of that number, best first. `others`: the scores of what
    only other searches found."""

    kind: Kind
    query: int
    weight: float
    items: Sequence[Item]
    scores: Sequence[float]
    others: Mapping[Item, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankPart:
    """One ranking's part in a fused score, `share`. `score` is what that search gives: BM25 (with
    pairs), a cosine, or 1 for a document that is named; `rank` is None where it didn't find the row
    itself."""

    kind: Kind
    query: int
    rank: int | None
    score: float
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Fused(Generic[Item]):
    """`lexical` and `dense` are the best raw scores of the searches that found it."""

    item: Item
    score: float
    lexical: float | None
    dense: float | None
    parts: tuple[RankPart, ...]


def sum_scores(rankings: Sequence[Ranking[Item]], depth: int | None = None) -> list[Fused[Item]]:
    """Score = Σ weight × lexical score / the query's best one + Σ weight × 4 × cosine (+ the weight
    of `named` where a query names the document); the `depth` best (None: all), best first.

    A convex combination of scores, after Bruch, Gai and Ingber (2023), who found it better than
    ranks; here too, where ranks lose to lexical search alone (recall@5 on lawqa_jp's laws 0.855 by
    ranks, 0.865 lexical, 0.874 so). Equal scores: the better single rank first, then the earlier
    ranking.
    """
    best: dict[Item, tuple[int, int]] = {}
    for order, one in enumerate(rankings):
        for rank, item in enumerate(one.items, start=1):
            best[item] = min(best.get(item, (rank, order)), (rank, order))
    scored = [_scored(one) for one in rankings]
    sums = {
        item: round(sum(factor * scores.get(item, 0.0) for factor, scores in scored), 9)
        for item in best
    }
    first = sorted(best, key=lambda item: (-sums[item], best[item]))[:depth]
    return [_fused(item, sums[item], _by_score(item, rankings, scored)) for item in first]


def _scored(one: Ranking[Item]) -> tuple[float, dict[Item, float]]:
    """What a ranking's scores are multiplied by, and the scores."""
    scores = {**one.others, **dict(zip(one.items, one.scores, strict=True))}
    if one.kind == "dense":
        return one.weight * COSINES, scores
    high = max(one.scores, default=0.0)
    return (one.weight / high if high else 0.0), scores


def _by_score(
    item: Item,
    rankings: Sequence[Ranking[Item]],
    scored: Sequence[tuple[float, Mapping[Item, float]]],
) -> list[RankPart]:
    parts = []
    for one, (factor, scores) in zip(rankings, scored, strict=True):
        rank = one.items.index(item) + 1 if item in one.items else None
        if rank is not None or one.kind != "named":
            score = scores.get(item, 0.0)
            parts.append(RankPart(one.kind, one.query, rank, score, one.weight, factor * score))
    return parts


def fuse(
    rankings: Sequence[Ranking[Item]], k: int = 60, depth: int | None = None
) -> list[Fused[Item]]:
    """Score = Σ weight / (k + rank), ranks from 1; the `depth` best (None: all), best first.

    Cormack, Clarke and Büttcher (2009), who set k = 60 and all weights 1. Equal scores: the better
    single rank first, then the earlier ranking.
    """
    scores: dict[Item, float] = {}
    places: dict[Item, list[tuple[int, int]]] = {}
    for order, one in enumerate(rankings):
        for rank, item in enumerate(one.items, start=1):
            scores[item] = scores.get(item, 0.0) + one.weight / (k + rank)
            places.setdefault(item, []).append((rank, order))
    best = sorted(scores, key=lambda item: (-scores[item], min(places[item])))
    return [
        _fused(item, scores[item], [_by_rank(rankings[o], rank, k) for rank, o in places[item]])
        for item in best[:depth]
    ]


def _by_rank(one: Ranking[Item], rank: int, k: int) -> RankPart:
    score, share = one.scores[rank - 1], one.weight / (k + rank)
    return RankPart(one.kind, one.query, rank, score, one.weight, share)


def _fused(item: Item, score: float, parts: Sequence[RankPart]) -> Fused[Item]:
    own = [part for part in parts if part.rank is not None]
    lexical = [part.score for part in own if part.kind == "lexical"]
    dense = [part.score for part in own if part.kind == "dense"]
    return Fused(
        item,
        score,
        max(lexical) if lexical else None,
        max(dense) if dense else None,
        tuple(parts),
    )
