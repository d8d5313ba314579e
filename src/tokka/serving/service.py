"""What the routes share: the release, who may ask, the places, and what is known of each request.

service = Service(facts, specialist, live, limits, ring, ...)
app = make_app(service)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from tokka.records import Answer, Messages
from tokka.records import Caller as Reader
from tokka.release.rows import RequestRow
from tokka.serving.asks import Rules
from tokka.serving.budgets import Budgets
from tokka.serving.callers import Headers, Key, KeyRing, stamp
from tokka.serving.faults import Fault, unavailable
from tokka.serving.limits import Limits
from tokka.serving.recording import Recorder
from tokka.serving.tracing import Tracing
from tokka.serving.turns import Turns
from tokka.serving.watching import Metrics

if TYPE_CHECKING:
    from tokka.candidates.specialist import Heard
    from tokka.models.live import LiveModel
    from tokka.models.protocol import Embedder, GenerateRequest, GenerateResult


class Answerer(Protocol):
    """What of `candidates.specialist.Specialist` is asked."""

    def hear(self, messages: Messages, caller: Reader = ..., memo: None = None) -> Heard: ...
    def request_of(
        self, heard: Heard, max_tokens: int | None = None, stop: Sequence[str] = ()
    ) -> GenerateRequest: ...
    def said(
        self,
        heard: Heard,
        result: GenerateResult | None,
        request: GenerateRequest | None = None,
    ) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """The release that is served. `created` is in seconds since 1970."""

    model: str
    version: int
    digest: str
    language: str
    created: int
    base_model: str = ""
    base_licence: str = ""
    terms: tuple[str, ...] = ()
    serves: str = ""
    engine: str = ""
    unapproved: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}-{self.version}"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the release stands, as the ledger said last. `refusal` is why it may not be served,
    empty where it may."""

    stage: str = "draft"
    approvals: tuple[Mapping[str, Any], ...] = ()
    conditions: tuple[str, ...] = ()
    expires: str | None = None
    validation_due: str | None = None
    refusal: str = ""


class Registry(Protocol):
    """What the server asks of the ledger beside keys and rows; may block, so it is called in a
    thread. `decide` takes a row of `shapes.APPROVAL` and gives back what is to be answered."""

    def standing(self) -> Standing: ...
    def requests(self, since: str, key_id: str | None, limit: int) -> list[RequestRow]: ...
    def decide(self, key: Key, presented: str, row: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(slots=True)
class Visit:
    """One request, from its first byte to its last: what the log, the metrics and the trace say."""

    id: str
    route: str
    headers: Headers
    started: float = field(default_factory=time.perf_counter)
    at: float = field(default_factory=time.time)
    key: Key | None = None
    body: bytes = b""
    status: int = 0
    fault: Fault | None = None
    streamed: bool = False
    begun: bool = False  # the response's head is out
    sending: float = 0.0  # since when a piece waits to be sent; 0 where none does
    ended: str = ""  # why it was ended from outside: "draining", "disconnected", "stalled"
    question: str = ""
    said: str = ""
    answer: Answer | None = None
    prompt_sha256: str = ""
    hash_kind: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_seconds: float | None = None
    queue_seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    span: Any = None

    def seconds(self) -> float:
        return time.perf_counter() - self.started


@dataclass(slots=True)
class Service:
    """Belongs to one event loop. `embed_with` is the release's embedder, None where it has none."""

    facts: Facts
    specialist: Answerer
    live: LiveModel
    limits: Limits
    ring: KeyRing
    registry: Registry
    recorder: Recorder
    metrics: Metrics
    budgets: Budgets
    hash_secret: bytes
    embed_with: Embedder | None = None
    tracing: Tracing = field(default_factory=Tracing)
    standing: Standing = field(default_factory=Standing)
    hearing: Turns = field(init=False)
    writing: Turns = field(init=False)
    inside: int = 0
    draining: bool = False
    running: dict[asyncio.Task[Any], Visit] = field(default_factory=dict)
    mean_seconds: float = 1.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    # One thread: a search isn't made for several at once, and takes milliseconds.
    thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="tokka-hearing")
    )

    def __post_init__(self) -> None:
        self.hearing = Turns(1)
        self.writing = Turns(min(self.limits.places, self.live.places))
        gauge = self.metrics.gauge
        gauge("places", "Texts that can be written at once.", lambda: self.writing.places)
        gauge("places_used", "Texts that are being written.", lambda: self.writing.used)
        gauge("waiting", "Requests that wait.", lambda: self.hearing.waiting + self.writing.waiting)
        gauge("ready", "Whether requests are answered.", lambda: float(not self.not_ready()))
        gauge("model_ready", "Whether the model runs.", lambda: float(self.live.ready))
        gauge("model_restarts", "Restarts of a broken model.",
              lambda: float(getattr(self.live, "restarts", 0)))  # fmt: skip

    @property
    def rules(self) -> Rules:
        return Rules(
            (self.facts.name, self.facts.model),
            self.limits.caller_system,
            self.limits.max_tokens,
            self.limits.max_messages,
            self.limits.max_texts,
        )

    @property
    def mark(self) -> dict[str, Any]:
        """What every body says of an unapproved release."""
        if not self.facts.unapproved:
            return {}
        return {"tokka": {"release": self.facts.name, "unapproved": True}}

    def not_ready(self) -> str:
        """Why no request is answered now; empty where they are."""
        if self.draining:
            return "draining"
        if self.refusal():
            return "not_approved"
        return "" if self.live.ready else "model_restarting"

    def refusal(self) -> str:
        """Why the release may not be served: as the ledger said, or by the clock since."""
        if self.facts.unapproved:
            return ""
        expires = self.standing.expires
        if not self.standing.refusal and expires is not None and expires <= stamp(self.now()):
            return "its approval has run out; it must be approved again"
        return self.standing.refusal

    def refuse_unless_ready(self) -> None:
        """Raises Fault 503."""
        why = self.not_ready()
        if why == "draining":
            raise unavailable("this server is stopping; ask again in a moment", why)
        if why == "not_approved":
            raise unavailable(f"{self.facts.name}: {self.refusal()}", why, 60)
        if why:
            raise unavailable("the model is being started again; ask again in a moment", why)

    def enter(self) -> None:
        """Count a request in. Raises Fault 503 where places and queue are full."""
        if self.inside >= self.writing.places + self.limits.queue:
            wait = self.mean_seconds * (self.writing.waiting + 1) / self.writing.places
            raise unavailable(
                "all places are taken and the queue is full; ask again in a moment",
                "queue_full",
                min(60.0, wait),
            )
        self.inside += 1

    def leave(self, seconds: float) -> None:
        self.inside -= 1
        self.mean_seconds += 0.1 * (seconds - self.mean_seconds)

    def end_running(self, why: str) -> None:
        """End all that is being written; each client is told."""
        for task, visit in list(self.running.items()):
            visit.ended = visit.ended or why
            task.cancel()

    def end_stalled(self) -> None:
        """End the streams whose clients have stopped reading: they hold places."""
        oldest = time.perf_counter() - self.limits.stall_seconds
        for task, visit in list(self.running.items()):
            if 0 < visit.sending < oldest:
                visit.ended = visit.ended or "stalled"
                task.cancel()

    async def look(self) -> None:
        """Ask the ledger where the release stands. A ledger that is away for a moment changes
        nothing; the approval's own expiry is kept in mind."""
        self.standing = await asyncio.to_thread(self.registry.standing)


def elsewhere(service: Service, function: Callable[..., Any], *values: Any) -> asyncio.Future[Any]:
    """Run in the hearing thread."""
    return asyncio.get_running_loop().run_in_executor(service.thread, function, *values)
