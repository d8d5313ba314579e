"""Ruled lines of a page → the tables that they draw, with the words in their cells.

Lines that touch belong together; where they part at least two columns, they are a table. Cells
between which no line runs are one cell, whose text every row of it repeats.

>>> tables, rest = grids(lines, words)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tokka.corpus.layout import Grid, Word, joined

_NEAR = 2.5  # points: lines closer than that are one, as are the two sides of a thin bar
_MOST_LINES = 1000
_PARALLEL_LINES = 3


class Line(NamedTuple):
    """From (x0, y0) to (x1, y1), level or upright, with x0 <= x1 and y0 <= y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def level(self) -> bool:
        return self.x1 - self.x0 > self.y1 - self.y0


def grids(lines: Sequence[Line], words: Sequence[Word]) -> tuple[list[Grid], list[Word]]:
    """The tables, and the words outside of them. Drawings of more than 1,000 lines have none."""
    if len(lines) > _MOST_LINES or len(lines) < 4:
        return [], list(words)
    found: list[Grid] = []
    rest = list(words)
    for group in _touching(lines):
        xs, ys = _edges(group)
        if len(xs) < 3 or len(ys) < 2:
            continue
        inside = [
            word
            for word in rest
            if xs[0] <= (word.left + word.right) / 2 <= xs[-1] and ys[0] <= word.middle <= ys[-1]
        ]
        rows = _rows(group, xs, ys[::-1], inside)
        if sum(1 for row in rows for cell in row if cell) < 2:
            continue
        found.append(Grid(xs[0], ys[0], xs[-1], ys[-1], tuple(map(tuple, rows))))
        taken = set(map(id, inside))
        rest = [word for word in rest if id(word) not in taken]
    return found, rest


def _touching(lines: Sequence[Line]) -> list[list[Line]]:
    """Groups of lines that meet, directly or through others."""
    groups: list[list[Line]] = []
    for line in lines:
        met = [group for group in groups if any(_meet(line, other) for other in group)]
        merged = [line, *(other for group in met for other in group)]
        groups = [group for group in groups if not any(group is one for one in met)] + [merged]
    return groups


def _meet(a: Line, b: Line) -> bool:
    return (
        a.x0 - _NEAR <= b.x1
        and b.x0 - _NEAR <= a.x1
        and a.y0 - _NEAR <= b.y1
        and b.y0 - _NEAR <= a.y1
    )


def _edges(group: Sequence[Line]) -> tuple[list[float], list[float]]:
    """The x of its columns' borders and the y of its rows', ascending; open sides included."""
    level = [line for line in group if line.level]
    upright = [line for line in group if not line.level]
    if not level or not upright:
        return [], []
    xs = [line.x0 for line in upright]
    xs += [min(line.x0 for line in level), max(line.x1 for line in level)]
    ys = [line.y0 for line in level]
    ys += [min(line.y0 for line in upright), max(line.y1 for line in upright)]
    return _distinct(xs), _distinct(ys)


def _distinct(values: list[float]) -> list[float]:
    kept: list[float] = []
    for value in sorted(values):
        if not kept or value - kept[-1] > _NEAR:
            kept.append(value)
    return kept


def _rows(
    group: Sequence[Line], xs: list[float], ys: list[float], words: list[Word]
) -> list[list[str]]:
    """Texts by cell; `ys` from the top. A cell over several rows is repeated in each, one over
    several columns stands in its first."""
    height, width = len(ys) - 1, len(xs) - 1
    owner = {(r, c): (r, c) for r in range(height) for c in range(width)}

    def root(cell: tuple[int, int]) -> tuple[int, int]:
        while owner[cell] != cell:
            cell = owner[cell]
        return cell

    for r in range(height):
        for c in range(width):
            x, y = (xs[c] + xs[c + 1]) / 2, (ys[r] + ys[r + 1]) / 2
            if c + 1 < width and not _wall(group, xs[c + 1], y, level=False):
                owner[max(root((r, c + 1)), root((r, c)))] = min(root((r, c + 1)), root((r, c)))
            if r + 1 < height and not _wall(group, ys[r + 1], x, level=True):
                owner[max(root((r + 1, c)), root((r, c)))] = min(root((r + 1, c)), root((r, c)))
    held: dict[tuple[int, int], list[Word]] = {}
    for word in words:
        x = (word.left + word.right) / 2
        r = next((r for r in range(height) if word.middle >= ys[r + 1]), height - 1)
        c = next((c for c in range(width) if x <= xs[c + 1]), width - 1)
        held.setdefault(root((r, c)), []).append(word)
    lines = {cell: _lines(inside) for cell, inside in held.items()}
    rows: list[list[str]] = []
    for r in range(height):
        cells = [root((r, c)) for c in range(width)]
        shown = [lines.get(cell, []) if cell[1] == c else [] for c, cell in enumerate(cells)]
        counts = {len(texts) for texts in shown if texts}
        if len(counts) == 1 and max(counts) >= _PARALLEL_LINES and all(shown):
            rows += [list(row) for row in zip(*shown, strict=True)]  # rows without rules between
        else:
            rows.append([joined(texts) for texts in shown])
    return rows


def _wall(group: Sequence[Line], at: float, along: float, *, level: bool) -> bool:
    """Whether a line runs at `at` (y of a level one, x of an upright one) past `along`."""
    for line in group:
        if line.level != level:
            continue
        place = line.y0 if level else line.x0
        begin, end = (line.x0, line.x1) if level else (line.y0, line.y1)
        if abs(place - at) <= _NEAR and begin - _NEAR <= along <= end + _NEAR:
            return True
    return False


def _lines(words: list[Word]) -> list[str]:
    """The text of a cell by printed line."""
    lines: list[list[Word]] = []
    for word in sorted(words, key=lambda one: (-one.middle, one.left)):
        if lines and word.middle > lines[-1][0].bottom:
            lines[-1].append(word)
        else:
            lines.append([word])
    return [" ".join(w.text for w in sorted(line, key=lambda one: one.left)) for line in lines]
