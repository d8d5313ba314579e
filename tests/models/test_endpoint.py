"""The endpoint against a scripted service on loopback; the real one is in tests/contracts."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tokka.errors import ServiceError, UsageError
from tokka.models import endpoint
from tokka.models.endpoint import EndpointModel, open_endpoint
from tokka.models.protocol import GenerateRequest, GenerateResult
from tokka.records import Message

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, dict[str, str], Any]


def said(text: Any = "Paris", finish: str = "stop", **more: Any) -> Reply:
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    choice = {"message": {"content": text}, "finish_reason": finish}
    return 200, {}, {"choices": [choice], "usage": usage, **more}


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that has given up on a run is no error of the service."""


class Service:
    """Answers each question by its own text: `script[text]` is a list of replies, used in turn."""

    def __init__(self, script: dict[str, Sequence[Reply]] | Callable[[str], Reply]) -> None:
        self.script, self.seen, self.lock = script, [], threading.Lock()
        self.headers: list[Any] = []
        self.bodies: list[Any] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, answer = service.reply(body, self.headers, self.path)
                if status == 0:
                    self.close_connection = True
                    return
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def reply(self, body: Any, headers: Any, path: str) -> Reply:
        text = body["messages"][-1]["content"]
        with self.lock:
            turn = self.seen.count(text)
            self.seen.append(text)
            self.headers.append(dict(headers))
            self.bodies.append((path, body))
        if callable(self.script):
            return self.script(text)
        replies = self.script[text]
        return replies[min(turn, len(replies) - 1)]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Shelf(dict[str, str]):
    """A memo in memory, through JSON as the real one."""

    def get(self, key: str) -> Any | None:  # type: ignore[override]
        return json.loads(self[key]) if key in self else None

    def put(self, key: str, value: Any) -> None:
        self[key] = json.dumps(value)


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(script: Any) -> Service:
        started.append(Service(script))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str | None]]:
    """No test sleeps; what would have been waited for is recorded."""
    asked: list[tuple[int, str | None]] = []

    def wait_seconds(attempt: int, retry_after: str | None, draw: float) -> float:
        asked.append((attempt, retry_after))
        return 0.0

    monkeypatch.setattr(endpoint, "wait_seconds", wait_seconds)
    monkeypatch.setenv("TEST_KEY", KEY)
    return asked


def connect(service: Service, **how: Any) -> EndpointModel:
    return open_endpoint(f"{service.url}#m", **{"hosts": [], "api_key_env": "TEST_KEY", **how})


def request(model: EndpointModel, text: str, **how: Any) -> GenerateRequest:
    prompt = model.renderer.prompt((Message(role="user", content=text),))
    return GenerateRequest(prompt, **{"max_tokens": 8, **how})


def ask(model: EndpointModel, *texts: str, **how: Any) -> list[GenerateResult]:
    return list(model.generate([request(model, text) for text in texts], **how))


def test_a_request_is_sent_as_chat_and_its_cost_is_counted(serve: Any) -> None:
    service = serve({"q": [said("Paris", "length")]})
    with connect(service, input_usd_per_million=2.0, output_usd_per_million=10.0) as model:
        (result,) = model.generate([request(model, "q", seed=7, stop=("\n",))])
    path, body = service.bodies[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "temperature": 0.0,
        "seed": 7,
        "max_tokens": 8,
        "stop": ["\n"],
    }
    assert service.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (result.text, result.finish, result.tokens_in, result.tokens_out) == (
        "Paris",
        "length",
        10,
        4,
    )
    assert result.cost_usd == pytest.approx((10 * 2 + 4 * 10) / 1e6)


def test_answers_keep_the_order_of_the_questions(serve: Any) -> None:
    first_may_go = threading.Event()

    def script(text: str) -> Reply:
        if text == "slow":
            assert first_may_go.wait(10)
        else:
            first_may_go.set()
        return said(text)

    with connect(serve(script), concurrency=2) as model:
        assert [r.text for r in ask(model, "slow", "fast")] == ["slow", "fast"]


def test_the_first_answer_arrives_while_the_second_is_still_open(serve: Any) -> None:
    second_may_go = threading.Event()

    def script(text: str) -> Reply:
        if text == "second":
            assert second_may_go.wait(10)
        return said(text)

    with connect(serve(script)) as model:
        results = model.generate([request(model, "first"), request(model, "second")])
        assert next(results).text == "first"
        second_may_go.set()
        assert next(results).text == "second"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503, 0])
def test_a_passing_failure_is_tried_again(
    serve: Any, waits: list[tuple[int, str | None]], status: int
) -> None:
    service = serve({"q": [(status, {"retry-after": "3"}, {}), said()]})
    with connect(service) as model:
        assert ask(model, "q")[0].text == "Paris"
    assert len(service.seen) == 2
    assert waits == [(0, "3" if status else None)]


def test_a_question_that_is_refused_fails_alone_and_at_once(serve: Any) -> None:
    service = serve({"bad": [(400, {}, {"error": "too long"})], "q": [said()]})
    with connect(service) as model:
        bad, good = ask(model, "bad", "q")
    assert (bad.finish, bad.text) == ("error", "")
    assert "127.0.0.1" in bad.error and "400" in bad.error and "too long" in bad.error
    assert good.text == "Paris"
    assert service.seen.count("bad") == 1


def test_a_lone_refused_question_is_that_questions_result(serve: Any) -> None:
    with connect(serve({"bad": [(422, {}, {})]})) as model:
        assert ask(model, "bad")[0].finish == "error"


def test_a_question_that_keeps_failing_is_an_error_after_all_tries(serve: Any) -> None:
    service = serve({"bad": [(500, {}, {})], "q": [said()]})
    with connect(service, retries=2, concurrency=1) as model:
        good, bad = ask(model, "q", "bad")
    assert good.text == "Paris"
    assert bad.finish == "error" and "3 tries" in bad.error
    assert service.seen.count("bad") == 3


@pytest.mark.parametrize("reply", [(503, {}, {}), (0, {}, {}), (200, {}, b"<html>busy</html>")])
def test_a_service_that_never_answers_stops_the_run_soon(serve: Any, reply: Reply) -> None:
    service = serve(lambda _: reply)
    with (
        connect(service, retries=1) as model,
        pytest.raises(ServiceError, match=r"127\.0\.0\.1") as failure,
    ):
        ask(model, *(f"q{i}" for i in range(50)))
    assert failure.value.exit_code == 5
    assert len(set(service.seen)) < 10


def test_when_every_question_is_refused_the_run_stops(serve: Any) -> None:
    with (
        connect(serve(lambda _: (400, {}, {"error": "no such parameter"}))) as model,
        pytest.raises(ServiceError, match=r"all 3 requests were refused.*no such parameter"),
    ):
        ask(model, "a", "b", "c")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_the_run_and_is_never_shown(serve: Any, status: int) -> None:
    service = serve(lambda _: (status, {}, {"error": f"bad key {KEY[:9]}, {KEY}"}))
    with connect(service) as model:
        with pytest.raises(ServiceError, match=rf"127\.0\.0\.1: status {status}") as failure:
            ask(model, "q")
        assert KEY[:9] not in str(failure.value) and KEY[:9] not in repr(model)
    assert len(service.seen) == 1


def test_a_key_that_a_service_repeats_is_taken_out_of_errors(serve: Any) -> None:
    with connect(serve({"q": [(400, {}, {"error": f"header was Bearer {KEY}"})]})) as model:
        error = ask(model, "q")[0].error
    assert KEY not in error and "[key]" in error


def test_an_unknown_model_stops_the_run(serve: Any) -> None:
    with (
        connect(serve(lambda _: (404, {}, {"error": "model m not found"}))) as model,
        pytest.raises(ServiceError, match="model m not found"),
    ):
        ask(model, "q")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named_and_not_followed(serve: Any, status: int) -> None:
    other = serve(lambda _: said())
    service = serve(lambda _: (status, {"location": other.url + "?token=s3cret"}, {}))
    with connect(service) as model, pytest.raises(ServiceError, match="redirects to") as failure:
        ask(model, "q")
    assert other.url in str(failure.value) and "s3cret" not in str(failure.value)
    assert not other.seen


def test_the_memo_holds_answers_and_no_errors(serve: Any) -> None:
    service = serve({"a": [said("A")], "b": [(400, {}, {}), said("B")]})
    shelf = Shelf()
    with connect(service) as model:
        first = ask(model, "a", "b", memo=shelf)
        again = ask(model, "a", "b", memo=shelf)
    assert [r.finish for r in first] == ["stop", "error"]
    assert again[0] == first[0]  # to the measured second: it was not asked again
    assert again[1].text == "B"
    assert sorted(service.seen) == ["a", "b", "b"]


def test_progress_counts_every_question_once(serve: Any) -> None:
    shelf, seen = Shelf(), list[int]()
    with connect(serve(lambda _: said())) as model:
        ask(model, "a", memo=shelf)
        ask(model, "a", "b", "c", memo=shelf, progress=seen.append)
    assert sum(seen) == 3


def test_no_proxy_stands_between_this_machine_and_itself(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with connect(serve({"q": [said()]}), retries=0) as model:
        assert ask(model, "q")[0].text == "Paris"


def test_half_a_surrogate_pair_becomes_text_that_can_be_kept(serve: Any) -> None:
    with connect(serve({"q": [said("ok \ud83d")]})) as model:
        assert ask(model, "q")[0].text.encode() == b"ok ?"


def test_an_answer_without_usage_is_estimated_and_one_without_text_is_empty(serve: Any) -> None:
    script = {"質問": [said("東京 Tokyo", usage=None)], "none": [said(None)]}
    with connect(serve(script)) as model:
        estimated, empty = ask(model, "質問", "none")
    assert (estimated.tokens_in, estimated.tokens_out) == (2, 4)
    assert (empty.text, empty.finish) == ("", "stop")


def test_nothing_is_opened_for_a_host_that_is_not_listed() -> None:
    with pytest.raises(UsageError, match=r"models\.example\.jp is not listed"):
        open_endpoint("https://models.example.jp/v1#m", hosts=[], api_key_env=None)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("http://127.0.0.1:1/v1", "names no model"),
        ("http://127.0.0.1:1/v1?api-key=s3cret#m", "no .query"),
        ("http://me:s3cret@127.0.0.1:1/v1#m", "environment variable"),
    ],
)
def test_a_reference_that_cannot_be_used_says_why(reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        open_endpoint(reference, hosts=[], api_key_env=None)
    assert "s3cret" not in str(refusal.value)


def test_a_missing_or_broken_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN_KEY", "two words")
    for name in ("ABSENT_KEY", "BROKEN_KEY"):
        with pytest.raises(UsageError, match=name) as refusal:
            open_endpoint("http://127.0.0.1:1/v1#m", hosts=[], api_key_env=name)
        assert "two words" not in str(refusal.value)


def test_a_closed_model_says_so(serve: Any) -> None:
    model = connect(serve({"q": [said()]}))
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        ask(model, "q")


# ---- token ids to /completions ------------------------------------------------------------------


def counted(ids: int, text: str = "Paris", finish: str = "stop") -> Reply:
    usage = {"prompt_tokens": ids, "completion_tokens": 4}
    return 200, {}, {"choices": [{"text": text, "finish_reason": finish}], "usage": usage}


@pytest.fixture
def renderer(make_tokenizer: Any) -> Any:
    from tokka.models.rendering import TokenRenderer

    return TokenRenderer(make_tokenizer(), "en")


@pytest.fixture
def by_ids(
    serve: Any, renderer: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Service, EndpointModel]]:
    """A service that is asked by token ids, and the model on it."""

    def start(reply: Callable[[int], Reply] = counted) -> tuple[Service, EndpointModel]:
        service = serve(lambda _: reply(len(service.bodies[-1][1]["prompt"])))
        answer = service.reply

        def told(body: Any, headers: Any, path: str) -> Reply:
            found = answer({"messages": [{"content": path}], **body}, headers, path)
            service.bodies[-1] = (path, body)
            return found

        service.reply = told
        return service, connect(service, renderer=renderer)

    return start


def test_with_a_tokenizer_token_ids_are_sent_and_hashed(by_ids: Any, renderer: Any) -> None:
    from tokka.models.rendering import hash_ids

    service, model = by_ids()
    asked = request(model, "q", seed=7, stop=("\n", "。"))
    (result,) = model.generate([asked])
    ((path, body),) = service.bodies
    assert path == "/v1/completions"
    assert body == {
        "model": "m",
        "prompt": list(renderer.prompt((Message(role="user", content="q"),)).ids),
        "stop_token_ids": sorted(renderer.stop_ids),
        "temperature": 0.0,
        "seed": 7,
        "max_tokens": 8,
        "stop": ["。"],
    }
    assert (asked.prompt.hash_kind, asked.prompt.sha256) == ("tokens", hash_ids(body["prompt"]))
    assert (result.text, result.tokens_in, result.tokens_out) == ("Paris", len(body["prompt"]), 4)
    assert model.capabilities.token_ids and not model.capabilities.chat_template
    assert not model.capabilities.scores_options


def test_a_line_break_ends_an_answer_here_once_something_was_said(by_ids: Any) -> None:
    _, model = by_ids(lambda n: counted(n, "\n blue\nred", "length"))
    (result,) = model.generate([request(model, "q", stop=("\n",))])
    assert (result.text, result.finish) == ("\n blue", "stop")


def test_a_prompt_that_is_not_counted_is_taken_as_sent(by_ids: Any) -> None:
    _, model = by_ids(lambda n: (200, {}, {"choices": [{"text": "a", "finish_reason": "stop"}]}))
    asked = request(model, "q")
    assert next(model.generate([asked])).tokens_in == len(asked.prompt.ids)


def test_another_tokenizer_is_another_model(by_ids: Any, make_tokenizer: Any) -> None:
    from tokka.models.rendering import TokenRenderer

    service, model = by_ids()
    other = connect(service, renderer=TokenRenderer(make_tokenizer(adds_bos=False), "en"))
    assert len({model.digest, other.digest, connect(service).digest}) == 3


def test_an_answer_of_another_route_is_an_error_that_names_this_one(by_ids: Any) -> None:
    _, model = by_ids(lambda n: said())
    with pytest.raises(ServiceError, match="none of /completions"):
        ask(model, "q")
