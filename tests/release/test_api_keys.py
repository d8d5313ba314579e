import hmac

import pytest
from people import TEAM, key_of

from tokka.errors import UsageError
from tokka.release import api_keys, approval
from tokka.release.api_keys import issue_key, keys, revoke_key, session_of, verify
from tokka.release.duties import NotPermitted
from tokka.release.keys import utc_now
from tokka.release.registry import books_of
from tokka.release.standing import days_later

BOSS, SATO = key_of("boss"), key_of("sato")


@pytest.fixture
def ledger(sqlite):
    return enrolled(sqlite)


def enrolled(place):
    ledger = place.open()
    for name in ("boss", "sato", "audit"):
        approval.enrol(ledger, BOSS, name, TEAM[name], key_of(name).public_key)
    return ledger


def test_a_key_is_shown_once_and_verified_by_its_hash(place):
    ledger = enrolled(place)
    limits = {"requests_per_minute": 60, "tokens_per_day": 10_000}
    issued = issue_key(ledger, BOSS, "窓口", roles=("user",), groups=("融資", "総務"), **limits)
    found = verify(ledger, issued.shown)
    assert found == issued.key == keys(ledger)[0]
    assert (found.roles, found.groups, found.created_by) == (("user",), ("融資", "総務"), "boss")
    assert (found.requests_per_minute, found.tokens_per_day) == (60, 10_000)
    assert issued.shown.startswith(f"tk-{found.id}-") and len(issued.shown) == 80


def test_the_secret_is_kept_nowhere(ledger, sqlite):
    issued = issue_key(ledger, BOSS, "窓口")
    secret = issued.shown.rpartition("-")[2]
    ledger.export(sqlite.root / "trail")
    files = [p for p in sqlite.root.rglob("*") if p.is_file()]
    assert len(files) > 4
    for path in files:
        data = path.read_bytes()
        assert secret.encode() not in data and bytes.fromhex(secret) not in data, path
    assert secret not in repr(issued) and secret not in repr(books_of(ledger))


@pytest.mark.parametrize(
    "change",
    [
        lambda shown: shown[:-1] + ("0" if shown[-1] != "0" else "1"),
        lambda shown: shown.replace("tk-", "tk-0", 1),
        lambda shown: "tk-" + "0" * 12 + shown[15:],
        lambda shown: shown.upper(),
        lambda shown: shown + "\n",
        lambda shown: shown[3:],
        lambda shown: "",
        lambda shown: "tk--",
        lambda shown: shown.replace("tk", "ｔｋ"),
    ],
)
def test_anything_but_the_key_itself_is_refused(ledger, change):
    issued = issue_key(ledger, BOSS, "窓口")
    assert verify(ledger, change(issued.shown)) is None


def test_an_unknown_id_costs_the_work_of_a_wrong_secret(ledger, monkeypatch):
    issued = issue_key(ledger, BOSS, "窓口")
    asked, compared = [], []
    monkeypatch.setattr(
        type(ledger), "key", lambda self, key_id: asked.append(key_id) or known.get(key_id)
    )
    known = {issued.key.id: issued.key}
    compare = hmac.compare_digest
    monkeypatch.setattr(
        hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b)
    )
    wrong = issued.shown[:-4] + "0000"
    for presented in (wrong, "tk-" + "0" * 12 + issued.shown[15:], "nonsense", issued.shown):
        verify(ledger, presented)
    assert len(asked) == 4
    assert compared == [(64, 64)] * 4


def test_a_key_ends_when_it_expires_or_is_revoked(ledger):
    until = days_later(utc_now(), 1)
    issued = issue_key(ledger, BOSS, "窓口", expires=until)
    assert verify(ledger, issued.shown) is not None
    assert verify(ledger, issued.shown, until) is None
    revoked = revoke_key(ledger, BOSS, issued.key.id)
    assert revoked.revoked_by == "boss" and verify(ledger, issued.shown) is None
    assert revoke_key(ledger, BOSS, issued.key.id) == revoked
    with pytest.raises(UsageError, match="no API key 'nobody'"):
        revoke_key(ledger, BOSS, "nobody")


def test_a_key_without_groups_has_none_and_never_all(ledger):
    assert issue_key(ledger, BOSS, "窓口").key.groups == ()


def test_issuing_and_revoking_stand_in_the_trail(ledger):
    issued = issue_key(ledger, BOSS, "窓口", groups=("融資",))
    revoke_key(ledger, BOSS, issued.key.id)
    one, two = [e.signed.act for e in ledger.entries()][-2:]
    assert (one.kind, one.actor, one.details["api_key"]["groups"]) == ("note", "boss", ["融資"])
    assert two.details["api_key"] == {"does": "revoke", "id": issued.key.id}
    assert issued.key.hash not in str(one) + str(two)


@pytest.mark.parametrize("who", ["sato", "audit"])
def test_only_an_owner_issues_and_revokes(ledger, who):
    with pytest.raises(NotPermitted, match="only an owner issues API keys"):
        issue_key(ledger, key_of(who), "窓口")
    assert keys(ledger) == []
    issued = issue_key(ledger, BOSS, "窓口")
    with pytest.raises(NotPermitted, match="only an owner revokes"):
        revoke_key(ledger, key_of(who), issued.key.id)
    assert verify(ledger, issued.shown) is not None


def test_a_key_that_signs_in_is_issued_by_its_actor_and_opens_no_document(ledger):
    with pytest.raises(NotPermitted, match="only sato issues a key with which sato signs in"):
        issue_key(ledger, BOSS, "sato", actor="sato")
    issued = issue_key(
        ledger, SATO, "sato", roles=("user", "auditor"), groups=("融資",), actor="sato"
    )
    assert (issued.key.roles, issued.key.groups) == ((api_keys.ACTOR,), ())
    session = session_of(ledger, issued.shown)
    assert (session.actor, session.key_id) == ("sato", issued.key.id)
    assert session.public_key == books_of(ledger).sessions[issued.key.id].public_key
    revoke_key(ledger, SATO, issued.key.id)
    assert session_of(ledger, issued.shown) is None


def test_another_key_opens_no_session(ledger):
    assert session_of(ledger, issue_key(ledger, BOSS, "窓口").shown) is None
    assert session_of(ledger, "tk-") is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"name": " "}, "needs a name"),
        ({"roles": ("king",)}, "roles are user, operator, auditor; got king"),
        ({"roles": ()}, "got none"),
        ({"roles": ("actor",)}, "needs an actor"),
        ({"groups": ("",)}, "got an empty one"),
        ({"requests_per_minute": 0}, "limits are at least 1"),
        ({"tokens_per_day": -5}, "limits are at least 1"),
        ({"expires": "tomorrow"}, "expires is UTC as"),
        ({"expires": "2999-1-5T00:00:00Z"}, "expires is UTC as"),
        ({"expires": "2020-01-01T00:00:00Z"}, "is past already"),
    ],
)
def test_a_wrong_value_is_named_and_nothing_is_written(ledger, said, why):
    number = ledger.head().number
    with pytest.raises(UsageError, match=why):
        issue_key(ledger, BOSS, **({"name": "窓口"} | said))
    assert (ledger.head().number, keys(ledger)) == (number, [])
