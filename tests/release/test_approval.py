import pytest
from people import ENTRY, MODEL, TEAM, key_of, release_of

from tokka.errors import IntegrityError, UsageError
from tokka.release import approval
from tokka.release.api_keys import issue_key, session_of
from tokka.release.duties import NotPermitted
from tokka.release.keys import utc_now
from tokka.release.registry import books_of, standing_of, waiting_for
from tokka.release.standing import days_later


@pytest.fixture
def ledger(sqlite):
    ledger = sqlite.open()
    for name, duties in TEAM.items():
        approval.enrol(ledger, key_of("boss"), name, duties, key_of(name).public_key)
    approval.register(ledger, key_of("aoi"), ENTRY)
    days = {"approvals": None, "valid_days": 90, "validate_days": 30}
    approval.release(ledger, key_of("aoi"), release_of(1), **days)
    return ledger


def test_a_release_is_validated_and_approved_by_two(ledger):
    def act(who, kind, **said):
        return approval.decide(ledger, key_of(who), kind, "aoba", **said).standing

    assert act("val", "validate", comment="再計算した").stage == "validated"
    assert act("sato", "approve", conditions=("社内に限る",)).stage == "validated"
    assert waiting_for(ledger, MODEL, 1)[0].en == "one more approval, by suzuki"
    done = act("suzuki", "approve")
    assert (done.stage, done.conditions) == ("approved", ("社内に限る",))
    assert done.expires is not None and done.expires <= days_later(utc_now(), 90)
    assert act("aoi", "serve").stage == "serving"
    assert act("boss", "withdraw", comment="誤り").stage == "withdrawn"
    assert ledger.check() == ()


def test_each_act_records_the_head_that_its_actor_saw(ledger):
    before = ledger.head()
    entry = approval.decide(ledger, key_of("val"), "validate", "aoba-1").entry
    assert entry.signed.act.head == entry.previous == before.hash
    later = approval.decide(ledger, key_of("sato"), "approve", "aoba-1", head=before.hash).entry
    assert later.signed.act.head == before.hash != later.previous


def test_a_dry_run_asks_and_writes_nothing(ledger):
    number = ledger.head().number
    done = approval.decide(ledger, key_of("val"), "validate", "aoba", dry_run=True)
    assert (done.entry, done.standing.stage) == (None, "draft")
    with pytest.raises(NotPermitted, match="aoi is developer"):
        approval.decide(ledger, key_of("aoi"), "approve", "aoba", dry_run=True)
    new = ("neu", ("auditor",), key_of("neu").public_key)
    assert approval.enrol(ledger, key_of("boss"), *new, dry_run=True) is None
    with pytest.raises(NotPermitted):
        approval.enrol(ledger, key_of("aoi"), *new, dry_run=True)
    assert ledger.head().number == number


def test_who_has_seen_another_digest_decides_nothing(ledger):
    with pytest.raises(NotPermitted, match="an act holds for what was examined"):
        approval.decide(ledger, key_of("val"), "validate", "aoba", digest="0" * 64)
    approval.check_same(standing_of(ledger, "aoba"), release_of(1))
    with pytest.raises(IntegrityError, match="the folder holds"):
        approval.check_same(standing_of(ledger, "aoba"), release_of(2))


def test_a_session_decides_and_the_entry_says_so(ledger):
    issued = issue_key(ledger, key_of("sato"), "sato", actor="sato")
    session = session_of(ledger, issued.shown)
    assert session is not None
    approval.decide(ledger, key_of("val"), "validate", "aoba")
    entry = approval.decide(ledger, session, "approve", "aoba").entry
    assert (entry.signed.method, entry.signed.session) == ("session", issued.key.id)
    assert entry.signed.act.details["authenticated_at"] == session.authenticated_at
    assert standing_of(ledger, "aoba").version.approvals[0].by_session
    for kind, said in (("withdraw", {"comment": "x"}), ("retire", {}), ("serve", {})):
        with pytest.raises(NotPermitted):
            approval.decide(ledger, session, kind, "aoba", **said)
    with pytest.raises(NotPermitted, match="not a session"):
        approval.perform(ledger, session, "dismiss", details={"name": "val"})


def test_the_first_actor_of_a_ledger_enrols_himself(sqlite):
    ledger, boss = sqlite.open(), key_of("boss")
    with pytest.raises(NotPermitted, match="first actor is an owner"):
        approval.enrol(ledger, boss, "boss", ["developer"], boss.public_key)
    approval.enrol(ledger, boss, "boss", ["owner"], boss.public_key)
    assert books_of(ledger).actors["boss"].duties == ("owner",)
    approval.enrol(ledger, boss, "val", ["validator"], key_of("val").public_key)
    approval.dismiss(ledger, boss, "val", "退職")
    assert set(books_of(ledger).active()) == {"boss"}


def test_an_unknown_release_is_named(ledger):
    with pytest.raises(UsageError, match="no model 'midori-1'; registered: aoba"):
        approval.decide(ledger, key_of("val"), "validate", "midori-1")
