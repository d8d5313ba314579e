"""Batch plans: which requests are computed together, as a pure function of the requests.

A result can depend on the shape of its batch, so the plan must not depend on what is already done:
a resumed run repeats whole batches and finds the finished ones by key.
"""

from __future__ import annotations

from collections.abc import Sequence

MIN_SHARED_TOKENS = 8


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest prefix of all prompts, short of the last token of the shortest."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    limit = min(len(p) for p in prompts) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length if length >= MIN_SHARED_TOKENS else 0


def truncate(prompt: tuple[int, ...], room: int) -> tuple[tuple[int, ...], bool]:
    """Keep the first token (BOS) and as much of the end as there is room for."""
    if len(prompt) <= room:
        return prompt, False
    if room < 2:
        return prompt[-1:], True
    return prompt[:1] + prompt[len(prompt) - room + 1 :], True


def by_budget(widths: Sequence[int], budget: int, most: int = 64) -> list[list[int]]:
    """Indices grouped by similar width: longest first, padded tokens of a group within the budget.

    Longest first, so that running out of memory shows at once and estimates err on the safe side.
    """
    order = sorted(range(len(widths)), key=lambda i: (-widths[i], i))
    groups: list[list[int]] = []
    for index in order:
        if groups:
            group = groups[-1]
            padded = widths[group[0]] * (len(group) + 1)
            if padded <= budget and len(group) < most:
                group.append(index)
                continue
        groups.append([index])
    return groups


def answer_end(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins, once something visible was said; None where none does.

    A base model often breaks the line before it answers; that is no end yet.
    """
    start = len(text) - len(text.lstrip())
    ends = [found for s in stop if (found := text.find(s, start)) >= 0]
    return min(ends) if ends else None
