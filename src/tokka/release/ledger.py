"""The ledger: the trail of acts, the registry's tables, and what services write beside them.

A signed act → Entry, in one transaction with the rows it changes. SQLite, or PostgreSQL by URL.

>>> with open_ledger(project.ledger, project.root) as ledger:
...     entry = ledger.append(signed)
...     ledger.head().number == entry.number
True

Nobody who only has the database can add to the trail: each head is signed by the ledger's key,
which lies in a file beside it (`$TOKKA_LEDGER_KEY`).
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from tokka.errors import IntegrityError, TokkaError, UsageError
from tokka.records import canonical_json
from tokka.release import tables
from tokka.release.audit import verify_trail
from tokka.release.chain import chained, entry_hash, genesis, head_holds, line, sign_head
from tokka.release.database import begin, engine_of, place_of, url_of
from tokka.release.drift import drift
from tokka.release.duties import follow, permit
from tokka.release.keys import utc_now
from tokka.release.ledger_key import (
    LedgerKey,
    key_path,
    load_key,
    make_key,
    remember,
    remembered,
    seen_path,
)
from tokka.release.projections import entries_of, project, rebuild
from tokka.release.records import Entry, Head, ModelEntry, Signed
from tokka.release.registry import following
from tokka.release.rows import (
    ActorRow,
    ApprovalRow,
    ModelRow,
    VersionRow,
)
from tokka.release.service_tables import ServiceTables
from tokka.release.trail import Trail, write_trail
from tokka.store import locked

from sqlalchemy import Connection, Engine, func, insert, select, update  # isort: skip

PAGE = 1000  # entries read at once
KEY_FILE = "ledger.key"


def open_ledger(spec: str, root: Path, *, create: bool = True) -> Ledger:
    """Open the ledger that a project names: a path relative to `root`, or a URL. `$TOKKA_LEDGER`
    replaces `spec`. An older database is upgraded.

    Raises UsageError for a spec that can't be read and, with `create=False`, a ledger that isn't
    there; MissingExtra without the driver; IntegrityError for a database of a newer tokka, an end
    that was cut off or exchanged since it was last seen here, or another ledger's key; TokkaError
    where the database can't be reached.
    """
    url = url_of(spec, root)
    engine = engine_of(url)
    key = key_path(root / ".tokka" / KEY_FILE)
    waiting: AbstractContextManager[None] = contextlib.nullcontext()
    if url.drivername == "sqlite":
        path = Path(str(url.database))
        key = key_path(path.with_suffix(".key"))
        if not path.exists() and not create:
            raise _missing(path)
        # Switching to the write-ahead log doesn't wait for others as other writes do.
        waiting = locked(path.with_name(path.name + ".lock"))
    try:
        with waiting:
            _prepare(engine, key, create)
        ledger = Ledger(engine, key)
        ledger.verify_end()
    except BaseException as error:
        engine.dispose()
        if isinstance(error, OSError):
            raise TokkaError(
                f"ledger: {place_of(url)}: {error.strerror}; check that its folder can be written"
            ) from error
        raise
    return ledger


class Ledger(ServiceTables):
    """An open ledger; `close` it, or use it as a context manager. Threads may share it. `id` stands
    in every head, `public_key` (PEM) is what verifies them."""

    def __init__(self, engine: Engine, key_file: Path) -> None:
        super().__init__(engine)
        self.key_file = key_file
        self._key: LedgerKey | None = None
        with self.reading() as connection:
            row = connection.execute(select(tables.ledger)).one()
        self.id, self.public_key = str(row.id), str(row.public_key)

    # ---- the trail ------------------------------------------------------------------------------

    def append(self, signed: Signed, permit: Callable[[Connection], None] | None = None) -> Entry:
        """Chain an act to the trail and write what it changes, all or nothing. Whoever else appends
        waits. `permit` may refuse by raising: it is asked inside the transaction, before anything
        is written. Raises NotPermitted for an act that its actor may not do or didn't sign."""
        key = self._own_key()
        with begin(self.engine, write=True, trail=True) as connection:
            self._write_permitted(connection, signed, permit)
            last = self._end(connection)
            entry = chained(last.number + 1, last.hash, signed)
            books = following(self).of(connection)
            follow(books, entry)
            act = entry.signed.act
            connection.execute(
                insert(tables.entries).values(
                    number=entry.number, previous=entry.previous, hash=entry.hash,
                    signed=canonical_json(entry.signed), kind=act.kind, actor=act.actor,
                    model=act.model, version=act.version,
                )
            )  # fmt: skip
            project(connection, entry, books)
            head = sign_head(key.private, self.id, entry.number, entry.hash)
            connection.execute(
                update(tables.head).values(
                    number=head.number, hash=head.hash, signature=head.signature
                )
            )
        remember(seen_path(self.key_file, self.id), head)
        return entry

    def _write_permitted(
        self, connection: Connection, signed: Signed, also: Callable[[Connection], None] | None
    ) -> None:
        # Without the clock: that is for whoever performs an act now (registry.permit_in).
        permit(signed, following(self).of(connection))
        if also is not None:
            also(connection)

    def entries(self, model: str | None = None, version: int | None = None) -> Iterator[Entry]:
        """The trail in order; of one model or version only what is about it."""
        after = 0
        table = tables.entries
        while True:
            asked = select(table).where(table.c.number > after).order_by(table.c.number)
            if model is not None:
                asked = asked.where(table.c.model == model)
            if version is not None:
                asked = asked.where(table.c.version == version)
            with self.reading() as connection:
                rows = connection.execute(asked.limit(PAGE)).all()
            for row in rows:
                yield _entry(row)
            if len(rows) < PAGE:
                return
            after = rows[-1].number

    def head(self) -> Head:
        """The end of the chain, as it was signed when it was written."""
        with self.reading() as connection:
            return self._head(connection)

    def trail(self) -> Trail:
        """The whole trail as it is stored, at one moment."""
        with self.reading() as connection:
            rows = connection.execute(select(tables.entries).order_by(tables.entries.c.number))
            lines = tuple(line(r.number, r.previous, r.signed, r.hash) for r in rows)
            return Trail(lines, canonical_json(self._head(connection)), self.public_key)

    def export(self, folder: Path) -> None:
        """Write trail.jsonl, head.json, ledger.pem and trail.txt, which `audit.verify_trail` and
        people read."""
        write_trail(self.trail(), folder)

    def check(self, recorded: Sequence[Head] = ()) -> tuple[str, ...]:
        """Verify everything: the chain against the last head seen here and the `recorded` ones,
        who signed, and the registry's tables against the trail. Returns what is wrong."""
        seen = remembered(seen_path(self.key_file, self.id))
        report = verify_trail(self.trail(), self.public_key, [*([seen] if seen else []), *recorded])
        faults = [fault.reason for fault in report.faults]
        if not faults:
            with self.reading() as connection:
                faults += drift(connection)
        return tuple(faults)

    def rebuild(self) -> None:
        """Write the registry's tables again from the trail."""
        with begin(self.engine, write=True, trail=True) as connection:
            rebuild(connection, entries_of(connection))

    def sign(self, data: bytes) -> bytes:
        """The ledger's Ed25519 signature (64 bytes), for what leaves it: an evidence pack's
        manifest. Raises UsageError where its key isn't here."""
        return self._own_key().private.sign(data)

    def verify_end(self) -> None:
        """What can be verified without reading the whole trail. Raises IntegrityError."""
        seen_file = seen_path(self.key_file, self.id)
        seen = remembered(seen_file)  # before the database is read: another process may append
        place = place_of(self.engine.url)
        if self.key_file.exists() and os.access(self.key_file, os.R_OK):
            self._own_key()
        with self.reading() as connection:
            last = self._end(connection)
            if seen is None or seen.number == 0:
                return
            asked = select(tables.entries.c.hash).where(tables.entries.c.number == seen.number)
            found = connection.execute(asked).scalar()
        if found != seen.hash:
            what = (
                f"the trail ends at entry {last.number}, but entry {seen.number} was seen here: "
                "it was cut short, or an old copy was put back"
                if last.number < seen.number
                else f"entry {seen.number} isn't the one seen here: the trail was rewritten"
            )
            raise IntegrityError(
                f"ledger: {place}: {what}. Put the right database back; if an old copy was put "
                f"back on purpose, delete {seen_file}"
            )

    # ---- what the acts add up to ----------------------------------------------------------------

    def models(self) -> list[ModelRow]:
        """The inventory by name."""
        names = set(ModelEntry.model_fields)
        found = []
        for row in self._rows(select(tables.models).order_by(tables.models.c.name)):
            entry = row.pop("entry")
            kept = {name: value for name, value in row.items() if name in names}
            found.append(ModelRow(ModelEntry(**kept), entry))
        return found

    def versions(self, model: str | None = None) -> list[VersionRow]:
        """By model and number."""
        table = tables.versions
        asked = select(table).order_by(table.c.model, table.c.version)
        if model is not None:
            asked = asked.where(table.c.model == model)
        return [VersionRow(**row) for row in self._rows(asked)]

    def actors(self) -> list[ActorRow]:
        """Everybody ever enrolled, in order; who was dismissed has `until`."""
        return [ActorRow(**r) for r in self._rows(select(tables.actors).order_by("entry"))]

    def approvals(self, model: str, version: int) -> list[ApprovalRow]:
        """What was decided about a version, in order."""
        table = tables.approvals
        mine = (table.c.model == model) & (table.c.version == version)
        return [ApprovalRow(**r) for r in self._rows(select(table).where(mine).order_by("entry"))]

    def next_version(self, model: str) -> int:
        """The number that a model's next release would get. Of two processes that ask at once, the
        second one's `append` is refused: ask again then."""
        table = tables.entries
        mine = (table.c.kind == "release") & (table.c.model == model)
        with self.reading() as connection:
            last = connection.execute(select(func.max(table.c.version)).where(mine)).scalar()
        return (last or 0) + 1

    # ---- its own parts --------------------------------------------------------------------------

    def _own_key(self) -> LedgerKey:
        if self._key is None:
            key = load_key(self.key_file)
            if key.public_key != self.public_key:
                raise IntegrityError(
                    f"ledger: {self.key_file} is another ledger's key than the one of "
                    f"{place_of(self.engine.url)}; put the right one or the right database back"
                )
            self._key = key
        return self._key

    def _head(self, connection: Connection) -> Head:
        row = connection.execute(select(tables.head)).one()
        return Head(
            ledger=row.ledger, number=row.number, hash=row.hash, signature=row.signature,
            public_key=self.public_key,
        )  # fmt: skip

    def _end(self, connection: Connection) -> Head:
        """The head, held against the last entry and the ledger's key."""
        head = self._head(connection)
        table = tables.entries
        last = connection.execute(select(table).order_by(table.c.number.desc()).limit(1)).first()
        number, hash = (last.number, last.hash) if last else (0, genesis(self.id, self.public_key))
        whole = last is None or _rehash(last) == last.hash
        if (
            not whole
            or (head.ledger, head.number, head.hash) != (self.id, number, hash)
            or not head_holds(head, self.public_key)
        ):
            raise IntegrityError(
                f"ledger: {place_of(self.engine.url)}: its last entry, {number}, isn't what the "
                "ledger signed; see what was changed: tokka verify"
            )
        return head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rehash(row: Any) -> str | None:
    try:
        return entry_hash(row.number, row.previous, json.loads(row.signed))
    except ValueError:
        return None


def _entry(row: Any) -> Entry:
    try:
        signed = Signed.model_validate_json(row.signed)
    except ValueError as error:
        raise IntegrityError(
            f"ledger: entry {row.number} can't be read; see what was changed: tokka verify"
        ) from error
    return Entry(number=row.number, previous=row.previous, signed=signed, hash=row.hash)


def _prepare(engine: Engine, key_file: Path, create: bool) -> None:
    """Bring the tables up to date and found the ledger, in one transaction that others wait for."""
    from tokka.release import migrations

    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
        # Whoever can't read the key can't append either; the request log may hold texts.
        os.close(os.open(str(engine.url.database), os.O_CREAT | os.O_WRONLY, 0o600))
    with begin(engine, write=False) as connection:
        now = migrations.revision(connection)
        if now == migrations.HEAD:
            return
        if now is None and not create:
            raise _missing(Path(place_of(engine.url)))
    with begin(engine, write=True, trail=True) as connection:
        migrations.upgrade(connection)  # nothing is left to do where another was first
        if connection.execute(select(tables.ledger)).first() is None:
            _found(connection, make_key(key_file))


def _found(connection: Connection, key: LedgerKey) -> None:
    ledger = uuid.uuid4().hex
    head = sign_head(key.private, ledger, 0, genesis(ledger, key.public_key))
    connection.execute(
        insert(tables.ledger).values(id=ledger, public_key=key.public_key, created=utc_now())
    )
    connection.execute(
        insert(tables.head).values(
            ledger=ledger, number=0, hash=head.hash, signature=head.signature
        )
    )


def _missing(place: Path) -> UsageError:
    return UsageError(
        f"ledger: there is none at {place}; it is made with its first actor: "
        "tokka actor new NAME --duty owner"
    )
