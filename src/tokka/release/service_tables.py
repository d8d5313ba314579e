"""What services keep in the ledger beside the trail: API keys, the request log, observations,
usage.

Rows in, rows out; no chain. Writing is meant for one writer's batches, never for a request's path.

>>> ledger.write_requests([RequestRow(id="r1", time=utc_now(), key_id="k", route="/v1/models",
...                                   status=200)])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

from tokka.release import tables
from tokka.release.database import begin
from tokka.release.rows import KeyRow, ObservationRow, RequestRow, UsageRow

from sqlalchemy import Connection, Engine, Select, Table, select  # isort: skip
from sqlalchemy.dialects import postgresql, sqlite


class ServiceTables:
    """The part of a `Ledger` that services write."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one moment."""
        return begin(self.engine, write=False)

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction for what isn't in the trail."""
        return begin(self.engine, write=True)

    def close(self) -> None:
        self.engine.dispose()

    # ---- API keys -------------------------------------------------------------------------------

    def keys(self) -> list[KeyRow]:
        """All API keys, oldest first."""
        table = tables.api_keys
        return [
            KeyRow(**r) for r in self._rows(select(table).order_by(table.c.created, table.c.id))
        ]

    def key(self, key_id: str) -> KeyRow | None:
        asked = select(tables.api_keys).where(tables.api_keys.c.id == key_id)
        return next((KeyRow(**row) for row in self._rows(asked)), None)

    def write_key(self, row: KeyRow) -> None:
        """Insert a key, or replace the one with the same id."""
        with self.writing() as connection:
            put = self._insert(tables.api_keys).values(_values(row))
            new = {name: put.excluded[name] for name in _names(row) if name != "id"}
            connection.execute(put.on_conflict_do_update(index_elements=["id"], set_=new))

    # ---- the request log, observations ----------------------------------------------------------

    def write_requests(self, rows: Sequence[RequestRow]) -> None:
        """One transaction; a row whose id is there already is left as it is, so that a batch can be
        written again."""
        self._write(tables.requests, rows)

    def write_observations(self, rows: Sequence[ObservationRow]) -> None:
        """As `write_requests`."""
        self._write(tables.observations, rows)

    def requests(
        self, *, since: str = "", key_id: str | None = None, limit: int = 100
    ) -> list[RequestRow]:
        """The newest first, at most `limit`, from `since` (UTC) on."""
        table = tables.requests
        asked = select(table).where(table.c.time >= since)
        if key_id is not None:
            asked = asked.where(table.c.key_id == key_id)
        newest = asked.order_by(table.c.time.desc(), table.c.id.desc()).limit(limit)
        return [RequestRow(**row) for row in self._rows(newest)]

    def observations(self, *, since: str = "", limit: int = 1000) -> list[ObservationRow]:
        """The newest first, at most `limit`, from `since` (UTC) on."""
        table = tables.observations
        asked = select(table).where(table.c.time >= since)
        newest = asked.order_by(table.c.time.desc(), table.c.id.desc()).limit(limit)
        return [ObservationRow(**row) for row in self._rows(newest)]

    # ---- usage ----------------------------------------------------------------------------------

    def add_usage(self, rows: Iterable[UsageRow]) -> None:
        """Add to what each key used on its day; figures may be negative."""
        table = tables.usage
        sums: dict[tuple[str, str], UsageRow] = {}
        for row in rows:
            before = sums.get((row.key_id, row.day), UsageRow(row.key_id, row.day))
            sums[row.key_id, row.day] = UsageRow(
                row.key_id, row.day, before.tokens + row.tokens, before.requests + row.requests
            )
        if not sums:
            return
        with self.writing() as connection:
            put = self._insert(table)
            added = {
                "tokens": table.c.tokens + put.excluded.tokens,
                "requests": table.c.requests + put.excluded.requests,
            }
            # In one order everywhere: two writers that lock the same rows never wait in a circle.
            connection.execute(
                put.on_conflict_do_update(index_elements=["key_id", "day"], set_=added),
                [_values(sums[name]) for name in sorted(sums)],
            )

    def usage_of(self, key_id: str, day: str) -> UsageRow:
        """What a key used on a day (`2026-11-23`, UTC); zeros where it used nothing."""
        table = tables.usage
        asked = select(table).where(table.c.key_id == key_id, table.c.day == day)
        return next((UsageRow(**row) for row in self._rows(asked)), UsageRow(key_id, day))

    # ---------------------------------------------------------------------------------------------

    def _write(self, table: Table, rows: Sequence[RequestRow] | Sequence[ObservationRow]) -> None:
        if rows:
            with self.writing() as connection:
                connection.execute(
                    self._insert(table).on_conflict_do_nothing(index_elements=["id"]),
                    [_values(row) for row in rows],
                )

    def _insert(self, table: Table) -> Any:
        postgres = self.engine.dialect.name == "postgresql"
        return postgresql.insert(table) if postgres else sqlite.insert(table)

    def _rows(self, asked: Select[Any]) -> list[dict[str, Any]]:
        with self.reading() as connection:
            return [dict(row) for row in connection.execute(asked).mappings()]


def _names(row: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(row))


def _values(row: Any) -> Mapping[str, Any]:
    return {name: _kept(getattr(row, name)) for name in _names(row)}


def _kept(value: Any) -> Any:
    """PostgreSQL keeps neither NUL nor half a character; no caller's text may lose its batch."""
    if not isinstance(value, str):
        return value
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
