"""What stands where on a PDF page: words with their boxes, ruled lines, pictures.

PDFium's page → `layout`'s words and `rules`' lines. Raw calls, since pypdfium2's own take ten times
as long for a page of two thousand characters.

>>> arrange_page(page, page.get_textpage())
[Block(lines=('区分 | 手数料', '窓口 | 330円'), table=True)]
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from tokka.corpus.layout import Block, Word, arrange
from tokka.corpus.rules import Line, grids
from tokka.extras import require

_MOST_CHARACTERS = 30_000  # a page of more is a drawing or a list without end
_MOST_PATHS = 2_000
_STRAIGHT = 1.0  # points that a level or upright line may lean
_SHORTEST = 5.0
_WHITE = frozenset(map(ord, " \t\r\n\u00a0\u3000"))


def arrange_page(page: Any, text_page: Any) -> list[Block]:
    """The page's blocks in reading order, [] where PDFium's own text is as good: one column and no
    table, turned pages, upright writing."""
    raw = require("pypdfium2.raw", extra="read")
    if page.get_rotation() or text_page.count_chars() > _MOST_CHARACTERS:
        return []
    words = list(_words(raw, text_page))
    upright = sum(len(w.text) > 1 and w.top - w.bottom > 3 * (w.right - w.left) for w in words)
    if upright > len(words) / 4:
        return []
    found, rest = grids(_ruled(raw, page), words)
    return arrange(rest, found)


def has_picture(page: Any) -> bool:
    raw = require("pypdfium2.raw", extra="read")
    return any(item.type == raw.FPDF_PAGEOBJ_IMAGE for item in page.get_objects(max_depth=3))


def _words(raw: Any, text_page: Any) -> Iterator[Word]:
    """Runs of characters without white space that stand beside each other."""
    box = raw.FS_RECTF()
    here = ctypes.byref(box)
    text, left, bottom, right, top = "", 0.0, 0.0, 0.0, 0.0
    for index in range(text_page.count_chars()):
        code = raw.FPDFText_GetUnicode(text_page, index)
        known = code not in _WHITE and raw.FPDFText_GetLooseCharBox(text_page, index, here)
        if not known or code == 0:
            if text:
                yield Word(text, left, bottom, right, top)
            text = ""
            continue
        character = chr(code)
        height = top - bottom
        beside = box.bottom < top and bottom < box.top and box.left - right < max(height, 1.0)
        if text and beside and box.left >= left - 1:
            text += character
            left, right = min(left, box.left), max(right, box.right)
            bottom, top = min(bottom, box.bottom), max(top, box.top)
            continue
        if text:
            yield Word(text, left, bottom, right, top)
        text, left, bottom, right, top = character, box.left, box.bottom, box.right, box.top
    if text:
        yield Word(text, left, bottom, right, top)


def _ruled(raw: Any, page: Any) -> list[Line]:
    """Level and upright lines of the page's paths, those that continue each other as one."""
    lines: list[Line] = []
    paths = page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=1)
    for count, path in enumerate(paths):
        if count >= _MOST_PATHS:
            return []
        lines += _straight(raw, path)
    return _continued(lines)


def _straight(raw: Any, path: Any) -> Iterator[Line]:
    matrix = path.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    start = at = (0.0, 0.0)
    for index in range(min(raw.FPDFPath_CountSegments(path), _MOST_PATHS)):
        segment = raw.FPDFPath_GetPathSegment(path, index)
        if not raw.FPDFPathSegment_GetPoint(segment, x, y):
            continue
        point = matrix.on_point(x.value, y.value)
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            start = point
        elif kind == raw.FPDF_SEGMENT_LINETO:
            yield from _level_or_upright(at, point)
        at = point
        if raw.FPDFPathSegment_GetClose(segment):
            yield from _level_or_upright(at, start)
            at = start


def _level_or_upright(a: tuple[float, float], b: tuple[float, float]) -> Iterator[Line]:
    (x0, x1), (y0, y1) = sorted((a[0], b[0])), sorted((a[1], b[1]))
    if y1 - y0 <= _STRAIGHT and x1 - x0 >= _SHORTEST:
        yield Line(x0, (y0 + y1) / 2, x1, (y0 + y1) / 2)
    elif x1 - x0 <= _STRAIGHT and y1 - y0 >= _SHORTEST:
        yield Line((x0 + x1) / 2, y0, (x0 + x1) / 2, y1)


def _continued(lines: list[Line]) -> list[Line]:
    """Tables draw each cell's border; pieces of one straight line become one."""
    kept: list[Line] = []
    keyed = [((line.level, round(line.y0 if line.level else line.x0)), line) for line in lines]
    previous: tuple[bool, int] | None = None
    for key, line in sorted(keyed, key=lambda one: (one[0], one[1])):
        last = kept[-1] if kept and key == previous else None
        previous = key
        if last and line.level and line.x0 <= last.x1 + _STRAIGHT:
            kept[-1] = Line(last.x0, last.y0, max(last.x1, line.x1), last.y1)
        elif last and not line.level and line.y0 <= last.y1 + _STRAIGHT:
            kept[-1] = Line(last.x0, last.y0, last.x1, max(last.y1, line.y1))
        else:
            kept.append(line)
    return kept
