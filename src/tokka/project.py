"""The project file: one YAML text → one frozen `Project`, or all of its mistakes at once.

Paths in it are relative to its folder. Nothing but the file and the existence of what it names is
looked at: no environment variable, no model, no network.

>>> project = load_project(Path("examples/aoba/tokka.yaml"))
>>> project.arms["rag"].retrieval.top_k
2
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokka.errors import Mistakes, UsageError
from tokka.project_checks import check
from tokka.project_settings import (
    ChunkSpec,
    EndpointSpec,
    ExamSpec,
    Policy,
    Project,
)
from tokka.project_words import explain
from tokka.project_yaml import Fault, Location, Parsed, parse_yaml, read_text

__all__ = [
    "FILE_NAME",
    "ChunkSpec",
    "EndpointSpec",
    "ExamSpec",
    "Policy",
    "Project",
    "load_project",
]

FILE_NAME = "tokka.yaml"
# Sound values in place of faulty or missing ones that the rest can't be checked without.
_STAND_INS: dict[str, Any] = {
    "name": "-", "language": "en", "base_model": "-", "exams": {}, "arms": {},
}  # fmt: skip


def load_project(path: Path) -> Project:
    """Read a project file (or the `tokka.yaml` of a folder) and check it.

    Raises UsageError where there is no such file, and Mistakes with every mistake in the order of
    the lines, each as `place: what, value, next action (file:line)`.
    """
    file = path / FILE_NAME if path.is_dir() else path
    parsed = _parse(file)
    faults = list(parsed.faults)
    if not isinstance(parsed.value, dict):
        text = f"the file must hold keys such as name: and arms:, got {parsed.value!r:.60}"
        raise _mistakes(file, parsed, faults or [Fault((), text)])
    values, prepared = _prepare(parsed.value)
    faults += prepared
    project, wrong, left_out = _validate(values)
    project = project.model_copy(update={"file": file.absolute()})
    tagged = {fault.location for fault in faults if fault.line is None}
    faults += [fault for fault in wrong if fault.location not in tagged]
    project, checked = check(project, left_out)
    faults += checked
    if faults:
        raise _mistakes(file, parsed, faults)
    return project


def _parse(file: Path) -> Parsed:
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        folder = file.parent if file.suffix else file
        raise UsageError(
            f"no project file at {file}; write one with: tokka init {folder}"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{file} can't be read: {error.strerror}; check its permissions"
        ) from error
    try:
        return parse_yaml(read_text(content))
    except ValueError as error:
        return Parsed(None, {}, (Fault((), str(error)),))


def _prepare(value: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """An arm is named by its key; a section without content keeps its defaults."""
    faults = []
    values = {key: part for key, part in value.items() if part is not None and key != "file"}
    if "file" in value:
        faults.append(Fault(("file",), "is not a known key; remove it"))
    arms = values.get("arms")
    if isinstance(arms, dict):
        for name, arm in arms.items():
            if isinstance(arm, dict) and "name" in arm:
                faults.append(Fault(("arms", name, "name"), f"is the key, {name}; remove it"))
        values["arms"] = {
            name: {**(arm or {}), "name": name} if isinstance(arm, dict | None) else arm
            for name, arm in arms.items()
        }
    return values, faults


def _validate(values: dict[str, Any]) -> tuple[Project, list[Fault], frozenset[Location]]:
    """A project of the sound values, the faults, and the places that were left out for them.

    Leaving out, instead of stopping, lets the checks that follow speak in the same run.
    """
    faults: list[Fault] | None = None
    left_out: set[Location] = set()
    values = {**values, "file": "-"}
    while True:
        try:
            # Strict, so that `shots: true` is no number; from JSON, where a list becomes a tuple.
            project = Project.model_validate_json(json.dumps(values), strict=True)
            return project, faults or [], frozenset(left_out)
        except ValidationError as error:
            found = explain(error)
        faults = found if faults is None else faults
        values = json.loads(json.dumps(values))
        for location in sorted({fault.location for fault in found}, key=str, reverse=True):
            left_out.add(_leave_out(values, location))


def _leave_out(values: dict[str, Any], location: Location) -> Location:
    """Delete a value in place, or the part that needs it where it is missing. Returns the place."""
    part: Any = values
    *parents, last = location
    for step in parents:
        if not _holds(part, step):
            return location  # left out already, with what held it
        part = part[step]
    if not parents and last in _STAND_INS:
        part[last] = _STAND_INS[str(last)]
        return location
    if len(location) == 3 and parents[0] == "exams" and last == "role":
        part[last] = "domain"
        return location
    if _holds(part, last):
        del part[last]
        return location
    return _leave_out(values, tuple(parents))


def _holds(part: Any, step: str | int) -> bool:
    return step < len(part) if isinstance(step, int) else step in part


def _mistakes(file: Path, parsed: Parsed, faults: list[Fault]) -> Mistakes:
    def line(fault: Fault) -> int:
        return fault.line or parsed.line(fault.location)

    items = [
        f"{_sentence(fault)} ({file.name}:{line(fault)})" for fault in sorted(faults, key=line)
    ]
    count = "1 mistake" if len(items) == 1 else f"{len(items)} mistakes"
    return Mistakes(f"{file}: {count} in the project file", items)


def _sentence(fault: Fault) -> str:
    if not fault.location:
        return fault.text
    *parents, last = fault.location
    subject = f"item {last + 1}" if isinstance(last, int) else last
    return f"{_place(tuple(parents))}{subject} {fault.text}"


def _place(location: Location) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") + ": " if parts else ""
