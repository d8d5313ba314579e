"""The rows of a task's local data files, as the harness's own reader (`datasets`) gives them.

Task → rows by split. What that reader guesses from the files is repeated, since prompts are made
of it: a field that some rows lack is None, whole numbers beside fractions become fractions, a
column of nothing but dates is read as times, and the cells of a CSV file get a type by column.

>>> splits_of(task, roots, notices)["test"][0]
{'question': '2+2?', 'answer': 4}
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.exam.harness.task_file import TaskFile, is_inside
from tokka.exam.rows import read_text

Rows = list[dict[str, Any]]

MAX_ROWS = 1_000_000
_BUILDERS = ("json", "csv")
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_OPTIONS = ("data_files", "field", "delimiter", "sep", "trust_remote_code")
# What pandas, which reads CSV for `datasets`, takes for a missing value.
_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
_TRUTHS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_INTEGER = re.compile(r"\s*[-+]?\d{1,18}\s*")
_DECIMAL = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_TIME = re.compile(
    r"(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"(?:[T ]([01]\d|2[0-3])(?::([0-5]\d)(?::([0-5]\d))?)?)?Z?"
)


def splits_of(task: TaskFile, roots: Sequence[Path], notices: list[str]) -> dict[str, Rows]:
    """All splits of the task's data. Raises UsageError for what isn't a local file of a known
    type, with the field's line."""
    options = task.values.get("dataset_kwargs") or {}
    place = task.place("dataset_kwargs")
    if not isinstance(options, dict):
        raise UsageError(f"dataset_kwargs: must be a map such as {{data_files: …}} ({place})")
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise UsageError(
            f"dataset_kwargs: {unknown[0]} is not read; known are data_files, field, delimiter "
            f"and sep ({task.place('dataset_kwargs', unknown[0])})"
        )
    if options.get("trust_remote_code"):
        raise UsageError(
            f"dataset_kwargs: trust_remote_code would run code, which tokka never does; write the "
            f"rows into a file and name it in data_files ({place})"
        )
    source = task.values.get("dataset_path")
    if source in _BUILDERS:
        files = _named(task, options.get("data_files"), roots, notices)
    else:
        files = _in_folder(task, source, roots)
    field = options.get("field")
    delimiter = str(options.get("delimiter") or options.get("sep") or ",")
    said = json.dumps(task.values, default=str, ensure_ascii=False)
    found = {}
    for split, paths in files.items():
        rows = [row for path in paths for row in _rows(path, field, delimiter)]
        found[split], times = _unified(rows, split, guess_times=not field)
        listed = next((name for name in _lists_of_times(found[split]) if name in said), None)
        if listed and not field:
            raise UsageError(
                f"data_files: the lists in {listed} of {split} hold nothing but dates, which "
                f"lm_eval reads as times and then can't use; write them as texts, such as "
                f"'on {found[split][0][listed][0]}'"
            )
        notices.extend(
            f"{name} of {split} holds nothing but dates, which lm_eval reads as times: such as "
            f"{found[split][0][name]}"
            for name in times
            if name in said
        )
    return found


# ---- which files ------------------------------------------------------------------------------


def _named(
    task: TaskFile, data_files: Any, roots: Sequence[Path], notices: list[str]
) -> dict[str, list[Path]]:
    place = task.place("dataset_kwargs", "data_files")
    if isinstance(data_files, str | list):
        data_files = {"train": data_files}
    if not isinstance(data_files, dict) or not data_files:
        raise UsageError(
            f"dataset_kwargs: data_files must name the files of each split, such as "
            f"{{test: faq.jsonl}} ({place})"
        )
    found: dict[str, list[Path]] = {}
    for split, names in data_files.items():
        listed = names if isinstance(names, list) else [names]
        found[str(split)] = [_data_file(task, str(name), roots, notices) for name in listed]
    return found


def _data_file(task: TaskFile, name: str, roots: Sequence[Path], notices: list[str]) -> Path:
    """The harness takes relative names from the current folder; tokka then looks beside the task,
    and for an absolute name that is gone too."""
    place = task.place("dataset_kwargs", "data_files")
    if "://" in name or any(sign in name for sign in "*?["):
        raise UsageError(f"data_files: {name} is no local file; write out its path ({place})")
    tried = [Path.cwd() / name, task.path.parent / name, task.path.parent / Path(name).name]
    path = next((one for one in tried if one.is_file()), None)
    if path is None:
        raise UsageError(
            f"data_files: {name} is neither in {Path.cwd()} nor beside the task; correct the path "
            f"({place})"
        )
    if not is_inside(path, roots):
        raise UsageError(
            f"data_files: {name} lies outside of the task's folder and the current one; name its "
            f"folder with --root ({place})"
        )
    if path != tried[0]:
        notices.append(f"{name} was read from beside the task; lm_eval looks in the current folder")
    return path


def _in_folder(task: TaskFile, source: Any, roots: Sequence[Path]) -> dict[str, list[Path]]:
    place = task.place("dataset_path")
    if not isinstance(source, str) or not source:
        raise UsageError(
            f"dataset_path: missing; write json or csv and name the files in "
            f"dataset_kwargs.data_files ({place})"
        )
    tried = [Path.cwd() / source, task.path.parent / source]
    folder = next((one for one in tried if one.is_dir()), None)
    if folder is None:
        raise UsageError(
            f"dataset_path: {source} is no folder here; nothing is fetched from a hub, so save its "
            f"rows as JSON lines, write dataset_path: json and name them in "
            f"dataset_kwargs.data_files ({place})"
        )
    if not is_inside(folder, roots):
        raise UsageError(
            f"dataset_path: {source} lies outside of the task's folder and the current one; name "
            f"it with --root ({place})"
        )
    files = sorted(one for one in folder.iterdir() if _suffix(one) in _SUFFIXES and one.is_file())
    by_split = {
        split: [one for one in files if _has_word(one.name, words)]
        for split, words in _SPLIT_WORDS.items()
    }
    by_split = {split: paths for split, paths in by_split.items() if paths}
    if files and not by_split:
        by_split = {"train": files}
    if not by_split:
        raise UsageError(
            f"dataset_path: {folder} holds no .jsonl, .json, .csv or .tsv file; convert its data "
            f"({place})"
        )
    return by_split


def _has_word(name: str, words: Sequence[str]) -> bool:
    return any(re.search(rf"(^|[-._ 0-9]){word}[-._ 0-9]", name) for word in words)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


# ---- rows -------------------------------------------------------------------------------------


def _rows(path: Path, field: Any, delimiter: str) -> Rows:
    text = read_text(path)
    suffix = _suffix(path)
    if suffix in (".csv", ".tsv"):
        return _from_csv(path, text, "\t" if suffix == ".tsv" and delimiter == "," else delimiter)
    if suffix not in _SUFFIXES:
        raise UsageError(f"data_files: {path.name} is none of {', '.join(_SUFFIXES)}; convert it")
    if field or text.lstrip().startswith("["):
        return _from_list(path, text, field)
    rows: Rows = []
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            rows.append(_object(_parsed(path, content, line), path, line))
    return rows


def _from_list(path: Path, text: str, field: Any) -> Rows:
    whole = _parsed(path, text, 1)
    if field:
        if not isinstance(whole, dict) or not isinstance(whole.get(field), list):
            raise UsageError(
                f"dataset_kwargs: {path.name} holds no list under {field!r}; correct it"
            )
        whole = whole[field]
    return [_object(row, path, 1) for row in whole]


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line - 1 + error.lineno if isinstance(error, json.JSONDecodeError) else line
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise UsageError(
            f"data_files: not valid JSON lines: {reason}; correct the row, or name the list of "
            f"rows with dataset_kwargs.field ({path.name}:{at})"
        ) from error


def _object(row: Any, path: Path, line: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(
            f"data_files: a row must be an object, got {type(row).__name__}; write "
            f'{{"question": …}} ({path.name}:{line})'
        )
    return row


def _from_csv(path: Path, text: str, delimiter: str) -> Rows:
    if len(delimiter) != 1:
        raise UsageError(f"dataset_kwargs: delimiter must be one character, got {delimiter!r}")
    try:
        header, *records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (csv.Error, ValueError) as error:
        raise UsageError(f"data_files: {path.name} is no CSV with a header; correct it") from error
    records = [cells for cells in records if cells]
    long = next((cells for cells in records if len(cells) > len(header)), None)
    if long is not None:
        raise UsageError(
            f"data_files: {len(long)} cells under {len(header)} columns; put quotes around text "
            f"that holds the delimiter ({path.name}, {long[0][:40]!r})"
        )
    columns = [
        _typed([cells[place] if place < len(cells) else "" for cells in records])
        for place in range(len(header))
    ]
    return [dict(zip(header, values, strict=True)) for values in zip(*columns, strict=True)]


def _typed(cells: list[str]) -> list[Any]:
    """A column's values: whole numbers, fractions (also whole numbers of which some are missing),
    truth values or texts."""
    given = [cell for cell in cells if cell not in _MISSING]
    lacking = len(given) < len(cells)
    if given and all(_INTEGER.fullmatch(cell) for cell in given) and not lacking:
        return [int(cell) for cell in cells]
    if given and all(_DECIMAL.fullmatch(cell) for cell in given):
        return [None if cell in _MISSING else float(cell) for cell in cells]
    if given and all(cell in _TRUTHS for cell in given):
        return [None if cell in _MISSING else _TRUTHS[cell] for cell in cells]
    return [None if cell in _MISSING else cell for cell in cells]


def _unified(rows: Rows, split: str, guess_times: bool) -> tuple[Rows, list[str]]:
    """Every row with every field, each column of one type; and the columns read as times."""
    if len(rows) > MAX_ROWS:
        raise UsageError(
            f"data_files: {len(rows):,} rows in {split}; at most {MAX_ROWS:,} are read, so split it"
        )
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, list[Any]] = {}
    times: list[str] = []
    for name in names:
        values = [row.get(name) for row in rows]
        given = [value for value in values if value is not None]
        if any(isinstance(v, float) for v in given) and all(_is_number(v) for v in given):
            values = [None if value is None else float(value) for value in values]
        elif guess_times and given and all(is_time(value) for value in given):
            times.append(name)
            values = [None if value is None else _as_time(value) for value in values]
        columns[name] = values
    unified = zip(*columns.values(), strict=True)
    return [dict(zip(names, cells, strict=True)) for cells in unified], times


def _lists_of_times(rows: Rows) -> list[str]:
    columns = {name: [row[name] for row in rows if row[name]] for name in (rows or [{}])[0]}
    return [
        name
        for name, values in columns.items()
        if values and all(isinstance(v, list) and all(map(is_time, v)) for v in values)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_time(value: Any) -> bool:
    """Whether the harness's reader takes a column of such values for times."""
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def _as_time(text: str) -> str:
    match = _TIME.fullmatch(text)
    if match is None:
        return text
    year, month, day, hour, minute, second = match.groups(default="00")
    return f"{year}-{month}-{day} {hour}:{minute}:{second}"
