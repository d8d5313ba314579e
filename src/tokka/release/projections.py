"""What an act changes in the registry's tables: Entry → rows, inside the append's transaction.

The trail is the source and these tables only a copy of what it adds up to, so that people and
queries don't have to replay it. `rebuild` makes them again from the trail; a table that differs
from that was written by somebody else. Nothing that decides reads them.

>>> project(connection, entry, books)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from tokka.errors import IntegrityError
from tokka.release.chain import entry_hash
from tokka.release.duties import follow, replay
from tokka.release.records import Entry, Signed
from tokka.release.standing import Books, Version
from tokka.release.tables import actors, approvals, entries, models, versions

PROJECTED = (models, versions, approvals, actors)
DECISIONS = ("validate", "approve", "reject", "withdraw")


def project(connection: Connection, entry: Entry, books: Books | None = None) -> None:
    """Write what the entry changes. `books` have followed it already; without them the trail is
    replayed. An entry that wasn't allowed changes nothing.

    Raises sqlalchemy's IntegrityError where a version is there already: two releases at once can't
    get the same number.
    """
    books = replay(entries_of(connection)) if books is None else books
    if any(number == entry.number for number, _ in books.refused):
        return
    act = entry.signed.act
    if act.kind == "enrol":
        connection.execute(insert(actors).values(_actor(books, entry.number)))
    elif act.kind == "dismiss":
        gone = update(actors).where(
            actors.c.name == str(act.details["name"]), actors.c.until.is_(None)
        )
        connection.execute(gone.values(until=act.at))
    elif act.kind == "register":
        connection.execute(delete(models).where(models.c.name == act.model))
        connection.execute(insert(models).values(_model(books, act.model, entry.number)))
    elif act.kind == "release":
        connection.execute(insert(versions).values(_version(books, entry)))
    elif act.version is not None:
        _about_a_version(connection, entry, books)


def rebuild(connection: Connection, trail: Iterable[Entry]) -> None:
    """Empty the tables and write them again from the whole trail."""
    for table in PROJECTED:
        connection.execute(delete(table))
    books = Books()
    for entry in trail:
        follow(books, entry)
        project(connection, entry, books)


def entries_of(connection: Connection, after: int = 0, upto: int | None = None) -> list[Entry]:
    """The entries whose number is higher than `after`, in order. Raises IntegrityError for one
    whose text isn't what was hashed."""
    number = entries.c.number
    asked = select(number, entries.c.previous, entries.c.signed, entries.c.hash)
    asked = asked.where(number > after).order_by(number)
    rows = connection.execute(asked if upto is None else asked.where(number <= upto))
    return [_entry(row) for row in rows]


def _entry(row: Any) -> Entry:
    try:
        signed = json.loads(row.signed)
        if entry_hash(row.number, row.previous, signed) != row.hash:
            raise ValueError
        return Entry(
            number=row.number, previous=row.previous, hash=row.hash,
            signed=Signed.model_validate(signed),
        )  # fmt: skip
    except ValueError as error:
        raise IntegrityError(
            f"ledger: entry {row.number} was changed; see what else was: tokka verify"
        ) from error


def _about_a_version(connection: Connection, entry: Entry, books: Books) -> None:
    act = entry.signed.act
    if act.kind in DECISIONS:
        connection.execute(insert(approvals).values(_approval(entry)))
    version = books.version(act)
    assert version is not None  # what isn't there was refused
    mine = (versions.c.model == act.model) & (versions.c.version == act.version)
    connection.execute(update(versions).where(mine).values(**_changing(version, act.at)))
    due = update(models).where(models.c.name == act.model)
    connection.execute(due.values(validation_due=books.validation_due(act.model)))


def _actor(books: Books, number: int) -> dict[str, object]:
    actor = books.actors[books.enrolled[number]]
    return {
        "entry": number, "name": actor.name, "public_key": actor.public_key,
        "duties": list(actor.duties), "since": actor.since, "until": actor.until,
    }  # fmt: skip


def _model(books: Books, name: str, number: int) -> dict[str, object]:
    said = books.models[name].model_dump(exclude={"schema_version", "validation_due"})
    return {**said, "validation_due": books.validation_due(name), "entry": number}


def _version(books: Books, entry: Entry) -> dict[str, object]:
    act = entry.signed.act
    version = books.version(act)
    assert version is not None
    return {
        "model": act.model, "version": act.version, "digest": act.digest,
        "built_by": ", ".join(sorted(version.builders)), "built_at": act.at,
        "candidate_id": version.candidate_id, "released_by": act.actor,
        "details": act.details, **_changing(version, act.at),
    }  # fmt: skip


def _changing(version: Version, at: str) -> dict[str, object]:
    return {
        "stage": version.stage(at), "entry": version.entry,
        "conditions": list(version.conditions(at)),
        "validated_at": version.validations[-1][1] if version.validations else None,
        "validation_due": version.validation_due, "approved_at": version.approved_at(at),
        "expires": version.expires(at), "served_at": version.served_at,
        "ended_at": version.ended_at or None,
    }  # fmt: skip


def _approval(entry: Entry) -> dict[str, object]:
    signed, act = entry.signed, entry.signed.act
    return {
        "entry": entry.number, "model": act.model, "version": act.version, "digest": act.digest,
        "kind": act.kind, "actor": act.actor, "at": act.at, "method": signed.method,
        "session": signed.session, "comment": act.comment,
        "conditions": list(act.conditions), "expires": act.expires,
    }  # fmt: skip
