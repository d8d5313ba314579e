"""Lessons of a batch end to end in one lane, without padding; what begins alike is laid down once.

Two lessons with the same prompt, or the same system message, share the tokens of it: attention is
causal, so what a token knows depends on nothing after it, and loss and gradients are those of the
lessons one by one (tests/training/test_step.py). `ends` says what sees what: token i sees the
tokens j ≤ i < ends[j]. No torch here.

>>> pack([Lesson("a", (1, 5, 6, 2), ((2, 4),)), Lesson("b", (1, 7, 2), ((1, 3),))]).ends
[4, 4, 4, 4, 7, 7, 7]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokka.training.lessons import Lesson, common

# Shorter beginnings, BOS above all, cost more in gaps between keys than their tokens take.
MIN_SHARED = 16


@dataclass(frozen=True, slots=True)
class Packed:
    """By column: `ids`, `places` in their texts, `ends`. By learnt token: the column that
    foretells it (`picks`) and its id (`targets`)."""

    ids: list[int]
    places: list[int]
    ends: list[int]
    picks: list[int]
    targets: list[int]


def pack(lessons: Sequence[Lesson], share: bool = True) -> Packed:
    ids: list[int] = []
    places: list[int] = []
    ends: list[int] = []
    picks: list[int] = []
    targets: list[int] = []
    path: list[int] = []  # the columns of the last lesson's tokens
    last: tuple[int, ...] = ()

    def close(depth: int) -> None:
        for column in path[depth:]:
            ends[column] = len(ids)
        del path[depth:]

    for item in sorted(lessons, key=lambda one: one.ids) if share else lessons:
        shared = common(last, item.ids) if share else 0
        close(shared if shared >= MIN_SHARED else 0)
        for depth in range(len(path), len(item.ids)):
            path.append(len(ids))
            ids.append(item.ids[depth])
            places.append(depth)
            ends.append(0)
        for start, stop in item.learnt:
            picks += path[start - 1 : stop - 1]
            targets += item.ids[start:stop]
        last = item.ids
    close(0)
    return Packed(ids, places, ends, picks, targets)
