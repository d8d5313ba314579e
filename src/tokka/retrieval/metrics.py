"""How good a ranking is, against the ids that hold the answer (gold): recall@k, MRR, nDCG@k.

A ranking of ids, best first, and its gold ids → numbers from 0 to 1. The ids may be of documents or
of chunks. A document whose passages come several times counts at its first; the others keep their
places, since they take a place in the prompt too. Where no id repeats, the numbers are those of
trec_eval (`recall_k`, `recip_rank`, `ndcg_cut_k`).

>>> measure(["a", "b", "c"], {"b", "x"})["recall@5"]
0.5
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from tokka.errors import UsageError

Metric = Callable[[Sequence[str], Collection[str]], float]


def recall_at(ranking: Sequence[str], gold: Collection[str], k: int) -> float:
    """Share of the gold ids among the first `k`. With one gold id: 1 or 0."""
    wanted = _wanted(gold)
    return len(wanted.intersection(ranking[: _places(k)])) / len(wanted)


def reciprocal_rank(ranking: Sequence[str], gold: Collection[str]) -> float:
    """1 / rank of the first gold id, ranks from 1; 0 where there is none. Its mean over questions
    is MRR (Voorhees 1999, "The TREC-8 Question Answering Track Report")."""
    wanted = _wanted(gold)
    return next((1 / rank for rank, found in enumerate(ranking, 1) if found in wanted), 0.0)


def ndcg_at(ranking: Sequence[str], gold: Collection[str], k: int) -> float:
    """Σ 1 / log₂(1 + rank) over the gold ids among the first `k`, divided by what the best order of
    the same gold ids reaches (Järvelin and Kekäläinen 2002, with gains 0 and 1 and the discount of
    Burges et al. 2005)."""
    wanted = _wanted(gold)
    first: dict[str, int] = {}
    for rank, found in enumerate(ranking[: _places(k)], 1):
        first.setdefault(found, rank)
    reached = math.fsum(_gain(rank) for found, rank in first.items() if found in wanted)
    return reached / math.fsum(_gain(rank) for rank in range(1, min(k, len(wanted)) + 1))


def measure(ranking: Sequence[str], gold: Collection[str]) -> dict[str, float]:
    """All of `METRICS`, in their order. Raises UsageError without gold ids: nothing is right."""
    return {name: metric(ranking, gold) for name, metric in METRICS.items()}


METRICS: dict[str, Metric] = {
    "recall@1": lambda ranking, gold: recall_at(ranking, gold, 1),
    "recall@5": lambda ranking, gold: recall_at(ranking, gold, 5),
    "recall@10": lambda ranking, gold: recall_at(ranking, gold, 10),
    "MRR": reciprocal_rank,
    "nDCG@10": lambda ranking, gold: ndcg_at(ranking, gold, 10),
}


def _gain(rank: int) -> float:
    return 1 / math.log2(1 + rank)


def _wanted(gold: Collection[str]) -> frozenset[str]:
    if isinstance(gold, str) or not gold:
        raise UsageError(
            f"metrics: gold ids must be a collection of at least one id, got {gold!r}; leave out "
            "the questions without document_ids"
        )
    return frozenset(gold)


def _places(k: int) -> int:
    if k < 1:
        raise UsageError(f"metrics: k must be at least 1, got {k}")
    return k
