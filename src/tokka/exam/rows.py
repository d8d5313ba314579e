"""Read an exam file into rows with their line numbers: JSON lines, JSON or CSV, plain or gzipped.

File → `Row`s. The content decides between JSON and JSON lines, the name between those and CSV.
UTF-8 with or without BOM, UTF-16 with BOM, and cp932 (Shift_JIS as Windows writes it) are read.
A broken row becomes a sentence in `mistakes`, and the rows after it are still read.

>>> read_rows(Path("exam.csv")).rows[0]
Row(line=2, fields={'question': '…', 'A': '…', 'B': '…', 'answer': 'B'}, headerless=False)
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import UsageError

# Where a JSON file wraps its rows in an object, the field that holds them.
CONTAINERS = ("samples", "data", "questions", "examples", "rows", "items")
_QUESTION_COLUMNS = {"question", "prompt", "messages", "問題文", "問題", "質問", "problem_text"}
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Row:
    """`line` counts from 1; `headerless` rows are question, options …, letter of the answer."""

    line: int
    fields: dict[str, Any]
    headerless: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    rows: list[Row]
    mistakes: list[str]


def read_rows(path: Path) -> Rows:
    """All rows of the file and a sentence for each that can't be read.

    Raises UsageError where the file as a whole can't be: missing, empty, unknown encoding or type.
    """
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"exam: {path.name} is empty; write one question a line into it")
    if _suffix(path) in {".csv", ".tsv"}:
        return _read_csv(path, text)
    if _suffix(path) in {".json", ".jsonl", ".ndjson"} or text.lstrip()[:1] in "[{":
        return _read_json(path, text)
    raise UsageError(
        f"exam: {path.name} is of no known type; name it .jsonl, .json or .csv (also .gz)"
    )


def read_text(path: Path) -> str:
    """The decoded text of a plain or gzipped file; raises UsageError with what to do."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"exam: can't read {path}: {error.strerror}; check the path") from error
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(
                f"exam: {path.name} is broken gzip ({error}); fetch it again"
            ) from error
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp932")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            position = error.start
    line = data.count(b"\n", 0, position) + 1
    raise UsageError(
        f"exam: {path.name}:{line} is neither UTF-8 nor cp932 (byte {data[position]:#04x}); "
        "save the file as UTF-8"
    )


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


# ---- JSON -------------------------------------------------------------------------------------


def _read_json(path: Path, text: str) -> Rows:
    if text.lstrip().startswith("["):
        return _read_elements(path, text, text.index("["))
    # Not splitlines(): JSON strings may hold U+2028 and other breaks that it would split at.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        whole = _parse(text)
    except ValueError as error:
        found = _read_lines(path, lines)
        if found.rows or _suffix(path) != ".json":
            return found
        at = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        return Rows([], [_bad_json(path, at, error)])
    return _read_object(path, text, whole)


def _read_lines(path: Path, lines: list[tuple[int, str]]) -> Rows:
    found = Rows([], [])
    for number, line in lines:
        try:
            _add(found, path, number, _parse(line))
        except ValueError as error:
            found.mistakes.append(_bad_json(path, number, error))
    return found


def _read_object(path: Path, text: str, value: Any) -> Rows:
    found = Rows([], [])
    if isinstance(value, dict):
        for key in CONTAINERS:
            rows = value.get(key)
            if isinstance(rows, list) and "question" not in value:
                return _read_wrapped(path, text, key, rows)
        if value and all(isinstance(row, dict) for row in value.values()):  # id → row
            line, position = 1, 0
            for key, row in value.items():
                before, position = position, max(position, text.find(f'"{key}"', position))
                line += text.count("\n", before, position)
                _add(found, path, line, {"id": key, **row})
            return found
    _add(found, path, 1, value)
    return found


def _read_wrapped(path: Path, text: str, key: str, rows: list[Any]) -> Rows:
    """Lines of the rows: the list under `key` that holds them, since a name may stand twice."""
    for opening in re.finditer(rf'"{key}"\s*:\s*\[', text):
        found = _read_elements(path, text, opening.end() - 1)
        if [row.fields for row in found.rows] == [row for row in rows if isinstance(row, dict)]:
            return found
    found = Rows([], [])
    for row in rows:
        _add(found, path, 1, row)
    return found


def _read_elements(path: Path, text: str, opening: int) -> Rows:
    """The elements of the JSON list that opens at `opening`, each with its own line."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    found, counted, line, position = Rows([], []), 0, 1, opening + 1
    while True:
        position = _skip(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            return found
        try:
            value, position = decoder.raw_decode(text, position)
            position = _skip(text, position)
            if text[position : position + 1] not in {",", "]"}:
                raise ValueError("a comma or ] is missing after this entry")
        except (ValueError, RecursionError) as error:
            found.mistakes.append(_bad_json(path, line, error))
            return found
        _add(found, path, line, value)
        position += text[position] == ","


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _add(found: Rows, path: Path, line: int, value: Any) -> None:
    if isinstance(value, dict):
        found.rows.append(Row(line, value))
    else:
        found.mistakes.append(
            f"exam: a row must be an object with fields, got {type(value).__name__}; "
            f'write {{"question": …, "answer": …}} ({path.name}:{line})'
        )


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r} stands there twice")
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _bad_json(path: Path, line: int, error: Exception) -> str:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return f"exam: not valid JSON: {reason}; correct the row ({path.name}:{line})"


# ---- CSV --------------------------------------------------------------------------------------


def _read_csv(path: Path, text: str) -> Rows:
    found = Rows([], [])
    records = list(_records(path, text, found.mistakes))
    if not records:
        return found
    header = [cell.strip() for cell in records[0][1]]
    if not {name.lower() for name in header} & _QUESTION_COLUMNS:
        return _read_headerless(path, records, found)
    for name in {name for name in header if name and header.count(name) > 1}:
        found.mistakes.append(f"exam: two columns are called {name!r}; rename one ({path.name}:1)")
    for line, cells in records[1:]:
        if any(cell.strip() for cell in cells[len(header) :]):
            found.mistakes.append(
                f"exam: {len(cells)} cells under {len(header)} columns; put quotes around text "
                f"that holds a comma ({path.name}:{line})"
            )
            continue
        pairs = zip(header, cells, strict=False)
        found.rows.append(Row(line, {name: cell for name, cell in pairs if name and cell.strip()}))
    return found


def _read_headerless(path: Path, records: list[tuple[int, list[str]]], found: Rows) -> Rows:
    columns = len(records[0][1])
    lettered = sum(bool(re.fullmatch(r"\s*[A-Ja-jＡ-Ｊ]\s*", cells[-1])) for _, cells in records)
    if columns < 4 or 2 * lettered <= len(records):
        raise UsageError(
            f"exam: {path.name}:1 has no header with a column 'question', and the rows end with "
            f"no letter ({records[0][1][-1][:20]!r}); write a header line (question, A, B, C, D, "
            "answer) or rows of question, options, letter"
        )
    for line, cells in records:
        if len(cells) != columns:
            found.mistakes.append(
                f"exam: {len(cells)} cells where the first row has {columns}; put quotes around "
                f"text that holds a comma ({path.name}:{line})"
            )
            continue
        question, *choices, answer = cells
        fields = {"question": question, "choices": choices, "answer": answer.strip()}
        found.rows.append(Row(line, fields, headerless=True))
    return found


def _records(path: Path, text: str, mistakes: list[str]) -> Iterator[tuple[int, list[str]]]:
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",\t;", key=first.count) if _suffix(path) == ".csv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            mistakes.append(
                f"exam: not valid CSV: {error}; close the quotes, and double those inside a cell "
                f"({path.name}:{line})"
            )
            return
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1
