"""The way in: every request passes here before a route sees it, and every answer on its way out.

A request gets an id; who asks, from where, how often and how much is checked; the body is read
within its limits. An answer gets the headers that belong to every one of them, a failure OpenAI's
error shape. What happened goes to the metrics, the trace and the request log; of an unexpected
failure only its type and place are written down, since its words may repeat what was asked.

    app = Door(service, routes)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback
from contextlib import ExitStack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokka.serving.callers import EVERYBODY, MAY, POSTED, check_role
from tokka.serving.faults import Fault, unexpected
from tokka.serving.notes import note_down
from tokka.serving.service import Service, Visit

VISIT = "tokka.visit"
WHILE_STOPPING = frozenset({"/healthz", "/readyz", "/metrics"})
_log = logging.getLogger("tokka.serving")
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_TLS = (b"strict-transport-security", b"max-age=31536000")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Door:
    def __init__(self, service: Service, inside: ASGIApp) -> None:
        self._service, self._inside = service, inside
        facts = service.facts
        headers = [*_SAFE, (b"x-tokka-release", facts.name.encode())]
        if facts.unapproved:
            headers.append((b"x-tokka-unapproved", b"true"))
        self._headers = tuple(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._inside(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        service = self._service
        visit = Visit(f"req_{secrets.token_hex(12)}", route_of(scope["path"]), scope["headers"])
        scope[VISIT] = visit
        visit.span = service.tracing.begin(f"{_method(scope)} {visit.route}", visit.headers)
        tls = (_TLS,) if scope.get("scheme") == "https" else ()
        own = [*self._headers, *tls, (b"x-request-id", visit.id.encode())]

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status, visit.begun = message["status"], True
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        with ExitStack() as held:
            try:
                body = await self._check(scope, receive, visit, held)
                await self._inside(scope, body, out)
            except Fault as fault:
                visit.fault = fault
                await self._refuse(fault, visit, out)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                _log.error("request %s failed: %s", visit.id, where(error))
                visit.fault = unexpected()
                await self._refuse(visit.fault, visit, out)
            finally:
                note_down(service, visit, _method(scope))

    async def _check(
        self, scope: Scope, receive: Receive, visit: Visit, held: ExitStack
    ) -> Receive:
        """Raises Fault. Gives back the rest of what the client sends: its leaving."""
        service, route = self._service, visit.route
        if service.draining and route not in WHILE_STOPPING:
            service.refuse_unless_ready()
        if MAY.get(route) != EVERYBODY:
            if service.ring.open:
                self._refuse_foreign_pages(visit)
            visit.key = await service.ring.key_of(visit.headers)
        if route not in MAY:
            raise Fault(404, "there is no such route; /openapi.json lists them", code="no_route")
        if visit.key is not None:
            check_role(route, visit.key)
        taken = "POST" if route in POSTED else "GET"
        if scope["method"] != taken:
            raise Fault(405, f"this route takes {taken}", code="method_not_allowed", allow=taken)
        if visit.key is None or taken == "GET":
            return receive
        self._check_head(visit)
        held.enter_context(service.budgets.enter(visit.key))
        if route.startswith("/v1/"):
            service.refuse_unless_ready()
        visit.body = await self._read(receive)
        return receive

    def _check_head(self, visit: Visit) -> None:
        heads = dict(visit.headers)
        kind = heads.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Fault(415, "send the header Content-Type: application/json", code="content_type")
        if heads.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Fault(415, "compressed bodies aren't taken; send it plain", code="content_type")
        length = heads.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._service.limits.max_body_bytes:
            raise self._too_large()

    async def _read(self, receive: Receive) -> bytes:
        """The body, as long as it is short enough and comes soon enough."""
        limits = self._service.limits
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Fault(400, "the client left", code="disconnected")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limits.max_body_bytes:
                        raise self._too_large()
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Fault(
                408, f"the body didn't come within {limits.body_seconds:g} seconds", code="too_slow"
            ) from None

    def _too_large(self) -> Fault:
        limit = self._service.limits.max_body_bytes
        return Fault(413, f"the body may have at most {limit} bytes; send less", code="too_large")

    def _refuse_foreign_pages(self, visit: Visit) -> None:
        """Without keys, any page that a browser on this machine shows could ask: it may not, also
        not under a name that its owner points at 127.0.0.1."""
        heads = dict(visit.headers)
        host = heads.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        origin = heads.get(b"origin", b"").decode("latin-1").lower()
        from_here = origin.removeprefix("http://").removeprefix("https://") == host
        known = not origin or from_here or origin in self._service.limits.cors
        if name not in _LOOPBACK or not known:
            raise Fault(
                403, "without keys, only programs on this machine are answered; serve with keys",
                code="foreign_page",
            )  # fmt: skip

    async def _refuse(self, fault: Fault, visit: Visit, send: Send) -> None:
        if visit.begun:
            return  # the head is out; closing the connection says the rest
        body = fault.body(**self._service.mark)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if fault.retry_after is not None:
            headers.append((b"retry-after", str(fault.retry_after).encode()))
        if fault.allow:
            headers.append((b"allow", fault.allow.encode()))
        if fault.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if fault.status in (408, 413) or fault.code == "draining":  # nothing more is read
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": fault.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def route_of(path: str) -> str:
    """The route's template; a path that no route has is "other", so it can't become a label."""
    if path in MAY:
        return path
    if path.startswith("/v1/models/") and "/" not in path.removeprefix("/v1/models/"):
        return "/v1/models/{model}"
    return "other"


def where(error: BaseException) -> str:
    """Type and places of a failure, without its words and without what stood in the lines."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames[::-1]
    )
    return f"{type(error).__name__} at {places}"


def _method(scope: Scope) -> str:
    """GET, POST, or "other": a method is a label too."""
    method = scope["method"]
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE") else "other"
