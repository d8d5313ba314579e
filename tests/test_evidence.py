"""`tokka evidence`, `tokka verify` over a real ledger: made, recorded, taken away, attacked."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("model_signing")
pytest.importorskip("cyclonedx")

from packs import BASE, make

from tokka.errors import IntegrityError, UsageError
from tokka.evidence import heads_of, make_evidence, verify_path, verify_project
from tokka.project import Project, load_project
from tokka.release.approval import decide, enrol, perform, register, release
from tokka.release.keys import ActorKey, fresh_key, write_key
from tokka.release.ledger import open_ledger
from tokka.release.records import ModelEntry
from tokka.release.verifying import Verified
from tokka.store import write_json

PEOPLE = {"boss": "owner", "aoi": "developer", "val": "validator", "sato": "approver"}
PROJECT = """\
name: aoba
language: ja
base_model: model/
exams:
  domain: {path: exam.jsonl, role: domain}
arms:
  base: {}
"""
Tell = Callable[..., Any]  # see conftest.py


@dataclass(frozen=True)
class Place:
    root: Path
    project: Project
    people: dict[str, ActorKey]

    @property
    def folder(self) -> Path:
        return self.root / ".tokka" / "releases" / "aoba-1"

    def opened(self) -> Any:
        return open_ledger(self.project.ledger, self.root)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A project with one release that was validated and approved; the run of it is a fiction."""
    root = tmp_path_factory.mktemp("evidence") / "project"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOKKA_KEYS", str(root.parent / "keys"))
        people = {name: fresh_key(name) for name in PEOPLE}
        for key in people.values():
            write_key(key)
        made = make(root)
    (root / "model").mkdir()
    (root / "exam.jsonl").write_text("")
    (root / "tokka.yaml").write_text(PROJECT)
    place = Place(root, load_project(root), people)
    (place.folder / "act.json").unlink()
    judged = root / ".tokka" / "reports" / "tokka" / "results.json"
    shutil.copyfile(place.folder / "exam" / "results.json", judged)
    with place.opened() as ledger:
        for name, duty in PEOPLE.items():
            enrol(ledger, people["boss"], name, (duty,), people[name].public_key)  # type: ignore[arg-type]
        row = ModelEntry(
            name="aoba", owner="融資企画部", use="規程の照会", tier="medium", tier_reason="社内",
            base_model="model/", base_digest=BASE, licence="Apache-2.0",
        )  # fmt: skip
        register(ledger, people["boss"], row)
        release(ledger, people["aoi"], made.release, approvals=None, valid_days=365,
                validate_days=180)  # fmt: skip
        write_json(place.folder / "head.json", ledger.head())
        decide(ledger, people["val"], "validate", "aoba-1")
        decide(ledger, people["sato"], "approve", "aoba-1", conditions=("社内利用に限る",))
    return place


@pytest.fixture
def place(original: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copytree(original.root, tmp_path / "project")
    monkeypatch.setenv("TOKKA_KEYS", str(original.root.parent / "keys"))
    monkeypatch.delenv("TOKKA_LEDGER", raising=False)
    return Place(tmp_path / "project", load_project(tmp_path / "project"), original.people)


def failed(found: list[Verified]) -> list[tuple[str, str]]:
    return [(one.kind, c.what) for one in found for c in one.checks if c.holds is False]


def test_a_pack_is_made_recorded_and_verified_on_another_machine(place: Place, tmp_path: Path):
    made = make_evidence(place.project, "aoba", zipped=True, actor="aoi")
    assert made.name == "aoba-1" and made.entry is not None and made.manifest is not None
    assert made.entry.signed.act.kind == "evidence"
    assert made.entry.signed.act.details["manifest"] == made.manifest.digest
    assert made.entry.signed.act.details["head"] == made.manifest.head.hash
    assert made.entry.signed.act.head == made.manifest.head.hash
    elsewhere = Path(shutil.copy(made.zip or "", tmp_path / "elsewhere.zip"))
    key = (made.folder / "trail/ledger.pem").read_text()
    shutil.copytree(place.folder, tmp_path / "model")
    shutil.rmtree(place.root)
    verified = verify_path(elsewhere, public_key=key, model=tmp_path / "model")
    assert verified.ok and all(check.holds for check in verified.checks)
    assert "approved at" in verified.checks[-2].detail


def test_what_the_project_knows_is_in_the_pack(place: Place):
    folder = make_evidence(place.project, "aoba-1", actor="aoi").folder
    card = json.loads((folder / "data-card.json").read_bytes())
    assert card["documents"]["kept"] == 4
    inventory = json.loads((folder / "inventory.json").read_bytes())
    assert (inventory["stage"], inventory["model"]["use"]) == ("approved", "規程の照会")
    approvals = json.loads((folder / "approvals.json").read_bytes())
    assert [act["kind"] for act in approvals["acts"]] == ["release", "validate", "approve"]
    examined = json.loads((folder / "environment.json").read_bytes())["examined"]
    assert examined["machine"] == "AMD EPYC, 2 cores"
    [gain, *_] = json.loads((folder / "claims.json").read_bytes())["claims"]
    assert gain["scores"] == ["exam/scores/domain/lora-rag.jsonl", "exam/scores/domain/base.jsonl"]
    assert (folder / "heads/release.json").is_file()
    assert not (folder / "monitoring.json").exists()


def test_scores_of_another_run_arent_taken_for_those_that_were_judged(place: Place):
    (place.root / ".tokka/reports/tokka/results.json").write_text("{}")
    folder = make_evidence(place.project, "aoba-1", actor="aoi").folder
    assert not (folder / "exam" / "scores").exists()
    assert "not in this pack" in (folder / "index.en.html").read_text(encoding="utf-8")
    [gain, *_] = json.loads((folder / "claims.json").read_bytes())["claims"]
    assert gain["scores"] == []


def test_observations_of_service_are_counted_and_not_quoted(place: Place):
    from tokka.release.rows import ObservationRow

    with place.opened() as ledger:
        ledger.write_observations([
            ObservationRow(id=f"o{n}", time=f"2026-11-2{n}T00:00:00Z", kind="answer", model="aoba",
                           version=1, data={"note": "秘密の質問"})
            for n in range(3)
        ])  # fmt: skip
    folder = make_evidence(place.project, "aoba-1", actor="aoi").folder
    assert json.loads((folder / "monitoring.json").read_bytes()) == {
        "observations": 3, "first": "2026-11-20T00:00:00Z", "last": "2026-11-22T00:00:00Z",
    }  # fmt: skip
    assert not [
        p for p in folder.rglob("*") if p.is_file() and "秘密の質問".encode() in p.read_bytes()
    ]


def test_a_second_pack_replaces_the_first_and_both_are_on_record(place: Place):
    first = make_evidence(place.project, "aoba-1", actor="aoi")
    second = make_evidence(place.project, "aoba-1", actor="val")
    assert first.folder == second.folder and first.manifest != second.manifest
    assert [p.name for p in first.folder.parent.iterdir()] == ["aoba-1"]
    assert failed(verify_project(place.project)) == []


def test_a_pack_isnt_written_over_something_else(place: Place, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="something else"):
        make_evidence(place.project, "aoba-1", actor="aoi", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_a_pack_isnt_written_into_the_release(place: Place):
    with pytest.raises(UsageError, match="in the release itself"):
        make_evidence(place.project, "aoba-1", actor="aoi", out=place.folder / "evidence")


def test_what_a_killed_command_left_is_no_pack(place: Place):
    made = make_evidence(place.project, "aoba-1", actor="aoi")
    shutil.copytree(made.folder, made.folder.with_name(".aoba-1.partial"))
    (made.folder.with_name(".aoba-1.partial") / "claims.json").write_text("{}")
    assert failed(verify_project(place.project)) == []
    make_evidence(place.project, "aoba-1", actor="aoi")
    assert [p.name for p in made.folder.parent.iterdir()] == ["aoba-1"]


def test_a_dry_run_writes_nothing(place: Place):
    before = sorted(place.root.rglob("*"))
    made = make_evidence(place.project, "aoba-1", actor="aoi", dry_run=True)
    assert made.entry is None
    assert sorted(place.root.rglob("*")) == before


def test_a_changed_release_gets_no_pack(place: Place):
    (place.folder / "Modelfile").write_text("FROM elsewhere")
    with pytest.raises(IntegrityError, match="Modelfile"):
        make_evidence(place.project, "aoba-1", actor="aoi")


def test_the_pack_of_another_release_is_never_replaced(place: Place, tmp_path: Path):
    out = tmp_path / "pack"
    make_evidence(place.project, "aoba-1", actor="aoi", out=out)
    make_evidence(place.project, "aoba-1", actor="aoi", out=out)  # its own is
    manifest = json.loads((out / "MANIFEST.json").read_bytes())
    (out / "MANIFEST.json").write_text(json.dumps({**manifest, "release": "cargo-4"}))
    with pytest.raises(UsageError, match=r"holds the pack of cargo-4; give another --out"):
        make_evidence(place.project, "aoba-1", actor="aoi", out=out)
    (out / "MANIFEST.json").write_text("{}")  # another program's
    with pytest.raises(UsageError, match="something else than an evidence pack"):
        make_evidence(place.project, "aoba-1", actor="aoi", out=out)
    assert (out / "README.md").is_file()


def test_a_release_takes_no_key_and_no_head(place: Place):
    with pytest.raises(UsageError, match="a release, which holds no trail"):
        verify_path(place.folder, public_key="-----BEGIN")


def test_another_key_may_sign_the_model(place: Place, tmp_path: Path):
    from tokka.release.model_signature import ensure_key, public_pem

    key = ensure_key(tmp_path / "mine.pem")
    made = make_evidence(place.project, "aoba-1", actor="aoi", model_key=key)
    assert (made.folder / "model-signing.pub.pem").read_text() == public_pem(key)
    with pytest.raises(UsageError, match="no key at"):
        make_evidence(place.project, "aoba-1", actor="aoi", model_key=tmp_path / "none.pem")


# ---- the project's own evidence under attack ----------------------------------------------------


def attack(place: Place, *statements: str) -> None:
    connection = sqlite3.connect(place.root / place.project.ledger)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in names:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_everything_of_a_project_is_verified(place: Place):
    make_evidence(place.project, "aoba-1", actor="aoi")
    found = verify_project(place.project)
    assert [one.kind for one in found] == ["ledger", "release", "pack"]
    assert failed(found) == []


def test_a_changed_database_is_found(place: Place):
    attack(place, "UPDATE entries SET signed = replace(signed, '社内利用に限る', '自由')")
    assert ("ledger", "the trail") in failed(verify_project(place.project))


def test_a_database_cut_short_is_found_by_the_pack_that_was_made(place: Place):
    before = (place.root / place.project.ledger).read_bytes()
    with place.opened() as ledger:
        perform(ledger, place.people["val"], "note", model="aoba", comment="障害の報告")
    make_evidence(place.project, "aoba-1", actor="aoi")
    assert failed(verify_project(place.project)) == []
    (place.root / place.project.ledger).write_bytes(before)  # an old copy is put back
    for name in place.root.glob(".tokka/*.head.json"):
        name.unlink()  # and what this machine had seen is gone
    for name in place.root.glob(".tokka/ledger.sqlite-*"):
        name.unlink()
    found = failed(verify_project(place.project))
    assert ("ledger", "the trail") in found
    assert ("pack", "the record of it") in found


def test_a_pack_that_no_act_records_is_found(place: Place):
    made = make_evidence(place.project, "aoba-1", actor="aoi")
    stranger = place.root / ".tokka" / "evidence" / "aoba-1x"
    shutil.copytree(made.folder, stranger)
    manifest = json.loads((stranger / "MANIFEST.json").read_bytes())
    (stranger / "MANIFEST.json").write_text(json.dumps(manifest))
    assert ("pack", "the record of it") in failed(verify_project(place.project))


def test_a_changed_file_of_a_release_is_found(place: Place):
    (place.folder / "exam" / "results.json").write_text("{}")
    assert failed(verify_project(place.project)) == [("release", "every file")]


def test_a_release_that_was_made_up_as_a_whole_is_found(place: Place):
    record = json.loads((place.folder / "release.json").read_bytes())
    write_json(place.folder / "release.json", {**record, "built_by": "somebody"})
    assert failed(verify_project(place.project)) == [("release", "every file")]


def test_heads_are_read_from_files_folders_and_zips(place: Place):
    made = make_evidence(place.project, "aoba-1", actor="aoi", zipped=True)
    assert made.manifest is not None and made.zip is not None
    for path in (made.folder, made.zip, made.folder / "MANIFEST.json"):
        assert heads_of(path) == [made.manifest.head]
    assert heads_of(place.folder)[0].number == 6
    with pytest.raises(UsageError, match="records no head"):
        heads_of(place.root)


# ---- the command line ---------------------------------------------------------------------------


def test_the_command_line_makes_and_verifies_a_pack(place: Place, tokka: Tell):
    said = tokka("evidence", "aoba", "--project", place.root, "--as", "aoi", "--zip", "--json")
    assert said.code == 0, said.err
    made = said.json
    assert made["release"] == "aoba-1" and made["entry"] == 9
    shown = tokka("verify", made["zip"])
    assert shown.code == 0
    assert "✓ the trail" in shown.out and "✗" not in shown.out
    assert "– the key" in shown.out  # nobody vouched for it
    assert "tokka exam rescore" in shown.out
    key = Path(made["folder"]) / "trail" / "ledger.pem"
    assert "– the key" not in tokka("verify", made["zip"], "--public-key", key).out
    assert tokka("verify", "--project", place.root).code == 0


def test_what_isnt_what_was_signed_ends_with_6(place: Place, tokka: Tell):
    folder = make_evidence(place.project, "aoba-1", actor="aoi").folder
    (folder / "claims.json").write_text("{}")
    said = tokka("verify", folder)
    assert said.code == 6
    assert "✗ every file: claims.json: changed" in said.out
    assert said.err.startswith("tokka: verify: aoba-1 isn't what was signed: every file")
    as_json = tokka("verify", folder, "--json")
    assert as_json.code == 6 and as_json.json["ok"] is False
    assert tokka("verify", "--project", place.root).code == 6


def test_a_trail_alone_is_verified(place: Place, tokka: Tell, tmp_path: Path):
    with place.opened() as ledger:
        ledger.export(tmp_path / "trail")
    said = tokka("verify", tmp_path / "trail")
    assert said.code == 0 and "cut short" in said.out
    assert tokka("verify", tmp_path / "trail", "--head", place.folder).code == 0
    lines = (tmp_path / "trail/trail.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trail/trail.jsonl").write_text("".join(lines[:-1]))
    assert tokka("verify", tmp_path / "trail").code == 6


@pytest.mark.parametrize("what", ["nowhere", "file.txt", "folder"])
def test_a_path_that_is_nothing_of_ours_is_a_usage_error(tokka: Tell, tmp_path: Path, what: str):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    said = tokka("verify", tmp_path / what)
    assert said.code == 2 and said.err.startswith("tokka: verify: ")


def test_a_dry_run_says_where_a_pack_would_be(place: Place, tokka: Tell):
    said = tokka("evidence", "aoba-1", "--project", place.root, "--as", "aoi", "--dry-run")
    assert said.code == 0 and "would write" in said.out
