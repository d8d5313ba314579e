"""Over both databases where it is about the tables, in memory where it is about words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import MODEL, START, TEAM, Trail, digest_of, key_of
from sqlalchemy import create_engine, select

from tokka.errors import IntegrityError, UsageError, WaitingForApproval
from tokka.release.duties import RULES, NotPermitted, follow, permit
from tokka.release.projections import project
from tokka.release.registry import (
    all_standings,
    books_of,
    find,
    inventory,
    missing,
    permit_in,
    served_version,
    stage_of,
    standing,
    standing_of,
    waiting_for,
)
from tokka.release.standing import Books, days_later
from tokka.release.tables import actors, approvals, metadata, models, versions


def approved(trail: Trail) -> None:
    trail.released()
    trail.do("validate", "val", version=1)
    trail.do("approve", "sato", version=1, conditions=("社内に限る",), comment="可")


# ---- in the databases ---------------------------------------------------------------------------


def test_the_tables_show_what_the_acts_add_up_to(place):
    ledger = place.open()
    trail = Trail(ledger=ledger)
    approved(trail)
    row = ledger.versions()[0]
    assert (row.stage, row.digest, row.built_by, row.released_by) == (
        "approved", digest_of(1), "aoi", "aoi",
    )  # fmt: skip
    assert (row.conditions, row.expires) == (("社内に限る",), days_later(START, 365))
    assert row.validation_due == ledger.models()[0].model.validation_due == days_later(START, 180)
    assert [(a.kind, a.actor, a.comment) for a in ledger.approvals(MODEL, 1)] == [
        ("validate", "val", ""), ("approve", "sato", "可"),
    ]  # fmt: skip
    assert [actor.name for actor in ledger.actors()] == list(TEAM)
    assert ledger.check() == ()


def test_an_act_that_isnt_allowed_leaves_no_trace(place):
    ledger = place.open()
    trail = Trail(ledger=ledger)
    trail.released()
    number = ledger.head().number
    with pytest.raises(NotPermitted):
        ledger.append(trail.signed("approve", "aoi", version=1))
    assert ledger.head().number == number == len(list(ledger.entries()))
    assert ledger.approvals(MODEL, 1) == []


def test_tables_that_somebody_wrote_to_decide_nothing(place):
    ledger = place.open()
    trail = Trail(ledger=ledger)
    trail.released()
    place.run(
        "UPDATE versions SET stage = 'approved', expires = '2099-01-01T00:00:00Z'",
        "UPDATE models SET tier = 'low'",
    )
    assert stage_of(ledger, MODEL, 1, START) == "draft"
    with pytest.raises(NotPermitted, match="only what is approved is served"):
        trail.do("serve", "aoi", version=1)
    with pytest.raises(WaitingForApproval, match="aoba-1 is draft: a validation, by val"):
        served_version(ledger, "aoba-1", digest_of(1), START)


CHANGED = "UPDATE entries SET signed = replace(signed, '理由', '理屈') WHERE kind = 'withdraw'"
GONE = "DELETE FROM entries WHERE kind = 'withdraw'"


@pytest.mark.parametrize(
    "attack",
    [
        CHANGED,
        GONE,
        "DELETE FROM entries WHERE kind = 'validate'",
        "UPDATE entries SET number = 99 WHERE kind = 'validate'",
        "UPDATE head SET hash = (SELECT hash FROM entries WHERE kind = 'approve')",
        f"{GONE}; UPDATE head SET number = number - 1, hash = (SELECT max(hash) FROM entries"
        " WHERE kind = 'approve')",
    ],
)
def test_a_trail_that_was_changed_is_not_followed(sqlite, attack):
    trail = Trail(ledger=sqlite.open())
    approved(trail)
    trail.do("withdraw", "sato", version=1)
    unread = sqlite.open()
    sqlite.run(*attack.split("; "), triggers=False)
    with pytest.raises(IntegrityError, match="tokka verify"):
        stage_of(unread, MODEL, 1, START)


@pytest.mark.parametrize("attack", [CHANGED, GONE])
def test_a_trail_that_changes_its_end_while_it_is_open_is_not_followed(sqlite, attack):
    ledger = sqlite.open()
    trail = Trail(ledger=ledger)
    approved(trail)
    trail.do("withdraw", "sato", version=1)
    assert stage_of(ledger, MODEL, 1, START) == "withdrawn"
    sqlite.run(attack, triggers=False)
    with pytest.raises(IntegrityError, match="tokka verify"):
        stage_of(ledger, MODEL, 1, START)


def test_what_another_process_appends_is_seen(place):
    one, two = place.open(), place.open()
    trail = Trail(ledger=one)
    approved(trail)
    assert stage_of(two, MODEL, 1, START) == "approved"
    trail.do("withdraw", "boss", version=1)
    assert stage_of(two, MODEL, 1, START) == "withdrawn"
    assert books_of(one) == books_of(two)


def test_of_two_releases_at_once_one_gets_the_number(place):
    one, two = Trail(ledger=place.open()), Trail(team=False, ledger=place.open())
    two.books = books_of(two.ledger)
    mine, yours = one.signed("release", "aoi", version=1), two.signed(
        "release", "aoi", version=1, digest=digest_of(9)
    )  # fmt: skip
    one.append(mine)
    with pytest.raises(NotPermitted, match="aoba-1 is there already"):
        two.append(yours)


def test_books_that_were_given_out_dont_change(sqlite):
    ledger = sqlite.open()
    trail = Trail(ledger=ledger)
    before = books_of(ledger)
    count = before.number
    trail.released()
    assert before.number == count and not before.versions
    before.actors.clear()
    assert set(books_of(ledger).actors) == set(TEAM)


def test_only_acts_of_now_are_performed(sqlite):
    ledger = sqlite.open()
    trail = Trail(ledger=ledger)
    signed = trail.signed("note", "boss")
    with pytest.raises(NotPermitted, match="isn't now"):
        ledger.append(signed, permit=permit_in(ledger, signed))


# ---- whatever happens ---------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("release", "aoi"), ("validate", "val"), ("approve", "sato"),
                ("approve", "suzuki"), ("serve", "aoi"), ("withdraw", "sato"),
                ("reject", "suzuki"), ("retire", "boss"), ("register", "boss"),
                ("dismiss", "boss"), ("enrol", "boss"), ("note", "audit"),
            ]
        ) | st.tuples(st.sampled_from(sorted(RULES)), st.sampled_from(sorted(TEAM))),
        st.integers(1, 2), st.sampled_from(["sato", "val", "neu"]),
        st.sampled_from([0, 0, 0, 0, 100, 300]),
    ),
    max_size=18,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(tier=st.sampled_from(["low", "medium", "high"]), steps=STEPS)
def test_the_tables_equal_a_replay_of_any_trail(tier, steps):
    """With acts in it that aren't allowed: they change no row."""
    trail = Trail(tier)
    for (kind, who), number, other, days in steps:
        trail.days(days)
        said = {} if kind in ("enrol", "dismiss", "register") else {"version": number}
        new = {"name": other, "duties": ["approver"], "public_key": key_of(other).public_key}
        details = {"enrol": new, "dismiss": {"name": other}}.get(kind, {})
        trail.append(trail.signed(kind, who, details=details, **said))
    engine = create_engine("sqlite://")
    books = Books()
    with engine.begin() as connection:
        metadata.create_all(connection)
        for entry in trail.entries:
            follow(books, entry)
            project(connection, entry, books)
        people = connection.execute(select(actors).order_by(actors.c.entry)).all()
        stored = connection.execute(select(versions)).all()
        rows = connection.execute(select(models)).all()
        decided = connection.execute(select(approvals)).all()
    engine.dispose()
    assert {row.name: row.until for row in people} == {
        name: actor.until for name, actor in trail.books.actors.items()
    }
    assert {row.name: (row.tier, row.validation_due) for row in rows} == {
        entry.name: (entry.tier, entry.validation_due) for entry in inventory(trail.books)
    }
    at = {entry.number: entry.signed.act.at for entry in trail.entries}
    assert {(row.model, row.version): row for row in stored}.keys() == trail.books.versions.keys()
    for row in stored:
        version = trail.books.versions[row.model, row.version]
        last = at[version.entry]  # a row shows the time of the last act about it
        assert (row.stage, row.expires, row.entry) == (
            version.stage(last), version.expires(last), version.entry,
        )  # fmt: skip
    allowed = [e for e in trail.entries if e.number not in dict(trail.books.refused)]
    deciding = ("validate", "approve", "reject", "withdraw")
    assert [row.entry for row in decided] == [
        entry.number for entry in allowed if entry.signed.act.kind in deciding
    ]


# ---- in words -----------------------------------------------------------------------------------


def words(trail: Trail) -> list[tuple[str, str]]:
    version = trail.books.versions[MODEL, 1]
    return [(w.en, w.ja) for w in missing(trail.books, version, trail.at)]


def test_what_is_missing_is_said_with_the_names_of_who_can_do_it():
    trail = Trail("high")
    trail.enrol("both", "developer", "approver", "validator")
    trail.do("release", "both", version=1)
    assert words(trail) == [
        ("a validation, by val", "検証1件(val)"),
        ("2 more approvals, by sato or suzuki", "承認あと2件(satoまたはsuzuki)"),
    ]
    trail.do("validate", "val", version=1)
    trail.do("approve", "sato", version=1)
    assert words(trail) == [("one more approval, by suzuki", "承認あと1件(suzuki)")]
    trail.do("approve", "suzuki", version=1)
    assert words(trail) == []


def test_where_nobody_can_do_it_somebody_must_be_enrolled():
    trail = Trail("high")
    trail.do("dismiss", "boss", details={"name": "val"})
    trail.do("dismiss", "boss", details={"name": "sato"})
    trail.released()
    assert [en for en, _ in words(trail)] == [
        "a validation, by a validator who is not enrolled yet",
        "2 more approvals, by suzuki; 1 more must be enrolled",
    ]
    assert "未登録の検証者" in words(trail)[0][1]


def test_what_has_ended_says_who_ended_it():
    trail = Trail()
    trail.released()
    trail.do("reject", "sato", version=1)
    assert words(trail) == [
        (f"a new version: sato ended this one (rejected) at {START}",
         f"satoが{START}に却下済み。新しい版が必要"),
    ]  # fmt: skip


def test_a_name_means_a_version_or_the_newest():
    trail = Trail()
    for version in (1, 2):
        trail.released(version)
    assert find(trail.books, "aoba").version == 2
    assert find(trail.books, "aoba-1").version == 1
    for name, why in (
        ("aoba-3", "its newest version is 2"), ("midori", "registered: aoba"),
        ("aoba-0", "registered: aoba"), ("aoba-", "registered: aoba"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            find(trail.books, name)


def test_a_model_without_a_version_says_so():
    with pytest.raises(UsageError, match="no version of it is released"):
        find(Trail().books, "aoba")


def test_a_standing_tells_everything_as_plain_data():
    trail = Trail()
    approved(trail)
    trail.days(200)
    version = trail.books.versions[MODEL, 1]
    found = standing(trail.books, version, trail.at).as_json()
    assert (found["stage"], found["validation_overdue"]) == ("approved", True)
    assert found["approvals"][0] | {"at": ""} == {
        "actor": "sato", "at": "", "expires": days_later(START, 365), "comment": "可",
        "conditions": ["社内に限る"], "counted": True, "method": "key",
    }  # fmt: skip
    assert [s.version.name for s in all_standings(trail.books, trail.at)] == ["aoba-1"]
    assert all_standings(trail.books, trail.at, "midori") == []


def test_what_is_served_is_what_was_approved_and_only_while_it_is(sqlite):
    ledger = sqlite.open()
    trail = Trail(ledger=ledger)
    approved(trail)
    assert served_version(ledger, "aoba-1", digest_of(1), START).stage == "approved"
    with pytest.raises(IntegrityError, match="was released with the digest"):
        served_version(ledger, "aoba-1", digest_of(2), START)
    with pytest.raises(WaitingForApproval, match="aoba-1 is validated: one more approval"):
        served_version(ledger, "aoba-1", digest_of(1), days_later(START, 365))
    assert waiting_for(ledger, MODEL, 1) == standing_of(ledger, "aoba").waiting
    trail.do("withdraw", "boss", version=1)
    with pytest.raises(WaitingForApproval, match="boss ended this one"):
        served_version(ledger, "aoba-1", digest_of(1), START)


def test_a_permitted_act_by_the_clock_of_another_machine_may_differ_by_minutes():
    trail = Trail()
    permit(trail.signed("note", "boss"), trail.books, "2026-01-05T09:04:59Z")
