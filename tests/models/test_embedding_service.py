"""Vectors over HTTP: sent only where text may go, put back in order, never sent twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, ServiceError, UsageError

np = pytest.importorskip("numpy", reason="numpy is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from tokka.models import embedding_service  # noqa: E402
from tokka.models.embedder import embedder_identity, open_embedder  # noqa: E402
from tokka.models.opening import EndpointOptions  # noqa: E402

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, dict[str, str], Any]


def vector(text: str) -> list[float]:
    """Not of length 1, and another one for another text."""
    return [float(len(text)), float(sum(map(ord, text)) % 97), 3.0]


def embedded(texts: Sequence[str]) -> Reply:
    rows = [{"index": i, "embedding": vector(text)} for i, text in enumerate(texts)]
    return 200, {}, {"data": rows[::-1]}  # the order is in the index, not in the list


class Service:
    def __init__(self, script: Callable[[Sequence[str]], Reply]) -> None:
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.bodies.append(body)
                service.headers.append(dict(self.headers))
                service.paths.append(self.path)
                status, headers, answer = script(body["input"])
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.reference = f"http://127.0.0.1:{self._server.server_port}/v1#e5"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Service]]:
    monkeypatch.setattr(embedding_service, "wait_seconds", lambda *_: 0.0)
    started: list[Service] = []

    def start(script: Callable[[Sequence[str]], Reply] = embedded) -> Service:
        started.append(Service(script))
        return started[-1]

    yield start
    for service in started:
        service.stop()


def test_vectors_come_back_in_order_and_of_length_one(serve: Any, tmp_path: Path) -> None:
    service = serve()
    embedder = open_embedder(service.reference, tmp_path)
    rows = embedder.passages(["融資", "a", "桜は春"])
    expected = np.array([vector(text) for text in ("融資", "a", "桜は春")])
    assert np.allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert rows.dtype == np.float32
    assert service.paths == ["/v1/embeddings"]
    assert service.bodies[0] == {
        "model": "e5",
        "input": ["融資", "a", "桜は春"],
        "encoding_format": "float",
    }


def test_a_text_is_sent_once_and_the_length_is_asked_for_once(serve: Any, tmp_path: Path) -> None:
    service = serve()
    embedder = open_embedder(service.reference, tmp_path)
    assert embedder.dimensions == 3
    first = embedder.passages(["甲", "乙"])
    again = open_embedder(service.reference, tmp_path)
    assert again.dimensions == 3
    assert np.array_equal(again.passages(["乙", "甲"]), first[::-1])
    assert again.passages([]).shape == (0, 3)
    assert [body["input"] for body in service.bodies] == [["tokka"], ["甲", "乙"]]


def test_another_model_name_is_another_embedder(serve: Any, tmp_path: Path) -> None:
    service = serve()
    one = open_embedder(service.reference, tmp_path)
    other = open_embedder(service.reference + "-large", tmp_path)
    assert one.digest != other.digest
    one.passages(["甲"])
    other.passages(["甲"])
    assert len(service.bodies) == 2
    assert embedder_identity(service.reference) == service.reference


def test_nothing_is_sent_to_a_host_that_is_not_listed(tmp_path: Path) -> None:
    reference = "https://vectors.example.jp/v1#e5"
    with pytest.raises(UsageError, match=r"vectors\.example\.jp is not listed, so nothing was"):
        open_embedder(reference, tmp_path)
    listed = EndpointOptions(hosts=("vectors.example.jp",))
    assert open_embedder(reference, tmp_path, endpoint=listed).name == "vectors.example.jp-e5"


def test_the_key_is_sent_and_never_shown(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTOR_KEY", KEY)
    service = serve(lambda _: (400, {}, f"bad {KEY}".encode()))
    options = EndpointOptions(api_key_env="VECTOR_KEY", retries=0)
    with pytest.raises(ServiceError, match=r"status 400 bad \[key\]") as failed:
        open_embedder(service.reference, tmp_path, endpoint=options).passages(["甲"])
    assert KEY not in str(failed.value)
    assert service.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_passing_failure_is_tried_again_and_a_lasting_one_named(
    serve: Any, tmp_path: Path
) -> None:
    replies: list[Reply] = [(503, {}, b"busy"), (429, {}, b"slow down")]
    service = serve(lambda texts: replies.pop(0) if replies else embedded(texts))
    options = EndpointOptions(retries=2)
    assert open_embedder(service.reference, tmp_path, endpoint=options).queries(["甲"]).any()
    assert len(service.bodies) == 3
    dead = serve(lambda _: (500, {}, b"broken"))
    with pytest.raises(ServiceError, match=r"no vectors after 3 tries .*status 500 broken"):
        open_embedder(dead.reference, tmp_path, endpoint=options).queries(["甲"])
    assert len(dead.bodies) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {}, b""), "the key was refused"),
        ((404, {}, b"no such model"), "status 404 no such model; check the path"),
        ((302, {"location": "https://elsewhere.example"}, b""), "a redirect, which was not"),
        ((200, {}, {"data": []}), "the answer is none of /embeddings"),
        ((200, {}, {"data": [{"index": 1, "embedding": [1.0]}]}), "none of /embeddings"),
        ((200, {}, b"<html>"), "none of /embeddings"),
    ],
)
def test_what_no_try_would_mend_stops_at_once(
    serve: Any, tmp_path: Path, reply: Reply, message: str
) -> None:
    service = serve(lambda _: reply)
    with pytest.raises(ServiceError, match=message):
        open_embedder(service.reference, tmp_path).passages(["甲"])
    assert len(service.bodies) == 1


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [float("nan"), 1.0]])
def test_a_vector_without_length_is_refused(
    serve: Any, tmp_path: Path, numbers: list[float]
) -> None:
    service = serve(lambda _: (200, {}, {"data": [{"index": 0, "embedding": numbers}]}))
    with pytest.raises(IntegrityError, match="a vector without length"):
        open_embedder(service.reference, tmp_path).passages(["甲"])


def test_an_exchanged_model_is_noticed_by_its_length(serve: Any, tmp_path: Path) -> None:
    lengths = [2, 3]

    def grow(texts: Sequence[str]) -> Reply:
        return 200, {}, {"data": [{"index": 0, "embedding": [1.0] * lengths.pop(0)}]}

    service = serve(grow)
    open_embedder(service.reference, tmp_path).passages(["甲"])
    with pytest.raises(IntegrityError, match="different lengths"):
        open_embedder(service.reference, tmp_path).passages(["甲", "乙"])
