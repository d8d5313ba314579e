"""Where everything stands: what the acts of the trail add up to, in memory.

Entries, in order → Books: who acts, which models, and of each version who built, validated and
approved it. Nothing here asks whether an act was allowed (`duties.permit` does).

>>> books = duties.replay(ledger.entries())
>>> books.versions["aoba", 1].stage("2026-11-23T00:00:00Z")
'approved'

A stage isn't stored: approvals expire, so it is worked out for a moment.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tokka.records import fingerprint
from tokka.release.records import Act, Actor, Entry, ModelEntry, Signed, Stage, Tier

ENDED: tuple[Stage, ...] = ("retired", "rejected", "withdrawn")
TIERS: tuple[Tier, ...] = ("low", "medium", "high")
API_KEY = "api_key"  # the part of a note's details that is about an API key
WRITTEN, LAST = "%Y-%m-%dT%H:%M:%SZ", "9999-12-31T23:59:59Z"  # how times are written; the last


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many different people must approve a version of a tier, and whether a validator must have
    looked first; `apart`: who validated may not approve as well."""

    approvals: int
    validated: bool
    apart: bool


QUORUM: dict[Tier, Quorum] = {
    "low": Quorum(1, validated=False, apart=False),
    "medium": Quorum(1, validated=True, apart=False),
    "high": Quorum(2, validated=True, apart=True),
}


# ---- what acts say beside (Act.details) ---------------------------------------------------------


class Details(BaseModel):
    """Read from an act's details; what else stands there is others' business."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReleaseDetails(Details):
    """Of a `release`: who built it beside the act's actor, and what the project asks. `approvals`
    raises the tier's quorum and can't lower it."""

    built_by: tuple[str, ...] = ()
    approvals: int | None = Field(default=None, ge=1, le=9)
    valid_days: int = Field(default=365, ge=1, le=36_500)
    validate_days: int = Field(default=180, ge=1, le=36_500)
    candidate_id: str = ""


class KeyDetails(Details):
    """Of a `note` that issues or revokes an API key; never the secret. `public_key` is what the
    sessions of a key sign with that is bound to an actor."""

    id: str = Field(min_length=1)
    does: str = Field(pattern="^(issue|revoke)$")
    actor: str | None = None
    public_key: str | None = None
    expires: str | None = None


# ---- what they add up to ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Approval:
    """Times are UTC. `by_session`: vouched for by a session instead of the actor's key."""

    actor: str
    at: str
    expires: str
    comment: str
    conditions: tuple[str, ...]
    by_session: bool


@dataclass(frozen=True, slots=True)
class Version:
    """One released version. `builders` are names as `person` spells them."""

    model: str
    version: int
    digest: str
    tier: Tier
    quorum: int
    builders: frozenset[str]
    released_by: str
    released_at: str
    valid_days: int
    validate_days: int
    validations: tuple[tuple[str, str], ...] = ()  # (actor, at), oldest first
    approvals: tuple[Approval, ...] = ()  # the newest of each actor
    ended: Stage | None = None
    ended_by: str = ""
    ended_at: str = ""
    served_at: str | None = None  # since when, where it is being served
    candidate_id: str = ""
    entry: int = 0  # of the last act about it

    @property
    def name(self) -> str:
        return f"{self.model}-{self.version}"

    @property
    def validated_by(self) -> frozenset[str]:
        return frozenset(person(actor) for actor, _ in self.validations)

    def counted(self, at: str) -> tuple[Approval, ...]:
        """The approvals that count at a moment: one a person, not expired, never a builder's, and
        in a tier that keeps them apart never a validator's."""
        apart = self.validated_by if QUORUM[self.tier].apart else frozenset[str]()
        by_person = {
            person(approval.actor): approval
            for approval in self.approvals
            if approval.expires > at and person(approval.actor) not in self.builders | apart
        }
        return tuple(by_person.values())

    def approved(self, at: str) -> bool:
        """Whether enough people approve of it at a moment."""
        validated = bool(self.validations) or not QUORUM[self.tier].validated
        return not self.ended and validated and len(self.counted(at)) >= self.quorum

    def stage(self, at: str) -> Stage:
        if self.ended:
            return self.ended
        if self.approved(at):
            return "serving" if self.served_at else "approved"
        return "validated" if self.validations else "draft"

    def expires(self, at: str) -> str | None:
        """When too few approvals will be left; None where it isn't approved at that moment."""
        if not self.approved(at):
            return None
        return sorted((a.expires for a in self.counted(at)), reverse=True)[self.quorum - 1]

    def approved_at(self, at: str) -> str | None:
        """When the newest of the counted approvals was given; None where they are too few."""
        return max(a.at for a in self.counted(at)) if self.approved(at) else None

    def conditions(self, at: str) -> tuple[str, ...]:
        """What the counted approvals demand, each once, in their order."""
        return tuple(dict.fromkeys(c for a in self.counted(at) for c in a.conditions))

    @property
    def validation_due(self) -> str | None:
        """When it must be validated again; None once it has ended, or before the first time."""
        if self.ended or not self.validations:
            return None
        return days_later(self.validations[-1][1], self.validate_days)


@dataclass(frozen=True, slots=True)
class SessionKey:
    """An API key that is bound to an actor, as the trail knows it."""

    actor: str
    public_key: str
    expires: str | None
    revoked: bool = False


@dataclass(slots=True)
class Books:
    """All acts so far. `hashes` are those of the entries, `acts` the fingerprints of what was
    signed: an act counts once, however often it is written down. `refused` are entries that stand
    in the trail though they weren't allowed; they change nothing else."""

    number: int = 0
    hash: str = ""
    at: str = ""
    hashes: set[str] = field(default_factory=set)
    acts: set[str] = field(default_factory=set)
    actors: dict[str, Actor] = field(default_factory=dict)  # the newest enrolment of each name
    enrolled: dict[int, str] = field(default_factory=dict)  # entry → name
    owners_of_keys: dict[str, str] = field(default_factory=dict)  # public key → name, for ever
    sessions: dict[str, SessionKey] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def active(self) -> dict[str, Actor]:
        """Who may act: enrolled, and not dismissed."""
        return {name: actor for name, actor in self.actors.items() if actor.until is None}

    def copy(self) -> Books:
        """Other books with the same contents: what is in them never changes."""
        containers = {
            name: value.copy()
            for name in self.__dataclass_fields__
            if not isinstance(value := getattr(self, name), int | str)
        }
        return replace(self, **containers)

    def validation_due(self, model: str) -> str | None:
        """When the first of a model's versions that haven't ended must be validated again."""
        own = [v.validation_due for v in self.versions.values() if v.model == model]
        return min((due for due in own if due), default=None)

    def last(self, model: str) -> int:
        """The number of a model's newest version; 0 where there is none."""
        return max((v for name, v in self.versions if name == model), default=0)

    def version(self, act: Act) -> Version | None:
        return self.versions.get((act.model, act.version)) if act.version is not None else None

    def follow(self, entry: Entry, refusal: str | None = None) -> None:
        """Take an entry in; with a `refusal` it only lengthens the chain."""
        act = entry.signed.act
        self.number, self.hash = entry.number, entry.hash
        self.hashes.add(entry.hash)
        if refusal is not None:
            self.refused.append((entry.number, refusal))
            return
        self.at = max(self.at, act.at)
        self.acts.add(fingerprint(act))
        if act.kind in ("enrol", "dismiss"):
            self._people(act, entry.number)
        elif act.kind == "register":
            self.models[act.model] = model_of(act)
        elif act.kind == "release":
            version = _released(act, self.models[act.model].tier, entry.number)
            self.versions[version.model, version.version] = version
        elif act.kind == "note" and API_KEY in act.details:
            self._key(KeyDetails.model_validate(act.details[API_KEY]))
        else:
            before = self.version(act)
            if before is not None:
                after = replace(_after(before, entry.signed), entry=entry.number)
                self.versions[after.model, after.version] = after

    def _people(self, act: Act, number: int) -> None:
        if act.kind == "enrol":
            actor = actor_of(act)
            self.actors[actor.name] = actor
            self.enrolled[number] = actor.name
            self.owners_of_keys[actor.public_key] = actor.name
        else:
            name = str(act.details["name"])
            self.actors[name] = self.actors[name].model_copy(update={"until": act.at})

    def _key(self, key: KeyDetails) -> None:
        if key.does == "issue" and key.actor and key.public_key:
            self.sessions[key.id] = SessionKey(key.actor, key.public_key, key.expires)
        elif key.does == "revoke" and key.id in self.sessions:
            self.sessions[key.id] = replace(self.sessions[key.id], revoked=True)


def actor_of(act: Act) -> Actor:
    """The actor whom an `enrol` act enrols. Raises pydantic's ValidationError."""
    return Actor.model_validate({**_plain(act.details), "since": act.at, "until": None})


def model_of(act: Act) -> ModelEntry:
    """The row of the inventory that a `register` act writes. Raises pydantic's ValidationError."""
    return ModelEntry.model_validate({**_plain(act.details), "name": act.model})


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if key != "schema_version"}


def _released(act: Act, tier: Tier, number: int) -> Version:
    details = ReleaseDetails.model_validate(act.details)
    return Version(
        model=act.model, version=act.version or 0, digest=act.digest, tier=tier,
        quorum=max(QUORUM[tier].approvals, details.approvals or 0),
        builders=frozenset(person(name) for name in (act.actor, *details.built_by)),
        released_by=act.actor, released_at=act.at,
        valid_days=details.valid_days, validate_days=details.validate_days,
        candidate_id=details.candidate_id, entry=number,
    )  # fmt: skip


def _after(version: Version, signed: Signed) -> Version:
    """A version after somebody did something about it."""
    act = signed.act
    if version.served_at and not version.approved(act.at):
        version = replace(version, served_at=None)  # it had lapsed; a new approval doesn't serve it
    if act.kind == "validate":
        return replace(version, validations=(*version.validations, (act.actor, act.at)))
    if act.kind == "approve":
        expires = act.expires or days_later(act.at, version.valid_days)
        approval = Approval(
            act.actor, act.at, expires, act.comment, act.conditions,
            by_session=signed.method == "session",
        )  # fmt: skip
        others = (a for a in version.approvals if person(a.actor) != person(act.actor))
        return replace(version, approvals=(*others, approval))
    if act.kind == "serve":
        return replace(version, served_at=version.served_at or act.at)
    ends: dict[str, Stage] = {"reject": "rejected", "withdraw": "withdrawn", "retire": "retired"}
    if act.kind in ends:
        return replace(version, ended=ends[act.kind], ended_by=act.actor, ended_at=act.at)
    return version


def person(name: str) -> str:
    """One spelling for names that people read as the same: full width, case (NFKC, casefold)."""
    return unicodedata.normalize("NFKC", name).casefold()


def days_later(at: str, days: int) -> str:
    """>>> days_later("2026-11-23T00:00:00Z", 1)
    '2026-11-24T00:00:00Z'
    """
    try:
        return (moment(at) + timedelta(days=days)).strftime(WRITTEN)
    except OverflowError:
        return LAST


def moment(at: str) -> datetime:
    """Raises ValueError for anything but ISO 8601 in UTC with seconds, in its one spelling: times
    are compared as texts, where `2027-1-5T…` comes after `2027-01-06T…`."""
    found = datetime.strptime(at, WRITTEN).replace(tzinfo=UTC)
    if found.strftime(WRITTEN) != at:
        raise ValueError(f"{at!r} isn't written as 2026-11-23T01:02:03Z")
    return found
