"""XLSX → one `Document`: a section for each sheet, its rows with the header repeated, as in CSV.

Formulas are read as the values that were last computed. A row of a merged cell repeats its text.

>>> [document] = read(File(Path("fees.xlsx"), "fees.xlsx"))
>>> document.text
'# 手数料\\n\\n区分: 窓口 | 手数料: 330\\n…'
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from tokka.corpus.documents import build
from tokka.corpus.encoding import tidy
from tokka.corpus.limits import File
from tokka.corpus.table import labelled
from tokka.corpus.zipped import broken, check_package
from tokka.errors import ItemError
from tokka.extras import require
from tokka.records import Document, Dropped

_MOST_EMPTY_ROWS = 10_000  # in a row; a sheet that was formatted to its end has a million
_MOST_COLUMNS = 2_000
_MOST_MERGES = 20_000
_ERRORS = frozenset({"#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A"})
_PERCENT = re.compile(r"0(?:\.(0+))?%")


def read(file: File) -> Iterator[Document | Dropped]:
    """Hidden sheets are left out and said so. Raises ItemError for an encrypted, broken or empty
    file."""
    openpyxl = require("openpyxl", extra="read")
    check_package(file, "xlsx")
    parts: list[str] = []
    names: list[str] = []
    left: list[Dropped] = []
    try:
        book = openpyxl.load_workbook(file.path, read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                left.append(_left_out(file, sheet.title, "is hidden", "show it to have it read"))
                continue
            lines = list(_sheet(file, sheet, left))
            if any(lines):
                names.append(sheet.title)
                parts.append(
                    f"# {' '.join(sheet.title.split())}\n\n" + "\n".join(lines).strip("\n")
                )
        facts = book.properties
        metadata = {
            "author": facts.creator,
            "subject": facts.subject,
            "date": facts.modified.date() if facts.modified else "",
            "sheet": ", ".join(names),
        }
        title = facts.title or ""
        book.close()
    except (ItemError, MemoryError):
        raise
    except Exception as error:  # zipfile, the XML parsers and openpyxl each raise their own
        raise broken(file, "xlsx", error) from error
    yield from left
    if not parts:
        raise ItemError(f"read: {file.id} is empty; fill it or list it under skip")
    yield build(
        tidy("\n\n".join(parts) + "\n"),
        file.id,
        title=title or file.name.rsplit(".", 1)[0],
        language=file.language,
        metadata=metadata,
    )


def _left_out(file: File, name: str, why: str, action: str) -> Dropped:
    return Dropped(
        item=f"{file.id}#{name}",
        reason=f"xlsx: the sheet {name} of {file.id} {why}",
        stage="read",
        next_action=action,
    )


def _sheet(file: File, sheet: Any, left: list[Dropped]) -> Iterator[str]:
    """Lines: a block of rows between empty ones is a table, or lines of one cell each."""
    covers = _merged(sheet)
    sheet.reset_dimensions()  # what a file says of its size may be a million rows too many
    header: list[str] = []
    block: list[list[str]] = []
    texts: dict[tuple[int, int], str] = {}
    empty = 0
    for number, row in enumerate(sheet.iter_rows(), start=1):
        if number % 1000 == 0:
            file.watch.alive()
        cells = [_text(cell) for cell in row[:_MOST_COLUMNS]]
        cells = _filled(cells, number, covers, texts)
        if any(cells):
            block.append(cells)
            empty = 0
            continue
        empty += 1
        if block:
            header = yield from _block(block, header)
            block = []
        if empty > _MOST_EMPTY_ROWS:
            why = f"has more than {_MOST_EMPTY_ROWS:,} empty rows from row {number - empty + 1} on"
            left.append(_left_out(file, sheet.title, why, "delete them if more stands below"))
            break
    if block:
        yield from _block(block, header)


def _block(rows: list[list[str]], header: list[str]) -> Generator[str, None, list[str]]:
    """Lines of one block; returns the header that holds after it.

    Lines of a single cell at the top are its title. The first row after them is the header, unless
    the block goes on with the columns of the one before: some cell of its first row is a number.
    """
    index = 0
    while index < len(rows) and sum(map(bool, rows[index])) == 1:
        yield next(cell for cell in rows[index] if cell)
        index += 1
    body = rows[index:]
    if body:
        first = body[0]
        goes_on = header and len(first) <= len(header) and any(_is_number(c) for c in first)
        if not goes_on:
            header, body = first, body[1:]
            if body and _is_second_header(header, body[0]):
                header = [
                    top if top == below else f"{top} {below}".strip()
                    for top, below in _paired(header, body[0])
                ]
                body = body[1:]
            if not body:
                yield " | ".join(cell for cell in header if cell)
        for row in body:
            if sum(map(bool, row)) == 1 and len(header) > 2:
                yield next(cell for cell in row if cell)  # a remark between the rows
            else:
                yield labelled(header, row)
    yield ""
    return header


def _is_second_header(top: Sequence[str], below: Sequence[str]) -> bool:
    """Two rows of header: the first repeats a merged name over columns that the second names."""
    repeated = any(a and a == b for a, b in itertools.pairwise(top))
    return repeated and not any(_is_number(cell) for cell in below)


def _paired(top: Sequence[str], below: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index in range(max(len(top), len(below))):
        yield top[index] if index < len(top) else "", below[index] if index < len(below) else ""


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-?[\d,]+(?:\.\d+)?%?|\d{4}-\d\d-\d\d.*", text))


def _filled(
    cells: list[str],
    number: int,
    covers: dict[int, list[tuple[int, int, int, bool]]],
    texts: dict[tuple[int, int], str],
) -> list[str]:
    """The row with the texts of merged cells: in each row that they cover, and in each column of
    a header's row."""
    for first_row, left, right, wide in covers.get(number, ()):
        if number == first_row:
            texts[first_row, left] = cells[left] if left < len(cells) else ""
        text = texts.get((first_row, left), "")
        cells += [""] * (left + 1 - len(cells))
        cells[left] = text
        if wide and number == first_row:
            cells += [""] * (right + 1 - len(cells))
            for column in range(left + 1, right + 1):
                cells[column] = text
    return cells


def _merged(sheet: Any) -> dict[int, list[tuple[int, int, int, bool]]]:
    """row → (its first row, first column, last column, whether it is a header's): merged cells.

    openpyxl's streaming reader leaves them out. A cell over several columns is repeated in them
    only where the row below names those columns apart: in a header of two rows.
    """
    etree = require("defusedxml.ElementTree", extra="read")
    ranges = require("openpyxl.utils", extra="read").range_boundaries
    spans: list[tuple[int, int, int, int]] = []
    with sheet._get_source() as source:
        for _, element in etree.iterparse(source):
            if element.tag.endswith("}mergeCell") and len(spans) < _MOST_MERGES:
                left, top, right, bottom = ranges(element.get("ref"))
                spans.append((top, bottom, left - 1, min(right, _MOST_COLUMNS) - 1))
            if element.tag.endswith("}row"):
                element.clear()
    beside = {(top, left): bottom for top, bottom, left, _ in spans}
    covers: dict[int, list[tuple[int, int, int, bool]]] = {}
    for top, bottom, left, right in spans:
        # Beside a header of two rows stand cells that cover both.
        wide = right > left and any(t == top and b > t for (t, _), b in beside.items())
        for row in range(top, min(bottom, top + _MOST_EMPTY_ROWS) + 1):
            covers.setdefault(row, []).append((top, left, right, wide))
    return covers


def _text(cell: Any) -> str:
    value = cell.value
    if value is None or (isinstance(value, str) and value in _ERRORS):
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "minutes")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int | float):
        return _number(value, getattr(cell, "number_format", "") or "")
    return " ".join(str(value).split())


def _number(value: float, shown_as: str) -> str:
    if found := _PERCENT.search(shown_as):
        return f"{value * 100:.{len(found[1] or '')}f}%"
    if "," in shown_as and value == int(value):
        return f"{int(value):,}"
    return f"{value:.15g}"
