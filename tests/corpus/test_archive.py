"""Zipped folders are read like folders, and what could hurt is met with a limit and a reason."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tokka.corpus import limits, zipped
from tokka.corpus.limits import ReadSettings
from tokka.corpus.reading import read_corpus, read_file
from tokka.errors import ItemError
from tokka.records import Document, Dropped


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _read(tmp_path: Path, data: bytes, **settings: Any) -> tuple[list[Document], list[Dropped]]:
    (tmp_path / "a.zip").write_bytes(data)
    dropped: list[Dropped] = []
    found = read_file(tmp_path / "a.zip", "a.zip", "", dropped, ReadSettings(**settings))
    return found, dropped


def test_members_are_documents_with_the_archive_in_their_ids(tmp_path: Path) -> None:
    inner = _zip({"深い.md": "深い文。".encode()})
    data = _zip(
        {
            "b/規程.md": "規程の文。".encode(),
            "a.csv": b"x,y\n1,2\n",
            "b/inner.zip": inner,
            "bad.xyz": b"?",
            ".hidden.md": b"no",
            "__MACOSX/a.md": b"no",
        }
    )
    documents, dropped = _read(tmp_path, data)
    assert [d.id for d in documents] == [
        "a.zip/a.csv",
        "a.zip/b/inner.zip/深い.md",
        "a.zip/b/規程.md",
    ]
    assert [row.item for row in dropped] == ["a.zip/bad.xyz"]
    assert "unknown format .xyz" in dropped[0].reason


def test_skip_reaches_into_archives(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.zip").write_bytes(_zip({"drafts/x.md": b"x", "y.md": b"y"}))
    rows = list(read_corpus([tmp_path / "docs"], ["a.zip/drafts/*"], kept=tmp_path / "kept"))
    assert [row.id for row in rows if isinstance(row, Document)] == ["a.zip/y.md"]


def test_names_in_shift_jis_of_old_archives_are_readable(tmp_path: Path) -> None:
    data = _zip({"XXXX.txt": "本文です。".encode()}, zipfile.ZIP_STORED)
    data = data.replace(b"XXXX", "規程".encode("cp932"))
    documents, _ = _read(tmp_path, data)
    assert [d.id for d in documents] == ["a.zip/規程.txt"]


def test_names_that_lead_outside_and_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("../up.md", "/etc/root.md", "C:/drive.md", "a/../../b.md"):
            archive.writestr(name, "x")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("good.md", "good")
    documents, dropped = _read(tmp_path, out.getvalue())
    assert [d.id for d in documents] == ["a.zip/good.md"]
    reasons = [row.reason for row in dropped]
    assert sum("leads outside" in reason for reason in reasons) == 4
    assert sum("is a link" in reason for reason in reasons) == 1
    assert not list(tmp_path.parent.glob("up.md"))


def test_an_encrypted_member_says_so(tmp_path: Path) -> None:
    data = bytearray(_zip({"secret.md": b"x", "open.md": b"open"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    documents, dropped = _read(tmp_path, bytes(data))
    assert [d.id for d in documents] == ["a.zip/open.md"]
    assert "a.zip/secret.md is encrypted" in dropped[0].reason


def test_a_bomb_is_refused_by_its_ratio_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIN_SUSPICIOUS_BYTES", 1_000_000)
    data = _zip({"bomb.txt": b"0" * 2_000_000, "fine.md": b"fine"})
    documents, dropped = _read(tmp_path, data)
    assert [d.id for d in documents] == ["a.zip/fine.md"]
    assert "times its size, as zip bombs do (limit 300)" in dropped[0].reason


def test_the_sum_of_all_members_is_limited_through_every_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MEGABYTE", 1000)
    monkeypatch.setattr(limits, "MIN_SUSPICIOUS_BYTES", 10**9)
    half = _zip({f"{n}.txt": b"words " * 160 for n in range(5)})
    documents, dropped = _read(
        tmp_path, _zip({"one.zip": half, "two.zip": half}), max_file_megabytes=1
    )
    assert 0 < len(documents) < 10
    assert "unpacks to more than 8 MB; split it" in "; ".join(
        (dropped[-1].reason, dropped[-1].next_action)
    )


def test_a_declared_size_that_lies_is_no_way_around(tmp_path: Path) -> None:
    data = bytearray(_zip({"a.txt": b"0123456789" * 1000}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(mark) + offset
        data[at : at + 4] = struct.pack("<I", 10)
    documents, dropped = _read(tmp_path, bytes(data))
    assert documents == []
    assert "a.txt is broken" in dropped[0].reason


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MEMBERS", 3)
    with pytest.raises(ItemError, match="holds more than 3 files"):
        _read(tmp_path, _zip({f"{n}.md": b"x" for n in range(4)}))


def test_archives_in_archives_end_at_a_depth(tmp_path: Path) -> None:
    data = _zip({"end.md": b"the end"})
    for _ in range(4):
        data = _zip({"in.zip": data})
    documents, dropped = _read(tmp_path, data)
    assert documents == []
    assert "lies in 3 others already" in dropped[0].reason


@pytest.mark.parametrize("data", [b"PK\x03\x04 nothing", b"", _zip({})])
def test_an_archive_that_is_broken_or_empty_says_so(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ItemError, match=r"a\.zip is (?:broken|empty).*; "):
        _read(tmp_path, data)


def test_no_member_is_written_under_its_own_name() -> None:
    assert zipped.leads_outside("../a") and zipped.leads_outside("/a")
    assert zipped.leads_outside("C:/a") and not zipped.leads_outside("a..b/c.md")


def test_a_packed_jsonl_that_never_ends_is_stopped_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setattr(limits, "MEGABYTE", 1000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "1", "text": "words"}\n' * 2000))
    assert path.stat().st_size < 1000
    with pytest.raises(ItemError, match="more than the limit of 1; split it"):
        read_file(path, "a.jsonl.gz", settings=ReadSettings(max_file_megabytes=1))


def test_a_huge_file_is_refused_from_its_size_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(1_000_000_001)  # a hole: it takes no room on the disk
    with pytest.raises(ItemError, match=r"huge\.txt has 1,001 MB, more than the limit of 512"):
        read_file(path, "huge.txt")


def test_a_page_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.html"
    path.write_bytes(b"<html><body>" + b"<div>x" * 3000 + b"</body></html>")
    with pytest.raises(ItemError, match="nested too deeply"):
        read_file(path, "deep.html")
    path.write_bytes(b"<html><body>" + b"<b>x" * 1900 + b"</body></html>")
    assert read_file(path, "deep.html")[0].text == "x" * 1900 + "\n"
    path = tmp_path / "deep.jsonl"
    path.write_bytes(b'{"id": "ok", "text": "ok"}\n' + b"[" * 100_000 + b"\n")
    dropped: list[Dropped] = []
    assert [d.id for d in read_file(path, "deep.jsonl", "", dropped)] == ["ok"]
    assert len(dropped) == 1
