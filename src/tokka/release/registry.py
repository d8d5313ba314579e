"""The registry: which models there are, where each version stands, and what it still waits for.

Ledger → Books, Standing, Waiting. Everything is worked out from the trail, never from the tables
that are there for queries: whoever may write to the database could change those.

>>> with open_ledger(project.ledger, project.root) as ledger:
...     stage_of(ledger, "aoba", 1, utc_now()), waiting_for(ledger, "aoba", 1)[0].en
('validated', 'one more approval, by sato or suzuki')
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokka.errors import IntegrityError, UsageError, WaitingForApproval
from tokka.release.chain import genesis, head_holds
from tokka.release.duties import candidates_for, follow, permit
from tokka.release.keys import utc_now
from tokka.release.records import Head, ModelEntry, Signed, Stage
from tokka.release.standing import QUORUM, Books, Version

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tokka.release.ledger import Ledger

NUMBERED = re.compile(r"(?P<model>.+)-(?P<version>[1-9]\d{0,8})")
SERVED: tuple[Stage, ...] = ("approved", "serving")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that is missing before a version may be served, in both languages."""

    ja: str
    en: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A version at a moment. `expires` and `validation_due` are UTC; `overdue`: the validation's
    day has passed."""

    version: Version
    at: str
    stage: Stage
    waiting: tuple[Waiting, ...]
    expires: str | None
    conditions: tuple[str, ...]
    validation_due: str | None
    overdue: bool

    def as_json(self) -> dict[str, object]:
        """Plain data for `--json` and the server."""
        version = self.version
        return {
            "model": version.model, "version": version.version, "name": version.name,
            "digest": version.digest, "candidate_id": version.candidate_id, "at": self.at,
            "stage": self.stage, "tier": version.tier, "built_by": sorted(version.builders),
            "released_by": version.released_by, "released_at": version.released_at,
            "validated_by": [
                {"actor": actor, "at": at} for actor, at in version.validations
            ],
            "approvals": [
                {
                    "actor": a.actor, "at": a.at, "expires": a.expires, "comment": a.comment,
                    "conditions": list(a.conditions), "counted": a in version.counted(self.at),
                    "method": "session" if a.by_session else "key",
                }
                for a in version.approvals
            ],
            "quorum": version.quorum, "expires": self.expires,
            "conditions": list(self.conditions), "validation_due": self.validation_due,
            "validation_overdue": self.overdue, "served_at": version.served_at,
            "ended_by": version.ended_by, "ended_at": version.ended_at,
            "waiting_for": [{"ja": w.ja, "en": w.en} for w in self.waiting],
        }  # fmt: skip


# ---- the books of a ledger ----------------------------------------------------------------------


class Following:
    """Books that read on where they stopped: an entry's signature is checked once in a process.
    What another process appended is seen at the next look. Threads may share it."""

    def __init__(self, ledger: str, public_key: str) -> None:
        self._books, self._lock = Books(), threading.Lock()
        self._public_key, self._first = public_key, genesis(ledger, public_key)
        self._ledger, self._signed = ledger, ""

    def of(self, connection: Connection) -> Books:
        """A copy of the books up to the head. Raises IntegrityError where the trail isn't the one
        that was followed so far, has a gap, or doesn't end with what the ledger signed."""
        from tokka.release.projections import entries_of

        with self._lock:
            head = self._head(connection)  # first: what is appended meanwhile comes after it
            known = self._books.number
            found = entries_of(connection, max(known - 1, 0), head.number)
            if known and (not found or found[0].hash != self._books.hash):
                raise _broken(known)
            for entry in found[1:] if known else found:
                if entry.previous != (self._books.hash or self._first):
                    raise _broken(entry.number)
                follow(self._books, entry)
            if (self._books.number, self._books.hash or self._first) != (head.number, head.hash):
                raise _broken(head.number)
            return self._books.copy()

    def _head(self, connection: Connection) -> Head:
        from sqlalchemy import select

        from tokka.release import tables

        row = connection.execute(select(tables.head)).one()
        head = Head(
            ledger=row.ledger, number=row.number, hash=row.hash, signature=row.signature,
            public_key=self._public_key,
        )  # fmt: skip
        if head.signature != self._signed:
            if head.ledger != self._ledger or not head_holds(head, self._public_key):
                raise _broken(head.number)
            self._signed = head.signature
        return head


def _broken(number: int) -> IntegrityError:
    return IntegrityError(
        f"ledger: the trail was changed at entry {number} or before it; see what: tokka verify"
    )


_FOLLOWING: weakref.WeakKeyDictionary[Ledger, Following] = weakref.WeakKeyDictionary()
_FIRST = threading.Lock()


def following(ledger: Ledger) -> Following:
    """The one that an open ledger keeps."""
    with _FIRST:
        found = _FOLLOWING.get(ledger)
        if found is None:
            found = _FOLLOWING[ledger] = Following(ledger.id, ledger.public_key)
        return found


def books_of(ledger: Ledger) -> Books:
    """What the trail adds up to now."""
    with ledger.reading() as connection:
        return following(ledger).of(connection)


def permit_in(ledger: Ledger, signed: Signed) -> Callable[[Connection], None]:
    """For `Ledger.append(signed, permit=…)`: asks `duties.permit` inside the transaction, when
    nobody else can write."""

    def ask(connection: Connection) -> None:
        permit(signed, following(ledger).of(connection), utc_now())

    return ask


# ---- questions ----------------------------------------------------------------------------------


def stage_of(ledger: Ledger, model: str, version: int, now: str | None = None) -> Stage:
    """The stage of a version at a moment (UTC; now if left out). Raises UsageError where it isn't
    in the registry."""
    return find(books_of(ledger), f"{model}-{version}").stage(now or utc_now())


def standing_of(ledger: Ledger, name: str, now: str | None = None) -> Standing:
    """Everything about MODEL-VERSION, or about a model's newest version."""
    books = books_of(ledger)
    return standing(books, find(books, name), now or utc_now())


def waiting_for(ledger: Ledger, model: str, version: int) -> tuple[Waiting, ...]:
    """What is still missing before it may be served; nothing once it is approved."""
    return standing_of(ledger, f"{model}-{version}").waiting


def served_version(ledger: Ledger, name: str, digest: str, now: str | None = None) -> Standing:
    """The standing of a release that may be served now. Raises WaitingForApproval with what is
    missing, IntegrityError where another digest was approved."""
    found = standing_of(ledger, name, now)
    if found.version.digest != digest:
        raise IntegrityError(
            f"serve: {found.version.name} was released with the digest "
            f"{found.version.digest[:12]}, here lies {digest[:12]}; take the released folder"
        )
    if found.stage not in SERVED:
        missing = "; ".join(w.en for w in found.waiting)
        raise WaitingForApproval(f"serve: {found.version.name} is {found.stage}: {missing}")
    return found


def find(books: Books, name: str) -> Version:
    """MODEL-VERSION, or MODEL for its newest version. Raises UsageError."""
    numbered = NUMBERED.fullmatch(name)
    if name in books.models:
        model, version = name, books.last(name)
    elif numbered and numbered["model"] in books.models:
        model, version = numbered["model"], int(numbered["version"])
    else:
        known = ", ".join(sorted(books.models)) or "none"
        raise UsageError(f"registry: no model {name!r}; registered: {known}")
    found = books.versions.get((model, version))
    if found is None:
        last = books.last(model)
        there = f"its newest version is {last}" if last else "no version of it is released"
        raise UsageError(f"registry: no version {name!r}; {there}")
    return found


def standing(books: Books, version: Version, at: str) -> Standing:
    """A version at a moment."""
    due = version.validation_due
    return Standing(
        version=version, at=at, stage=version.stage(at), waiting=missing(books, version, at),
        expires=version.expires(at), conditions=version.conditions(at), validation_due=due,
        overdue=due is not None and due <= at,
    )  # fmt: skip


def all_standings(books: Books, at: str, model: str | None = None) -> list[Standing]:
    """Every version, models by name, newest first."""
    keys = sorted(books.versions, key=lambda key: (key[0], -key[1]))
    return [standing(books, books.versions[k], at) for k in keys if model in (None, k[0])]


def inventory(books: Books) -> list[ModelEntry]:
    """The models by name, each with its next validation date."""
    return [
        entry.model_copy(update={"validation_due": books.validation_due(name)})
        for name, entry in sorted(books.models.items())
    ]


def missing(books: Books, version: Version, at: str) -> tuple[Waiting, ...]:
    """What a version waits for, in words, with the names of who can do it."""
    if version.ended:
        return (_ended(version),)
    found = []
    if QUORUM[version.tier].validated and not version.validations:
        who = candidates_for(books, version, "validator", at)
        found.append(
            Waiting(
                f"検証1件({_who_ja(who, '検証者')})",
                f"a validation, by {_who_en(who, 'validator')}",
            )
        )
    lacking = version.quorum - len(version.counted(at))
    if lacking > 0:
        who = candidates_for(books, version, "approver", at)
        count = "one more approval" if lacking == 1 else f"{lacking} more approvals"
        short = len(who) < lacking
        enrol = f"; {lacking - len(who)} more must be enrolled" if short and who else ""
        enrol_ja = f"。あと{lacking - len(who)}人の登録が必要" if short and who else ""
        found.append(
            Waiting(
                f"承認あと{lacking}件({_who_ja(who, '承認者')}){enrol_ja}",
                f"{count}, by {_who_en(who, 'approver')}{enrol}",
            )
        )
    return tuple(found)


def _ended(version: Version) -> Waiting:
    ja = {"rejected": "却下", "withdrawn": "承認取り消し", "retired": "廃止"}[str(version.ended)]
    return Waiting(
        f"{version.ended_by}が{version.ended_at}に{ja}済み。新しい版が必要",
        f"a new version: {version.ended_by} ended this one ({version.ended}) at {version.ended_at}",
    )


def _who_en(names: list[str], duty: str) -> str:
    return " or ".join(names) or f"a {duty} who is not enrolled yet"


def _who_ja(names: list[str], duty: str) -> str:
    return "または".join(names) or f"未登録の{duty}"
