"""One suite over both databases, and what only one of them can do."""

import signal
import stat
import sys
import threading
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import BOSS, Place, actor, ended, enrol, say, signed, writer
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tokka.errors import IntegrityError, MissingExtra, TokkaError, UsageError
from tokka.release import ledger as ledger_module
from tokka.release.database import told
from tokka.release.duties import NotPermitted
from tokka.release.ledger import Ledger, open_ledger
from tokka.release.rows import KeyRow, ObservationRow, RequestRow, UsageRow

AOI, VAL, SATO = actor("aoi"), actor("検証"), actor("sato")
INVENTORY = {
    "owner": "融資部", "use": "規程の照会", "tier": "medium", "tier_reason": "社内のみ",
    "base_model": "gemma", "base_digest": "0" * 64, "licence": "gemma",
}  # fmt: skip


def team(ledger: Ledger) -> None:
    enrol(ledger, BOSS, BOSS, "owner")
    for who, duty in ((AOI, "developer"), (VAL, "validator"), (SATO, "approver")):
        enrol(ledger, BOSS, who, duty)


def released(ledger: Ledger, version: int = 1) -> dict[str, Any]:
    about = {"model": "aoba", "version": version, "digest": f"{version}" * 64}
    say(ledger, AOI, "release", details={"candidate_id": "c1"}, **about)
    return about


# ---- the trail and what it adds up to -----------------------------------------------------------


def test_acts_are_chained_and_read_back_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PAGE", 2)
    ledger = place.open()
    assert ledger.head().number == 0
    team(ledger)
    say(ledger, BOSS, "register", model="aoba", details=INVENTORY)
    about = released(ledger)
    say(ledger, SATO, model="aoba", comment="第9条を確認\n改行 ✓ \u2028")
    found = list(ledger.entries())
    assert [entry.number for entry in found] == [1, 2, 3, 4, 5, 6, 7]
    assert all(b.previous == a.hash for a, b in pairwise(found))
    assert found[6].signed.act.comment == "第9条を確認\n改行 ✓ \u2028"
    assert ledger.head().hash == found[6].hash and ledger.head().number == 7
    assert [entry.number for entry in ledger.entries("aoba")] == [5, 6, 7]
    assert [entry.number for entry in ledger.entries("aoba", 1)] == [6]
    assert [e.signed.act.digest for e in ledger.entries("aoba", 1)] == [about["digest"]]
    assert ledger.check() == ()
    again = place.open()
    assert list(again.entries()) == found and again.head() == ledger.head()


def test_the_registrys_tables_follow_the_acts(place: Place) -> None:
    ledger = place.open()
    team(ledger)
    say(ledger, BOSS, "register", model="aoba", details=INVENTORY)
    assert ledger.next_version("aoba") == 1
    about = released(ledger)
    assert ledger.next_version("aoba") == 2 and ledger.next_version("other") == 1
    assert [v.stage for v in ledger.versions()] == ["draft"]
    say(ledger, VAL, "validate", **about)
    say(ledger, SATO, "approve", conditions=("社内利用に限る",), comment="可", **about)
    (version,) = ledger.versions("aoba")
    assert (version.stage, version.digest, version.candidate_id) == ("approved", "1" * 64, "c1")
    assert version.conditions == ("社内利用に限る",) and version.released_by == "aoi"
    (model,) = ledger.models()
    assert (model.model.name, model.model.owner, model.entry) == ("aoba", "融資部", 5)
    decided = ledger.approvals("aoba", 1)
    assert [(a.kind, a.actor, a.entry) for a in decided] == [
        ("validate", "検証", 7), ("approve", "sato", 8),
    ]  # fmt: skip
    assert decided[1].conditions == ("社内利用に限る",) and decided[1].method == "key"
    say(ledger, BOSS, "dismiss", details={"name": "sato"})
    assert [(a.name, a.duties, a.until is None) for a in ledger.actors()][1:] == [
        ("aoi", ("developer",), True),
        ("検証", ("validator",), True),
        ("sato", ("approver",), False),
    ]  # fmt: skip
    assert ledger.versions("other") == [] and ledger.approvals("aoba", 2) == []
    assert ledger.check() == ()


def test_a_refused_act_leaves_nothing(place: Place) -> None:
    ledger = place.open()
    team(ledger)
    before = ledger.trail()

    def refuse(_: object) -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        ledger.append(signed(ledger, SATO), permit=refuse)
    with pytest.raises(NotPermitted, match="signed by"):
        say(ledger, actor("sato"))
    with pytest.raises(NotPermitted, match="takes the duty"):
        say(ledger, SATO, "dismiss", details={"name": "aoi"})
    with pytest.raises(UsageError, match="NUL"):
        say(ledger, SATO, comment="a\x00b")
    assert ledger.trail() == before and ledger.check() == ()


def test_two_releases_never_get_one_number(place: Place) -> None:
    ledger = place.open()
    team(ledger)
    say(ledger, BOSS, "register", model="aoba", details=INVENTORY)
    released(ledger)
    with pytest.raises(NotPermitted, match="aoba-1 is there already"):
        released(ledger)


ROW = "VALUES (2, '', '', 'h', '', '', '', NULL)"
REFUSED = (
    "UPDATE entries SET actor = 'x' WHERE number = 1",
    "UPDATE entries SET number = 9 WHERE number = 2",
    "DELETE FROM entries WHERE number = 2",
    f"INSERT INTO entries {ROW}",
    f"INSERT INTO entries {ROW.replace('2', '9')}",
    f"INSERT INTO entries {ROW} ON CONFLICT (number) DO UPDATE SET signed = ''",
)
REFUSED_BY = {
    "sqlite": (*REFUSED, f"INSERT OR REPLACE INTO entries {ROW}"),
    "postgresql": (*REFUSED, "TRUNCATE entries"),
}


def test_the_database_itself_refuses_to_change_an_entry(place: Place) -> None:
    ledger = place.open()
    enrol(ledger, BOSS, BOSS, "owner")
    say(ledger, BOSS)
    for statement in REFUSED_BY["sqlite" if place.is_sqlite else "postgresql"]:
        with pytest.raises(Exception, match="append-only"):
            place.run(statement)
    assert ledger.check() == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_an_act_says_is_read_back_and_verified_or_refused(
    sqlite: Place, value: Any
) -> None:
    with sqlite.open() as ledger:
        if not ledger.head().number:
            enrol(ledger, BOSS, BOSS, "owner")
        try:
            entry = say(ledger, BOSS, details={"value": value}, comment=repr(value)[:50])
        except UsageError:
            assert "\\x00" in repr(value) or "\\u0000" in ascii(value)
            return
        *_, last = ledger.entries()
        assert last == entry and ledger.check() == ()


# ---- killed, and two at once --------------------------------------------------------------------


def test_two_processes_that_append_at_once_make_one_chain(place: Place) -> None:
    ledger = place.open()
    enrol(ledger, BOSS, BOSS, "owner")
    work = 'for n in range(8): say(ledger, boss, comment=f"{sys.argv[2]} {n}")'
    both = [writer(place, work, name) for name in "ab"]
    for process in both:
        ended(process)
    said = [entry.signed.act.comment for entry in ledger.entries()][1:]
    assert sorted(said) == sorted(f"{name} {n}" for name in "ab" for n in range(8))
    assert ledger.head().number == 17 and ledger.check() == ()


@pytest.mark.parametrize(("where", "kept"), [("sign_head", 1), ("remember", 2)])
def test_a_killed_append_leaves_all_or_nothing(where: str, kept: int, place: Place) -> None:
    """Killed after the rows were written but not committed; and after the commit."""
    with place.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
    killed = writer(
        place,
        f"""
        module.{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        say(ledger, boss, comment="last words")
        """,
    )
    ended(killed, -signal.SIGKILL)
    ledger = place.open()
    assert ledger.head().number == kept and ledger.check() == ()
    say(ledger, BOSS)
    assert ledger.head().number == kept + 1 and ledger.check() == ()


def test_threads_may_share_a_ledger(place: Place) -> None:
    ledger = place.open()
    enrol(ledger, BOSS, BOSS, "owner")
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(5):
                say(ledger, BOSS, comment=f"{name} {number}")
                ledger.add_usage([UsageRow("k", "2026-11-23", tokens=1)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert ledger.head().number == 16 and ledger.check() == ()
    assert ledger.usage_of("k", "2026-11-23").tokens == 15


# ---- opening ------------------------------------------------------------------------------------


def test_reopening_finds_an_end_that_was_tampered_with(place: Place) -> None:
    with place.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
        say(ledger, BOSS, comment="before")
    signature = ledger.head().signature
    for there, back in (
        ("UPDATE head SET number = 1", "UPDATE head SET number = 2"),
        ("UPDATE head SET signature = 'x'", f"UPDATE head SET signature = '{signature}'"),
        ("UPDATE entries SET signed = replace(signed, 'bef', 'aft')", ""),
    ):
        place.run(there, triggers=False)
        with pytest.raises(IntegrityError, match=r"its last entry, 2, isn't what the ledger"):
            place.open()
        if back:
            place.run(back)
            place.open()


def test_reopening_finds_an_end_that_was_cut_off_or_replaced_since(place: Place) -> None:
    with place.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
        early = ledger.head()
        say(ledger, BOSS, comment="one")
    (rows,) = place.run("SELECT count(*) FROM entries")
    assert rows[0] == 2
    place.run(
        "DELETE FROM entries WHERE number = 2",
        f"UPDATE head SET number = 1, hash = '{early.hash}', signature = '{early.signature}'",
        triggers=False,
    )
    with pytest.raises(IntegrityError, match="ends at entry 1, but entry 2 was seen here"):
        place.open()
    (seen,) = place.key_file.parent.glob("*.head.json")
    aside = seen.read_bytes()
    seen.unlink()  # as on another machine, which saw nothing
    with place.open() as ledger:
        say(ledger, BOSS, comment="another")
    seen.write_bytes(aside)
    with pytest.raises(IntegrityError, match="entry 2 isn't the one seen here") as error:
        place.open()
    assert str(seen) in str(error.value)
    seen.write_text("{}")
    with pytest.raises(IntegrityError, match="holds no head"):
        place.open()


def test_a_ledger_that_should_be_there_is_not_made(place: Place) -> None:
    with pytest.raises(UsageError, match=r"there is none at .*tokka actor new"):
        place.open(create=False)
    assert not place.key_file.exists()
    place.open()
    assert place.open(create=False).head().number == 0


def test_its_files_are_their_owners_alone(sqlite: Place) -> None:
    sqlite.open()
    for path in (sqlite.key_file, sqlite.root / sqlite.spec):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_ledgers_key_must_be_its_own_and_nobody_elses(sqlite: Place, tmp_path: Path) -> None:
    with sqlite.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
    sqlite.key_file.chmod(0o644)
    with pytest.raises(UsageError, match="readable by others"):
        sqlite.open()
    other = Place(".tokka/ledger.sqlite", tmp_path / "other")
    with other.open():
        pass
    sqlite.key_file.unlink()
    sqlite.key_file.write_bytes(other.key_file.read_bytes())
    sqlite.key_file.chmod(0o600)
    with pytest.raises(IntegrityError, match="another ledger's key"):
        sqlite.open()
    sqlite.key_file.unlink()
    with sqlite.open() as ledger:  # a host that may read and not append
        assert ledger.check() == () and ledger.head().number == 1
        with pytest.raises(UsageError, match=r"its key isn't at .*TOKKA_LEDGER_KEY"):
            say(ledger, BOSS)
        ledger.add_usage([UsageRow("k", "2026-11-23", tokens=1)])


def test_the_key_may_lie_elsewhere_and_the_ledger_too(
    sqlite: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOKKA_LEDGER_KEY", str(tmp_path / "safe" / "key.pem"))
    monkeypatch.setenv("TOKKA_LEDGER", "elsewhere/l.sqlite")
    with sqlite.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
    assert (tmp_path / "safe" / "key.pem").exists()
    assert not sqlite.key_file.exists() and (sqlite.root / "elsewhere" / "l.sqlite").exists()
    monkeypatch.setenv("TOKKA_LEDGER", f"sqlite:///{tmp_path}/elsewhere/l.sqlite")
    assert sqlite.open().head().number == 1


def test_a_file_that_is_no_ledger_is_refused_and_left(sqlite: Place) -> None:
    path = sqlite.root / sqlite.spec
    path.parent.mkdir()
    path.write_bytes(b"not a database at all, but somebody's notes" * 100)
    with pytest.raises(IntegrityError, match="is damaged"):
        sqlite.open()
    assert path.read_bytes().startswith(b"not a database")


def test_a_folder_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokkaError, match=r"file/ledger\.sqlite: .*check that its folder"):
        open_ledger("file/ledger.sqlite", tmp_path)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("postgresql://u:geheim@h:port/d", "can't be read"),
        ("postgresql://u:ge@heim@h/d", "write an @"),
        ("mysql://u:geheim@h/d", "mysql isn't known"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("postgresql://u:geheim@127.0.0.1:1/d", "can be reached"),
        ("postgresql://u:geheim@127.0.0.1:1/d?password=geheim&sslmode=nonsense", "can be reached"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(spec: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(TokkaError, match=said) as error:
        open_ledger(spec, tmp_path)
    assert "heim" not in "".join(traceback.format_exception(error.value))  # nor what caused it


def test_a_password_in_the_databases_own_message_is_hidden() -> None:
    engine = create_engine("postgresql+psycopg://u:ge%2Fheim@h/d?password=zwei%40")
    with pytest.raises(TokkaError) as error, told(engine):
        raise OperationalError("", None, Exception("no ge/heim, no ge%2Fheim, no zwei@, zwei%40"))
    assert "no ***, no ***, no ***, ***" in str(error.value)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"tokka\[postgresql\]"):
        open_ledger("postgresql://u:geheim@h/d", tmp_path)


# ---- what services write ------------------------------------------------------------------------


def test_api_keys_are_kept_replaced_and_found(place: Place) -> None:
    ledger = place.open()
    row = KeyRow(
        id="k1", name="融資部", hash="ab" * 32, roles=("user",), groups=("loans", "人事"),
        created="2026-11-23T01:02:03Z", tokens_per_day=10**12,
    )  # fmt: skip
    ledger.write_key(row)
    assert ledger.key("k1") == row and ledger.key("k2") is None and ledger.keys() == [row]
    revoked = KeyRow(**{f: getattr(row, f) for f in row.__dataclass_fields__} | {"revoked": "x"})
    ledger.write_key(revoked)
    assert ledger.keys() == [revoked]


def test_a_batch_of_requests_can_be_written_twice(place: Place) -> None:
    ledger = place.open()
    rows = [
        RequestRow(
            id=f"r{n}", time=f"2026-11-23T01:02:0{n}Z", key_id="k", route="/v1/models", status=200,
            seconds=0.25, ttft_seconds=None, streamed=True, details={"passages": [1, 2.5]},
            question="NUL \x00 と半端な\ud800文字" if n else None,
        )
        for n in range(3)
    ]  # fmt: skip
    ledger.write_requests(rows[:2])
    ledger.write_requests(rows)
    ledger.write_requests([])
    found = ledger.requests()
    assert [row.id for row in found] == ["r2", "r1", "r0"]
    assert found[2] == rows[0] and found[0].question == "NUL \ufffd と半端な?文字"
    assert [r.id for r in ledger.requests(since="2026-11-23T01:02:01Z", limit=1)] == ["r2"]
    assert ledger.requests(key_id="other") == []
    seen = ObservationRow(
        id="o1",
        time="2026-11-23T01:02:03Z",
        kind="answer",
        data={"confidence": 0.5, "citations": 2},
    )
    ledger.write_observations([seen])
    ledger.write_observations([seen])
    assert ledger.observations() == [seen] and ledger.observations(since="2027") == []


def test_usage_adds_up_by_key_and_day(place: Place) -> None:
    ledger = place.open()
    day = "2026-11-23"
    ledger.add_usage([UsageRow("a", day, 5, 1), UsageRow("b", day, 7, 1), UsageRow("a", day, 2, 1)])
    ledger.add_usage([UsageRow("a", day, -3, 0), UsageRow("a", "2026-11-24", 1, 1)])
    ledger.add_usage([])
    assert ledger.usage_of("a", day) == UsageRow("a", day, 4, 2)
    assert ledger.usage_of("b", day) == UsageRow("b", day, 7, 1)
    assert ledger.usage_of("c", day) == UsageRow("c", day, 0, 0)


def test_what_leaves_the_ledger_can_be_signed_with_its_key(sqlite: Place) -> None:
    from tokka.release.chain import load_public

    ledger = sqlite.open()
    load_public(ledger.public_key).verify(ledger.sign(b"manifest"), b"manifest")


def test_a_database_that_is_busy_says_so(sqlite: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    monkeypatch.setattr("tokka.release.database.BUSY_SECONDS", 0.05)
    ledger = sqlite.open()
    other = sqlite3.connect(sqlite.root / sqlite.spec, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TokkaError, match="locked"):
        ledger.add_usage([UsageRow("k", "2026-11-23", 1)])
    other.execute("ROLLBACK")
    other.close()
    ledger.add_usage([UsageRow("k", "2026-11-23", 1)])
