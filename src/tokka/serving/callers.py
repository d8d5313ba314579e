"""Who asks: a Bearer key → `Key`, and which roles a route takes.

The key's table lies in the ledger; what was looked up is believed for a few seconds, so that a
revoked key stops soon and a request costs no query.

>>> (await ring.key_of(headers)).roles
('user',)
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tokka.serving.faults import Fault, unavailable

Headers = Sequence[tuple[bytes, bytes]]
USER, OPERATOR, AUDITOR, ACTOR = "user", "operator", "auditor", "actor"
EVERYBODY: frozenset[str] = frozenset()  # no key is asked for
_ANY = frozenset({USER, OPERATOR, AUDITOR, ACTOR})

# Route → the roles of which a key must hold one. A route that isn't here is refused to everybody.
MAY: dict[str, frozenset[str]] = {
    "/healthz": EVERYBODY,
    "/readyz": EVERYBODY,
    "/openapi.json": EVERYBODY,
    "/metrics": frozenset({OPERATOR}),
    "/v1/models": _ANY,
    "/v1/models/{model}": _ANY,
    "/v1/chat/completions": frozenset({USER}),
    "/v1/completions": frozenset({USER}),
    "/v1/embeddings": frozenset({USER}),
    "/tokka/release": _ANY,
    "/tokka/requests": frozenset({AUDITOR}),
    "/tokka/approvals": frozenset({ACTOR}),  # and what the actor's duties allow
}
# The routes that take a body; all others only read.
POSTED = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokka/approvals"}
)

BELIEVED_SECONDS = 5.0
_REMEMBERED = 1024
_AT_ONCE = 4  # look-ups: wrong keys may not fill all threads


class Key(Protocol):
    """What is asked of a key; `tokka.release.api_keys` makes them."""

    @property
    def id(self) -> str: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def actor(self) -> str | None: ...
    @property
    def expires(self) -> str | None: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def tokens_per_day(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Anybody:
    """Stands for a key where none is asked for: trials on this machine. Sees unlabelled documents
    only."""

    id: str = "nobody"
    roles: tuple[str, ...] = (USER, OPERATOR, AUDITOR)
    groups: tuple[str, ...] = ()
    actor: str | None = None
    expires: str | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


class KeyRing:
    """`verify(presented)` → the key, or None; it may query a database. None in its place: no key is
    asked for. Belongs to one event loop."""

    def __init__(
        self,
        verify: Callable[[str], Key | None] | None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._verify, self._clock, self._now = verify, clock, now
        self._known: OrderedDict[bytes, tuple[float, Key]] = OrderedDict()
        self._looking = asyncio.Semaphore(_AT_ONCE)

    @property
    def open(self) -> bool:
        return self._verify is None

    async def key_of(self, headers: Headers) -> Key:
        """Raises Fault 401, the same for every kind of wrong key."""
        if self._verify is None:
            return Anybody()
        presented = presented_key(headers)
        # Looked up by its hash, so neither the memory nor the time that it takes tells the key.
        digest = hashlib.sha256(presented.encode()).digest()
        found = self._known.get(digest)
        if found is None or found[0] < self._clock():
            self._known.pop(digest, None)
            # Unknown keys aren't remembered: whoever guesses would push out those that are known.
            async with self._looking:
                try:
                    key = await asyncio.to_thread(self._verify, presented)
                except Exception as error:  # whatever a database throws that is away
                    raise unavailable(
                        "keys can't be checked now; ask again in a moment", "ledger_away"
                    ) from error
            if key is None:
                raise _unknown()
            self._known[digest] = (self._clock() + BELIEVED_SECONDS, key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            key = found[1]
        if key.expires is not None and key.expires <= stamp(self._now()):
            raise _unknown()
        return key


def presented_key(headers: Headers) -> str:
    """The Bearer key of a request. Raises Fault 401 where there is none, or more than one."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        raise Fault(
            401,
            "a key is missing; send it as the header Authorization: Bearer KEY",
            code="missing_api_key",
        )
    scheme, _, presented = values[0].partition(b" ")
    if scheme.lower() != b"bearer" or not presented.strip() or len(presented) > 512:
        raise _unknown()
    return presented.strip().decode("latin-1")


def check_role(route: str, key: Key) -> None:
    """Raises Fault 403 where none of the key's roles may use the route."""
    roles = MAY.get(route)
    if roles is None or not (roles == EVERYBODY or roles.intersection(key.roles)):
        needed = " or ".join(sorted(roles or ())) or "other"
        raise Fault(
            403,
            f"this key may not use {route}: it takes the role {needed}; ask the operator for "
            "another key",
            code="role",
        )


def stamp(moment: datetime) -> str:
    """UTC, ISO 8601 with seconds and Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unknown() -> Fault:
    return Fault(
        401, "the key is unknown, revoked or expired; ask the operator for one",
        code="invalid_api_key",
    )  # fmt: skip
