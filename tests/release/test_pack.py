"""A pack as files: what a manifest finds, and zips from strangers."""

import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokka.errors import IntegrityError
from tokka.release.chain import public_pem
from tokka.release.pack import (
    MANIFEST,
    as_json,
    faults,
    plain_files,
    read_manifest,
    signature_holds,
    zip_pack,
)
from tokka.release.unpacking import unpacked
from tokka.release.verifying import verify_pack


@pytest.fixture
def copy(finished_pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_pack, tmp_path / "pack"))


def whats_wrong(folder: Path) -> list[str]:
    return [check.what for check in verify_pack(folder).checks if check.holds is False]


def test_a_pack_as_written_is_whole(finished_pack: Path):
    assert faults(finished_pack, read_manifest(finished_pack)) == []
    assert verify_pack(finished_pack).ok


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_found(finished_pack: Path, data: st.DataObject):
    names = [*plain_files(finished_pack), MANIFEST]
    path = finished_pack / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    flipped = before[place] ^ data.draw(st.integers(1, 255))
    path.write_bytes(before[:place] + bytes([flipped]) + before[place + 1 :])
    try:
        assert not verify_pack(finished_pack).ok, (path.name, place)
    finally:
        path.write_bytes(before)


def test_every_byte_of_the_signature_counts(copy: Path):
    # Base64 has several spellings of one signature: its last digit carries four unused bits.
    text = (copy / MANIFEST).read_text(encoding="utf-8")
    signature = json.loads(text)["signature"]
    last = signature.rstrip("=")[-1]
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = digits[digits.index(last) ^ 1]
    spelt = signature[: len(signature.rstrip("=")) - 1] + other + "=="
    (copy / MANIFEST).write_text(text.replace(signature, spelt), encoding="utf-8")
    assert whats_wrong(copy) == ["the manifest's signature"]


def test_another_spelling_of_the_same_manifest_is_found(copy: Path):
    value = json.loads((copy / MANIFEST).read_bytes())
    (copy / MANIFEST).write_text(json.dumps(value), encoding="utf-8")
    assert whats_wrong(copy) == ["the manifest"]


@pytest.mark.parametrize("size", [0, 1])
def test_a_file_that_is_cut_or_longer_is_found(copy: Path, size: int):
    path = copy / "claims.json"
    path.write_bytes(path.read_bytes()[:-1] if size == 0 else path.read_bytes() + b" ")
    assert whats_wrong(copy) == ["every file"]


def test_missing_extra_and_renamed_files_are_named(copy: Path):
    (copy / "claims.json").unlink()
    (copy / "exam" / "extra.json").write_text("{}")
    (copy / "README.md").rename(copy / "readme.md")
    assert faults(copy, read_manifest(copy)) == [
        "README.md: missing",
        "claims.json: missing",
        "exam/extra.json: not in the manifest",
        "readme.md: not in the manifest",
    ]


def test_two_files_that_changed_names_are_found(copy: Path):
    (copy / "index.ja.html").rename(copy / "x")
    (copy / "index.en.html").rename(copy / "index.ja.html")
    (copy / "x").rename(copy / "index.en.html")
    assert faults(copy, read_manifest(copy)) == [
        "index.en.html: changed",
        "index.ja.html: changed",
    ]


@pytest.mark.skipif(os.name != "posix", reason="links need POSIX")
def test_a_link_to_the_same_bytes_is_no_file_of_a_pack(copy: Path, tmp_path: Path):
    elsewhere = tmp_path / "claims.json"
    (copy / "claims.json").rename(elsewhere)
    (copy / "claims.json").symlink_to(elsewhere)
    assert "a link" in faults(copy, read_manifest(copy))[0]


def test_a_manifest_signed_by_another_key_doesnt_hold(made_release, copy: Path):
    manifest = read_manifest(copy)
    assert signature_holds(manifest, made_release.public_key)
    assert not signature_holds(manifest, public_pem(Ed25519PrivateKey.generate()))
    assert not signature_holds(manifest, "no key")
    unsigned = manifest.model_copy(update={"signature": ""})
    assert not signature_holds(unsigned, made_release.public_key)


def test_no_manifest_and_a_huge_one_are_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(IntegrityError, match="is missing"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="no manifest"):
        read_manifest(tmp_path)
    monkeypatch.setattr("tokka.release.pack.MOST_MANIFEST_BYTES", 1)
    with pytest.raises(IntegrityError, match="no manifest of a pack is like that"):
        read_manifest(tmp_path)


# ---- zips ---------------------------------------------------------------------------------------


def test_the_same_pack_gives_the_same_zip_whatever_its_times(finished_pack: Path, tmp_path: Path):
    (tmp_path / "one").mkdir()
    one = zip_pack(finished_pack, tmp_path / "one" / "a.zip")
    copy = Path(shutil.copytree(finished_pack, tmp_path / "copy"))
    for name in plain_files(copy):
        os.utime(copy / name, (1, 1))
        (copy / name).chmod(0o600)
    two = zip_pack(copy, tmp_path / "a.zip")
    assert one.read_bytes() == two.read_bytes()


def test_a_zip_is_verified_like_its_folder(finished_pack: Path, tmp_path: Path):
    with unpacked(zip_pack(finished_pack, tmp_path / "aoba.zip")) as folder:
        assert verify_pack(folder).ok
        assert plain_files(folder) == plain_files(finished_pack)
    assert not folder.exists()


def written(path: Path, *entries: tuple[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # unchecked by the constructor
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "/etc/out",
        "a/../../out",
        "a\\..\\out",
        "C:out",
        "a/./b",
        "",
        " ",
        "a\nb",
        "x" * 500,
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str):
    path = written(tmp_path / "p.zip", (MANIFEST, b"{}"), (name, b"x"))
    with pytest.raises(IntegrityError, match="left alone"), unpacked(path):
        pass
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path: Path):
    path = written(tmp_path / "p.zip", ("a", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777)
    with pytest.raises(IntegrityError, match="a link"), unpacked(path):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", ["Aa", "aA", "aa"])
def test_names_that_differ_only_in_case_are_refused(tmp_path: Path, names: str):
    path = written(tmp_path / "p.zip", *[(f"{name}.json", b"1") for name in names])
    with pytest.raises(IntegrityError, match="twice"), unpacked(path):
        pass


def test_a_zip_that_unpacks_to_too_much_is_stopped_while_it_unpacks(tmp_path: Path):
    path = written(tmp_path / "p.zip", (MANIFEST, b"0" * 3_000_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(IntegrityError, match="unpacks to more"), unpacked(path, most_bytes=2**20):
        pass


def test_a_zip_that_lies_about_its_sizes_is_stopped(tmp_path: Path):
    path = written(tmp_path / "p.zip", (MANIFEST, b"0" * 3_000_000))
    claimed = path.read_bytes().replace((3_000_000).to_bytes(4, "little"), b"\x01\0\0\0")
    path.write_bytes(claimed)
    with pytest.raises(IntegrityError), unpacked(path, most_bytes=2**20):
        pass


def test_too_many_entries_are_refused(tmp_path: Path):
    path = written(tmp_path / "p.zip", *[(f"{n}", b"") for n in range(6)])
    with pytest.raises(IntegrityError, match="6 entries"), unpacked(path, most_files=5):
        pass


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_rubbish_is_no_zip(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "rubbish.zip"
    path.write_bytes(b"PK\x03\x04" + data)
    with pytest.raises(IntegrityError), unpacked(path):
        pass


def test_a_damaged_zip_is_found(finished_pack: Path, tmp_path: Path):
    path = zip_pack(finished_pack, tmp_path / "aoba.zip")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError), unpacked(path) as folder:
        assert verify_pack(folder).ok, "found only by the manifest"
        raise AssertionError("the damage wasn't found")


def test_a_zip_of_two_packs_is_refused(tmp_path: Path):
    path = written(tmp_path / "p.zip", (f"a/{MANIFEST}", b"{}"), (f"b/{MANIFEST}", b"{}"))
    with pytest.raises(IntegrityError, match="2 evidence packs"), unpacked(path):
        pass


def test_json_of_a_pack_ends_with_a_newline_and_keeps_japanese():
    assert as_json({"b": 1, "a": "規程"}) == '{\n "a": "規程",\n "b": 1\n}\n'.encode()
