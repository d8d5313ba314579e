"""Project file text → plain values, with the line on which each of them stands.

YAML 1.2's core scalars (`5e-4` is a number, `yes` is text), every key a text. Duplicate keys, tags,
endless aliases and texts over 1 MB are refused with their line; nothing is ever constructed from a
tag.

>>> parsed = parse_yaml("name: aoba\\nchunks: {max_tokens: 120}\\n")
>>> parsed.value["chunks"]["max_tokens"], parsed.line(("chunks", "max_tokens"))
(120, 2)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000

Location = tuple[str | int, ...]

_DIGITS = "[0-9](_?[0-9])*"
_INTEGER = re.compile(f"[-+]?{_DIGITS}")
_DECIMAL = re.compile(f"[-+]?([.]{_DIGITS}|{_DIGITS}([.]({_DIGITS})?)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str"))
_GUESSED_TAGS = tuple(  # what the parser guesses for an unquoted scalar, by the rules of YAML 1.1
    f"tag:yaml.org,2002:{kind}"
    for kind in ("int", "float", "bool", "null", "timestamp", "merge", "value")
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake. `text` goes on after the name of the value: `must be > 0, got -0.1`.

    `line` is for what has no place of its own in the values, such as a key written twice.
    """

    location: Location
    text: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """`value` is None when the text could not be read at all; `lines` are 1-based."""

    value: Any
    lines: dict[Location, int]
    faults: tuple[Fault, ...]

    def line(self, location: Location) -> int:
        """The line of a value, or of the nearest one that encloses it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


@dataclass(slots=True)
class _Reading:
    lines: dict[Location, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    open_nodes: list[int] = field(default_factory=list)
    values: int = 0


class _TooMany(Exception):
    """The aliases of a file expand beyond MAX_VALUES."""


def read_text(content: bytes) -> str:
    """Decode a project file; ValueError says what is wrong with the bytes, and in which line."""
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"the file has {len(content):,} bytes, the limit is {MAX_BYTES:,}; "
            "keep documents and exams in files of their own"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"byte 0x{content[error.start]:02x} in line {line} is not UTF-8; save the file as UTF-8"
        ) from error


def parse_yaml(text: str) -> Parsed:
    """Read one YAML document. Never raises: whatever is wrong stands in `faults`."""
    reading = _Reading()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reading.lines[()] = mark.line + 1 if mark else 1
        return _unreadable(reading, _syntax(error, text))
    except yaml.reader.ReaderError as error:
        reading.lines[()] = text.count("\n", 0, error.position) + 1
        character = f"U+{error.character:04X}" if isinstance(error.character, int) else "?"
        return _unreadable(reading, f"the character {character} is not allowed; remove it")
    except RecursionError:
        return _unreadable(reading, "values are nested too deeply; a project file needs 7 levels")
    except (ValueError, OverflowError):
        return _unreadable(reading, "an escape such as \\UFFFFFFFF names no character; remove it")
    if root is None:
        return _unreadable(reading, "the file is empty; write one with: tokka init FOLDER")
    try:
        value = _value(root, (), reading)
    except (_TooMany, RecursionError):
        return _unreadable(
            reading,
            f"aliases expand to more than {MAX_VALUES:,} values; write them out",
        )
    return Parsed(value, reading.lines, tuple(reading.faults))


def _unreadable(reading: _Reading, text: str) -> Parsed:
    return Parsed(None, reading.lines, (Fault((), text),))


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    shown = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in shown[: len(shown) - len(shown.lstrip())] or "'\\t'" in str(error.problem):
        return "the line is indented with a tab; indent with spaces"
    column = f", column {mark.column + 1}" if mark else ""
    return f"not valid YAML{column}: {error.problem or error.context}; near {shown.strip()[:60]!r}"


def _value(node: yaml.Node, location: Location, reading: _Reading) -> Any:
    reading.values += 1
    if reading.values > MAX_VALUES:
        raise _TooMany
    reading.lines.setdefault(location, node.start_mark.line + 1)
    if id(node) in reading.open_nodes:
        reading.faults.append(Fault(location, "contains itself; write the value out"))
        return None
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, location, reading)
    if node.tag not in _PLAIN_TAGS:
        return _refuse_tag(node, location, reading)
    reading.open_nodes.append(id(node))
    try:
        if isinstance(node, yaml.SequenceNode):
            return [_value(item, (*location, i), reading) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return _mapping(node, location, reading)
    finally:
        reading.open_nodes.pop()


def _mapping(node: yaml.MappingNode, location: Location, reading: _Reading) -> dict[str, Any]:
    values: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            fault = Fault((*location, "?"), "has a list or mapping as its key; write a text", line)
            reading.faults.append(fault)
            continue
        key = str(key_node.value).encode(errors="replace").decode()
        here = (*location, key)
        if here in reading.lines and key in values:
            text = f"stands twice, first in line {reading.lines[here]}; remove one"
            reading.faults.append(Fault(here, text, line))
            continue
        reading.lines[here] = line
        value = _value(value_node, here, reading)
        if key != "<<":
            values[key] = value
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                merged = {**one, **merged}
            else:
                reading.faults.append(Fault(here, "must name a mapping, such as *defaults"))
    return {**merged, **values}


def _scalar(node: yaml.ScalarNode, location: Location, reading: _Reading) -> Any:
    text = str(node.value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        reading.faults.append(Fault(location, "holds half a character (\\uD800 and the like)"))
        return None
    if node.tag not in (_PLAIN_TAGS if node.style else (*_PLAIN_TAGS, *_GUESSED_TAGS)):
        return _refuse_tag(node, location, reading)
    if node.style:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text) and len(text) < 30:
        return int(text)
    if _DECIMAL.fullmatch(text):
        return _finite(float(text), location, reading)
    return text


def _finite(number: float, location: Location, reading: _Reading) -> float | None:
    if math.isfinite(number):
        return number
    reading.faults.append(Fault(location, "is too large a number; write a smaller one"))
    return None


def _refuse_tag(node: yaml.Node, location: Location, reading: _Reading) -> None:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    reading.faults.append(Fault(location, f"has the tag {tag}; write a plain value"))
