"""What a request is refused with: a status and OpenAI's error shape.

Anything → `Fault` → JSON. A message names what was wrong and what to do, and repeats nothing that a
caller wrote except the names of its fields, so it may be logged.

>>> Fault(400, "n must be 1: one text is written for a request", param="n").body()
b'{"error":{"message":"n must be 1: …","type":"invalid_request_error","param":"n","code":null}}'
"""

from __future__ import annotations

import json
import math
from typing import Any

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Fault(Exception):
    """`retry_after`: seconds, for 429 and 503. `reason` is a fixed word for the metrics."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        reason: str = "",
        allow: str = "",
    ) -> None:
        super().__init__(message)
        self.allow = allow  # the method that a route takes, with 405
        self.status, self.message, self.param, self.code = status, message, param, code
        if retry_after is None and status in (429, 503):
            retry_after = 1.0
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        self.reason = reason or code or str(status)

    @property
    def kind(self) -> str:
        if self.status >= 500:
            return "server_error"
        return _TYPES.get(self.status, "invalid_request_error")

    def shape(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }

    def body(self, **beside: Any) -> bytes:
        return json.dumps(
            {"error": self.shape(), **beside}, ensure_ascii=False, separators=(",", ":")
        ).encode()


def unexpected() -> Fault:
    return Fault(
        500, "something unexpected happened; the server's log names it by the request's id",
        code="unexpected",
    )  # fmt: skip


def wrong(message: str, param: str | None = None, code: str | None = None) -> Fault:
    return Fault(400, message, param=param, code=code, reason="invalid")


def unavailable(message: str, reason: str, retry_after: float = 5.0) -> Fault:
    return Fault(503, message, code=reason, retry_after=retry_after, reason=reason)
