"""What /openapi.json shows of a server: its routes, and the shapes that bodies are checked by.

>>> description(facts, embeds=True)["paths"]["/v1/chat/completions"]["post"]["requestBody"]
"""

from __future__ import annotations

from typing import Any

from tokka import __version__
from tokka.serving.callers import EVERYBODY, MAY
from tokka.serving.service import Facts
from tokka.serving.shapes import APPROVAL, CHAT, COMPLETION, EMBEDDING, STRING, Schema

_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": STRING,
                "type": STRING,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_SAYS = {
    400: "The request is wrong; `param` names where.",
    401: "The key is missing, unknown, revoked or expired.",
    403: "The key may not do this.",
    404: "There is no such model or route.",
    405: "The route takes another method.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body isn't plain JSON.",
    429: "A budget of the key is used up; `Retry-After` says when to come back.",
    500: "Something unexpected.",
    503: "No place, no approval, or no model now; `Retry-After` says when to come back.",
}
SINCE, KEY_ID = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", r"^[0-9A-Za-z_-]{1,64}$"
_OBJECT: Schema = {"type": "object"}
_LIST: Schema = {
    "type": "object",
    "properties": {"object": STRING, "data": {"type": "array"}},
    "required": ["object", "data"],
}
_COMPLETED: Schema = {
    "type": "object",
    "properties": {
        "id": STRING,
        "object": STRING,
        "created": {"type": "integer"},
        "model": STRING,
        "choices": {"type": "array", "minItems": 1},
        "usage": _OBJECT,
        "tokka": _OBJECT,
    },
    "required": ["id", "object", "created", "model", "choices", "usage", "tokka"],
}


def description(facts: Facts, embeds: bool) -> dict[str, Any]:
    model = {"in": "path", "name": "model", "required": True, "schema": STRING}
    log = [
        {"in": "query", "name": "since", "schema": {"type": "string", "pattern": SINCE},
         "description": "UTC, as 2026-11-23T00:00:00Z"},
        {"in": "query", "name": "key", "schema": {"type": "string", "pattern": KEY_ID}},
        {"in": "query", "name": "limit",
         "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    ]  # fmt: skip
    paths = {
        "/healthz": _get("Whether the process lives", _OBJECT),
        "/readyz": _get("Whether requests are answered, else why not", _OBJECT, 503),
        "/openapi.json": _get("This description", _OBJECT),
        "/metrics": _get("Figures for Prometheus", None, media="text/plain"),
        "/v1/models": _get("What is served", _LIST),
        "/v1/models/{model}": _get("One model", _OBJECT, 404, parameters=[model]),
        "/v1/chat/completions": _post("Answer a conversation", CHAT, _COMPLETED, 404, stream=True),
        "/v1/completions": _post("Answer a text", COMPLETION, _COMPLETED, 404, stream=True),
        "/v1/embeddings": _post(
            "Vectors of the release's embedder" if embeds else "Not offered by this release",
            EMBEDDING, _LIST, 404,
        ),
        "/tokka/release": _get("The release, its approvals and conditions", _OBJECT),
        "/tokka/requests": _get("The request log, newest first", _LIST, 400, parameters=log),
        "/tokka/approvals": _post("Approve or reject, as an actor", APPROVAL, _OBJECT),
    }  # fmt: skip
    for path, item in paths.items():
        for operation in item.values():
            _guard(path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"tokka: {facts.name}",
            "version": __version__,
            "description": "An OpenAI-compatible server of one release. Answers are decoded as "
            "they were examined; what a caller wishes otherwise is refused, or named in "
            "`tokka.not_applied`.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _get(
    summary: str,
    schema: Schema | None,
    *statuses: int,
    media: str = "application/json",
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": _responses(schema, media, statuses),
    }
    if parameters:
        operation["parameters"] = parameters
    return {"get": operation}


def _post(
    summary: str, body: Schema, schema: Schema, *statuses: int, stream: bool = False
) -> dict[str, Any]:
    responses = _responses(schema, "application/json", (400, 408, 413, 415, 429, 503, *statuses))
    if stream:
        responses["200"]["content"]["text/event-stream"] = {"schema": STRING}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": responses,
        }
    }


def _guard(path: str, operation: dict[str, Any]) -> None:
    roles = MAY[path]
    statuses = [405, 500]
    operation["security"] = []
    if roles != EVERYBODY:
        operation["security"] = [{"key": []}]
        operation["description"] = f"Roles: {', '.join(sorted(roles))}."
        statuses += [401, 403, 503]
    for status in statuses:
        operation["responses"].setdefault(str(status), _refusal(status))


def _responses(schema: Schema | None, media: str, statuses: tuple[int, ...]) -> dict[str, Any]:
    content: dict[str, Any] = {} if schema is None else {"schema": schema}
    found: dict[str, Any] = {"200": {"description": "Done.", "content": {media: content}}}
    for status in statuses:
        found[str(status)] = _refusal(status)
    return found


def _refusal(status: int) -> dict[str, Any]:
    said: dict[str, Any] = {
        "description": _SAYS[status],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    if status in (429, 503):
        said["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer"}}}
    return said
