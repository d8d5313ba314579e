"""Batch plans: which requests are computed together, as a pure function of the requests.

A result can depend on the shape of its batch, so the plan must not depend on what is already done:
a resumed run repeats whole batches and finds the finished ones by key.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

MIN_SHARED_TOKENS = 8
MASK_CELLS = 2**23  # lanes × width × keys of a batch: 32 MB as float32


@dataclass(frozen=True, slots=True)
class Lanes:
    """One forward pass: the rows of each lane, by index, and the widest lane's tokens."""

    lanes: tuple[tuple[int, ...], ...]
    width: int


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest prefix of all prompts, short of the last token of the shortest."""
    if len(prompts) < 2:
        return 0
    length = min(common(min(prompts), max(prompts)), min(len(p) for p in prompts) - 1)
    return length if length >= MIN_SHARED_TOKENS else 0


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two texts begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def truncate(prompt: tuple[int, ...], room: int) -> tuple[tuple[int, ...], bool]:
    """Keep the first token (BOS) and as much of the end as there is room for."""
    if len(prompt) <= room:
        return prompt, False
    if room < 2:
        return prompt[-1:], True
    return prompt[:1] + prompt[len(prompt) - room + 1 :], True


def packed(sizes: Sequence[int], budget: int, before: int = 0) -> list[Lanes]:
    """Rows laid end to end into lanes as wide as the longest row, lanes into batches.

    Best fit, longest first: hardly anything is padding, and running out of memory shows at once.
    `before` cached tokens stand before every lane: masks of lanes × width × keys are bounded too.
    """
    if not sizes:
        return []
    width = max(sizes)
    lanes: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, lane), least first
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        fits = bisect.bisect_left(room, (sizes[index], 0))
        left, lane = room.pop(fits) if fits < len(room) else (width, len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append(index)
        bisect.insort(room, (left - sizes[index], lane))
    most = max(1, min(budget // width, MASK_CELLS // (width * (before + width))))
    batches = [lanes[start : start + most] for start in range(0, len(lanes), most)]
    return [
        Lanes(tuple(map(tuple, batch)), max(sum(sizes[index] for index in lane) for lane in batch))
        for batch in batches
    ]


def answer_end(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins, once something visible was said; None where none does.

    A base model often breaks the line before it answers; that is no end yet.
    """
    start = len(text) - len(text.lstrip())
    ends = [found for s in stop if (found := text.find(s, start)) >= 0]
    return min(ends) if ends else None
