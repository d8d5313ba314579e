"""A release opened for service: the approved folder, its model, its index, its keys.

    with open_service(load_project(path), "aoba-1") as opened:
        serve(opened, Listening(port=8000), told=print)

What is opened is checked first: every file of the release's folder against the digest that the
ledger says was approved.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.errors import UsageError
from tokka.project import Project
from tokka.release.registry import served_version, standing_of
from tokka.serving.limits import Limits

if TYPE_CHECKING:
    from tokka.models.live import LiveModel
    from tokka.models.protocol import Embedder, LanguageModel
    from tokka.release.ledger import Ledger
    from tokka.release.records import Release
    from tokka.serving.listening import Listening
    from tokka.serving.service import Service

DTYPE = "bfloat16"  # as examined: `pipeline.DTYPE`
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opened:
    release: Release
    service: Service
    ledger: Ledger


@contextmanager
def open_service(
    project: Project,
    name: str,
    *,
    unapproved: bool = False,
    keys: bool = True,
    actor: str | None = None,
    notice: Callable[[str], None] | None = None,
) -> Iterator[Opened]:
    """Open MODEL-VERSION, or a model's newest version, and say in the ledger that it is served.

    Raises WaitingForApproval where it isn't approved, unless `unapproved` says that it shall be
    answered with all the same; IntegrityError where the folder holds something else than was
    approved; UsageError where nobody of the ledger can say that it is served (`actor`).
    """
    from tokka.release.ledger import open_ledger
    from tokka.release.reading import read_release

    with ExitStack() as held:
        ledger = held.enter_context(open_ledger(project.ledger, project.root, create=False))
        found = standing_of(ledger, name)
        folder = project.root / ".tokka" / "releases" / found.version.name
        release = read_release(folder, found.version.digest)
        if not unapproved:
            served_version(ledger, release.name, release.digest)
        specialist, live, embedder = _open_parts(project, release, folder, notice)
        held.callback(specialist.close)
        service = _service(project, release, ledger, specialist, live, embedder, unapproved, keys)
        held.callback(service.tracing.close)
        held.callback(service.recorder.close)
        held.callback(service.thread.shutdown, wait=False, cancel_futures=True)
        if not unapproved:
            _say_served(ledger, release, actor, found.stage == "serving")
            service.standing = service.registry.standing()
        yield Opened(release, service, ledger)


def serve(opened: Opened, where: Listening, told: Callable[[str], None]) -> None:
    """Until a signal ends it. `told` hears the address once requests are answered."""
    from tokka.serving.listening import listen

    host = f"[{where.host}]" if ":" in where.host else where.host
    scheme = "https" if where.tls_cert is not None else "http"

    async def main() -> None:
        service = opened.service
        await service.look()
        try:
            await listen(service, where, lambda port: told(f"{scheme}://{host}:{port}/v1"))
        finally:
            await service.live.close()

    with _quiet_logs(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def check_address(host: str, tls: bool, insecure: bool, keys: bool) -> None:
    """Raises UsageError for an address that others can reach without TLS, or without keys."""
    if _is_loopback(host):
        return
    if not keys:
        raise UsageError(
            f"serve: --no-keys is for trials on this machine, and {host} can be reached by others; "
            "make keys with: tokka key new NAME"
        )
    if not (tls or insecure):
        raise UsageError(
            f"serve: {host} can be reached by others, who could read keys and questions on the "
            "way; give --tls-cert and --tls-key, or --insecure where something before it does TLS"
        )


def limits_of(project: Project) -> Limits:
    """The `serve:` section, as the server reads it."""
    known = {field.name for field in fields(Limits)}
    said = {n: getattr(project.serve, n) for n in type(project.serve).model_fields if n in known}
    return Limits(**said)


# ---- the parts ----------------------------------------------------------------------------------


def _open_parts(
    project: Project, release: Release, folder: Path, notice: Callable[[str], None] | None
) -> tuple[Any, LiveModel, Embedder | None]:
    from tokka.candidates.released import open_released
    from tokka.models.embedder import open_embedder
    from tokka.models.live_opening import open_live
    from tokka.models.opening import EndpointOptions
    from tokka.store import cache_folder

    endpoint = EndpointOptions(**project.endpoint.model_dump())
    lives: list[LiveModel] = []
    embedders: list[Embedder] = []

    def open_model(weights: Path | None, adapters: Sequence[Path]) -> LanguageModel:
        live: Any = open_live(
            release.served.base_model, places=project.serve.places, root=project.root,
            language=release.language, weights=weights, adapters=adapters, dtype=DTYPE,
            threads=project.threads, endpoint=endpoint, notice=notice, exact=False,
        )  # fmt: skip
        lives.append(live)
        model: LanguageModel = live.model
        return model

    def embedder() -> Embedder:
        embedders.append(
            open_embedder(
                project.embedder, cache_folder() / "embeddings", root=project.root,
                endpoint=endpoint,
            )
        )  # fmt: skip
        return embedders[-1]

    specialist = open_released(folder, open_model=open_model, open_embedder=embedder)
    return specialist, lives[-1], embedders[-1] if embedders else None


def _service(
    project: Project,
    release: Release,
    ledger: Ledger,
    specialist: Any,
    live: LiveModel,
    embedder: Embedder | None,
    unapproved: bool,
    keys: bool,
) -> Service:
    from tokka.release.api_keys import verify
    from tokka.serving.budgets import Budgets
    from tokka.serving.callers import KeyRing
    from tokka.serving.ledgered import LedgerRegistry
    from tokka.serving.recording import Recorder
    from tokka.serving.service import Facts, Service
    from tokka.serving.tracing import tracing_from
    from tokka.serving.watching import Metrics

    limits = limits_of(project)
    metrics = Metrics(release.name, release.digest)
    recorder = Recorder(ledger, metrics)
    registry = LedgerRegistry(ledger, release.name, release.digest)
    facts = Facts(
        release.model,
        release.version,
        release.digest,
        release.language,
        int(datetime.fromisoformat(release.built_at).timestamp()),
        base_model=release.served.base_model,
        base_licence=release.base_licence,
        terms=release.terms,
        serves=release.serves,
        engine=live.capabilities.engine,
        unapproved=unapproved,
    )

    def used_on(key_id: str, day: str) -> int:
        return ledger.usage_of(key_id, day).tokens + recorder.pending(key_id, day)

    return Service(
        facts=facts,
        specialist=specialist,
        live=live,
        limits=limits,
        ring=KeyRing((lambda presented: verify(ledger, presented)) if keys else None),
        registry=registry,
        recorder=recorder,
        metrics=metrics,
        budgets=Budgets(limits.per_key, used_on),
        hash_secret=_hash_secret(project.root / ".tokka" / "request-log.key"),
        embed_with=embedder,
        tracing=tracing_from(os.environ),
        standing=registry.standing(),
    )


def _say_served(ledger: Ledger, release: Release, actor: str | None, is_said: bool) -> None:
    """Append the `serve` act. What is said to be served already may be started again by a machine
    that holds nobody's key."""
    from tokka.release.approval import decide
    from tokka.release.keys import load_key

    try:
        decide(ledger, load_key(actor), "serve", release.name, digest=release.digest)
    except UsageError:
        if actor is not None or not is_said:
            raise


def _hash_secret(path: Path) -> bytes:
    """What the request log's hashes are keyed with: made once, readable by its owner alone."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        place = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(place, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise UsageError(f"{path}: isn't {_SECRET_BYTES} bytes; delete it, and a new one is made")
    return secret


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: it costs a third of the time for each write to a socket."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Our own words go to standard error. Of a library's only where they come from, since they may
    repeat what was asked."""
    own, root = logging.getLogger("tokka.serving"), logging.getLogger()
    ours, theirs = logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stderr)
    ours.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    theirs.setFormatter(_PlaceOnly("%(asctime)s %(levelname)s %(name)s %(module)s:%(lineno)d"))
    theirs.setLevel(logging.WARNING)
    own.addHandler(ours)
    root.addHandler(theirs)
    before = own.propagate, own.level
    own.propagate = False
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        own.removeHandler(ours)
        root.removeHandler(theirs)
        own.propagate, own.level = before


class _PlaceOnly(logging.Formatter):
    """Without the message and without the exception."""

    def format(self, record: logging.LogRecord) -> str:
        bare = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None,
                                      "stack_info": None, "msg": "", "args": None})  # fmt: skip
        return super().format(bare)
