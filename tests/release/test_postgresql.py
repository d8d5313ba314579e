"""What only PostgreSQL does; the rest of the ledger's suite runs over both databases."""

import traceback

import psycopg
import pytest
from places import BOSS, Place, ended, enrol, say, writer
from sqlalchemy import make_url

from tokka.errors import TokkaError
from tokka.release.database import TRAIL_LOCK
from tokka.release.rows import RequestRow, UsageRow


def plain(place: Place) -> str:
    return place.spec.replace("+psycopg", "")


def test_an_append_waits_for_whoever_else_writes_the_trail(postgresql: Place) -> None:
    ledger = postgresql.open()
    enrol(ledger, BOSS, BOSS, "owner")
    with psycopg.connect(plain(postgresql)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (TRAIL_LOCK,))
        process = writer(postgresql, 'print("ready", flush=True)\nsay(ledger, boss)')
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while postgresql.run(waiting) == [(0,)]:
            assert process.poll() is None, process.communicate()[1]
        assert ledger.head().number == 1
    ended(process)
    assert ledger.head().number == 2


def test_services_write_while_the_trail_is_locked(postgresql: Place) -> None:
    ledger = postgresql.open()
    with psycopg.connect(plain(postgresql)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (TRAIL_LOCK,))
        ledger.add_usage([UsageRow("k", "2026-11-23", 1)])
        assert ledger.usage_of("k", "2026-11-23").tokens == 1


def test_a_trail_is_read_at_one_moment(postgresql: Place) -> None:
    ledger = postgresql.open()
    enrol(ledger, BOSS, BOSS, "owner")
    with ledger.reading() as connection:
        assert ledger._head(connection).number == 1
        say(ledger, BOSS)
        assert ledger._head(connection).number == 1
    assert ledger.head().number == 2


def test_a_refused_password_is_not_shown(postgresql: Place) -> None:
    right = make_url(postgresql.spec)
    wrong = Place(right.set(password="falsch/4712@").render_as_string(False), postgresql.root)
    with pytest.raises(TokkaError, match="password authentication failed") as error:
        wrong.open()
    shown = "".join(traceback.format_exception(error.value))
    assert "falsch" not in shown and "4712" not in shown


def test_a_lost_connection_is_made_again(postgresql: Place) -> None:
    ledger = postgresql.open()
    enrol(ledger, BOSS, BOSS, "owner")
    mine = "pid <> pg_backend_pid() AND datname = current_database()"
    postgresql.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")
    assert say(ledger, BOSS).number == 2


def test_an_error_shows_no_row(postgresql: Place) -> None:
    row = RequestRow(
        id="r1", time="2026-11-23T01:02:03Z", key_id="k", route="/", status=None, question="秘密"
    )  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(TokkaError, match="null value in column") as error:
        postgresql.open().write_requests([row])
    assert "秘密" not in "".join(traceback.format_exception(error.value))
