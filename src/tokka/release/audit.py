"""Verify a trail: find any change, removal, insertion, reordering, or an end that was cut off.

Exported folder or stored lines, the ledger's public key, heads recorded elsewhere → TrailReport.
Needs nothing but them: no database, no project, no network.

>>> report = verify_trail(Path("trail"), public_key, recorded=[head_of_a_release])
>>> [fault.reason for fault in report.faults]
["entry 3 was changed: what it says doesn't match its hash"]

What finds what: an entry's hash a changed entry; the hash of the one before it a removed, inserted
or moved one; the head's signature a chain that was hashed again; a recorded head a trail that was
cut short or replaced as a whole. Every act also carries its actor's signature, and the head that he
saw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokka.errors import IntegrityError
from tokka.records import canonical_json
from tokka.release.chain import (
    entry_hash,
    genesis,
    head_holds,
    key_fingerprint,
    load_public,
    normal_pem,
)
from tokka.release.chain import line as written
from tokka.release.records import Entry, Head
from tokka.release.trail import READABLE, Trail, read_trail, readable
from tokka.release.vouching import People


@dataclass(frozen=True, slots=True)
class Fault:
    """`number` is the entry's, None where the fault is in no single entry."""

    number: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class TrailReport:
    """`fingerprint` is the SHA-256 of the ledger's raw public key, for people to compare; `trusted`
    says whether that key was given from outside. `entries` are those that could be read."""

    ledger: str
    entries: tuple[Entry, ...]
    head: Head | None
    fingerprint: str
    trusted: bool
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        return not self.faults


def verify_trail(
    source: Path | Trail, public_key: str | None = None, recorded: Sequence[Head] = ()
) -> TrailReport:
    """Verify an exported folder, or the lines of a ledger.

    `public_key` (PEM) is the ledger's as it is known from elsewhere; without it the key inside is
    taken, and all rests on comparing its fingerprint. Nothing in the source makes this raise; a
    `public_key` that is none raises IntegrityError.
    """
    trail, shown = source, None
    if isinstance(source, Path):
        try:
            trail = read_trail(source)
            shown = _bytes(source / READABLE)
        except IntegrityError as error:
            return TrailReport("", (), None, "", public_key is not None, (Fault(None, str(error)),))
    assert isinstance(trail, Trail)
    faults: list[Fault] = []
    key = _key(trail, public_key, faults)
    head = _head(trail.head)
    if head is None:
        faults.append(Fault(None, "the head can't be read, or isn't written as the ledger does"))
    ledger = head.ledger if head else ""
    rows = [_row(line) for line in trail.lines]
    faults += _chain_faults(rows, genesis(ledger, key))
    faults += _head_faults(head, rows, key, genesis(ledger, key))
    for other in recorded:
        faults += _recorded_faults(other, ledger, rows, key, genesis(ledger, key))
    faults += _act_faults(rows, genesis(ledger, key))
    if isinstance(source, Path) and shown != readable(trail).encode():
        faults.append(Fault(None, f"{READABLE} doesn't show what the trail says"))
    return TrailReport(
        ledger=ledger,
        entries=tuple(row.entry for row in rows if row.entry is not None),
        head=head,
        fingerprint=_fingerprint(key),
        trusted=public_key is not None,
        faults=tuple(faults),
    )


def verify_entries(
    entries: Sequence[Entry], head: Head, public_key: str, recorded: Sequence[Head] = ()
) -> TrailReport:
    """The same for entries in memory."""
    lines = tuple(canonical_json(entry) for entry in entries)
    return verify_trail(Trail(lines, canonical_json(head), public_key), public_key, recorded)


# ---- what is read -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A line as it stands: `raw` is empty where it is no JSON object in canonical form."""

    raw: Mapping[str, Any]
    entry: Entry | None

    @property
    def number(self) -> Any:
        return self.raw.get("number")

    @property
    def hash(self) -> Any:
        return self.raw.get("hash")

    @property
    def signed(self) -> Mapping[str, Any]:
        signed = self.raw.get("signed")
        return signed if isinstance(signed, dict) else {}

    def hashed_as(self, number: int) -> str:
        return entry_hash(number, str(self.raw.get("previous")), self.signed)


def _row(line: str) -> _Row:
    try:
        line.encode()  # a broken byte of the database is a lone surrogate here
        raw = json.loads(line)
        if not isinstance(raw, dict) or canonical_json(raw) != line:
            return _Row({}, None)
        entry = Entry.model_validate(raw)
        # Beside what is hashed nothing may be spelt otherwise either: 1.0, true, or left out.
        signed = canonical_json(raw["signed"])
        same = written(entry.number, entry.previous, signed, entry.hash) == line
        return _Row(raw, entry) if same else _Row({}, None)
    except (ValidationError, ValueError, RecursionError):
        return _Row({}, None)


def _head(text: str) -> Head | None:
    try:
        head = Head.model_validate_json(text)
    except ValidationError:
        return None
    return head if canonical_json(head) == text else None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _key(trail: Trail, public_key: str | None, faults: list[Fault]) -> str:
    """The key to verify with, in one spelling."""
    if public_key is not None:
        try:
            given = normal_pem(public_key)
        except ValueError as error:
            raise IntegrityError(
                "trail: the given public key is no Ed25519 public key in PEM; give ledger.pem"
            ) from error
        if trail.public_key != given:
            faults.append(Fault(None, "the trail holds another public key than the given one"))
        return given
    try:
        load_public(trail.public_key)  # its spelling is held against the head's
    except ValueError:
        faults.append(Fault(None, "the trail's public key can't be read"))
    return trail.public_key


def _fingerprint(key: str) -> str:
    try:
        return key_fingerprint(key)
    except ValueError:
        return ""


# ---- the chain ----------------------------------------------------------------------------------


def _chain_faults(rows: Sequence[_Row], beginning: str) -> Iterator[Fault]:
    """The first place where the chain breaks; what follows it proves nothing more."""
    previous = beginning
    for number, row in enumerate(rows, 1):
        reason = _broken(rows, number, row, previous)
        if reason:
            yield Fault(number, reason)
            return
        previous = str(row.hash)


def _broken(rows: Sequence[_Row], number: int, row: _Row, previous: str) -> str | None:
    if not row.raw:
        return f"entry {number} was changed: it isn't an entry as the ledger writes one"
    if row.number != number:
        return _misplaced(rows, number, row.number)
    if row.hashed_as(number) != row.hash:
        was = next((n for n in range(1, len(rows) + 2) if row.hashed_as(n) == row.hash), None)
        if was is None:
            return f"entry {number} was changed: what it says doesn't match its hash"
        return (
            f"entry {number} was made as entry {was} and numbered anew: entries were removed, "
            "inserted or put in another order"
        )
    if row.raw.get("previous") != previous:
        if number == 1:
            return "entry 1 isn't the first of this ledger: entries were removed before it"
        return (
            f"entry {number} doesn't follow entry {number - 1}: an entry was removed, inserted or "
            "replaced there"
        )
    return None


def _misplaced(rows: Sequence[_Row], number: int, found: Any) -> str:
    numbers = [row.number for row in rows]
    if found in numbers[: number - 1]:
        return f"entry {found} is there twice: an entry was inserted"
    if number in numbers[number:]:
        return f"entry {number} stands after entry {found}: the order was changed"
    return f"entry {number} is missing: it was removed"


def _head_faults(
    head: Head | None, rows: Sequence[_Row], key: str, beginning: str
) -> Iterator[Fault]:
    if head is None:
        return
    if head.public_key != key:
        yield Fault(None, "the head is signed by another key than the ledger's")
    elif not head_holds(head, key):
        yield Fault(None, "the head's signature doesn't hold: the chain's end was made elsewhere")
    if head.number > len(rows):
        yield Fault(
            len(rows) + 1,
            f"the head is entry {head.number}, the trail ends at {len(rows)}: it was cut short",
        )
    elif head.number < len(rows):
        yield Fault(
            head.number + 1,
            f"entry {head.number + 1} stands after the signed head: it was inserted, or the head "
            "is an old one",
        )
    elif _hash_at(rows, head.number, beginning) != head.hash:
        yield Fault(
            head.number or None,
            f"the signed head isn't the hash of entry {head.number}: the chain was hashed again",
        )


def _recorded_faults(
    head: Head, ledger: str, rows: Sequence[_Row], key: str, beginning: str
) -> Iterator[Fault]:
    if head.ledger != ledger:
        yield Fault(None, f"a recorded head is of another ledger ({head.ledger})")
    elif not head_holds(head, key):
        yield Fault(None, f"the recorded head of entry {head.number} is signed by another key")
    elif head.number > len(rows):
        yield Fault(
            len(rows) + 1,
            f"a recorded head is entry {head.number}, the trail ends at {len(rows)}: it was cut "
            "short",
        )
    elif _hash_at(rows, head.number, beginning) != head.hash:
        yield Fault(
            head.number or None,
            f"entry {head.number} isn't the one of which the head was recorded: the trail was "
            "rewritten",
        )


def _hash_at(rows: Sequence[_Row], number: int, beginning: str) -> Any:
    if number > 0:
        return rows[number - 1].hash
    return beginning if number == 0 else None  # whose own key it is may sign any number


# ---- who did it ---------------------------------------------------------------------------------


def _act_faults(rows: Sequence[_Row], beginning: str) -> Iterator[Fault]:
    people, seen = People(), {beginning}
    for number, row in enumerate(rows, 1):
        if row.entry is None:
            continue
        act = row.entry.signed.act
        reason = people.fault(row.entry.signed, canonical_json(row.signed["act"]).encode())
        if reason:
            yield Fault(number, f"entry {number}: {reason}")
        else:
            people.follow(act)
        saw = act.head
        if saw and saw not in seen:
            yield Fault(
                number,
                f"entry {number} was signed over a head that isn't in the trail before it: the "
                "trail was rewritten",
            )
        seen.add(str(row.hash))
