"""Which rows a caller may see, and the numbers that a search is scored by.

Index parts + Caller → `View`. Everything that a search computes is computed over a view: which rows
it finds, how rare a word is, how long a text is on average. So a caller gets what an index of only
the visible documents would give, to the last bit of each score; a removed row is one that nobody
may see. (Term statistics over all rows would tell a patient caller which words stand in documents
that are hidden from him: that is why this index has its own BM25, and takes no counts from a
library's.)

Ties are settled by document and place, never by row number, which depends on the history of the
index and counts hidden rows.

>>> table = Table([part], [None])
>>> view = table.view(Caller(labels=("staff",)), {"language": "ja"})
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tokka.records import Caller, Chunk
from tokka.retrieval.filters import Wanted
from tokka.retrieval.packed import Array
from tokka.retrieval.parts import Line, Part

_VIEWS = 64
_LINES = 4096

_serials = itertools.count()


class View:
    """`counted`: the rows that the caller may see, which all statistics are of; `found`: those of
    them that the search may return. Shape (rows,), True where it is so; None: all rows."""

    def __init__(self, table: Table, counted: Array | None, found: Array | None) -> None:
        self.table = table
        self.serial = next(_serials)
        self.norms: Array | None = None  # of BM25, see `lexical`
        self.pointers: Any = None  # of references, see `passages`
        self.titles: Any = None  # that a query may name, see `passages`
        self.counted, self.found = counted, found
        lengths = table.lengths if counted is None else table.lengths[counted]
        self.documents = len(lengths)
        self.tokens = int(lengths.sum())

    def count(self, rows: Array) -> int:
        """How many of `rows` are counted."""
        return len(rows) if self.counted is None else int(np.count_nonzero(self.counted[rows]))

    def keep(self, rows: Array) -> Array | None:
        """Which of `rows` may be found; None: all."""
        return None if self.found is None else self.found[rows]

    def finds(self, row: int) -> bool:
        return self.found is None or bool(self.found[row])

    def rows(self) -> Array:
        """The rows that may be found, by document and place."""
        table = self.table
        rows = np.arange(len(table)) if self.found is None else np.flatnonzero(self.found)
        return rows[np.argsort(table.order[rows])]


class Table:
    """The rows of all parts, numbered through. Chunks and facts are read when asked for."""

    def __init__(self, parts: Sequence[Part], live: Sequence[Array | None]) -> None:
        self.parts = tuple(parts)
        sizes = [len(part) for part in parts]
        self.firsts = np.cumsum([0, *sizes])
        self.live = (
            None
            if all(some is None for some in live)
            else _joined(
                [
                    np.ones(size, bool) if some is None else some
                    for size, some in zip(sizes, live, strict=True)
                ],
                bool,
            )
        )
        self.lengths = _joined(
            [p.arrays.get("lengths", np.zeros(len(p), np.int32)) for p in parts], np.int32
        )
        groups = dict.fromkeys(group for part in parts for group in part.groups)
        self._groups = tuple(groups)
        number = {group: i for i, group in enumerate(self._groups)}
        self._group = _joined(
            [
                np.array([number[g] for g in part.groups], np.int32)[part.arrays["group"]]
                for part in parts
            ],
            np.int32,
        )
        self._views: OrderedDict[Hashable, View] = OrderedDict()
        self._lock = threading.Lock()
        self.line = functools.lru_cache(maxsize=_LINES)(self._line)

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def view(self, caller: Caller, where: Mapping[str, str]) -> View:
        """Kept for the next search of a caller who may see the same. Raises UsageError for a
        `where` that can't be read."""
        seen = tuple(
            caller.may_see(chunk) and caller.may_see(whole) for chunk, whole in self._groups
        )
        key = (seen, tuple(sorted(where.items())))
        with self._lock:
            if key in self._views:
                self._views.move_to_end(key)
                return self._views[key]
        counted = self.live
        if not all(seen):
            visible = np.array(seen, bool)[self._group]
            counted = visible if counted is None else counted & visible
        found = counted
        if where:
            matching = self._matching(Wanted.read(where), counted)
            found = matching if counted is None else counted & matching
        view = View(self, counted, found)
        with self._lock:
            self._views[key] = view
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return view

    def place(self, row: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self.firsts, row, side="right")) - 1
        return self.parts[number], row - int(self.firsts[number])

    def title(self, row: int) -> str:
        """The title of the row's document."""
        part, at = self.place(row)
        return part.titles[int(part.arrays["document"][at])]

    def rows_of(self, document_id: str, view: View) -> Array:
        """The rows of a document that the view finds."""
        rows = []
        for part, first in zip(self.parts, self.firsts.tolist(), strict=False):
            if (number := part.numbers.get(document_id)) is not None:
                rows.append(np.flatnonzero(part.arrays["document"] == number) + first)
        found = _joined(rows, np.int64)
        kept = view.keep(found)
        return found if kept is None else found[kept]

    def documents_of(self, view: View) -> dict[str, str]:
        """Id → title of the documents of which the view finds a row."""
        titles: dict[str, str] = {}
        for part, first in zip(self.parts, self.firsts.tolist(), strict=False):
            document = part.arrays["document"]
            if view.found is not None:
                document = document[view.found[first : first + len(part)]]
            for number in np.unique(document).tolist():
                titles[part.document_ids[number]] = part.titles[number]
        return titles

    def __getitem__(self, row: int) -> Chunk:
        return self.line(row).chunk

    def headings(self, row: int) -> tuple[str, ...]:
        part, at = self.place(row)
        return part.headings[int(part.arrays["headings"][at])]

    @functools.cached_property
    def order(self) -> Array:
        """Place of each row when ties are settled, shape (rows,)."""
        ids = sorted({name for part in self.parts for name in part.document_ids})
        rank = {name: i for i, name in enumerate(ids)}
        document = _joined(
            [
                np.array([rank[name] for name in part.document_ids], np.int64)[
                    part.arrays["document"]
                ]
                for part in self.parts
            ],
            np.int64,
        )
        start = _joined([part.arrays["start"] for part in self.parts], np.int64)
        digest = _joined(
            [part.arrays["digests"][:, :8].copy().view(np.uint64)[:, 0] for part in self.parts],
            np.uint64,
        )
        order = np.empty(len(self), np.int64)
        order[np.lexsort((digest, start, document))] = np.arange(len(self))
        return order

    def best(self, rows: Array, scores: Array, k: int) -> Array:
        """The k best of `rows`, as positions in it: higher scores first, ties in their order."""
        return np.lexsort((self.order[rows], -scores))[:k]

    def _matching(self, wanted: Wanted, counted: Array | None) -> Array:
        """The rows whose documents have the wanted facts; documents with no row that counts are
        not even read."""
        matching = []
        for part, first in zip(self.parts, self.firsts.tolist(), strict=False):
            document = part.arrays["document"]
            some = document if counted is None else document[counted[first : first + len(part)]]
            whole = np.zeros(len(part.document_ids), bool)
            for number in np.unique(some).tolist():
                whole[number] = wanted.matches(part.facts(number))
            matching.append(whole[document])
        return _joined(matching, bool)

    def _line(self, row: int) -> Line:
        part, at = self.place(row)
        return part.read(at)


def _joined(arrays: Sequence[Array], dtype: type) -> Array:
    return np.concatenate(arrays).astype(dtype) if arrays else np.empty(0, dtype)
