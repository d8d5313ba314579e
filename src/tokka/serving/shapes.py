"""The shapes of requests, as JSON Schema: what the OpenAPI description says is what is checked.

`mistake(schema, value)` → the first `Fault`, or nothing. It knows the few words of JSON Schema that
the schemas below use; a message names the field and never repeats its value.

>>> mistake(CHAT, {"model": "aoba-1", "messages": []}).message
'messages must have at least 1 item'
"""

from __future__ import annotations

from typing import Any

from tokka.serving.faults import Fault, wrong

Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _number(low: float, high: float) -> Schema:
    return {"type": ["number", "null"], "minimum": low, "maximum": high}


STRING: Schema = {"type": "string"}
FLAG: Schema = {"type": ["boolean", "null"]}
_PART: Schema = {
    "type": "object",
    "properties": {"type": {"type": "string", "enum": ["text"]}, "text": STRING},
    "required": ["type", "text"],
}
MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [STRING, {"type": "array", "items": _PART, "minItems": 1}]},
        "name": {"type": ["string", "null"]},
    },
    "required": ["role", "content"],
}
_STOP: Schema = {
    "anyOf": [
        {"type": "null"},
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 16},
    ]
}
_STREAM_OPTIONS: Schema = {
    "type": ["object", "null"],
    "properties": {"include_usage": FLAG},
}
_LIMIT: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": 10_000_000}

# Taken and not applied: answers are decoded as they were examined. Each is checked all the same,
# since a mistake in it is a mistake of the caller's program.
NOT_APPLIED: dict[str, Schema] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": {"type": ["integer", "null"]},
    "min_p": _number(0, 1),
    "seed": {"type": ["integer", "null"]},
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": {"type": ["number", "null"]},
    "reasoning_effort": {"type": ["string", "null"]},
    "verbosity": {"type": ["string", "null"]},
    "parallel_tool_calls": FLAG,
    "prediction": {"type": ["object", "null"]},
    "service_tier": {"type": ["string", "null"]},
    "store": FLAG,
    "web_search_options": {"type": ["object", "null"]},
}
# What is applied already when it is said so: no word about these.
AS_APPLIED: dict[str, Any] = {
    "temperature": 0,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "store": False,
    "service_tier": "auto",
    "parallel_tool_calls": True,
}

_BOTH: dict[str, Schema] = {
    "model": STRING,
    "stream": FLAG,
    "stream_options": _STREAM_OPTIONS,
    "max_tokens": _LIMIT,
    "stop": _STOP,
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 1},
    "user": {"type": ["string", "null"]},
    "logit_bias": {"type": ["object", "null"], "maxProperties": 0},
    **NOT_APPLIED,
}
CHAT: Schema = {
    "type": "object",
    "properties": {
        **_BOTH,
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1},
        "max_completion_tokens": _LIMIT,
        "logprobs": {"type": ["boolean", "null"], "enum": [False, None]},
        "response_format": {
            "type": ["object", "null"],
            "properties": {"type": {"type": "string", "enum": ["text"]}},
        },
        "tools": {"type": ["array", "null"]},
        "tool_choice": {"type": ["string", "null"], "enum": ["none", "auto", None]},
        "metadata": {"type": ["object", "null"]},
    },
    "required": ["model", "messages"],
}
COMPLETION: Schema = {
    "type": "object",
    "properties": {
        **_BOTH,
        "prompt": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": STRING, "minItems": 1, "maxItems": 1},
            ]
        },
        "echo": {"type": ["boolean", "null"], "enum": [False, None]},
        "best_of": {"type": ["integer", "null"], "minimum": 1, "maximum": 1},
        "logprobs": {"type": "null"},
        "suffix": {"type": ["string", "null"], "maxLength": 0},
    },
    "required": ["model", "prompt"],
}
EMBEDDING: Schema = {
    "type": "object",
    "properties": {
        "model": STRING,
        "input": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        },
        "encoding_format": {"type": ["string", "null"], "enum": ["float", "base64", None]},
        "dimensions": {"type": ["integer", "null"], "minimum": 1},
        "input_type": {"type": ["string", "null"], "enum": ["query", "passage", None]},
        "user": {"type": ["string", "null"]},
    },
    "required": ["model", "input"],
}
APPROVAL: Schema = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["approve", "reject"]},
        "model": {"type": "string", "minLength": 1, "maxLength": 200},
        "version": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
        "digest": {"type": "string", "minLength": 64, "maxLength": 64},
        "comment": {"type": "string", "maxLength": 10_000},
        "conditions": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 2000},
            "maxItems": 50,
        },
    },
    "required": ["verdict", "model", "version", "digest"],
}


def mistake(schema: Schema, value: Any, name: str = "") -> Fault | None:
    """The first way in which `value` isn't what `schema` says."""
    options = schema.get("anyOf")
    if options is not None:
        faults = [mistake(option, value, name) for option in options]
        if None in faults:
            return None
        # The one that came furthest: of the right type, wrong further inside.
        inside = [
            fault
            for option, fault in zip(options, faults, strict=True)
            if fault is not None and _of_type(option, value)
        ]
        types = " or ".join(_types(option) for option in options)
        return inside[0] if inside else wrong(f"{name} must be {types}", param=name)
    if not _of_type(schema, value):
        return wrong(f"{name or 'the body'} must be {_types(schema)}", param=name or None)
    return _mistake_inside(schema, value, name)


def _mistake_inside(schema: Schema, value: Any, name: str) -> Fault | None:
    if "enum" in schema and value not in schema["enum"]:
        known = ", ".join("null" if one is None else str(one).lower() for one in schema["enum"])
        return wrong(f"{name} must be one of: {known}", param=name)
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return wrong(f"{name} must have at least {schema['minLength']} characters", param=name)
        if len(value) > schema.get("maxLength", len(value)):
            return wrong(f"{name} may have at most {schema['maxLength']} characters", param=name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            low, high = schema.get("minimum"), schema.get("maximum")
            span = f"{low} to {high}" if high is not None else f"at least {low}"
            return wrong(f"{name} must be {span}", param=name)
    elif isinstance(value, list):
        return _mistake_in_list(schema, value, name)
    elif isinstance(value, dict):
        return _mistake_in_object(schema, value, name)
    return None


def _mistake_in_list(schema: Schema, value: list[Any], name: str) -> Fault | None:
    if len(value) < schema.get("minItems", 0):
        count = "1 item" if schema["minItems"] == 1 else f"{schema['minItems']} items"
        return wrong(f"{name} must have at least {count}", param=name)
    if len(value) > schema.get("maxItems", len(value)):
        return wrong(f"{name} may have at most {schema['maxItems']} items", param=name)
    if "items" in schema:
        for index, one in enumerate(value):
            fault = mistake(schema["items"], one, f"{name}[{index}]")
            if fault is not None:
                return fault
    return None


def _mistake_in_object(schema: Schema, value: dict[str, Any], name: str) -> Fault | None:
    if len(value) > schema.get("maxProperties", len(value)):
        return wrong(f"{name} isn't supported: remove it", param=name)
    for needed in schema.get("required", ()):
        if needed not in value:
            full = f"{name}.{needed}" if name else needed
            return wrong(f"{full} is missing", param=full)
    for key, inner in schema.get("properties", {}).items():
        if key in value:
            fault = mistake(inner, value[key], f"{name}.{key}" if name else key)
            if fault is not None:
                return fault
    return None


def _of_type(schema: Schema, value: Any) -> bool:
    types = schema.get("type")
    if types is None:
        return True
    if isinstance(value, bool):  # which is an int to Python
        return "boolean" in ([types] if isinstance(types, str) else types)
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return True  # 1.0 is an integer to JSON Schema
    return any(
        isinstance(value, _TYPES[one]) for one in ([types] if isinstance(types, str) else types)
    )


def _types(schema: Schema) -> str:
    types = schema.get("type", "anything")
    names = [types] if isinstance(types, str) else list(types)
    words = {"array": "a list", "object": "an object", "integer": "a whole number",
             "number": "a number", "string": "a text", "boolean": "true or false",
             "null": "null"}  # fmt: skip
    return " or ".join(words.get(name, name) for name in names)
