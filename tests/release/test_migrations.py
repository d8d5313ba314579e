import signal

import pytest
from places import BOSS, Place, ended, enrol, say, writer

from tokka.errors import IntegrityError
from tokka.release import migrations
from tokka.release.ledger import Ledger
from tokka.release.rows import UsageRow
from tokka.release.tables import metadata


def older(place: Place, patch: pytest.MonkeyPatch) -> Ledger:
    """A ledger as the first revision left it, with two entries."""
    with patch.context() as then:
        then.setattr(migrations, "HEAD", "0001")
        ledger = place.open()
        enrol(ledger, BOSS, BOSS, "owner")
        say(ledger, BOSS, comment="昔の記録")
    return ledger


def revision_of(place: Place) -> str:
    ((found,),) = place.run("SELECT version_num FROM ledger_revision")
    return str(found)


def test_the_revisions_make_the_tables_that_the_code_uses(place: Place) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with place.open().reading() as connection:
        options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_newest_revision_is_the_one_that_opening_asks_for(sqlite: Place) -> None:
    from alembic.script import ScriptDirectory

    with sqlite.open().reading() as connection:
        script = ScriptDirectory.from_config(migrations.config(connection))
        assert script.get_heads() == [migrations.HEAD]


def test_an_older_database_is_upgraded_and_keeps_its_trail(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with older(place, monkeypatch) as ledger:
        before = ledger.trail()
    assert revision_of(place) == "0001"
    ledger = place.open()
    assert revision_of(place) == migrations.HEAD
    assert ledger.trail() == before and ledger.check() == ()
    ledger.add_usage([UsageRow("k", "2026-11-23", 1)])
    say(ledger, BOSS, comment="今")
    assert ledger.head().number == 3


def test_a_database_of_a_newer_tokka_is_refused_and_left(place: Place) -> None:
    with place.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
        before = ledger.trail()
    place.run("UPDATE ledger_revision SET version_num = '9999'")
    with pytest.raises(IntegrityError, match=r"newer tokka wrote it .*9999.*update tokka"):
        place.open()
    assert revision_of(place) == "9999"
    place.run(f"UPDATE ledger_revision SET version_num = '{migrations.HEAD}'")
    assert place.open().trail() == before


def test_processes_that_open_a_new_ledger_at_once_found_one(place: Place) -> None:
    several = [writer(place, "print(ledger.id, ledger.public_key)") for _ in range(2)]
    said = {ended(process) for process in several}
    ledger = place.open()
    assert said == {f"{ledger.id} {ledger.public_key}\n"}


def test_processes_that_upgrade_at_once_are_safe(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    older(place, monkeypatch).close()
    work = "say(ledger, boss, comment=sys.argv[2])"
    for process in [writer(place, work, name) for name in "ab"]:
        ended(process)
    ledger = place.open()
    assert ledger.head().number == 4 and ledger.check() == ()
    assert revision_of(place) == migrations.HEAD


def test_a_killed_upgrade_leaves_the_older_database(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with older(place, monkeypatch) as ledger:
        before = ledger.trail()
    killed = writer(
        place,
        "",
        before="""
        import signal
        from alembic import op
        op.create_index = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    ended(killed, -signal.SIGKILL)
    assert revision_of(place) == "0001"
    ledger = place.open()
    assert ledger.trail() == before and ledger.check() == ()
