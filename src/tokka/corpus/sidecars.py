"""The text of a sidecar → the facts that it states, or the mistake that it holds, with its line.

Only what is expected is read: a mapping of known keys to texts, a list of texts for `access`. Every
value is the text that stands there (a date isn't turned into something else), nothing is built from
a tag, and nothing that is only probably meant is taken for granted: `access: board` is refused, for
whoever mistypes a lock must hear of it.

>>> parse_sidecar(b"access: [board]\\nvalid_from: 2024-04-01\\n")
{'access': ('board',), 'valid_from': '2024-04-01'}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

Facts = dict[str, Any]  # fields of Document: access a tuple of texts, metadata a mapping, else text
KEYS = ("title", "licence", "access", "valid_from", "valid_to", "metadata")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EMPTY = "tag:yaml.org,2002:null"
_QUOTED = ("tag:yaml.org,2002:str",)
_PLAIN = tuple(  # what the parser takes an unquoted text for
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "timestamp", "value")
)
_LONGEST_SHOWN = 40


class Mistake(Exception):
    """`text`: what is wrong, the value and the next action. `line` is 1-based."""

    def __init__(self, text: str, line: int = 1) -> None:
        self.text, self.line = text, line
        super().__init__(text)


def parse_sidecar(content: bytes) -> Facts:
    """The facts stated; {} for an empty file. Raises Mistake at the first thing not understood."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Mistake("it isn't UTF-8; save it again as UTF-8", line) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        raise Mistake(
            f"it isn't YAML ({problem}); correct the line", mark.line + 1 if mark else 1
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Mistake("it isn't YAML; correct it") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise Mistake(f"it must hold keys such as {', '.join(KEYS)}", _line(root))
    lines = {str(key.value): _line(key) for key, _ in root.value}
    facts: Facts = {}
    for key_node, node in root.value:
        key = str(key_node.value)
        if key in facts:
            raise Mistake(f"{key} stands twice; delete one", _line(key_node))
        facts[key] = _value(key, node)
    try:
        return check_facts(facts)
    except Mistake as mistake:
        named = next((key for key in lines if mistake.text.startswith(key)), "")
        raise Mistake(mistake.text, lines.get(named, 1)) from mistake


def check_facts(facts: Mapping[str, Any]) -> Facts:
    """The facts as Document has them. Raises Mistake, whose text begins with the key."""
    checked: Facts = {}
    for key, value in facts.items():
        if key not in KEYS:
            raise Mistake(f"{key} is no key of labels; use {', '.join(KEYS)}")
        match key:
            case "access":
                checked[key] = _access(value)
            case "metadata":
                checked[key] = dict(value)
            case "valid_from" | "valid_to":
                checked[key] = _date(key, value)
            case _:
                if not str(value).strip():
                    raise Mistake(f"{key} is empty; fill it or delete the line")
                checked[key] = str(value)
    first, last = checked.get("valid_from"), checked.get("valid_to")
    if first and last and first > last:
        raise Mistake(f"valid_to {last} lies before valid_from {first}; correct one")
    return checked


def _value(key: str, node: yaml.Node) -> Any:
    if key == "access":
        if not isinstance(node, yaml.SequenceNode):
            raise Mistake(
                f"access must be a list such as [board], not {_shown(node)}; [] is everybody",
                _line(node),
            )
        return [_text("access", item) for item in node.value]
    if key == "metadata":
        if not isinstance(node, yaml.MappingNode):
            raise Mistake(f"metadata must be names with texts, not {_shown(node)}", _line(node))
        return {_text("metadata", name): _text("metadata", value) for name, value in node.value}
    if key not in KEYS:
        raise Mistake(f"{key} is no key of labels; use {', '.join(KEYS)}", _line(node))
    return _text(key, node)


def _text(key: str, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == _EMPTY:
        raise Mistake(f"{key} must be a text, not {_shown(node)}", _line(node))
    if node.tag not in (_PLAIN if node.style is None else _QUOTED):
        raise Mistake(f"{key} has a tag, {node.tag}; delete it", _line(node))
    return str(node.value)


def _access(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise Mistake(f"access must be a list such as [board], not {value!r}; [] is everybody")
    for label in value:
        if not isinstance(label, str) or not label or label != label.strip():
            raise Mistake(f"access holds {label!r}; a label is a text without blanks around it")
    return tuple(value)


def _date(key: str, value: Any) -> str:
    try:
        if not _DATE.fullmatch(str(value)):
            raise ValueError
        return date.fromisoformat(str(value)).isoformat()
    except ValueError as error:
        shown = str(value)[:_LONGEST_SHOWN]
        raise Mistake(f"{key} must be a date such as 2024-04-01, got {shown!r}") from error


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(str(node.value)[:_LONGEST_SHOWN]) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
