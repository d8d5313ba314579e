"""Nothing that somebody says, is called or holds as a key reaches a log, a metric, a span or an
error: secrets are planted everywhere, and every way out is read."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fakes import FakeKey, FakeLedger, FakeLive, make_service, serving

from tokka.serving.service import Service

SECRETS = (
    "山田太郎",
    "090-1234-5678",
    "tk-hush-5f3e",
    "taro@example.jp",
    "融資の限度額は300万円です",
)
SAID = " ".join(SECRETS[:2])
KEYS = {SECRETS[2]: FakeKey("k1"), "tk-operator": FakeKey("op", roles=("operator",)),
        "tk-auditor": FakeKey("aud", roles=("auditor",))}  # fmt: skip


class Captured(logging.Handler):
    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(message)s %(args)s %(exc_text)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("httpx", "httpcore")):
            return  # the client's, which is in this process too
        self.lines.append(self.format(record) + repr(record.__dict__.get("exc_info")))


def everything(service: Service) -> list[httpx.Response]:
    """Requests that fail and succeed in every way, each with secrets in every part of it."""
    head = {"authorization": f"Bearer {SECRETS[2]}", "x-name": SECRETS[3], "user-agent": SECRETS[3],
            "x-request-id": SECRETS[3], "content-type": "application/json"}  # fmt: skip
    bodies: list[Any] = [
        {"model": "aoba-1", "messages": [{"role": "user", "content": SAID}]},
        {"model": "aoba-1", "messages": [{"role": "user", "content": SAID}], "stream": True},
        {"model": "aoba-1", "messages": [{"role": "user", "content": f"例外 {SAID}"}]},
        {"model": "aoba-1", "messages": [{"role": "user", "content": SAID * 200}]},
        {"model": SAID, "messages": [{"role": "user", "content": SAID}]},
        {"model": "aoba-1", "messages": [{"role": SAID, "content": SAID}]},
        {"model": "aoba-1", "messages": SAID, "temperature": SAID, "stop": [SAID, 1]},
        {"model": "aoba-1", "messages": [{"role": "user", "content": SAID}], SAID: SAID},
        SAID,
    ]
    with serving(service) as url, httpx.Client(base_url=url, headers=head) as client:
        answers = [client.post("/v1/chat/completions", json=body) for body in bodies]
        answers += [
            client.post("/v1/completions", json={"model": "aoba-1", "prompt": SAID}),
            client.post("/v1/embeddings", json={"model": "aoba-1", "input": SAID}),
            client.post("/v1/chat/completions", content=SAID.encode()),
            client.get(f"/v1/{SAID}", params={"q": SAID}),
            client.get(f"/v1/models/{SAID}"),
            client.request("PATCH", "/v1/models"),
            client.get("/v1/models", headers={"authorization": f"Bearer {SAID.encode()!r}"}),
            client.get("/tokka/requests", params={"since": SAID}),
        ]
    return answers


def leaks(text: str) -> list[str]:
    forms = [*SECRETS]
    for secret in SECRETS:
        forms += [json.dumps(secret)[1:-1], repr(secret.encode())[2:-1], quote(secret)]
    plain = hashlib.sha256(SAID.encode()).hexdigest()
    return [form for form in (*forms, plain) if form in text]


@pytest.fixture
def captured():
    handler, root = Captured(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(0)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


@pytest.mark.parametrize("crashes", [None, 0, 2])
def test_no_secret_reaches_logs_metrics_spans_errors_or_rows(captured, capfd, crashes):
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from tokka.serving.tracing import Tracing

    spans, provider = export.InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    ledger = FakeLedger(fails=1)
    live = FakeLive(crashes=crashes)
    service = make_service(live, keys=KEYS, ledger=ledger, tracing=Tracing(provider))
    answers = everything(service)
    statuses = [answer.status_code for answer in answers]
    assert statuses[2] == 500
    assert statuses.count(200) >= (4 if crashes is None else 1)
    errors = [a for a in answers if a.status_code >= 400]
    assert not leaks("".join(a.text for a in errors))
    assert not leaks("".join(str(a.headers) for a in answers))
    assert any("RuntimeError at fakes.py" in line for line in captured.lines)
    assert any("log can't be written (OSError)" in line for line in captured.lines)
    assert not leaks("".join(captured.lines))
    out, err = capfd.readouterr()
    assert not leaks(out + err)
    assert not leaks(service.metrics.page().decode())
    assert len(spans.get_finished_spans()) > len(answers)
    assert not leaks("".join(span.to_json() for span in spans.get_finished_spans()))
    assert len(ledger.rows) >= 10
    assert not leaks(repr(ledger.rows) + repr(ledger.seen))


def test_the_request_log_has_the_texts_only_where_the_project_says_so():
    for keeps in (False, True):
        ledger = FakeLedger()
        everything(make_service(keys=KEYS, ledger=ledger, log_text=keeps))
        texts = [row.question for row in ledger.rows if row.status == 200]
        assert (SAID in texts) is keeps
        row = next(row for row in ledger.rows if row.status == 200)
        assert len(row.question_hash) == len(row.answer_hash) == 64
        assert row.answer_hash != hashlib.sha256(f"答え：{SAID}".encode()).hexdigest()


def test_what_asyncio_would_write_down_itself_is_only_a_place(captured):
    from tokka.serving.listening import _note_failure

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_note_failure)

        async def fail() -> None:
            raise ValueError(SAID)

        task = loop.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        import gc

        gc.collect()

    asyncio.run(scene())
    assert any("ValueError at test_privacy.py" in line for line in captured.lines)
    assert not leaks("".join(captured.lines))


def test_a_librarys_own_words_are_left_out_of_the_servers_log(capfd):
    from tokka.serve import _quiet_logs

    with _quiet_logs():
        logging.getLogger("some.library").warning("parsing %s failed", SAID)
        logging.getLogger("tokka.serving").warning("own words")
        try:
            raise ValueError(SAID)
        except ValueError:
            logging.getLogger("some.library").exception("it was %s", SAID)
    _, err = capfd.readouterr()
    assert "some.library" in err and "own words" in err
    assert not leaks(err)
