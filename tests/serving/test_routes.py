"""Every route against every role, and what each of them answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fakes import KEYS, SILENCE, FakeLedger, FakeLive, make_service
from starlette.routing import Route

from tokka.errors import ServiceError, UsageError
from tokka.serving.app import _routes, make_app
from tokka.serving.callers import MAY, POSTED
from tokka.serving.service import Service, Standing

HELLO = {"model": "aoba-1", "messages": [{"role": "user", "content": "融資の限度額は？"}]}
BODIES: dict[str, Any] = {
    "/v1/chat/completions": HELLO,
    "/v1/completions": {"model": "aoba-1", "prompt": "融資の限度額は？"},
    "/v1/embeddings": {"model": "aoba-1", "input": "融資"},
    "/tokka/approvals": {"verdict": "approve", "model": "aoba", "version": 1, "digest": "d" * 64},
}
ROLES = ("nobody", "gone", "user", "operator", "auditor", "actor")
# Route → what each of ROLES gets.
MATRIX = {
    "/healthz": (200, 200, 200, 200, 200, 200),
    "/readyz": (200, 200, 200, 200, 200, 200),
    "/openapi.json": (200, 200, 200, 200, 200, 200),
    "/metrics": (401, 401, 403, 200, 403, 403),
    "/v1/models": (401, 401, 200, 200, 200, 200),
    "/v1/models/{model}": (401, 401, 200, 200, 200, 200),
    "/v1/chat/completions": (401, 401, 200, 403, 403, 403),
    "/v1/completions": (401, 401, 200, 403, 403, 403),
    "/v1/embeddings": (401, 401, 200, 403, 403, 403),
    "/tokka/release": (401, 401, 200, 200, 200, 200),
    "/tokka/requests": (401, 401, 403, 403, 200, 403),
    "/tokka/approvals": (401, 401, 403, 403, 403, 200),
}


def send(service: Service, *requests: dict[str, Any]) -> list[httpx.Response]:
    """One after the other, without a socket."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [await client.request(**request) for request in requests]

    return asyncio.run(ask())


def request(path: str, key: str | None = "user", **more: Any) -> dict[str, Any]:
    headers = {**more.pop("headers", {})}
    if key is not None:
        headers["authorization"] = f"Bearer tk-{key}"
    method = "POST" if path in BODIES else "GET"
    if path in BODIES and not {"content", "json"} & set(more):
        more["json"] = BODIES[path]
    return {"method": method, "url": path, "headers": headers, **more}


def one(service: Service, path: str, key: str | None = "user", **more: Any) -> httpx.Response:
    return send(service, request(path, key, **more))[0]


def test_every_route_has_its_row_in_the_matrix():
    routes = [route for route in _routes(make_service()) if isinstance(route, Route)]
    paths = {route.path for route in routes}
    assert paths == set(MATRIX) == set(MAY)
    assert len(routes) == len(paths)
    assert {route.path for route in routes if "POST" in route.methods} == POSTED == set(BODIES)


@pytest.mark.parametrize("path", MATRIX)
def test_a_role_reaches_what_it_may_and_nothing_else(path):
    service = make_service()
    asked = [
        request(path.replace("{model}", "aoba-1"), None if role == "nobody" else role)
        for role in ROLES
    ]
    answers = send(service, *asked)
    assert tuple(answer.status_code for answer in answers) == MATRIX[path]
    for answer in answers:
        if answer.status_code >= 400:
            assert answer.json()["error"]["code"]
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", MATRIX)
def test_another_method_is_refused_with_the_one_that_is_taken(path):
    role = next((r for r, s in zip(ROLES, MATRIX[path], strict=True) if s == 200), "user")
    taken = request(path)["method"]
    for method in ("DELETE", "HEAD", "POST" if taken == "GET" else "GET"):
        (answer,) = send(
            make_service(),
            {**request(path, role, json={}), "method": method, "url": path.replace("{", "")},
        )
        assert (answer.status_code, answer.headers["allow"]) == (405, taken)


@pytest.mark.parametrize(
    "header", ["", "tk-user", "Basic tk-user", "Bearer", "Bearer  ", "Bearer tk-users",
               "Bearer " + "x" * 600],
)  # fmt: skip
def test_every_wrong_key_gets_401(header):
    (answer,) = send(
        make_service(), {"method": "GET", "url": "/v1/models", "headers": {"authorization": header}}
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


def test_a_revoked_key_ends_within_seconds():
    service, keys = make_service(), dict(KEYS)
    service.ring._verify = keys.get
    now = [0.0]
    service.ring._clock = lambda: now[0]
    first = one(service, "/v1/models")
    del keys["tk-user"]
    now[0] = 5.1
    assert (first.status_code, one(service, "/v1/models").status_code) == (200, 401)


def test_an_unknown_route_is_404_and_only_for_who_has_a_key():
    assert one(make_service(), "/v1/nothing").status_code == 404
    assert one(make_service(), "/v1/nothing", None).status_code == 401


# ---- answers ------------------------------------------------------------------------------------


def test_an_answer_holds_its_citations_its_prompts_hash_and_the_release():
    answer = one(make_service(), "/v1/chat/completions")
    said = answer.json()
    message = said["choices"][0]["message"]
    assert message["content"] == "答え：融資の限度額は？\n\n[1] 融資規程、1ページ"
    assert message["annotations"][0]["url_citation"]["title"] == "融資規程"
    assert said["usage"] == {"prompt_tokens": 8, "completion_tokens": 11, "total_tokens": 19}
    tokka = said["tokka"]
    assert tokka["citations"][0]["quote"] == "融資の限度額は300万円です。"
    assert (tokka["status"], tokka["release"], tokka["unapproved"]) == ("answered", "aoba-1", False)
    assert answer.headers["x-tokka-prompt-sha256"] == tokka["prompt_sha256"]
    assert answer.headers["x-tokka-release"] == "aoba-1"
    assert answer.headers["x-request-id"] == tokka["request_id"]
    assert "x-tokka-unapproved" not in answer.headers


def events(answer: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_says_the_same_as_the_whole_answer(path):
    service = make_service(FakeLive(script=lambda r: "  答えは\u30003つ。 一 二  ", piece=2))
    whole = one(service, path).json()
    body = {**BODIES[path], "stream": True, "stream_options": {"include_usage": True}}
    *chunks, done = events(one(service, path, json=body))
    assert done == "[DONE]"
    text = "".join(
        choice.get("text", choice.get("delta", {}).get("content", ""))
        for chunk in chunks
        for choice in chunk["choices"]
    )
    first = whole["choices"][0]
    assert text == first.get("text", first.get("message", {}).get("content"))
    assert text.startswith("答えは\u30003つ。 一 二\n\n[1]")
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    end = chunks[-2]
    assert end["choices"][0]["finish_reason"] == "stop"
    same = {k: v for k, v in end["tokka"].items() if k != "request_id"}
    assert same == {k: v for k, v in whole["tokka"].items() if k != "request_id"}


def test_without_include_usage_no_chunk_speaks_of_usage():
    said = one(make_service(), "/v1/chat/completions", json={**HELLO, "stream": True})
    assert all("usage" not in chunk for chunk in events(said)[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_documents_hold_no_answer_no_model_is_asked(stream):
    live = FakeLive()
    asked = {**HELLO, "messages": [{"role": "user", "content": "秘密は？"}], "stream": stream}
    answer = one(make_service(live), "/v1/chat/completions", json=asked)
    said = events(answer)[-2] if stream else answer.json()
    assert SILENCE in answer.text
    assert said["choices"][0]["finish_reason"] == "stop"
    assert (said["tokka"]["status"], said["tokka"]["citations"]) == ("abstained", [])
    assert live.requests == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(UsageError("山田 is too long"), 400), (ServiceError("山田's child died"), 503)],
)
def test_a_model_that_refuses_to_begin_is_no_accident(error, status):
    class Refuses(FakeLive):
        def write(self, request):
            raise error

    service = make_service(Refuses())
    answer = one(service, "/v1/chat/completions")
    assert answer.status_code == status
    assert "山田" not in answer.text
    assert (service.inside, service.writing.used) == (0, 0)


def test_a_search_that_breaks_down_is_503():
    def hear(*_):
        raise ServiceError("the embedder is away, asked for 山田")

    service = make_service()
    service.specialist.hear = hear
    answer = one(service, "/v1/chat/completions")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "山田" not in answer.text
    assert (service.inside, service.hearing.used) == (0, 0)


def test_an_accident_within_a_stream_ends_it_with_an_error(caplog):
    service = make_service()
    service.specialist.said = lambda *_: [][1]
    chunks = events(one(service, "/v1/chat/completions", json={**HELLO, "stream": True}))
    assert chunks[-1]["error"]["code"] == "unexpected"
    assert "IndexError at test_routes.py" in caplog.text
    whole = one(service, "/v1/chat/completions")
    assert (whole.status_code, whole.json()["error"]["code"]) == (500, "unexpected")


def test_an_answer_that_was_cut_says_length():
    service = make_service()
    said = one(service, "/v1/chat/completions", json={**HELLO, "max_tokens": 3}).json()
    assert said["choices"][0]["finish_reason"] == "length"
    assert said["usage"]["completion_tokens"] == 3


def test_an_empty_answer_streams_an_end():
    service = make_service(FakeLive(script=lambda r: "  "))
    chunks = events(one(service, "/v1/chat/completions", json={**HELLO, "stream": True}))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1] == "[DONE]"


def test_only_a_keys_groups_widen_what_is_searched():
    """A question, a system text and extra fields can't: only the key's own groups reach the
    search, and a key without any sees unlabelled documents."""
    service = make_service(caller_system="append")
    tries = {
        **HELLO,
        "labels": ["hr"],
        "groups": ["hr"],
        "messages": [{"role": "system", "content": "labels: hr"}, *HELLO["messages"]],
    }
    mine = one(service, "/v1/chat/completions", json=tries).json()["tokka"]
    theirs = one(service, "/v1/chat/completions", "hr").json()["tokka"]
    assert [p["title"] for p in mine["passages"]] == ["融資規程"]
    assert [p["title"] for p in theirs["passages"]] == ["融資規程", "給与規程"]
    assert [c.labels for _, c in service.specialist.heard] == [(), ("hr",)]


def test_what_doesnt_fit_is_refused_with_the_figures():
    asked = {**HELLO, "messages": [{"role": "user", "content": "あ" * 1001}]}
    answer = one(make_service(), "/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert "1001 tokens don't fit into 1000" in answer.json()["error"]["message"]


def test_embeddings_come_as_numbers_or_as_base64():
    service = make_service()
    body = BODIES["/v1/embeddings"]
    numbers = one(service, "/v1/embeddings").json()["data"][0]["embedding"]
    coded = one(service, "/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    assert numbers == [0.5] * 4
    assert coded["data"][0]["embedding"] == "AAAAPwAAAD8AAAA/AAAAPw=="
    passage = one(service, "/v1/embeddings", json={**body, "input_type": "passage"}).json()
    assert passage["data"][0]["embedding"] == [-0.5] * 4
    assert one(service, "/v1/embeddings", json={**body, "dimensions": 8}).status_code == 400


def test_a_release_without_an_embedder_has_no_embeddings():
    answer = one(make_service(embedder=False), "/v1/embeddings")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_embedder")


# ---- approval -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MATRIX)
def test_an_unapproved_release_says_so_in_every_answer(path):
    service = make_service(unapproved=True)
    roles = [None, *("user", "operator", "auditor", "actor")]
    for answer in send(service, *(request(path.replace("{model}", "x"), role) for role in roles)):
        assert answer.headers["x-tokka-unapproved"] == "true"
        if answer.headers["content-type"] == "application/json" and path != "/openapi.json":
            assert '"unapproved":true' in answer.text


def test_an_unapproved_release_says_so_in_every_chunk():
    service = make_service(FakeLive(crashes=3), unapproved=True)
    chunks = events(one(service, "/v1/chat/completions", json={**HELLO, "stream": True}))
    assert len(chunks) == 5  # the role, three pieces, the error
    assert all(chunk["tokka"]["unapproved"] for chunk in chunks)
    assert chunks[-1]["error"]["code"] == "model_failed"


def test_a_withdrawn_release_is_served_no_more():
    ledger = FakeLedger()
    service = make_service(ledger=ledger)
    assert one(service, "/readyz", None).status_code == 200
    ledger.stands = Standing(stage="withdrawn", refusal="it is withdrawn")
    asyncio.run(service.look())
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/readyz"):
        answer = one(service, path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert "it is withdrawn" in answer.json()["error"]["message"]
    assert one(service, "/tokka/release").json()["refusal"] == "it is withdrawn"


def test_an_approval_that_runs_out_between_two_looks_ends_service_at_once():
    service = make_service()
    service.standing = Standing(stage="serving", expires="2020-01-01T00:00:00Z")
    answer = one(service, "/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_approved")


@pytest.mark.parametrize(("limit", "status"), [("1000", 200), ("0000000011000", 400), ("0", 400)])
def test_the_log_is_read_in_so_many_rows(limit, status):
    answer = one(make_service(), f"/tokka/requests?limit={limit}", "auditor", method="GET")
    assert answer.status_code == status


def test_an_actor_decides_over_his_session():
    ledger = FakeLedger()
    service = make_service(ledger=ledger)
    assert one(service, "/tokka/approvals", "actor").json() == {"stage": "approved"}
    assert ledger.decided == [("sato", BODIES["/tokka/approvals"])]
    body = {**BODIES["/tokka/approvals"], "verdict": "reject"}
    refused = one(service, "/tokka/approvals", "actor", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_permitted")


# ---- budgets and limits -------------------------------------------------------------------------


def test_budgets_answer_429_with_when_to_come_back(monkeypatch):
    from fakes import FakeKey

    keys = {"tk-user": FakeKey("user", requests_per_minute=1)}
    first, second = send(make_service(keys=keys), *[request("/v1/chat/completions")] * 2)
    assert (first.status_code, second.status_code) == (200, 429)
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert second.json()["error"]["type"] == "rate_limit_error"


def test_the_day_counts_what_was_used_and_a_restart_keeps_it():
    from fakes import FakeKey

    keys = {"tk-user": FakeKey("user", tokens_per_day=420)}
    ledger = FakeLedger()
    service = make_service(keys=keys, ledger=ledger)
    assert one(service, "/v1/chat/completions").status_code == 200
    service.recorder.close()
    assert set(ledger.usage.values()) == {19}
    again = make_service(keys=keys, ledger=ledger)
    refused = one(again, "/v1/chat/completions")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "tokens_per_day")
    assert "401 are left" in refused.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read_and_while():
    service = make_service(max_body_bytes=1024)
    large = json.dumps({**HELLO, "x": "y" * 2000}).encode()

    async def parts():
        for start in range(0, len(large), 100):
            yield large[start : start + 100]

    head = {"content-type": "application/json"}
    for content in (large, parts()):
        answer = one(service, "/v1/chat/completions", content=content, headers=head)
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "head", [{"content-type": "text/plain"}, {"content-encoding": "gzip",
             "content-type": "application/json"}],
)  # fmt: skip
def test_only_plain_json_is_read(head):
    answer = one(make_service(), "/v1/chat/completions", content=b"{}", headers=head)
    assert answer.status_code == 415


def test_every_answer_has_the_headers_that_protect_it():
    for path, key in (("/healthz", None), ("/v1/models", None), ("/v1/chat/completions", "user")):
        headers = one(make_service(), path, key).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_pages_of_other_origins_are_let_in_only_where_they_are_listed():
    page = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    closed = one(make_service(), "/v1/chat/completions", headers=page)
    assert "access-control-allow-origin" not in closed.headers
    service = make_service(cors=("https://chat.example",))
    preflight = {**request("/v1/models", None, headers=page), "method": "OPTIONS"}
    asked, answered, refused = send(
        service,
        preflight,
        request("/v1/models", headers=page),
        {**preflight, "headers": {**page, "origin": "https://evil.example"}},
    )
    assert asked.headers["access-control-allow-origin"] == "https://chat.example"
    assert answered.headers["access-control-allow-origin"] == "https://chat.example"
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1", "origin": "null"}, 403),
    ],
)
def test_without_keys_only_programs_on_this_machine_are_answered(headers, status):
    answer = one(make_service(keys=None), "/v1/models", None, headers=headers)
    assert answer.status_code == status
