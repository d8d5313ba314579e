"""The routes of one release: OpenAI's, and a few of our own.

    app = make_app(service)      # an ASGI app; the door stands before every route

Bodies are checked against `shapes`, which the OpenAPI description (`describing`) shows; no model of
pydantic stands in a request's way.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

from tokka.errors import IntegrityError, ServiceError, TokkaError, UsageError
from tokka.extras import require
from tokka.release.rows import RequestRow

require("starlette", extra="serve")

from starlette.middleware.cors import CORSMiddleware  # noqa: E402  (after what to install)
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Route, Router  # noqa: E402
from starlette.types import ASGIApp, Receive, Scope, Send  # noqa: E402

from tokka.serving.asks import ask_chat, ask_completion, ask_embeddings, read_object  # noqa: E402
from tokka.serving.callers import presented_key  # noqa: E402
from tokka.serving.describing import KEY_ID, SINCE, description  # noqa: E402
from tokka.serving.door import VISIT, Door  # noqa: E402
from tokka.serving.faults import Fault, wrong  # noqa: E402
from tokka.serving.replies import ChatShape, CompletionShape, dumps  # noqa: E402
from tokka.serving.reply import Reply  # noqa: E402
from tokka.serving.service import Service, Visit, elsewhere  # noqa: E402
from tokka.serving.shapes import APPROVAL  # noqa: E402
from tokka.serving.watching import CONTENT_TYPE  # noqa: E402

_MOST_ROWS = 1000


def make_app(service: Service) -> ASGIApp:
    router = Router(_routes(service), redirect_slashes=False, default=_no_route)
    app: ASGIApp = Door(service, router)
    if service.limits.cors:
        app = CORSMiddleware(
            app,
            allow_origins=service.limits.cors,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("X-Request-Id", "X-Tokka-Release", "X-Tokka-Prompt-SHA256",
                            "X-Tokka-Unapproved", "Retry-After"),
        )  # fmt: skip
    return app


def _routes(service: Service) -> list[Route]:
    routes = _Routes(service)
    get = {
        "/healthz": routes.healthz,
        "/readyz": routes.readyz,
        "/metrics": routes.metrics,
        "/openapi.json": routes.openapi,
        "/v1/models": routes.models,
        "/v1/models/{model}": routes.model,
        "/tokka/release": routes.release,
        "/tokka/requests": routes.requests,
    }
    post = {
        "/v1/chat/completions": routes.chat,
        "/v1/completions": routes.completions,
        "/v1/embeddings": routes.embeddings,
        "/tokka/approvals": routes.approvals,
    }
    return [
        *(Route(path, route, methods=["GET"]) for path, route in get.items()),
        *(Route(path, route, methods=["POST"]) for path, route in post.items()),
    ]


class _Routes:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._description = dumps(description(service.facts, service.embed_with is not None))

    # ---- alive, ready, watched ------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return self._json({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        why = self._service.not_ready()
        if why:
            self._service.refuse_unless_ready()
        return self._json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.page(), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        return Response(self._description, media_type="application/json")

    # ---- OpenAI's -------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        return self._json({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        facts = self._service.facts
        if request.path_params["model"] not in (facts.name, facts.model):
            raise Fault(
                404, f"that model isn't served here; ask for {facts.name}", code="model_not_found"
            )
        return self._json(self._model())

    async def chat(self, request: Request) -> Response:
        service, visit = self._service, _visit(request)
        asked = ask_chat(visit.body, service.rules)
        return Reply(service, visit, asked, ChatShape(service, visit, asked))

    async def completions(self, request: Request) -> Response:
        service, visit = self._service, _visit(request)
        asked = ask_completion(visit.body, service.rules)
        return Reply(service, visit, asked, CompletionShape(service, visit, asked))

    async def embeddings(self, request: Request) -> Response:
        service, visit = self._service, _visit(request)
        embedder = service.embed_with
        if embedder is None:
            raise Fault(
                404, f"{service.facts.name} searches without an embedder, so it has no embeddings",
                code="no_embedder",
            )  # fmt: skip
        asked = ask_embeddings(visit.body, service.rules)
        if asked.dimensions not in (None, embedder.dimensions):
            raise wrong(f"dimensions must be {embedder.dimensions} or left out", "dimensions")
        assert visit.key is not None
        embed = embedder.queries if asked.kind == "query" else embedder.passages
        count = service.live.renderer.count
        service.budgets.check_day(visit.key)
        try:
            async with service.hearing.turn(visit.key.id, service.limits.queue_seconds):
                tokens = await elsewhere(service, lambda: sum(map(count, asked.texts)))
                service.budgets.reserve(visit.key, tokens).settle(tokens)
                visit.prompt_tokens = tokens
                rows = await elsewhere(service, embed, asked.texts)
        except TimeoutError:
            raise Fault(503, "no place came free in time", code="queue_timeout") from None
        except ServiceError:
            raise Fault(503, "the embedder can't be reached", code="model_failed") from None
        return self._json(
            {
                "object": "list",
                "model": service.facts.name,
                "data": [
                    {"object": "embedding", "index": index, "embedding": _vector(row, asked.base64)}
                    for index, row in enumerate(rows)
                ],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    # ---- our own --------------------------------------------------------------------------------

    async def release(self, request: Request) -> Response:
        facts, standing = self._service.facts, self._service.standing
        return self._json(
            {
                "release": facts.name,
                "model": facts.model,
                "version": facts.version,
                "digest": facts.digest,
                "language": facts.language,
                "base_model": facts.base_model,
                "base_licence": facts.base_licence,
                "terms": list(facts.terms),
                "serves": facts.serves,
                "engine": facts.engine,
                "stage": standing.stage,
                "unapproved": facts.unapproved,
                "approvals": [dict(one) for one in standing.approvals],
                "conditions": list(standing.conditions),
                "expires": standing.expires,
                "validation_due": standing.validation_due,
                "refusal": standing.refusal,
            }
        )

    async def requests(self, request: Request) -> Response:
        unknown = set(request.query_params) - {"since", "key", "limit"}
        if unknown or len(request.query_params.multi_items()) != len(request.query_params):
            raise wrong("since, key and limit may be given, each once")
        since = request.query_params.get("since")
        key_id = request.query_params.get("key")
        limit = request.query_params.get("limit", "100")
        if not (re.fullmatch("[0-9]{1,9}", limit) and 1 <= int(limit) <= _MOST_ROWS):
            raise wrong(f"limit must be a whole number from 1 to {_MOST_ROWS}", "limit")
        if since is not None and not re.fullmatch(SINCE, since, re.ASCII):
            raise wrong("since must be UTC, as 2026-11-23T00:00:00Z", "since")
        if key_id is not None and not re.fullmatch(KEY_ID, key_id):
            raise wrong("key must be a key's id, as tokka key list shows it", "key")
        rows = await asyncio.to_thread(
            self._service.registry.requests, since or "", key_id, int(limit)
        )
        return self._json({"object": "list", "data": [_log_row(row) for row in rows]})

    async def approvals(self, request: Request) -> Response:
        """A decision by whoever the key is bound to. What he may do is the ledger's matter."""
        visit = _visit(request)
        assert visit.key is not None
        row = read_object(visit.body, APPROVAL)
        if visit.key.actor is None:
            raise Fault(403, "this key is bound to no actor; sign in with one that is", code="role")
        presented = presented_key(visit.headers)
        try:
            done = await asyncio.to_thread(self._service.registry.decide, visit.key, presented, row)
        except IntegrityError:
            raise Fault(500, "the ledger isn't what it should be; see: tokka verify",
                        code="integrity") from None  # fmt: skip
        except UsageError as error:
            raise Fault(403, str(error), code="not_permitted") from None
        except TokkaError:
            raise Fault(503, "the ledger can't be written now", code="ledger") from None
        await self._service.look()
        return self._json(done)

    def _model(self) -> dict[str, Any]:
        facts, standing = self._service.facts, self._service.standing
        return {
            "id": facts.name,
            "object": "model",
            "created": facts.created,
            "owned_by": "tokka",
            "tokka": {
                "release": facts.name,
                "digest": facts.digest,
                "stage": standing.stage,
                "unapproved": facts.unapproved,
            },
        }

    def _json(self, value: dict[str, Any]) -> Response:
        return Response(dumps({**self._service.mark, **value}), media_type="application/json")


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise Fault(404, "there is no such route; /openapi.json lists them", code="no_route")


def _visit(request: Request) -> Visit:
    visit: Visit = request.scope[VISIT]
    return visit


def _vector(row: Any, as_base64: bool) -> Any:
    """float32, little-endian in base64, which OpenAI's client asks for by default."""
    if as_base64:
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return [float(value) for value in row]


def _log_row(row: RequestRow) -> dict[str, Any]:
    names = [name for name in RequestRow.__dataclass_fields__ if name != "details"]
    return {**{name: getattr(row, name) for name in names}, "details": dict(row.details)}
