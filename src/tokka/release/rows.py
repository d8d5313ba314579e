"""The rows of the ledger's tables, as values: what queries give back and what services write.

    act → Entry → ModelRow, VersionRow, ApprovalRow, Actor     the registry: what the acts add up to
    request → RequestRow, ObservationRow, UsageRow             written while serving, no chain
    key → KeyRow                                               who may ask the server

Field names are column names. Times are UTC, ISO 8601 with seconds and `Z`; they sort as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokka.release.records import Duty, ModelEntry, Stage


@dataclass(frozen=True, slots=True)
class ModelRow:
    """`entry` is the number of the act that wrote the row last."""

    model: ModelEntry
    entry: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """`stage` is what the acts say; whether an approval has run out is a matter of the clock, not
    of the row. `conditions` are those of the acts that stand."""

    model: str
    version: int
    digest: str
    stage: Stage
    built_by: str
    built_at: str
    entry: int
    candidate_id: str = ""
    released_by: str = ""
    conditions: tuple[str, ...] = ()
    validated_at: str | None = None
    validation_due: str | None = None
    approved_at: str | None = None
    expires: str | None = None
    served_at: str | None = None
    ended_at: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """One validate, approve, reject or withdraw act. `entry` is its number in the trail."""

    entry: int
    model: str
    version: int
    digest: str
    kind: str
    actor: str
    at: str
    method: str
    session: str = ""
    comment: str = ""
    conditions: tuple[str, ...] = ()
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class ActorRow:
    """An actor as enrolled; `until` is set once he has been dismissed."""

    name: str
    public_key: str
    duties: tuple[Duty, ...]
    since: str
    until: str | None
    entry: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """`hash` is the SHA-256 of the key's secret, which is kept nowhere."""

    id: str
    name: str
    hash: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    created: str
    created_by: str = ""
    actor: str | None = None
    expires: str | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    revoked: str | None = None
    revoked_by: str = ""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request, for the audit. `question_hash` and `answer_hash` are keyed hashes, since a short
    text could be guessed from a plain one; the texts themselves stay None unless the project asks
    for them. `details` holds whatever else is worth keeping and names nobody."""

    id: str
    time: str
    key_id: str
    route: str
    status: int
    model: str = ""
    version: int | None = None
    release: str = ""
    prompt_sha256: str = ""
    hash_kind: str = ""
    question_hash: str = ""
    answer_hash: str = ""
    outcome: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    ttft_seconds: float | None = None
    queue_seconds: float | None = None
    streamed: bool = False
    unapproved: bool = False
    error: str = ""
    question: str | None = None
    answer: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObservationRow:
    """A sampled request as later monitoring wants it; `data` holds figures and hashes."""

    id: str
    time: str
    kind: str
    model: str = ""
    version: int | None = None
    release: str = ""
    request_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What a key used on a day (`2026-11-23`, UTC). As a row to add, figures may be negative: a
    reservation that is given back."""

    key_id: str
    day: str
    tokens: int = 0
    requests: int = 0
