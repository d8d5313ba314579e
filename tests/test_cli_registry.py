"""`tokka approve`, `tokka registry`, `tokka actor`, `tokka audit`, as somebody types them."""

import json

import pytest
from people import ENTRY, TEAM, key_of, release_of

from tokka.release import approval, keys
from tokka.release.ledger import open_ledger
from tokka.release.registry import stage_of
from tokka.store import write_json


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Everybody's keys in one folder."""
    monkeypatch.setenv("TOKKA_KEYS", str(tmp_path / "keys"))
    for name in ("TOKKA_ACTOR", "TOKKA_LEDGER", "TOKKA_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "keys"


def fill(ledger) -> None:
    """A ledger with a team and a draft of tier high."""
    for name, duties in TEAM.items():
        keys.write_key(key_of(name))
        approval.enrol(ledger, key_of("boss"), name, duties, key_of(name).public_key)
    approval.register(ledger, key_of("aoi"), ENTRY)
    days = {"approvals": None, "valid_days": 90, "validate_days": 30}
    approval.release(ledger, key_of("aoi"), release_of(1), **days)


@pytest.fixture
def place(tmp_path):
    place = tmp_path / "ledger.sqlite"
    with open_ledger(str(place), tmp_path) as ledger:
        fill(ledger)
    return place


def test_people_enrol_a_team_with_three_commands(tokka, tmp_path, folder):
    on = ("--ledger", tmp_path / "new.sqlite")
    said = tokka("actor", "new", "boss", "--duty", "owner", *on)
    assert said.code == 0 and "enrolled boss as owner, entry 1" in said.out
    assert (folder / "boss.pem").stat().st_mode & 0o077 == 0
    assert tokka("actor", "new", "佐藤", "--key-only").code == 0
    pub = folder / "佐藤.pub"
    (folder / "佐藤.pem").rename(tmp_path / "elsewhere.pem")
    who = ("--duty", "approver", "--duty", "validator", "--public-key", pub)
    assert tokka("actor", "new", "佐藤", *who, *on).code == 0
    rows = json.loads(tokka("actor", "list", "--json", *on).out)
    assert [(row["name"], row["duties"]) for row in rows] == [
        ("boss", ["owner"]), ("佐藤", ["validator", "approver"]),
    ]  # fmt: skip
    assert tokka("actor", "dismiss", "佐藤", *on).code == 0
    assert json.loads(tokka("actor", "list", "--json", *on).out)[1]["until"] is not None


def test_a_refused_enrolment_leaves_no_key_behind(tokka, place, folder):
    said = tokka("actor", "new", "neu", "--duty", "approver", "--as", "aoi", "--ledger", place)
    assert said.code == 2 and "aoi is developer; that takes the duty owner" in said.err
    assert not (folder / "neu.pem").exists()
    dry = tokka("actor", "new", "neu", "--duty", "auditor", "--as", "boss", "--dry-run",
                "--ledger", place)  # fmt: skip
    assert dry.code == 0 and "would write" in dry.out and "fingerprint" not in dry.out
    assert not (folder / "neu.pem").exists()


def test_a_key_that_was_made_before_a_crash_is_enrolled_then(tokka, place, folder):
    made = keys.fresh_key("neu")
    keys.write_key(made)
    who = ("--duty", "auditor", "--as", "boss", "--ledger", place)
    assert tokka("actor", "new", "neu", *who).code == 0
    assert keys.load_key("neu").public_key == made.public_key
    assert "is enrolled already" in tokka("actor", "new", "neu", *who).err


def test_approving_ends_with_4_until_the_quorum_is_met(tokka, place):
    def approve(who: str, *more: str):
        return tokka("approve", "aoba", "--as", who, "--ledger", place, *more)

    early = approve("sato")
    assert early.code == 2 and "isn't validated, as tier high asks; ask val" in early.err
    assert approve("val", "--validate", "--comment", "再計算した").code == 0
    waits = approve("sato", "--condition", "社内に限る", "--days", "30")
    assert waits.code == 4 and "waiting for one more approval, by suzuki" in waits.out
    assert release_of(1).digest in waits.out and "head" in waits.out
    done = approve("suzuki")
    assert done.code == 0 and "next: tokka serve aoba-1" in done.out
    again = approve("aoi")
    assert again.code == 2 and "aoi is developer" in again.err


def test_json_says_what_is_waited_for_in_both_languages(tokka, place):
    on = ("--ledger", place, "--json")
    tokka("approve", "aoba-1", "--validate", "--as", "val", *on)
    said = tokka("approve", "aoba-1", "--as", "sato", *on)
    found = json.loads(said.out)
    assert said.code == 4
    assert (found["act"], found["stage"], found["quorum"]) == ("approve", "validated", 2)
    assert found["waiting_for"] == [
        {"ja": "承認あと1件(suzuki)", "en": "one more approval, by suzuki"}
    ]
    last = json.loads(tokka("registry", "history", "aoba-1", *on).out)[-1]
    assert (last["number"], last["head"]) == (found["entry"]["number"], found["head_seen"])


def test_a_dry_run_writes_nothing(tokka, place, tmp_path):
    said = tokka("approve", "aoba", "--validate", "--as", "val", "--dry-run", "--ledger", place)
    assert said.code == 0 and "val may validate aoba-1; nothing was written" in said.out
    with open_ledger(str(place), tmp_path) as ledger:
        assert stage_of(ledger, "aoba", 1) == "draft"


def test_one_decision_at_a_time_and_only_about_the_digest_that_was_seen(tokka, place):
    on = ("--as", "val", "--ledger", place)
    said = tokka("approve", "aoba", "--validate", "--reject", *on)
    assert said.code == 2 and "got --validate and --reject" in said.err
    for wrong in ("0" * 64, release_of(1).digest[:8]):
        said = tokka("approve", "aoba", "--validate", "--digest", wrong, *on)
        assert said.code == 6 and release_of(1).digest in said.err
    seen = release_of(1).digest[:16]
    assert tokka("approve", "aoba", "--validate", "--digest", seen, *on).code == 0


@pytest.mark.parametrize(
    ("flag", "who", "stage"),
    [("--reject", "sato", "rejected"), ("--retire", "boss", "retired")],
)
def test_a_release_is_ended(tokka, place, flag, who, stage):
    on = ("--ledger", place)
    said = tokka("approve", "aoba", flag, "--as", who, "--comment", "根拠が足りない", *on)
    assert said.code == 0 and f"{who} {stage} aoba-1" in said.out
    shown = json.loads(tokka("registry", "show", "aoba", "--json", *on).out)
    assert (shown["stage"], shown["ended_by"]) == (stage, who)


def test_the_registry_is_listed_and_each_act_is_shown(tokka, place):
    on = ("--ledger", place)
    listed = tokka("registry", "list", *on).out
    assert "aoba-1" in listed and "draft" in listed and "融資部" in listed
    found = json.loads(tokka("registry", "list", "--json", *on).out)
    assert (found["models"][0]["tier"], found["versions"][0]["stage"]) == ("high", "draft")
    assert (
        json.loads(tokka("registry", "list", "--stage", "serving", "--json", *on).out)["versions"]
        == []
    )
    acts = json.loads(tokka("registry", "history", "aoba-1", "--json", *on).out)
    assert [act["kind"] for act in acts] == ["release"]
    acts = json.loads(tokka("registry", "history", "--json", *on).out)
    assert [act["kind"] for act in acts] == ["enrol"] * len(TEAM) + ["register", "release"]
    assert "boss" in tokka("registry", "history", *on).out
    shown = tokka("registry", "show", "aoba", *on).out
    assert "waiting for a validation, by val" in shown and "Apache-2.0" in shown
    missing = tokka("registry", "show", "midori", *on)
    assert missing.code == 2 and "registered: aoba" in missing.err


def test_nothing_that_somebody_wrote_moves_the_terminal(tokka, place):
    evil = "ok\x1b[2K\x1b[1A approved \u202e"
    on = ("--ledger", place)
    said = tokka("approve", "aoba", "--validate", "--as", "val", "--comment", evil, *on)
    assert said.code == 0
    for out in (tokka("registry", "history", *on).out, tokka("registry", "show", "aoba", *on).out):
        assert "\x1b[2K" not in out and "\u202e" not in out


def test_an_exported_trail_needs_a_new_folder(tokka, place, tmp_path):
    said = tokka("audit", "export", tmp_path / "trail", "--ledger", place, "--json")
    assert json.loads(said.out)["entries"] == len(TEAM) + 2
    assert (tmp_path / "trail" / "head.json").exists()
    again = tokka("audit", "export", tmp_path / "trail", "--ledger", place)
    assert again.code == 2 and "isn't empty" in again.err


def test_in_a_project_the_verdict_is_shown_and_another_folder_refused(tokka, fresh):
    with open_ledger(".tokka/ledger.sqlite", fresh) as ledger:
        fill(ledger)
    on = ("--as", "val", "--validate", "--project", fresh)
    path = fresh / ".tokka" / "releases" / "aoba-1" / "release.json"
    write_json(path, release_of(1))
    said = tokka("approve", "aoba", "--dry-run", *on)
    assert said.code == 0 and "pass" in said.out and "+12点" in said.out
    write_json(path, release_of(2))
    said = tokka("approve", "aoba", *on)
    assert said.code == 6 and "get the folder that was released" in said.err


def test_without_a_ledger_it_says_how_to_begin(tokka, fresh):
    said = tokka("registry", "list", "--project", fresh)
    assert said.code == 2 and "tokka actor new NAME --duty owner" in said.err
    assert not (fresh / ".tokka").exists()


def test_a_wrong_duty_is_named(tokka, tmp_path):
    said = tokka("actor", "new", "x", "--duty", "king", "--ledger", tmp_path / "l.sqlite")
    assert said.code == 2 and "got king" in said.err
    assert not (tmp_path / "l.sqlite").exists()
