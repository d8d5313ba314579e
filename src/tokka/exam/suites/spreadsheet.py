"""Read the first sheet of an Excel workbook (.xlsx) into rows of texts, with the standard library.

>>> next(first_sheet(Path("CPA_AUDIT.xlsx")))
(2, {'question': '…', 'ア': '…', '1': 'アイ', 'a_no': '3', …})

The first row names the columns. A formula's stored result is read; dates stay the numbers that the
file holds.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tokka.errors import UsageError

MAX_BYTES = 256 * 2**20  # unpacked: a small file can pack gigabytes
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def first_sheet(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(row number, column name → text); empty cells are left out.

    Raises UsageError where the file isn't a workbook.
    """
    try:
        with zipfile.ZipFile(path) as book:
            texts = _shared_texts(book)
            sheets = sorted(n for n in book.namelist() if re.search(r"worksheets/[^/]*\.xml$", n))
            rows = list(_rows(_tree(book, sheets[0]), texts))
    except (OSError, zipfile.BadZipFile, ElementTree.ParseError, LookupError, ValueError) as error:
        raise UsageError(f"{path} isn't a readable workbook: {error}; fetch it again") from error
    if not rows:
        return
    header = {column: text.strip() for column, text in rows[0][1].items()}
    for number, cells in rows[1:]:
        yield number, {header[column]: text for column, text in cells.items() if column in header}


def _rows(sheet: ElementTree.Element, texts: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    for place, row in enumerate(sheet.iter(f"{_MAIN}row"), 1):
        cells = {}
        for cell in row.iter(f"{_MAIN}c"):
            column = re.sub(r"\d", "", cell.get("r", ""))
            text = _text(cell, texts)
            if text:
                cells[column] = text
        yield int(row.get("r", place)), cells


def _text(cell: ElementTree.Element, texts: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(part.text or "" for part in cell.iter(f"{_MAIN}t"))
    value = cell.find(f"{_MAIN}v")
    if value is None or value.text is None:
        return ""
    return texts[int(value.text)] if cell.get("t") == "s" else value.text


def _shared_texts(book: zipfile.ZipFile) -> list[str]:
    """Texts that cells point to; the reading aids (ruby) beside them are no part of the text."""
    name = "xl/sharedStrings.xml"
    if name not in book.namelist():
        return []
    found = []
    for item in _tree(book, name).iter(f"{_MAIN}si"):
        plain = item.findall(f"{_MAIN}t") + item.findall(f"{_MAIN}r/{_MAIN}t")
        found.append("".join(part.text or "" for part in plain))
    return found


def _tree(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES} bytes")
    return ElementTree.fromstring(book.read(name))
