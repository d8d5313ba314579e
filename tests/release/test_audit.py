import base64
import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import BOSS, Place, actor, enrol, say

from tokka.errors import IntegrityError
from tokka.records import canonical_json
from tokka.release.audit import verify_entries, verify_trail
from tokka.release.chain import (
    chained,
    entry_hash,
    genesis,
    key_fingerprint,
    public_pem,
    sign_head,
)
from tokka.release.keys import ActorKey, session_private, sign
from tokka.release.ledger import Ledger
from tokka.release.records import Entry, Head, Signed
from tokka.release.trail import FILES, Trail, read_trail, write_trail

SATO, LEDGER_KEY = actor("sato"), actor("ledger")
SESSION = session_private(b"secret of an API key")
LEDGER = "5e" * 16
AT = "2026-11-23T01:02:03Z"


class Chain:
    """A trail in memory whose every part can be made wrong before it is hashed and signed."""

    def __init__(self) -> None:
        self.beginning = genesis(LEDGER, LEDGER_KEY.public_key)
        self.entries: list[Entry] = []

    @property
    def end(self) -> str:
        return self.entries[-1].hash if self.entries else self.beginning

    def act(self, by: str, kind: str = "note", **said: object) -> dict:
        head = self.end if self.entries else ""
        return {"kind": kind, "actor": by, "at": AT, "head": head, **said}

    def add(self, by: ActorKey, kind: str = "note", **said: object) -> None:
        made = Signed.model_validate({"act": self.act(by.name, kind, **said), "method": "key"})
        self.put(sign(by, made.act))

    def put(self, made: Signed) -> None:
        self.entries.append(chained(len(self.entries) + 1, self.end, made))

    def in_session(self, by: str, private: object = SESSION, **said: object) -> Signed:
        made = Signed.model_validate({"act": self.act(by, **said), "method": "key"})
        signature = sign(ActorKey(by, private), made.act).signature
        return Signed(act=made.act, method="session", signature=signature, session="k1")

    def enrol(self, new: ActorKey, by: ActorKey = BOSS) -> None:
        details = {"name": new.name, "public_key": new.public_key, "duties": ["owner"]}
        self.add(by, "enrol", details=details)

    @property
    def head(self) -> Head:
        return sign_head(LEDGER_KEY.private, LEDGER, len(self.entries), self.end)

    def faults(self, recorded: tuple[Head, ...] = ()) -> list[str]:
        report = verify_entries(self.entries, self.head, LEDGER_KEY.public_key, recorded)
        return [fault.reason for fault in report.faults]


@pytest.fixture
def chain() -> Chain:
    """Two actors, a session of the second, and what they said."""
    made = Chain()
    made.enrol(BOSS)
    made.enrol(SATO)
    issue = {"id": "k1", "does": "issue", "actor": "sato", "public_key": public_pem(SESSION)}
    made.add(SATO, details={"api_key": issue})
    made.put(made.in_session("sato", comment="承認前の確認\n改行と\u2028区切り"))
    made.add(BOSS, comment="四半期の確認: 第9条|表 ✓", conditions=("社内利用に限る",))
    made.add(SATO, comment="1 ≤ 2", details={"figures": [0.1, 1e-9, None, True]})
    return made


@pytest.fixture
def folder(chain: Chain, tmp_path: Path) -> Path:
    lines = tuple(canonical_json(entry) for entry in chain.entries)
    trail = Trail(lines, canonical_json(chain.head), LEDGER_KEY.public_key)
    write_trail(trail, tmp_path / "trail")
    return tmp_path / "trail"


def rehashed(lines: list[str]) -> list[str]:
    """Numbered and hashed anew, as somebody would who has the database and not the key."""
    made, previous = [], genesis(LEDGER, LEDGER_KEY.public_key)
    for number, line in enumerate(lines, 1):
        entry = json.loads(line)
        entry |= {"number": number, "previous": previous}
        previous = entry["hash"] = entry_hash(number, previous, entry["signed"])
        made.append(canonical_json(entry))
    return made


def renumbered(lines: list[str]) -> list[str]:
    return [
        canonical_json(json.loads(line) | {"number": number})
        for number, line in enumerate(lines, 1)
    ]


def test_an_untouched_trail_has_no_fault_and_shows_its_acts(chain: Chain, folder: Path) -> None:
    report = verify_trail(folder, LEDGER_KEY.public_key, [chain.head])
    assert report.ok and report.faults == ()
    assert [entry.number for entry in report.entries] == [1, 2, 3, 4, 5, 6]
    assert report.head == chain.head and report.ledger == LEDGER
    assert report.trusted and report.fingerprint == key_fingerprint(LEDGER_KEY.public_key)
    shown = (folder / "trail.txt").read_text(encoding="utf-8")
    assert "5  2026-11-23T01:02:03Z  note  boss" in shown and "第9条" in shown
    assert "\u2028" not in shown  # would hide a line from somebody


def test_an_empty_trail_can_be_verified() -> None:
    empty = Chain()
    assert empty.faults() == []


def test_without_a_key_from_outside_the_report_says_that_it_trusts_the_one_inside(
    folder: Path,
) -> None:
    report = verify_trail(folder)
    assert report.ok and not report.trusted
    assert report.fingerprint == key_fingerprint(LEDGER_KEY.public_key)


Lines = list[str]
ATTACKS: dict[str, tuple[Callable[[Lines], Lines], int, str]] = {
    "a changed word": (
        lambda x: [*x[:4], x[4].replace("四半期", "全期間"), x[5]], 5, "entry 5 was changed",
    ),
    "another hash": (
        lambda x: [*x[:4], x[4].replace(json.loads(x[4])["hash"], "0" * 64), x[5]], 5,
        "entry 5 was changed",
    ),
    "spaces that change no value": (
        lambda x: [*x[:2], x[2].replace('"number":3', '"number": 3'), *x[3:]], 3, "was changed",
    ),
    "no JSON": (lambda x: [*x[:2], "{", *x[3:]], 3, "entry 3 was changed"),
    "a removed entry": (lambda x: x[:2] + x[3:], 3, "entry 3 is missing: it was removed"),
    "the first entry removed": (lambda x: x[1:], 1, "entry 1 is missing"),
    "the first removed, the rest hashed anew as the second": (
        lambda x: renumbered(x[1:]), 1, "numbered anew",
    ),
    "a removed entry, the rest numbered anew": (
        lambda x: renumbered(x[:2] + x[3:]), 3, "entry 3 was made as entry 4 and numbered anew",
    ),
    "two swapped": (
        lambda x: [*x[:2], x[3], x[2], *x[4:]], 3, "entry 3 stands after entry 4: the order",
    ),
    "two swapped with their numbers": (
        lambda x: renumbered([*x[:2], x[3], x[2], *x[4:]]), 3, "entry 3 was made as entry 4",
    ),
    "an entry twice": (lambda x: [*x[:3], x[2], *x[3:]], 4, "entry 3 is there twice"),
    "an inserted entry with a sound hash": (
        lambda x: [*x[:3], rehashed([*x[:3], x[4]])[3], *x[3:]], 5, "entry 4 is there twice",
    ),
    "a replaced entry with a sound hash": (
        lambda x: [*x[:3], rehashed([*x[:3], x[4]])[3], *x[4:]], 5,
        "entry 5 doesn't follow entry 4",
    ),
    "a sound entry at the end": (
        lambda x: rehashed([*x, x[4]]), 7, "entry 7 stands after the signed head",
    ),
    "cut short": (lambda x: x[:4], 5, "the trail ends at 4: it was cut short"),
    "cut to nothing": (lambda x: [], 1, "the trail ends at 0: it was cut short"),
    "the last one replaced and hashed anew": (
        lambda x: rehashed([*x[:5], x[4]]), 6, "the chain was hashed again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_done_to_the_lines_is_named_with_its_first_number(
    attack: str, folder: Path
) -> None:
    change, number, said = ATTACKS[attack]
    trail = read_trail(folder)
    attacked = Trail(tuple(change(list(trail.lines))), trail.head, trail.public_key)
    assert attacked != trail
    faults = verify_trail(attacked, LEDGER_KEY.public_key).faults
    assert faults[0].number == number
    assert said in faults[0].reason


def test_a_chain_hashed_anew_in_full_is_shown_by_the_heads_signature(folder: Path) -> None:
    """Entry 5 names no one after it, so that only the signed head stands against this."""
    trail = read_trail(folder)
    lines = rehashed([*trail.lines[:4], trail.lines[4]])
    head = Head.model_validate_json(trail.head)
    forged = head.model_copy(update={"number": 5, "hash": json.loads(lines[-1])["hash"]})
    own = sign_head(actor("mallory").private, LEDGER, 5, forged.hash)
    for end, said in [(forged, "signature doesn't hold"), (own, "signed by another key")]:
        faults = verify_trail(
            Trail(tuple(lines), canonical_json(end), trail.public_key), LEDGER_KEY.public_key
        ).faults
        assert [said in fault.reason for fault in faults] == [True]


def test_a_trail_cut_short_together_with_its_head_is_shown_by_a_recorded_head(
    chain: Chain, folder: Path
) -> None:
    late = chain.head
    del chain.entries[4:]
    assert chain.faults() == []  # nothing in it could tell
    assert chain.faults((late,)) == [
        "a recorded head is entry 6, the trail ends at 4: it was cut short"
    ]


def test_a_trail_that_was_rewritten_by_the_keys_owner_is_shown_by_a_recorded_head(
    chain: Chain,
) -> None:
    before = chain.head
    del chain.entries[5:]
    chain.add(SATO, comment="1 > 2")
    assert chain.faults() == []
    (fault,) = chain.faults((before,))
    assert fault.startswith("entry 6 isn't the one of which the head was recorded")


def test_an_act_that_saw_another_trail_shows_that_this_one_was_rewritten(chain: Chain) -> None:
    first, second, *_ = chain.entries
    chain.entries = [first]
    chain.put(second.signed)
    chain.add(SATO, comment="saw entry 2")
    last = chain.entries[-1].signed
    del chain.entries[1:]
    details = {"name": "sato", "public_key": SATO.public_key, "duties": ["auditor"]}
    chain.add(BOSS, "enrol", details=details)
    chain.put(last)
    assert chain.faults() == [
        "entry 3 was signed over a head that isn't in the trail before it: the trail was rewritten"
    ]


def test_recorded_heads_of_another_ledger_or_key_are_named(chain: Chain) -> None:
    other = sign_head(LEDGER_KEY.private, "00" * 16, 1, chain.entries[0].hash)
    foreign = sign_head(actor("mallory").private, LEDGER, 1, chain.entries[0].hash)
    assert chain.faults((chain.head, other)) == [
        f"a recorded head is of another ledger ({'00' * 16})"
    ]
    assert chain.faults((foreign,)) == ["the recorded head of entry 1 is signed by another key"]


def test_a_recorded_head_before_the_beginning_is_a_fault(chain: Chain) -> None:
    before = sign_head(LEDGER_KEY.private, LEDGER, -9, chain.entries[0].hash)
    (fault,) = chain.faults((before,))
    assert "isn't the one of which the head was recorded" in fault


def test_a_trail_under_another_key_is_refused_when_the_key_is_known(folder: Path) -> None:
    """The whole folder made anew with another ledger's key is sound in itself."""
    mallory = actor("mallory")
    trail = read_trail(folder)
    lines, previous = [], genesis(LEDGER, mallory.public_key)
    for number, line in enumerate(trail.lines[:1], 1):
        made = chained(number, previous, Signed.model_validate(json.loads(line)["signed"]))
        previous = made.hash
        lines.append(canonical_json(made))
    head = canonical_json(sign_head(mallory.private, LEDGER, 1, previous))
    write_trail(Trail(tuple(lines), head, mallory.public_key), folder)
    assert verify_trail(folder).ok
    reasons = [fault.reason for fault in verify_trail(folder, LEDGER_KEY.public_key).faults]
    assert "the trail holds another public key than the given one" in reasons
    with pytest.raises(IntegrityError, match="no Ed25519 public key"):
        verify_trail(folder, "not a key")


# ---- who did it ---------------------------------------------------------------------------------


def test_an_act_needs_a_signature_by_the_key_enrolled_at_that_time(chain: Chain) -> None:
    stranger, other = actor("mallory"), actor("sato")
    chain.add(stranger)
    chain.add(other)
    chain.add(BOSS, "dismiss", details={"name": "sato"})
    chain.add(SATO)
    chain.enrol(other)
    chain.add(other)
    chain.add(SATO)
    assert chain.faults() == [
        "entry 7: mallory isn't enrolled at that point",
        "entry 8: the signature isn't sato's",
        "entry 10: sato isn't enrolled at that point",
        "entry 13: the signature isn't sato's",
    ]


def test_only_the_first_actor_enrols_himself(chain: Chain) -> None:
    mallory = actor("mallory")
    chain.enrol(mallory, by=mallory)
    assert chain.faults() == ["entry 7: mallory isn't enrolled at that point"]
    chain.entries.clear()
    chain.enrol(SATO, by=BOSS)
    assert chain.faults() == ["entry 1: boss isn't enrolled at that point"]


def test_a_session_counts_only_while_it_is_one_of_its_actor(chain: Chain) -> None:
    chain.put(chain.in_session("boss"))
    chain.put(chain.in_session("sato", actor("x").private))
    chain.put(chain.in_session("sato", kind="dismiss", details={"name": "boss"}))
    chain.put(chain.in_session("sato").model_copy(update={"session": "k2"}))
    chain.add(SATO, details={"api_key": {"id": "k1", "does": "revoke"}})
    chain.put(chain.in_session("sato", comment="after"))
    assert chain.faults() == [
        "entry 7: the session k1 isn't one of boss at that point",
        "entry 8: the signature isn't of sato's session k1",
        "entry 9: dismiss can't be done in a session",
        "entry 10: the session k2 isn't one of sato at that point",
        "entry 12: the session k1 isn't one of sato at that point",
    ]


def test_nobody_opens_a_session_for_another(chain: Chain) -> None:
    key = {"id": "k2", "does": "issue", "actor": "sato", "public_key": public_pem(SESSION)}
    chain.add(BOSS, details={"api_key": key})
    chain.put(chain.in_session("sato").model_copy(update={"session": "k2"}))
    assert chain.faults() == ["entry 8: the session k2 isn't one of sato at that point"]


def test_a_session_ends_when_its_key_expires(chain: Chain) -> None:
    key = {"id": "k1", "does": "issue", "actor": "sato", "public_key": public_pem(SESSION)}
    chain.add(SATO, details={"api_key": key | {"expires": AT}})
    chain.put(chain.in_session("sato", comment="late"))
    assert chain.faults() == ["entry 8: the session k1 isn't one of sato at that point"]


# ---- the exported folder ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_emptied_file_is_found(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"")
    assert not verify_trail(folder, LEDGER_KEY.public_key).ok
    (folder / name).unlink()
    assert not verify_trail(folder, LEDGER_KEY.public_key).ok


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_single_change_of_an_exported_trail_is_found(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(FILES))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    change = data.draw(st.sampled_from(["replace", "insert", "delete"]))
    end = place if change == "insert" else place + 1
    after = before[:place] + (b"" if change == "delete" else byte) + before[end:]
    try:
        path.write_bytes(after)
        for key in (LEDGER_KEY.public_key, None):
            assert verify_trail(folder, key).ok == (after == before)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", FILES)
def test_white_space_that_changes_no_value_is_found_too(name: str, folder: Path) -> None:
    path = folder / name
    before = path.read_bytes()
    places = [n for n, byte in enumerate(before) if byte in b"{}[]:,\n"]
    for place in [*places[:14], *places[-3:]]:
        for space in (b" ", b"\n"):
            path.write_bytes(before[: place + 1] + space + before[place + 1 :])
            assert not verify_trail(folder, None).ok, (place, space)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"number":1,', '"number":1.0,'),
        ('"number":1,', '"number":true,'),
        ('"schema_version":1,"signed"', '"schema_version":1.0,"signed"'),
        ('"schema_version":1,"signed"', '"signed"'),
    ],
)
def test_another_spelling_of_an_entry_is_found(chain: Chain, old: str, new: str) -> None:
    """The hash doesn't cover how an entry's own number and version are written."""
    first, *others = (canonical_json(entry) for entry in chain.entries)
    assert old in first
    attacked = Trail(
        (first.replace(old, new), *others), canonical_json(chain.head), LEDGER_KEY.public_key
    )
    (fault,) = verify_trail(attacked, LEDGER_KEY.public_key).faults[:1]
    assert fault.number == 1


def test_another_spelling_of_the_same_signature_is_found(chain: Chain) -> None:
    """The last letter of 64 bytes in base64 has four bits that decoding ignores."""
    good = chain.head
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(good.signature[-3]) ^ 1]
    same = good.model_copy(update={"signature": good.signature[:-3] + last + "=="})
    assert base64.b64decode(same.signature) == base64.b64decode(good.signature)
    assert not verify_entries(chain.entries, same, LEDGER_KEY.public_key).ok


def test_a_file_whose_last_line_isnt_whole_is_named(folder: Path) -> None:
    path = folder / "trail.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    (fault,) = verify_trail(folder, LEDGER_KEY.public_key).faults
    assert "trail.jsonl doesn't end with a newline: cut short" in fault.reason


@given(data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_lines_taken_doubled_or_moved_are_found(folder: Path, data: st.DataObject) -> None:
    trail = read_trail(folder)
    order = data.draw(st.lists(st.integers(0, 5), max_size=8))
    if order != [0, 1, 2, 3, 4, 5]:
        for change in (list, renumbered, rehashed):
            lines = tuple(change([trail.lines[i] for i in order]))
            attacked = Trail(lines, trail.head, trail.public_key)
            assert not verify_trail(attacked, LEDGER_KEY.public_key).ok


@given(st.text(max_size=200), st.text(max_size=200))
def test_nonsense_is_a_fault_and_never_an_exception(line: str, head: str) -> None:
    deep = "[" * 5000
    assert not verify_trail(Trail((line, deep, "{}"), head, LEDGER_KEY.public_key)).ok
    assert not verify_trail(Trail((), head, line), None).ok


# ---- the database itself ------------------------------------------------------------------------


@pytest.fixture
def ledger(place: Place) -> Ledger:
    """Six entries, with two people."""
    made = place.open()
    enrol(made, BOSS, BOSS, "owner")
    enrol(made, BOSS, SATO, "approver")
    for text in ("第一", "第二", "第三", "第四"):
        say(made, SATO, comment=text)
    assert made.check() == ()
    return made


DATABASE_ATTACKS: dict[str, tuple[tuple[str, ...], str]] = {
    "a changed comment": (
        ("UPDATE entries SET signed = replace(signed, '第二', '第七') WHERE number = 4",),
        "entry 4 was changed",
    ),
    "a changed hash": (
        ("UPDATE entries SET hash = replace(hash, 'a', 'b') WHERE number = 4",),
        "entry 4 was changed",
    ),
    "a deleted row": (("DELETE FROM entries WHERE number = 3",), "entry 3 is missing"),
    "a deleted row, the rest renumbered": (
        ("DELETE FROM entries WHERE number = 3",
         "UPDATE entries SET number = 3 WHERE number = 4",
         "UPDATE entries SET number = 4 WHERE number = 5",
         "UPDATE entries SET number = 5 WHERE number = 6"), "entry 3 was made as entry 4",
    ),
    "two rows swapped": (
        ("UPDATE entries SET number = -1 WHERE number = 4",
         "UPDATE entries SET number = 4 WHERE number = 5",
         "UPDATE entries SET number = 5 WHERE number = -1"), "entry 4 was made as entry 5",
    ),
    "the last rows cut off": (("DELETE FROM entries WHERE number > 4",), "it was cut short"),
    "all rows deleted": (("DELETE FROM entries",), "it was cut short"),
    "another head": (("UPDATE head SET number = 5",), "head's signature doesn't hold"),
    "another signature": (
        ("UPDATE head SET signature = replace(signature, 'A', 'B') || 'C'",),
        "signature doesn't hold",
    ),
}  # fmt: skip


def restore(place: Place, entries: list[Any], heads: list[Any]) -> None:
    def row(values: Any) -> str:
        return ", ".join("NULL" if v is None else f"'{v}'" for v in values)

    place.run(
        *("DELETE FROM entries", "DELETE FROM head"),
        *(f"INSERT INTO entries VALUES ({row(values)})" for values in entries),
        *(f"INSERT INTO head VALUES ({row(values)})" for values in heads),
        triggers=False,
    )


def test_what_is_done_to_the_database_is_found(place: Place, ledger: Ledger) -> None:
    entries, heads = place.run("SELECT * FROM entries"), place.run("SELECT * FROM head")
    for attack, (statements, said) in DATABASE_ATTACKS.items():
        place.run(*statements, triggers=False)
        assert said in ledger.check()[0], attack
        ledger.export(place.root / "out")
        report = verify_trail(place.root / "out", ledger.public_key)
        assert said in report.faults[0].reason, attack
        restore(place, entries, heads)
        assert ledger.check() == (), attack


def test_a_database_hashed_anew_in_full_is_found_by_the_head_and_by_the_one_seen_here(
    place: Place, ledger: Ledger
) -> None:
    """The third entry goes, and everything after it is numbered, chained and hashed again."""
    early = ledger.trail()
    rows = [json.loads(line) for line in early.lines]
    gone = [rows[0], rows[1], rows[3]]
    lines, previous = [], genesis(ledger.id, ledger.public_key)
    for number, row in enumerate(gone, 1):
        hash = entry_hash(number, previous, row["signed"])
        lines.append((number, previous, canonical_json(row["signed"]), hash))
        previous = hash
    place.run(
        "DELETE FROM entries",
        *(
            f"INSERT INTO entries VALUES ({n}, '{p}', '{s}', '{h}', 'note', 'sato', '', NULL)"
            for n, p, s, h in lines
        ),
        f"UPDATE head SET number = 3, hash = '{previous}'",
        triggers=False,
    )
    said = " ".join(ledger.check())
    assert "the head's signature doesn't hold" in said
    assert "a recorded head is entry 6, the trail ends at 3: it was cut short" in said
    assert "was signed over a head that isn't in the trail before it" in said


def test_an_old_copy_of_the_database_is_found_by_a_head_recorded_in_a_release(
    sqlite: Place,
) -> None:
    with sqlite.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
        say(ledger, BOSS, comment="early")
    shutil.copy(sqlite.root / sqlite.spec, sqlite.root / "old")
    with sqlite.open() as ledger:
        say(ledger, BOSS, comment="late")
        recorded = ledger.head()
    for name in (".sqlite-wal", ".sqlite-shm"):
        (sqlite.root / f".tokka/ledger{name}").unlink(missing_ok=True)
    shutil.copy(sqlite.root / "old", sqlite.root / sqlite.spec)
    with pytest.raises(IntegrityError, match=r"ends at entry 2, but entry 3 was seen here"):
        sqlite.open()
    (seen,) = (sqlite.root / ".tokka").glob("*.head.json")
    seen.unlink()  # what somebody would do who has this folder
    with sqlite.open() as ledger:
        assert ledger.check() == ()
        assert ledger.check([recorded]) == (
            "a recorded head is entry 3, the trail ends at 2: it was cut short",
        )


def test_bytes_changed_in_the_database_file_are_found(sqlite: Place) -> None:
    path = sqlite.root / sqlite.spec
    with sqlite.open() as ledger:
        enrol(ledger, BOSS, BOSS, "owner")
        say(ledger, BOSS, comment="what was said")
        say(ledger, BOSS, comment="later")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    assert whole.count(b"what was said") == 1
    for other in (b"what was sold", b"what was s\xffid"):  # the second is no UTF-8
        path.write_bytes(whole.replace(b"what was said", other))
        with sqlite.open() as ledger:  # its end is whole
            assert ledger.check()[0].startswith("entry 2 was changed")


def test_rows_of_the_registry_that_no_act_made_are_found_and_made_again(
    place: Place, ledger: Ledger
) -> None:
    duties = [row.duties for row in ledger.actors()]
    place.run("UPDATE actors SET duties = '[\"owner\"]' WHERE name = 'sato'")
    place.run("INSERT INTO models VALUES ('x', '', '', 'low', '', '', '', '', NULL, 1)")
    place.run("DELETE FROM actors WHERE name = 'boss'")
    place.run("UPDATE entries SET kind = 'approve' WHERE number = 4", triggers=False)
    assert ledger.check() == (
        "entries: 4 is listed as something else than was signed",
        "models: x is in no act of the trail",
        "actors: 1 is missing, though the trail has it",
        "actors: 2 differs from what the trail adds up to",
    )
    place.run("UPDATE entries SET kind = 'note' WHERE number = 4", triggers=False)
    ledger.rebuild()
    assert ledger.check() == () and [row.duties for row in ledger.actors()] == duties


def test_verifying_needs_no_database_library(folder: Path) -> None:
    """An exported folder, on a machine that has none of it."""
    import subprocess
    import sys

    done = subprocess.run(
        [
            sys.executable, "-c",
            "import sys\nfrom pathlib import Path\n"
            "for name in ('sqlalchemy', 'alembic', 'psycopg'): sys.modules[name] = None\n"
            "from tokka.release.audit import verify_trail\n"
            "report = verify_trail(Path(sys.argv[1]), Path(sys.argv[2]).read_text())\n"
            "print(report.ok, len(report.entries))",
            str(folder), str(folder / "ledger.pem"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "True 6\n", done.stderr
