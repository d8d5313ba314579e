"""What is computed together: prompts and options as one tree of tokens, each token once.

ScoreRequests → `Batch`es, a pure function of the requests, so that a resumed run finds its finished
batches by key. Prompts are sorted, so that neighbours share the most:

    system ─ shots ─┬─ passage 1 ─┬─ question a ─┬─ option 1
                    │             │              └─ option 2
                    │             └─ question b ─ …
                    └─ passage 2 ─ …

A *cached prefix* is what more questions share than fit into one row: its keys and values are kept.
A *row* is a subtree in depth-first order, a *lane* is rows side by side.

A token sees its ancestors and itself. In depth-first order the descendants of token j are the
tokens j … end[j] − 1, so token i sees token j of its row just where j ≤ i < end[j].

>>> for group in plan(requests, context_tokens=32_768, budget=2048):
...     for batch in group.batches: ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tokka.models.batches import MIN_SHARED_TOKENS, common, packed, truncate
from tokka.models.protocol import ScoreRequest


@dataclass(frozen=True, slots=True)
class Pick:
    """The token at `column` of its row predicts `target`, a token of an option."""

    column: int
    request: int
    option: int
    target: int


@dataclass(frozen=True, slots=True)
class Row:
    """A subtree below the cached prefix: ids, places in their texts, ends of their subtrees."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    ends: tuple[int, ...]
    picks: tuple[Pick, ...]
    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Lanes of at most `width` tokens each."""

    lanes: tuple[tuple[Row, ...], ...]
    width: int

    @property
    def rows(self) -> Iterator[Row]:
        return (row for lane in self.lanes for row in lane)

    @property
    def requests(self) -> list[int]:
        return [request for row in self.rows for request in row.requests]


@dataclass(slots=True)
class Group:
    """Batches below one cached prefix, the first `len(prefix)` tokens of all their prompts.

    `parent` is the place of the group whose prefix this one extends, −1 where there is none.
    """

    prefix: tuple[int, ...]
    parent: int
    rows: list[Row] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    groups: list[Group]
    keeps: list[tuple[int, ...]]  # prompts after truncation to the context
    truncated: list[bool]


def plan(requests: Sequence[ScoreRequest], context_tokens: int, budget: int) -> Plan:
    """Groups in depth-first order, so that a group's ancestors are computed before it."""
    keeps, cuts = [], []
    for request in requests:
        room = context_tokens - max(len(option) - 1 for option in request.options)
        keep, cut = truncate(request.prompt, room)
        keeps.append(keep)
        cuts.append(cut)
    groups = _Planner(requests, keeps, budget).groups
    for group in groups:
        sizes = [len(row.ids) for row in group.rows]
        group.batches = [
            Batch(tuple(tuple(group.rows[i] for i in lane) for lane in one.lanes), one.width)
            for one in packed(sizes, budget, len(group.prefix))
        ]
    return Plan(groups, keeps, cuts)  # with the empty root: `parent` is a place in this list


class _Planner:
    """Sorted distinct prompts, what neighbours share, and the ranges that become rows."""

    def __init__(
        self, requests: Sequence[ScoreRequest], keeps: Sequence[tuple[int, ...]], budget: int
    ) -> None:
        self.requests = requests
        members: dict[tuple[int, ...], list[int]] = {}
        for index, keep in enumerate(keeps):
            members.setdefault(keep, []).append(index)
        self.prompts = sorted(members)
        self.members = [members[prompt] for prompt in self.prompts]
        arrays = [np.asarray(prompt) for prompt in self.prompts]
        self.shared = [0] + [
            _common_of(a, b) for a, b in pairwise(arrays)
        ]  # with the prompt before
        self.leaves = [
            sum(len(o) - 1 for i in found for o in requests[i].options) for found in self.members
        ]
        self.groups: list[Group] = []
        self._split(budget)

    def _split(self, budget: int) -> None:
        """Ranges of prompts, from the whole downwards: a range that fits becomes a row."""
        self.groups.append(Group((), -1))
        waiting = [(0, len(self.prompts), 0, 0)]  # from, to, cached tokens, group
        while waiting:
            low, high, cached, group = waiting.pop()
            if self._tokens(low, high, cached) <= budget:
                self.groups[group].rows.append(self._row(low, high, cached))
                continue
            if high - low == 1:  # one prompt longer than a batch: all but its end is cached
                end = max(cached, len(self.prompts[low]) - MIN_SHARED_TOKENS)
                if end - cached >= MIN_SHARED_TOKENS:
                    group, cached = self._cache(low, end, group), end
                self.groups[group].rows.append(self._row(low, high, cached))
                continue
            alike = min(self.shared[low + 1 : high])
            end = min(alike, min(len(p) for p in self.prompts[low:high]) - 1)
            if end - cached >= MIN_SHARED_TOKENS:
                group, cached = self._cache(low, end, group), end
            cuts = [low, *(i for i in range(low + 1, high) if self.shared[i] == alike), high]
            parts = list(pairwise(cuts))
            waiting += [(a, b, cached, group) for a, b in reversed(parts)]

    def _cache(self, low: int, end: int, parent: int) -> int:
        self.groups.append(Group(self.prompts[low][:end], parent))
        return len(self.groups) - 1

    def _tokens(self, low: int, high: int, cached: int) -> int:
        own = len(self.prompts[low]) - cached
        rest = sum(len(self.prompts[i]) - max(self.shared[i], cached) for i in range(low + 1, high))
        return own + rest + sum(self.leaves[low:high])

    def _row(self, low: int, high: int, cached: int) -> Row:
        ids: list[int] = []
        places: list[int] = []
        ends: list[int] = []
        open_columns: list[int] = []  # of the path's tokens, from place `cached` on
        picks: list[Pick] = []

        def close(depth: int) -> None:
            while len(open_columns) > depth:
                ends[open_columns.pop()] = len(ids)

        def extend(tokens: Sequence[int]) -> None:
            for token in tokens:
                places.append(cached + len(open_columns))
                open_columns.append(len(ids))
                ids.append(token)
                ends.append(0)

        for i in range(low, high):
            prompt = self.prompts[i]
            close(max(self.shared[i], cached) - cached if i > low else 0)
            extend(prompt[cached + len(open_columns) :])
            depth = len(open_columns)
            options = sorted(
                (option, request, o)
                for request in self.members[i]
                for o, option in enumerate(self.requests[request].options)
            )
            before: tuple[int, ...] = ()
            for option, request, o in options:
                path = option[:-1]
                alike = common(path, before)
                close(depth + alike)
                extend(path[alike:])
                before = path
                last = depth - 1
                picks += [
                    Pick(open_columns[last + j], request, o, target)
                    for j, target in enumerate(option)
                ]
            close(depth)
        close(0)
        members = tuple(m for found in self.members[low:high] for m in found)
        return Row(tuple(ids), tuple(places), tuple(ends), tuple(picks), members)


def _common_of(a: np.ndarray, b: np.ndarray) -> int:
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
