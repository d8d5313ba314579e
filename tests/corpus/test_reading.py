"""A folder is read whole: each file gives documents or a reason, and the others go on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tokka.corpus.reading import files, read_corpus, read_file, read_folder
from tokka.errors import ItemError, UsageError
from tokka.records import Document, Dropped


def _write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _by_item(dropped: list[Dropped]) -> dict[str, Dropped]:
    return {row.item: row for row in dropped}


def test_ids_are_paths_from_the_root_in_a_stable_order(tmp_path: Path) -> None:
    _write(tmp_path, rules__loan_md="# 融資規程\n本文です。", b_txt="text", a_md="x", _git__c="no")
    (tmp_path / "~$b.docx").write_bytes(b"lock")
    assert [item for item, _ in files([tmp_path])] == ["a.md", "b.txt", "rules/loan.md"]
    documents, dropped = read_folder([tmp_path])
    assert [d.id for d in documents] == ["a.md", "b.txt", "rules/loan.md"]
    assert dropped == []
    assert documents[2].title == "融資規程"
    assert [d.language for d in documents] == ["en", "en", "ja"]


def test_a_given_language_wins_over_the_found_one(tmp_path: Path) -> None:
    _write(tmp_path, a_md="English text")
    assert read_folder([tmp_path], language="ja")[0][0].language == "ja"


def test_ids_are_composed_unicode_whatever_the_file_system_says(tmp_path: Path) -> None:
    (tmp_path / "カ\u3099イド.md").write_text("本文", encoding="utf-8")
    assert files([tmp_path])[0][0] == "ガイド.md"


def test_skipped_files_are_neither_read_nor_reported(tmp_path: Path) -> None:
    _write(tmp_path, drafts__a_md="x", b_md="y", c_tmp="z")
    documents, dropped = read_folder([tmp_path], skip=["drafts/*", "*.tmp"])
    assert [d.id for d in documents] == ["b.md"]
    assert dropped == []


def test_two_roots_with_the_same_name_inside_get_their_root_in_front(tmp_path: Path) -> None:
    _write(tmp_path, one__a_md="1", two__a_md="2", two__b_md="3")
    ids = [item for item, _ in files([tmp_path / "one", tmp_path / "two"])]
    assert ids == ["b.md", "one/a.md", "two/a.md"]
    _write(tmp_path, x__docs__a_md="1", y__docs__a_md="2")
    ids = [item for item, _ in files([tmp_path / "x/docs", tmp_path / "y/docs"])]
    assert ids == ["x/docs/a.md", "y/docs/a.md"]


def test_one_root_inside_another_gives_each_file_once(tmp_path: Path) -> None:
    _write(tmp_path, docs__sub__a_md="1", docs__b_md="2")
    ids = [item for item, _ in files([tmp_path / "docs", tmp_path / "docs/sub"])]
    assert ids == ["b.md", "sub/a.md"]


def test_a_missing_root_is_a_mistake_of_the_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere doesn't exist"):
        read_folder([tmp_path / "nowhere"])


def test_bad_files_are_dropped_with_their_reasons_and_the_others_go_on(tmp_path: Path) -> None:
    _write(tmp_path, good_md="# よい\n本文です。", empty_txt="", blank_md=" \n\n", data_xyz="?")
    (tmp_path / "sjis.txt").write_bytes("貸付の期限は翌月末日。".encode("cp932"))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnot much of a file")
    (tmp_path / "broken.docx").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    (tmp_path / "noise.txt").write_bytes(bytes([0x81, 0xFF, 0xFE, 0x80, 0x9F, 0xA0] * 50))
    documents, dropped = read_folder([tmp_path])
    assert [d.id for d in documents] == ["good.md", "sjis.txt"]
    assert documents[1].text == "貸付の期限は翌月末日。"
    rows = _by_item(dropped)
    reasons = {
        "empty.txt": "is empty",
        "blank.md": "is empty",
        "data.xyz": "unknown format .xyz",
        "broken.pdf": "is broken",
        "broken.docx": "is broken",
        "old.docx": "encrypted or an old .doc",
        "noise.txt": "unknown encoding",
    }
    assert set(rows) == set(reasons)
    for item, reason in reasons.items():
        assert reason in rows[item].reason
        assert rows[item].next_action
        assert rows[item].stage == "read"


def test_a_locked_file_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, a_md="読める。", locked_md="読めない。")
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "locked.md":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    documents, dropped = read_folder([tmp_path])
    assert [d.id for d in documents] == ["a.md"]
    assert "locked.md is locked or unreadable" in dropped[0].reason
    assert "grant read permission" in dropped[0].next_action


def test_a_link_to_nothing_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "gone.md").symlink_to(tmp_path / "nothing.md")
    documents, dropped = read_folder([tmp_path])
    assert documents == []
    assert "gone.md can't be read" in dropped[0].reason


def test_rows_of_jsonl_are_documents_and_bad_rows_are_dropped_by_line(tmp_path: Path) -> None:
    rows = [
        '{"id": "law-1", "text": "第一条\\r\\n本文", "title": "法", "access": ["staff"]}',
        "",
        '{"id": "law-2"}',
        "{broken",
        '{"id": "law-3", "text": "ok\u2028ok", "colour": "red"}',
        '{"id": "law-1", "text": "again"}',
        '{"id": "law-4", "text": "fine", "valid_from": "2024-04-01", "licence": "CC0"}',
        "[1]",
    ]
    (tmp_path / "laws.jsonl").write_text("\n".join(rows), encoding="utf-8")
    documents, dropped = read_folder([tmp_path])
    assert [(d.id, d.title, d.source) for d in documents] == [
        ("law-1", "法", "laws.jsonl:1"),
        ("law-4", "fine", "laws.jsonl:7"),
    ]
    assert documents[0].text == "第一条\n本文"
    assert documents[0].access == ("staff",)
    assert documents[1].valid_from == "2024-04-01"
    reasons = {item: row.reason for item, row in _by_item(dropped).items()}
    assert "no text in the field 'text'" in reasons["laws.jsonl:3"]
    assert "jsonl" in reasons["laws.jsonl:4"]
    assert "unknown fields colour" in reasons["laws.jsonl:5"]
    assert "law-1 was already given by laws.jsonl:1" in reasons["laws.jsonl:6"]
    assert "is a list" in reasons["laws.jsonl:8"]


def test_without_a_list_for_them_bad_rows_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "text": "x"}\n{}\n', encoding="utf-8")
    with pytest.raises(ItemError, match=r"a\.jsonl:2"):
        read_file(path, "a.jsonl")


def test_other_words_at_the_same_size_and_time_are_read(tmp_path: Path) -> None:
    """As an unpacked archive brings them, or a copy that keeps times."""
    folder = tmp_path / "documents"
    folder.mkdir()
    file = folder / "fees.md"
    file.write_text("A transfer costs 2 crowns.")
    when = file.stat()
    first = list(read_corpus([folder], kept=tmp_path / "kept"))
    file.write_text("A transfer costs 3 crowns.")
    os.utime(file, ns=(when.st_atime_ns, when.st_mtime_ns))
    second = list(read_corpus([folder], kept=tmp_path / "kept"))
    texts = [row.text for row in (*first, *second) if isinstance(row, Document)]
    assert texts == ["A transfer costs 2 crowns.", "A transfer costs 3 crowns."]
