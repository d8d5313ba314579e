"""Words of a printed page → its text in reading order: columns one after the other, tables as rows.

PDFs store words where they are printed, in any order. Here a page is cut where white space runs
down between two blocks of text (after the recursive X-Y cut of Nagy and Seth, 1984), and a table
is known by its rules or by cells that stand under each other. Units are points; y grows upwards.

>>> arrange(words, grids=[])
[Block(lines=('left column, line 1', …), table=False), …]
"""

from __future__ import annotations

import collections
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_JOINED = 0.7  # of the height: words of one line stand closer than that
_CELL_GAP = 1.5  # of the height: cells stand at least that far apart
_GUTTER = 0.9  # of the height: the least white between two columns
_APART = 3.0  # of the height: white across the page that ends its columns
_MIN_LINES = 4  # in each of two columns
_MIN_ROWS = 3  # of a table without rules
_MIN_WIDTH = 10  # of the height: what a column takes at least, else it holds numbers or labels
_MIN_FILL = 0.6  # how far the middle line of a column fills it: running text does, cells don't
_DEEPEST = 6


class Word(NamedTuple):
    """Text, or a whole table's place, with the box that it is printed in."""

    text: str
    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> float:
        return (self.bottom + self.top) / 2


class Grid(NamedTuple):
    """A table whose cells were found by its rules: its box, and its rows of words by cell."""

    left: float
    bottom: float
    right: float
    top: float
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together: of one column, or the rows of a table."""

    lines: tuple[str, ...]
    table: bool = False


class _Found(NamedTuple):
    blocks: list[Block]
    columns: bool


def arrange(words: Sequence[Word], grids: Sequence[Grid]) -> list[Block]:
    """Blocks in reading order; [] for a page of one column without a table, which needs none.

    `words` are those outside of the grids.
    """
    if not words and not grids:
        return []
    height = statistics.median([w.top - w.bottom for w in words] or [10.0]) or 10.0
    atoms = [segment for line in _lines(words) for segment in _segments(line, _JOINED * height)]
    atoms += [Word(f"\0{index}", *grid[:4]) for index, grid in enumerate(grids)]
    found = _order(atoms, grids, height, _DEEPEST)
    if found.columns or any(block.table for block in found.blocks):
        return found.blocks
    return []


def joined(pieces: Iterable[str]) -> str:
    """Pieces of one cell or line as one text; no space between Japanese characters."""
    text = ""
    for piece in pieces:
        if text and piece and not (text[-1] > "\u2fff" and piece[0] > "\u2fff"):
            text += " "
        text += piece
    return text


def _order(atoms: list[Word], grids: Sequence[Grid], height: float, deeper: int) -> _Found:
    gutter = _gutter(atoms, height) if deeper else None
    if gutter is None:
        return _Found(list(_blocks(atoms, grids, height)), False)
    blocks: list[Block] = []
    rest: list[Word] = []  # above, between and below the columns
    for across, band in _bands(atoms, gutter, height):
        left, right = _sides(band, gutter)
        if across or not _are_columns(left, right, gutter, height):
            rest += band
            continue
        for part in (rest, left, right):
            blocks += _order(part, grids, height, deeper - 1).blocks
        rest = []
    blocks += _order(rest, grids, height, deeper - 1).blocks
    return _Found(blocks, True)


def _sides(band: list[Word], at: float) -> tuple[list[Word], list[Word]]:
    return [word for word in band if word.left < at], [word for word in band if word.left >= at]


def _gutter(atoms: Sequence[Word], height: float) -> float | None:
    """The x just left of the second column, where most lines stand in two columns; else None."""
    edges = collections.Counter(round(atom.left) for atom in atoms)
    best: tuple[int, float] | None = None
    for edge in sorted(edges):
        if sum(edges[edge + near] for near in (-1, 0, 1)) < _MIN_LINES:
            continue
        at = edge - 1.0
        count = 0
        for across, band in _bands(atoms, at, height):
            if not across and _are_columns(*_sides(band, at), at, height):
                count += len(band)
        if count and (best is None or count > best[0]):
            best = (count, at)
    return best[1] if best else None


def _bands(atoms: Sequence[Word], at: float, height: float) -> Iterator[tuple[bool, list[Word]]]:
    """From top to bottom: what stands across `at`, and the runs of what doesn't, cut where white
    space runs across the page: a page's number belongs to none of its columns."""
    band: list[Word] = []
    crosses = False
    bottom = 0.0
    for atom in sorted(atoms, key=lambda one: -one.middle):
        across = atom.left < at < atom.right
        if band and (across != crosses or atom.top < bottom - _APART * height):
            yield crosses, band
            band = []
        bottom = min(bottom, atom.bottom) if band else atom.bottom
        crosses = across
        band.append(atom)
    if band:
        yield crosses, band


def _are_columns(left: list[Word], right: list[Word], at: float, height: float) -> bool:
    """Two blocks of running text side by side, not a table and not numbers before their items."""
    if not left or not right:
        return False
    lines = [_lines(side) for side in (left, right)]
    if min(map(len, lines)) < _MIN_LINES or at + 1 - max(w.right for w in left) < _GUTTER * height:
        return False
    overlap = min(max(w.top for w in side) for side in (left, right)) - max(
        min(w.bottom for w in side) for side in (left, right)
    )
    if overlap < _MIN_LINES * height:
        return False
    for side in lines:
        widths = [max(w.right for w in line) - min(w.left for w in line) for line in side]
        middle = statistics.median(widths)
        if middle < _MIN_WIDTH * height or middle < _MIN_FILL * max(widths):
            return False
    return True


def _blocks(atoms: list[Word], grids: Sequence[Grid], height: float) -> Iterator[Block]:
    """One column from top to bottom: runs of lines, and the tables between them."""
    plain: list[list[Word]] = []
    rows = [
        row if row[0].text[:1] == "\0" else list(_segments(row, _CELL_GAP * height))
        for row in _lines(atoms)
    ]
    index = 0
    while index < len(rows):
        if rows[index][0].text[:1] == "\0":
            yield from _text(plain)
            plain = []
            for atom in rows[index]:
                if atom.text[:1] == "\0":
                    yield Block(_table(grids[int(atom.text[1:])].rows), table=True)
                else:
                    yield Block((atom.text,))
            index += 1
            continue
        columns, end = _aligned(rows, index)
        if end - index >= _MIN_ROWS:
            yield from _text(plain)
            plain = []
            yield Block(_table(_cells(row, columns) for row in rows[index:end]), table=True)
            index = end
        else:
            plain.append(rows[index])
            index += 1
    yield from _text(plain)


def _text(rows: list[list[Word]]) -> Iterator[Block]:
    if rows:
        yield Block(tuple(" ".join(word.text for word in row) for row in rows))


def _table(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(" | ".join(row).rstrip(" |") for row in rows if any(row))


def _aligned(rows: list[list[Word]], first: int) -> tuple[list[tuple[float, float]], int]:
    """The columns that rows from `first` on share, and the row after the last that does."""
    columns = [(word.left, word.right) for word in rows[first]]
    end = first
    if len(columns) < 2:
        return columns, end
    while end < len(rows):
        row = rows[end]
        places = [_overlapped(word, columns) for word in row]
        taken = [place for [place] in places if place is not None] if _single(places) else []
        if len(row) < 2 or len(taken) != len(row) or len(set(taken)) != len(taken):
            break
        for word, place in zip(row, taken, strict=True):
            columns[place] = (
                min(columns[place][0], word.left),
                max(columns[place][1], word.right),
            )
        if any(a[1] >= b[0] for a, b in itertools.pairwise(columns)):
            break
        end += 1
    return columns, end


def _single(places: list[list[int]]) -> bool:
    return all(len(place) == 1 for place in places)


def _overlapped(word: Word, columns: list[tuple[float, float]]) -> list[int]:
    return [i for i, (left, right) in enumerate(columns) if word.left < right and left < word.right]


def _cells(row: list[Word], columns: list[tuple[float, float]]) -> list[str]:
    cells = [""] * len(columns)
    for word in row:
        cells[_overlapped(word, columns)[0]] = word.text
    return cells


def _lines(words: Sequence[Word]) -> list[list[Word]]:
    """Words by printed line, from the top; a line's words from the left."""
    lines: list[list[Word]] = []
    bottom = 0.0
    for word in sorted(words, key=lambda one: -one.middle):
        if lines and word.middle > bottom:
            lines[-1].append(word)
        else:
            lines.append([word])
            # A word belongs to the line while its middle is above this one's lower quarter.
            bottom = word.bottom + (word.top - word.bottom) / 4
    return [sorted(line, key=lambda one: one.left) for line in lines]


def _segments(line: Sequence[Word], gap: float) -> Iterator[Word]:
    """Neighbours closer than `gap` as one; a table's place stays by itself."""
    run: list[Word] = []
    for word in line:
        if run and (word.left - run[-1].right > gap or "\0" in (word.text[:1], run[-1].text[:1])):
            yield _merged(run)
            run = []
        run.append(word)
    if run:
        yield _merged(run)


def _merged(run: list[Word]) -> Word:
    return Word(
        " ".join(word.text for word in run),
        min(word.left for word in run),
        min(word.bottom for word in run),
        max(word.right for word in run),
        max(word.top for word in run),
    )
