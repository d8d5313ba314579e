"""Whether the registry's tables are what the trail adds up to.

Entries and rows of an open transaction → what differs. The trail is replayed into empty tables in
memory; the database isn't written.

>>> drift(connection)
['versions: aoba 1 differs from what the trail adds up to']
"""

from __future__ import annotations

import json
from typing import Any

from tokka.release import tables
from tokka.release.projections import PROJECTED, entries_of, rebuild

from sqlalchemy import Connection, Table, create_engine, select  # isort: skip


def drift(connection: Connection) -> list[str]:
    """One sentence for each row that is missing, differs, or has no act behind it; and for each
    entry that is listed under another kind, actor or model than its own."""
    said = [*_listing(connection)]
    memory = create_engine("sqlite://")
    try:
        with memory.begin() as fresh:
            tables.metadata.create_all(fresh)
            rebuild(fresh, entries_of(connection))
            for table in PROJECTED:
                stored, due = _rows(connection, table), _rows(fresh, table)
                for name in sorted({*stored, *due}):
                    if stored.get(name) != due.get(name):
                        said.append(f"{table.name}: {_differs(name, stored, due)}")
    finally:
        memory.dispose()
    return said


def _listing(connection: Connection) -> list[str]:
    """An entry's columns for queries, held against what was signed."""
    wrong = []
    for row in connection.execute(select(tables.entries).order_by(tables.entries.c.number)):
        act = json.loads(row.signed)["act"]
        signed = tuple(act.get(name) for name in ("kind", "actor", "model", "version"))
        if (row.kind, row.actor, row.model, row.version) != signed:
            wrong.append(f"entries: {row.number} is listed as something else than was signed")
    return wrong


def _rows(connection: Connection, table: Table) -> dict[str, dict[str, Any]]:
    keys = [column.name for column in table.primary_key.columns]
    rows = connection.execute(select(table)).mappings()
    return {" ".join(str(row[key]) for key in keys): dict(row) for row in rows}


def _differs(name: str, stored: dict[str, Any], due: dict[str, Any]) -> str:
    if name not in stored:
        return f"{name} is missing, though the trail has it"
    if name not in due:
        return f"{name} is in no act of the trail"
    return f"{name} differs from what the trail adds up to"
