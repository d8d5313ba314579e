"""What verification says of packs that somebody made up, cut short or put together anew."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packs import chain_of, make

from tokka.errors import IntegrityError
from tokka.release.chain import key_fingerprint, public_pem
from tokka.release.decisions import decisions
from tokka.release.model_signature import ensure_key, sign_model
from tokka.release.pack import MANIFEST, read_manifest, seal
from tokka.release.packing import write_pack
from tokka.release.trail import write_trail
from tokka.release.verifying import (
    kind_of,
    read_head,
    verify_exported,
    verify_pack,
    verify_release,
)
from tokka.store import write_json


@pytest.fixture
def copy(finished_pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_pack, tmp_path / "pack"))


def failed(verified) -> list[str]:
    return [check.what for check in verified.checks if check.holds is False]


def resealed(made, folder: Path, key: Ed25519PrivateKey | None = None) -> None:
    """Sign whatever now lies in the folder: what somebody with the ledger's key could do."""
    head = read_manifest(folder).head
    key = key or made.ledger
    (folder / MANIFEST).unlink()
    seal(folder, made.release, head, made_at=made.gathered.made_at, sign=key.sign)


def test_a_pack_is_whole_where_nothing_else_is_at_hand(made_release, finished_pack: Path):
    verified = verify_pack(finished_pack)
    assert failed(verified) == []
    assert [c.what for c in verified.checks if c.holds is None] == ["the model's files"]
    assert not verified.trusted
    assert verified.rerun[0] == "tokka run tokka.yaml"
    assert verified.digests["results.json"] == made_release.release.results_digest
    assert verify_pack(finished_pack, public_key=made_release.public_key).trusted


def test_a_pack_made_with_another_key_is_found_by_the_ledgers_key_alone(made_release, tmp_path):
    stranger = make(tmp_path / "other")
    write_pack(stranger.gathered, tmp_path / "pack")
    alone = verify_pack(tmp_path / "pack")
    assert alone.ok and not alone.trusted
    assert alone.fingerprint == key_fingerprint(stranger.public_key)
    ours = verify_pack(tmp_path / "pack", public_key=made_release.public_key)
    assert "the manifest's signature" in failed(ours)


def test_a_manifest_signed_anew_by_a_stranger_doesnt_fit_the_trail(made_release, copy: Path):
    stranger = Ed25519PrivateKey.generate()
    (copy / "claims.json").write_text("{}")
    resealed(made_release, copy, stranger)
    assert failed(verify_pack(copy)) == ["the manifest's signature"]
    value = json.loads((copy / MANIFEST).read_bytes())
    head = read_manifest(copy).head.model_copy(update={"public_key": public_pem(stranger)})
    (copy / MANIFEST).unlink()
    seal(copy, made_release.release, head, made_at=value["made_at"], sign=stranger.sign)
    assert "the manifest's signature" in failed(verify_pack(copy))


def test_a_trail_cut_short_shows_against_the_packs_own_head(made_release, copy: Path):
    gathered = made_release.gathered
    entries = [entry.signed for entry in gathered.entries]
    _, trail, _ = chain_of(made_release.ledger, entries[:-1])
    write_trail(trail, copy / "trail")
    resealed(made_release, copy)
    assert "the trail" in failed(verify_pack(copy))


def test_a_trail_that_goes_on_after_the_recorded_head_isnt_the_packs(made_release, copy: Path):
    write_trail(made_release.later().gathered.trail, copy / "trail")
    resealed(made_release, copy)
    assert failed(verify_pack(copy)) == ["the trail"]


def test_a_trail_cut_short_shows_against_a_head_recorded_elsewhere(made_release, tmp_path: Path):
    later = made_release.later()
    write_trail(made_release.gathered.trail, tmp_path / "trail")
    assert verify_exported(tmp_path / "trail").ok
    assert verify_exported(tmp_path / "trail", heads=[made_release.gathered.head]).ok
    cut = verify_exported(tmp_path / "trail", heads=[later.gathered.head])
    assert failed(cut) == ["the trail"]


def test_a_head_recorded_elsewhere_is_held_against_a_pack(made_release, finished_pack: Path):
    later = made_release.later()
    assert verify_pack(finished_pack, heads=[read_head(made_release.folder / "head.json")]).ok
    cut = verify_pack(finished_pack, heads=[later.gathered.head])
    assert failed(cut) == ["the trail"]


def test_approvals_that_the_trail_doesnt_hold_are_found(made_release, copy: Path):
    approvals = json.loads((copy / "approvals.json").read_bytes())
    approvals["approvals"] = 2
    write_json(copy / "approvals.json", approvals)
    resealed(made_release, copy)
    assert failed(verify_pack(copy)) == ["approvals.json"]


def test_an_approval_by_who_built_it_is_found(made_release, tmp_path: Path):
    acts = [entry.signed for entry in made_release.gathered.entries]
    own = acts[-1].act.model_copy(update={"actor": "aoi"})
    entries, trail, head = chain_of(made_release.ledger, [*acts[:-1], own])
    gathered = replace(made_release.gathered, entries=entries, trail=trail, head=head)
    write_pack(gathered, tmp_path / "pack")
    assert json.loads((tmp_path / "pack/approvals.json").read_bytes())["approvals"] == 0
    assert "approvals.json" in failed(verify_pack(tmp_path / "pack"))


def test_decisions_about_another_digest_are_nobodys(made_release):
    entries = made_release.gathered.entries
    other = made_release.release.model_copy(update={"built_by": "somebody"})
    found = decisions(other, entries, made_release.gathered.made_at)
    assert (found["stage"], found["acts"], found["approvals"]) == ("", [], 0)
    ours = decisions(made_release.release, entries, made_release.gathered.made_at)
    assert (ours["stage"], ours["approvals"], ours["validations"]) == ("approved", 1, 1)
    later = decisions(made_release.release, entries, "2028-01-01T00:00:00Z")
    assert (later["stage"], later["approvals"]) == ("validated", 0)  # it has expired


def test_results_of_another_exam_are_found(made_release, copy: Path):
    (copy / "exam" / "results.json").write_text("{}")
    resealed(made_release, copy)
    assert failed(verify_pack(copy)) == ["the exam's results"]


def test_a_signature_over_other_files_is_found(made_release, copy: Path, model: Path):
    (model / "Modelfile").write_text("FROM elsewhere")
    (copy / "model.sig").unlink()
    sign_model(model, copy / "model.sig", made_release.gathered.model_key)
    resealed(made_release, copy)
    assert failed(verify_pack(copy)) == ["the model's signature"]


def test_a_signature_by_another_key_is_found(made_release, copy: Path, tmp_path: Path):
    (copy / "model.sig").unlink()
    sign_model(made_release.folder, copy / "model.sig", ensure_key(tmp_path / "other.pem"))
    resealed(made_release, copy)
    assert failed(verify_pack(copy)) == ["the model's signature"]


def test_a_manifest_of_another_release_is_found(made_release, copy: Path):
    other = made_release.release.model_copy(update={"version": 2})
    head = read_manifest(copy).head
    seal(copy, other, head, made_at="2026-11-23T01:02:03Z", sign=made_release.ledger.sign)
    assert failed(verify_pack(copy)) == ["the release"]


# ---- the shipped files --------------------------------------------------------------------------


@pytest.fixture
def model(made_release, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_release.folder, tmp_path / "aoba-1"))


def test_the_models_files_are_checked_when_they_are_given(finished_pack: Path, model: Path):
    assert verify_pack(finished_pack, model=model).ok
    weights = model / "workspace/steps/export-1/model.gguf"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert failed(verify_pack(finished_pack, model=model)) == ["the model's files"]


@pytest.mark.parametrize("name", ["act.json", "head.json"])
def test_what_lies_beside_a_release_is_signed_too(finished_pack: Path, model: Path, name: str):
    (model / name).write_text("{}")
    assert failed(verify_pack(finished_pack, model=model)) == ["the model's files"]


def test_another_release_of_the_same_files_isnt_the_packs(made_release, finished_pack, model: Path):
    other = made_release.release.model_copy(update={"built_by": "somebody"})
    write_json(model / "release.json", other)
    assert failed(verify_pack(finished_pack, model=model)) == ["the model's files"]


def test_a_releases_folder_alone(made_release, model: Path):
    verified = verify_release(model)
    assert verified.ok
    assert [c.what for c in verified.checks if c.holds is None] == ["the digest"]
    assert verify_release(model, made_release.release.digest).ok
    assert failed(verify_release(model, "0" * 64)) == ["every file"]
    (model / "Modelfile").write_text("FROM elsewhere")
    assert failed(verify_release(model)) == ["every file"]


def test_kinds_of_folders(finished_pack: Path, made_release, tmp_path: Path):
    assert kind_of(finished_pack) == "pack"
    assert kind_of(made_release.folder) == "release"
    assert kind_of(finished_pack / "trail") == "trail"
    assert kind_of(tmp_path) == ""


def test_a_head_is_read_from_a_manifest_and_nothing_else(finished_pack: Path, tmp_path: Path):
    assert read_head(finished_pack / MANIFEST) == read_head(finished_pack / "trail/head.json")
    with pytest.raises(IntegrityError, match="no head"):
        read_head(finished_pack / "claims.json")


def test_a_key_that_is_none_is_said_before_anything_is_believed(finished_pack: Path):
    with pytest.raises(IntegrityError, match="no Ed25519 public key"):
        verify_pack(finished_pack, public_key="-----BEGIN NOTHING-----")
