"""A streaming service on loopback, scripted: what is retried, what is never said twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tokka.errors import ServiceError, UsageError
from tokka.models import live_endpoint
from tokka.models.endpoint import open_endpoint
from tokka.models.live_endpoint import EndpointLive
from tokka.models.protocol import GenerateRequest
from tokka.records import Message

KEY = "sk-very-secret-0123456789"
QUESTION = "口座番号1234567の残高は？"
Reply = tuple[int, dict[str, str], Sequence[Any]]


def event(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"delta": delta, "finish_reason": finish}], **more}


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
SAID: Reply = (200, {}, [event("パ"), event("リ"), event(None, "stop"), USAGE, "[DONE]"])


class Service:
    """Answers with the next of its replies; what is no dict is sent as it stands."""

    def __init__(self, *replies: Reply) -> None:
        self.seen: list[Any] = []
        service, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    reply = replies[min(len(service.seen), len(replies) - 1)]
                    service.seen.append((self.path, dict(self.headers), body))
                status, headers, events = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for one in events:
                    data = one if isinstance(one, str) else json.dumps(one)
                    self.wfile.write(f"data: {data}\n\n".encode())

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []
    monkeypatch.setenv("LLM_API_KEY", KEY)
    monkeypatch.setattr(live_endpoint, "wait_seconds", lambda *_: 0.0)

    def start(*replies: Reply) -> Service:
        started.append(Service(*replies))
        return started[-1]

    yield start
    for service in started:
        service.stop()


def ask(service: Service, retries: int = 2, **how: Any) -> tuple[str, Any]:
    """What was said, and the result or the failure."""

    async def said() -> tuple[str, Any]:
        model = open_endpoint(
            f"{service.url}#paris", hosts=[], api_key_env="LLM_API_KEY", retries=retries,
            input_usd_per_million=1.0, output_usd_per_million=2.0, timeout_seconds=5.0,
        )  # fmt: skip
        live = EndpointLive(model, places=2)
        prompt = live.renderer.prompt((Message(role="user", content=QUESTION),))
        writing = live.write(GenerateRequest(prompt, 8, **how))
        text = ""
        try:
            async for piece in writing:
                text += piece.text
        except (ServiceError, UsageError) as error:
            return text, error
        finally:
            await live.close()
        return text, writing.result

    return asyncio.run(said())


def test_a_text_streams_with_its_counts_and_its_price(serve: Callable[..., Service]) -> None:
    service = serve(SAID)
    text, result = ask(service, stop=("。",))
    assert (text, result.text, result.finish) == ("パリ", "パリ", "stop")
    assert (result.tokens_in, result.tokens_out) == (9, 4)
    assert result.cost_usd == pytest.approx((9 * 1.0 + 4 * 2.0) / 1e6)
    ((path, headers, body),) = service.seen
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["stream"], body["stop"], body["max_tokens"]) == (True, ["。"], 8)
    assert body["temperature"] == 0.0


def test_a_text_that_was_cut_says_so(serve: Callable[..., Service]) -> None:
    _, result = ask(serve((200, {}, [event("パ"), event(None, "length"), "[DONE]"])))
    assert result.finish == "length"
    assert result.tokens_out > 0  # estimated, where the service doesn't count


@pytest.mark.parametrize(
    "failure",
    [
        (503, {"retry-after": "0"}, []),
        (429, {}, []),
        (200, {}, []),
        (200, {}, ["no JSON"]),
        (200, {}, ["[1]"]),
        (200, {}, [{"error": {"message": QUESTION}}]),
    ],
    ids=["busy", "too many", "nothing", "garbage", "no object", "error"],
)
def test_before_anything_was_said_it_is_asked_again(
    serve: Callable[..., Service], failure: Reply
) -> None:
    service = serve(failure, SAID)
    text, result = ask(service)
    assert (text, result.text, len(service.seen)) == ("パリ", "パリ", 2)


def test_after_something_was_said_it_is_not_asked_again(serve: Callable[..., Service]) -> None:
    service = serve((200, {}, [event("パ")]), SAID)
    text, failure = ask(service)
    assert (text, len(service.seen)) == ("パ", 1)
    assert isinstance(failure, ServiceError) and "broke off" in str(failure)


def test_retries_come_to_an_end_and_say_why(serve: Callable[..., Service]) -> None:
    service = serve((503, {}, [QUESTION]))
    _, failure = ask(service, retries=2)
    assert len(service.seen) == 3
    assert isinstance(failure, ServiceError)
    assert "3 tries" in str(failure) and "503" in str(failure)
    assert "1234567" not in str(failure)


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (401, ServiceError, "key"),
        (403, ServiceError, "key"),
        (404, ServiceError, "model's name"),
        (307, ServiceError, "307"),
        (400, UsageError, "shorter"),
    ],
)
def test_what_no_retry_mends_is_named_without_the_services_words(
    serve: Callable[..., Service], status: int, kind: type[Exception], word: str
) -> None:
    service = serve((status, {"location": "http://evil.example/"}, [f"{KEY} {QUESTION}"]))
    _, failure = ask(service)
    assert len(service.seen) == 1
    assert type(failure) is kind and word in str(failure)
    assert KEY not in str(failure) and "1234567" not in str(failure)


def test_half_a_surrogate_pair_is_no_text_and_is_replaced(serve: Callable[..., Service]) -> None:
    text, result = ask(serve((200, {}, ['{"choices":[{"delta":{"content":"a\\ud83d"},'
                                        '"finish_reason":"stop"}]}'])))  # fmt: skip
    assert text == result.text == "a?"


def test_a_line_separator_within_a_text_doesnt_end_its_event(serve: Callable[..., Service]) -> None:
    said = '{"choices":[{"delta":{"content":"a\u2028b\x85c"},"finish_reason":"stop"}]}'
    text, result = ask(serve((200, {}, [said])))
    assert text == result.text == "a\u2028b\x85c"


def test_no_more_are_asked_at_once_than_there_are_places(serve: Callable[..., Service]) -> None:
    entered, most, lock = [0], [0], threading.Lock()
    gate = threading.Event()

    class Slow(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            with lock:
                entered[0] += 1
                most[0] = max(most[0], entered[0])
                if entered[0] > 2:
                    gate.set()
            gate.wait(0.2)  # for a third, who never comes
            yield from super().__iter__()
            with lock:
                entered[0] -= 1

    service = serve((200, {}, Slow([event("パ", "stop"), "[DONE]"])))

    async def many() -> list[str]:
        live = EndpointLive(
            open_endpoint(f"{service.url}#paris", hosts=[], api_key_env=None), places=2
        )
        prompt = live.renderer.prompt((Message(role="user", content=QUESTION),))

        async def one() -> str:
            return "".join([p.text async for p in live.write(GenerateRequest(prompt, 8))])

        texts = await asyncio.gather(*(one() for _ in range(6)))
        await live.close()
        return texts

    assert asyncio.run(many()) == ["パ"] * 6
    assert most[0] == 2
