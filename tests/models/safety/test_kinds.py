"""A pickle is found in any dress, and prose is never taken for one."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Bomb

from tokka.models.safety.kinds import HEAD_BYTES, described, ends_as_zip, kind_of, shown

PICKLE = pickle.dumps(Bomb())


def zipped(*members: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for place, body in (("README.txt", b"hello"), (name, data)):
            member = tarfile.TarInfo(place)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_known(protocol: int) -> None:
    assert described(pickle.dumps(Bomb(), protocol)) == "a pickle"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (zipped(("archive/data.pkl", PICKLE)), "a zip archive of a pickle (archive/data.pkl)"),
        (zipped(("a.txt", b"x"), ("b", PICKLE), how=0), "a zip archive of a pickle (b)"),
        (tarred("w/data", PICKLE), "a tar archive of a pickle (w/data)"),
        (gzip.compress(PICKLE), "a gzip archive of a pickle"),
        (bz2.compress(PICKLE), "a bzip2 archive of a pickle"),
        (lzma.compress(PICKLE), "an xz archive of a pickle"),
        (lzma.compress(PICKLE, lzma.FORMAT_ALONE), "an lzma archive of a pickle"),
        (zlib.compress(PICKLE), "a zlib archive of a pickle"),  # joblib with compress=3
        (gzip.compress(tarred("m", zipped(("d", PICKLE)))),
         "a gzip archive of a tar archive of a zip archive of a pickle (d) (m)"),
        (b"\x93NUMPY\x01\0", "a NumPy array, which may hold pickles"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, in which Keras keeps layers with code"),
        (b"\x28\xb5\x2f\xfd\0", "a Zstandard archive"),
        (b"MZqFpD='\n", "a program (Windows, or a llamafile)"),
        (b"\x7fELF\2", "a program (ELF)"),
        (b"#!/bin/sh\n", "a script"),
        (b"\xa7\r\r\n\0\0\0\0", "compiled Python"),
        (zipped(), "a zip archive"),
    ],
)  # fmt: skip
def test_each_dress_is_named(data: bytes, kind: str) -> None:
    assert described(data) == kind


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello\n", b"c", b"cat\ndog\n.", b"(lp0\n.", b"I1\n.", "貸付の上限\n".encode(),
        b"x\x9c is no archive", b"MIT License\n", b"[PAD]\n[UNK]\n", b"# A model\n",
        b'{"a": 1}', b"BZh is a text", b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02",  # SentencePiece
    ],
)  # fmt: skip
def test_texts_and_vocabularies_are_nothing(data: bytes) -> None:
    assert described(data) == ""


def test_an_archive_that_unpacks_without_end_is_unpacked_a_megabyte_far() -> None:
    bomb = gzip.compress(gzip.compress(bytes(200 * HEAD_BYTES)))
    assert described(bomb) == "a gzip archive of a gzip archive"
    assert described(zipped(("zeros", bytes(20 * HEAD_BYTES)), ("p", PICKLE))).startswith("a zip")


def test_archives_in_archives_end_somewhere() -> None:
    data = PICKLE
    for _ in range(12):
        data = gzip.compress(data)
    assert described(data) == " of ".join(["a gzip archive"] * 5)


def test_a_member_s_name_is_shown_without_its_control_characters() -> None:
    assert described(zipped(("a\x1b[31m\nb", PICKLE))) == "a zip archive of a pickle (a�[31m�b)"
    assert shown("x" * 100) == "x" * 79 + "…"


def test_a_file_is_told_from_its_first_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"\x80\x04" + bytes(2 * HEAD_BYTES))
    assert kind_of(path) == "a pickle"


def test_an_end_record_without_a_directory_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "w"
    whole = zipped(("a", b"x"))
    for data, found in (
        (b"weights" + whole, True),
        (b"weights" + whole + b"behind it", True),
        (whole[-22:], False),
        (b"PK\x05\x06", False),
        (b"", False),
    ):
        path.write_bytes(data)
        assert ends_as_zip(path) == found


STARTS = [b"", b"PK\x03\x04", b"\x80\x04", b"c", b"(", b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"x\x9c",
          b"\xfd7zXZ\0", b"\x5d\0\0", b"a" * 257 + b"ustar"]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=600))
def test_any_bytes_are_described_without_a_crash(start: bytes, rest: bytes) -> None:
    assert isinstance(described(start + rest), str)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from([1, 0]))
def test_a_broken_archive_is_described_without_a_crash(place: int, byte: int, which: int) -> None:
    data = bytearray((tarred("m", PICKLE), zipped(("a", PICKLE), ("b", PICKLE)))[which])
    data[place % len(data)] = byte
    assert isinstance(described(bytes(data)), str)
