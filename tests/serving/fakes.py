"""Everything around the server, in the place of models, documents and a ledger.

    service = make_service(FakeLive(), places=2)
    with serving(service) as url: ...

As a program it serves until a signal comes: `python fakes.py PORT_FILE SECONDS_A_PIECE DRAIN`.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokka.candidates.hearing import Heard
from tokka.errors import ServiceError, UsageError
from tokka.models.live import Piece
from tokka.models.protocol import Capabilities, GenerateRequest, GenerateResult, Prompt
from tokka.records import Answer, Caller, Citation, Decoding, Messages, Passage, Question
from tokka.release.rows import RequestRow, UsageRow
from tokka.serving.app import make_app
from tokka.serving.budgets import Budgets
from tokka.serving.callers import KeyRing
from tokka.serving.limits import Limits
from tokka.serving.listening import Listening, listen
from tokka.serving.recording import Recorder
from tokka.serving.service import Facts, Service, Standing
from tokka.serving.tracing import Tracing
from tokka.serving.watching import Metrics

SILENCE = "資料には答えが見つかりません。"
DOCUMENTS = (
    ("rules/loans.pdf", "融資規程", "融資の限度額は300万円です。", ()),
    ("rules/salaries.pdf", "給与規程", "役員の給与は月額500万円です。", ("hr",)),
)


# ---- the model ----------------------------------------------------------------------------------


class FakeRenderer:
    chat_template = False
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()

    def count(self, text: str) -> int:
        return len(text)


@dataclass
class FakeLive:
    """Writes `script(request)` piece by piece. `crashes` after so many pieces."""

    script: Callable[[GenerateRequest], str] = lambda request: f"答え：{request.prompt.text}"
    seconds: float = 0.0
    piece: int = 3
    crashes: int | None = None
    places: int = 64
    ready: bool = True
    restarts: int = 0
    name: str = "fake"
    digest: str = "0" * 64
    capabilities: Capabilities = field(
        default_factory=lambda: Capabilities(False, True, False, False, 4096, "f32", "fake 1")
    )
    renderer: Any = field(default_factory=FakeRenderer)
    writing: set[Any] = field(default_factory=set)
    most: int = 0
    requests: list[GenerateRequest] = field(default_factory=list)
    cancelled: int = 0

    def write(self, request: GenerateRequest) -> FakeWriting:
        self.requests.append(request)
        writing = FakeWriting(self, request)
        self.writing.add(writing)
        self.most = max(self.most, len(self.writing))
        return writing

    async def close(self) -> None: ...


class FakeWriting:
    def __init__(self, live: FakeLive, request: GenerateRequest) -> None:
        self._live, self._request = live, request
        self.result: GenerateResult | None = None
        self._cancelled = False

    def cancel(self) -> None:
        if self in self._live.writing:
            self._live.writing.discard(self)
            self._live.cancelled += self.result is None

    async def __aiter__(self) -> Any:
        live, request = self._live, self._request
        whole = live.script(request)
        text = whole[: request.max_tokens]
        for stop in request.stop:
            if stop in text:
                text = text[: text.index(stop)]
        for number, start in enumerate(range(0, len(text), live.piece)):
            if live.crashes is not None and number >= live.crashes:
                raise ServiceError("the child died over: " + request.prompt.text)
            await asyncio.sleep(live.seconds)
            part = text[start : start + live.piece]
            yield Piece(part, len(part))
        cut = len(whole) > request.max_tokens
        self.result = GenerateResult(
            text, len(request.prompt.ids), len(text), cut, "length" if cut else "stop", 0.0
        )


# ---- the specialist -----------------------------------------------------------------------------


class FakeSpecialist:
    """Finds what the caller may see, is silent where 秘密 is asked for, cites the first passage."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.heard: list[tuple[Messages, Caller]] = []
        self.block: threading.Event | None = None

    def hear(self, messages: Messages, caller: Caller = Caller(), memo: None = None) -> Heard:  # noqa: B008
        self.heard.append((messages, caller))
        if self.block is not None:
            self.block.wait(10)
        said = messages[-1].content
        if "例外" in said:
            raise RuntimeError(f"parser failed at {said}")
        if len(said) > self.limit:
            raise UsageError(f"messages: {len(said)} tokens don't fit into {self.limit}; shorten")
        seen = [d for d in DOCUMENTS if caller.may_see(d[3])]
        passages = tuple(
            Passage(
                number=n, chunk_id=f"c{n}", document_id=d[0], title=d[1], text=d[2], start=10,
                end=10 + len(d[2]), page=n, score=0.5,
            )
            for n, d in enumerate(seen, 1)
        )  # fmt: skip
        ids = tuple(map(ord, said))
        digest = hashlib.sha256(repr(ids).encode()).hexdigest()
        prompt = Prompt(ids, messages, digest, "tokens", said)
        question = Question(id="ask", messages=messages, form="short")
        silent = SILENCE if "秘密" in said else ""
        return Heard(question, passages, (), prompt, 0.0, 0.75, silent, 0)

    def request_of(
        self, heard: Heard, max_tokens: int | None = None, stop: Sequence[str] = ()
    ) -> GenerateRequest:
        return GenerateRequest(heard.prompt, min(400, max_tokens or 400), stop=("\n", *stop))

    def said(
        self, heard: Heard, result: GenerateResult | None, request: GenerateRequest | None = None
    ) -> Answer:
        text = heard.silent if result is None else result.text.strip()
        citations: tuple[Citation, ...] = ()
        if result is not None and heard.passages and text:
            p = heard.passages[0]
            citations = (
                Citation(
                    passage=p.number, chunk_id=p.chunk_id, document_id=p.document_id, page=p.page,
                    start=p.start, end=p.end, answer_start=0, answer_end=len(text), support=0.9,
                ),
            )  # fmt: skip
        return Answer(
            candidate_id="c", exam_digest="", question_id="ask", text=text,
            passages=heard.passages, citations=citations, confidence=heard.confidence,
            prompt_sha256=heard.prompt.sha256, hash_kind="tokens",
            decoding=Decoding(method="text"), status="abstained" if result is None else "answered",
        )  # fmt: skip


class FakeEmbedder:
    name = "fake"
    digest = "1" * 64
    dimensions = 4

    def queries(self, texts: Sequence[str]) -> Any:
        return np.full((len(texts), 4), 0.5, np.float32)

    def passages(self, texts: Sequence[str]) -> Any:
        return np.full((len(texts), 4), -0.5, np.float32)


# ---- keys and the ledger ------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeKey:
    id: str
    roles: tuple[str, ...] = ("user",)
    groups: tuple[str, ...] = ()
    actor: str | None = None
    expires: str | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


KEYS = {
    "tk-user": FakeKey("user"),
    "tk-other": FakeKey("other"),
    "tk-hr": FakeKey("hr", groups=("hr",)),
    "tk-operator": FakeKey("operator", roles=("operator",)),
    "tk-auditor": FakeKey("auditor", roles=("auditor",)),
    "tk-actor": FakeKey("actor", roles=("actor",), actor="sato"),
    "tk-gone": FakeKey("gone", expires="2020-01-01T00:00:00Z"),
}


@dataclass
class FakeLedger:
    """What was written, and what is asked."""

    rows: list[RequestRow] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    usage: dict[tuple[str, str], int] = field(default_factory=dict)
    decided: list[Any] = field(default_factory=list)
    stands: Standing = field(default_factory=lambda: Standing(stage="serving"))
    fails: int = 0

    def write_requests(self, rows: Sequence[RequestRow]) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("disk full at 秘密")
        self.rows += rows

    def write_observations(self, rows: Sequence[Any]) -> None:
        self.seen += rows

    def add_usage(self, rows: Any) -> None:
        for row in rows:
            assert isinstance(row, UsageRow)
            at = row.key_id, row.day
            self.usage[at] = self.usage.get(at, 0) + row.tokens

    def used_on(self, key_id: str, day: str) -> int:
        return self.usage.get((key_id, day), 0)

    def standing(self) -> Standing:
        return self.stands

    def requests(self, since: str, key_id: str | None, limit: int) -> list[RequestRow]:
        return [r for r in self.rows if key_id in (None, r.key_id)][:limit]

    def decide(self, key: Any, presented: str, row: Any) -> dict[str, Any]:
        if row["verdict"] == "reject":
            raise UsageError("reject: needs a comment")
        self.decided.append((key.actor, dict(row)))
        return {"stage": "approved"}


def make_service(
    live: FakeLive | None = None,
    *,
    unapproved: bool = False,
    keys: dict[str, FakeKey] | None = KEYS,
    ledger: FakeLedger | None = None,
    embedder: bool = True,
    tracing: Tracing | None = None,
    **limits: Any,
) -> Service:
    ledger = ledger or FakeLedger()
    facts = Facts("aoba", 1, "d" * 64, "ja", 1_790_000_000, unapproved=unapproved)
    metrics = Metrics(facts.name, facts.digest)
    allowed = replace(Limits(sample=1.0), **limits)
    return Service(
        facts=facts,
        specialist=FakeSpecialist(),
        live=live or FakeLive(),
        limits=allowed,
        ring=KeyRing(None if keys is None else keys.get),
        registry=ledger,
        recorder=Recorder(ledger, metrics),
        metrics=metrics,
        budgets=Budgets(allowed.per_key, ledger.used_on),
        hash_secret=b"secret of the tests",
        embed_with=FakeEmbedder() if embedder else None,
        tracing=tracing or Tracing(),
        standing=ledger.stands,
    )


@contextmanager
def serving(service: Service, where: Listening | None = None) -> Iterator[str]:
    """A real server in a thread, on a free port."""
    ports: list[int] = []
    started = threading.Event()
    where = where or Listening(port=0)
    holder: dict[str, Any] = {}

    def ready(port: int) -> None:
        ports.append(port)
        started.set()

    async def main() -> None:
        holder["loop"], holder["task"] = asyncio.get_running_loop(), asyncio.current_task()
        with suppress(asyncio.CancelledError):
            await listen(service, where, ready)

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10) and ports, "the server didn't start"
    scheme = "https" if where.tls_cert else "http"
    try:
        yield f"{scheme}://127.0.0.1:{ports[0]}"
    finally:
        holder["loop"].call_soon_threadsafe(holder["task"].cancel)
        thread.join(10)
        service.recorder.close()
        service.thread.shutdown(wait=False)


def app_of(service: Service) -> Any:
    return make_app(service)


def main() -> None:
    """For the tests of signals."""
    port_file, seconds, drain = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    live = FakeLive(script=lambda request: "あ" * 120, seconds=seconds)
    service = make_service(live, drain_seconds=drain)

    def ready(port: int) -> None:
        part = port_file.with_suffix(".part")
        part.write_text(str(port))
        part.rename(port_file)

    asyncio.run(listen(service, Listening(port=0), ready))
    service.recorder.close()
    print(f"rows {len(service.registry.rows)}", flush=True)


if __name__ == "__main__":
    main()
