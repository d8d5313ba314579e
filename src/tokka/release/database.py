"""The ledger's database: SQLite by path, PostgreSQL by URL; connections, locks, and what to say
when it fails.

spec → Engine. Passwords never reach a message.

>>> engine = engine_of(".tokka/ledger.sqlite", root)
>>> with begin(engine, write=True) as connection: ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from tokka.errors import IntegrityError, TokkaError, UsageError
from tokka.extras import require

require("sqlalchemy", extra="release")

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text  # noqa: E402
from sqlalchemy.exc import (  # noqa: E402
    ArgumentError,
    DatabaseError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.exc import IntegrityError as Conflict  # noqa: E402

VARIABLE = "TOKKA_LEDGER"
BUSY_SECONDS = 30.0
# One number for "somebody writes the trail" among a PostgreSQL database's advisory locks.
TRAIL_LOCK = 0x746F6B6B61
EXAMPLE = "postgresql+psycopg://user@host/database"


def url_of(spec: str, root: Path) -> URL:
    """`spec` or `$TOKKA_LEDGER`: a path relative to `root`, or a URL. Raises UsageError, without
    showing the URL: a wrong one may hold its password anywhere."""
    spec = os.environ.get(VARIABLE) or spec
    if "://" not in spec:
        return URL.create("sqlite", database=str(root / Path(spec).expanduser()))
    try:
        url = make_url(spec)
    except (ArgumentError, ValueError):
        raise UsageError(f"ledger: the URL can't be read; write it as {EXAMPLE}") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UsageError(f"ledger: {url.drivername} isn't known; give a path (SQLite) or {EXAMPLE}")
    if url.host and "@" in url.host:
        raise UsageError("ledger: write an @ in the URL's password as %40")
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise UsageError("ledger: SQLite needs a file; give its path")
        url = url.set(database=str(root / url.database))
    return url


def engine_of(url: URL) -> Engine:
    """Raises MissingExtra where PostgreSQL's driver is not installed."""
    if url.drivername != "sqlite":
        require("psycopg", extra="postgresql")
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        hide_parameters=True,  # an error must not print what was written
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin late, and only for some statements; see _begin_sqlite.
    connection.isolation_level = None
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an act that was confirmed survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("tokka_write", False)
    # A transaction that reads first and writes later can fail half way; this one waits here.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def begin(engine: Engine, *, write: bool, trail: bool = False) -> Iterator[Connection]:
    """One transaction; with `trail`, nobody else writes the trail until it ends."""
    with told(engine), engine.connect() as plain:
        connection = plain.execution_options(tokka_write=write)
        if engine.dialect.name == "postgresql" and not write:
            # Else each statement sees another moment: a head without its entry.
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            if trail and engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": TRAIL_LOCK})
            yield connection


@contextmanager
def told(engine: Engine) -> Iterator[None]:
    """Turn the database's errors into ours, without parameters or passwords."""
    try:
        yield
    except Conflict as error:
        raise IntegrityError(f"ledger: refused by the database: {_why(error, engine)}") from None
    except DatabaseError as error:
        why = _why(error, engine)
        place = place_of(engine.url)
        if "malformed" in why or "not a database" in why:
            raise IntegrityError(f"ledger: {place} is damaged ({why}); put a copy back") from None
        raise TokkaError(
            f"ledger: {place}: {why}; check that it can be reached and written"
        ) from None
    except (SQLAlchemyError, NoSuchModuleError) as error:
        raise TokkaError(f"ledger: {place_of(engine.url)}: {_why(error, engine)}") from None


def place_of(url: URL) -> str:
    """The database as a message may show it: no password, no parameters."""
    if url.drivername == "sqlite":
        return str(url.database)
    return url.set(query={}).render_as_string(hide_password=True)


def _why(error: Exception, engine: Engine) -> str:
    cause = getattr(error, "orig", None) or error
    # PostgreSQL's details show the row: somebody's question, where the log keeps texts.
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)
    reason = " ".join(str(primary or cause).split())
    secrets = [engine.url.password, engine.url.query.get("password")]
    for secret in (str(secret) for secret in secrets if secret):
        for spelling in (secret, quote(secret), quote_plus(secret)):
            reason = reason.replace(spelling, "***")
    return reason
