"""What pydantic found wrong → sentences for the person who wrote the file.

ValidationError → Faults, one per error, with the nearest known key where a key is unknown.

>>> explain(error)[0]
Fault(location=('policy', 'alfa'), text='is not a known key; did you mean alpha?', line=None)
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tokka.project_settings import Project
from tokka.project_yaml import Fault, Location

_TYPES = {
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list such as [a, b]",
    "dict_type": "must hold keys with values",
    "model_type": "must hold keys with values",
    "string_too_short": "must not be empty",
}
_EXAMPLES = {
    "name": "name: my-project",
    "language": "language: ja",
    "base_model": "base_model: embedded:gemma-3-270m",
    "exams": "exams: {domain: {path: exam/domain.jsonl, role: domain}}",
    "arms": "arms: {base: {}, rag: {retrieval: {top_k: 4}}}",
    "path": "path: exam/domain.jsonl",
    "role": "role: domain",
    "data": "data: examples.jsonl",
}
_NOT_WRITTEN = ("schema_version", "name", "file")  # of an arm: its key


def explain(error: ValidationError) -> list[Fault]:
    """One fault per error, in pydantic's order."""
    return [
        Fault(tuple(details["loc"]), _text(details)) for details in error.errors(include_url=False)
    ]


def keys_at(location: Location) -> tuple[str, ...]:
    """The keys that may stand at a place of the project file; empty where any name may."""
    here: Any = Project
    for step in location:
        here = _inner(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[step].annotation if step in here.model_fields else None
        elif get_origin(here) in (dict, tuple):
            here = get_args(here)[-1 if get_origin(here) is dict else 0]
    here = _inner(here)
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return ()
    hidden = _NOT_WRITTEN if location else ("file",)
    return tuple(key for key in here.model_fields if key not in hidden)


def nearest(word: str, known: tuple[str, ...], lead: str = "known are") -> str:
    """`did you mean X?`, or the whole list where nothing is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"{lead} {', '.join(known)}"


def _inner(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(one for one in get_args(annotation) if one is not type(None))
    return annotation


def _text(details: ErrorDetails) -> str:
    kind, value = details["type"], details["input"]
    ctx: Mapping[str, Any] = details.get("ctx", {})
    if kind == "missing":
        example = _EXAMPLES.get(str(details["loc"][-1]))
        return "is missing; add it" + (f", e.g. {example}" if example else "")
    if kind == "extra_forbidden":
        *parent, key = details["loc"]
        return f"is not a known key; {nearest(str(key), keys_at(tuple(parent)))}"
    for limit, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
        if limit in ctx:
            return f"must be {sign} {ctx[limit]:g}, got {value}"
    if kind == "literal_error":
        return f"must be {ctx['expected']}, got {_shown(value)}"
    if kind == "value_error":
        said = str(ctx["error"])
        place = f"{details['loc'][-1]}: "
        return f"is wrong: {said.removeprefix(place)}" if said.startswith(place) else said
    said = _TYPES.get(kind, details["msg"][:1].lower() + details["msg"][1:])
    what, _, action = said.partition("; ")
    return f"{what}, got {_shown(value)}" + (f"; {action}" if action else "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
