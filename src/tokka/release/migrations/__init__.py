"""Revisions of the ledger's tables, run by Alembic when a ledger is opened.

`upgrade(connection)` brings a database up to date within the caller's transaction: a killed upgrade
leaves the old tables. A database of a newer tokka is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokka.errors import IntegrityError
from tokka.extras import require

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

# The newest revision; a test holds it and the folder together. Knowing it here saves importing
# Alembic at every opening.
HEAD = "0002"
VERSION_TABLE = "ledger_revision"


def revision(connection: Connection) -> str | None:
    """Where the database stands; None where it holds no ledger."""
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


def upgrade(connection: Connection) -> None:
    """Run the missing revisions. Raises IntegrityError for a database of a newer tokka."""
    require("alembic", extra="release")
    from alembic import command
    from alembic.script import ScriptDirectory

    now, known = revision(connection), ScriptDirectory.from_config(config(connection))
    if now is not None and now not in {script.revision for script in known.walk_revisions()}:
        raise IntegrityError(
            f"ledger: a newer tokka wrote it (its tables are at revision {now}, this one knows up "
            f"to {HEAD}); update tokka"
        )
    command.upgrade(config(connection), HEAD)


def config(connection: Connection) -> Config:
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made
