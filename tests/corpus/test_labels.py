"""Labels come from sidecars and rules, the nearest wins, and what isn't understood locks."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tokka.corpus.labels import Labels, read_labels
from tokka.corpus.reading import files, read_folder
from tokka.corpus.sidecars import Mistake, parse_sidecar
from tokka.errors import Mistakes
from tokka.records import Document, Dropped


def _write(root: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _labelled(
    root: Path, texts: dict[str, str], rules: list[dict[str, Any]] | None = None
) -> dict[str, Document | Dropped]:
    _write(root, texts)
    labels = read_labels([root], rules or [])
    return {document.id: labels.label(document) for document in read_folder([root])[0]}


def _document(labelled: Document | Dropped) -> Document:
    assert isinstance(labelled, Document), labelled
    return labelled


def _locked(labelled: Document | Dropped) -> str:
    assert isinstance(labelled, Dropped), labelled
    assert labelled.stage == "label" and labelled.next_action
    return labelled.reason


def test_a_sidecar_states_facts_of_the_file_beside_it(tmp_path: Path) -> None:
    sidecar = (
        "title: 融資規程\nlicence: internal\naccess: [loans, audit]\n"
        "valid_from: 2024-04-01\nvalid_to: 2025-03-31\nmetadata: {office: 本店, 版: 3}\n"
    )
    found = _labelled(
        tmp_path, {"a.md": "本文です。", "a.md.tokka.yaml": sidecar, "b.md": "別です。"}
    )
    document = _document(found["a.md"])
    assert document.title == "融資規程" and document.licence == "internal"
    assert document.access == ("loans", "audit")
    assert (document.valid_from, document.valid_to) == ("2024-04-01", "2025-03-31")
    assert document.metadata == {"office": "本店", "版": "3"}
    assert document.text == "本文です。"
    assert _document(found["b.md"]).access == ()


def test_sidecars_are_no_documents(tmp_path: Path) -> None:
    _write(tmp_path, {"a.md": "x", "a.md.tokka.yaml": "", "_folder.tokka.yaml": ""})
    assert [name for name, _ in files([tmp_path])] == ["a.md"]


def test_a_name_without_its_suffix_speaks_of_every_file_of_that_name(tmp_path: Path) -> None:
    found = _labelled(
        tmp_path, {"a.md": "x", "a.txt": "y", "ab.md": "z", "a.tokka.yaml": "access: [board]"}
    )
    assert {name for name, row in found.items() if _document(row).access} == {"a.md", "a.txt"}


def test_the_nearest_sidecar_wins_and_goes_before_every_rule(tmp_path: Path) -> None:
    texts = {
        "_folder.tokka.yaml": "access: [staff]\nlicence: internal\nmetadata: {office: 本店}",
        "rules/_folder.tokka.yaml": "access: [loans]\nmetadata: {kind: rule}",
        "rules/a.md": "x",
        "rules/b.md": "y",
        "rules/b.md.tokka.yaml": "access: [board]",
        "c.md": "z",
    }
    rules = [{"match": "*", "access": ["all"], "valid_from": "2020-01-01"}]
    found = {name: _document(row) for name, row in _labelled(tmp_path, texts, rules).items()}
    assert found["c.md"].access == ("staff",)
    assert found["rules/a.md"].access == ("loans",)
    assert found["rules/b.md"].access == ("board",)
    assert found["rules/b.md"].licence == "internal"
    assert found["rules/b.md"].metadata == {"office": "本店", "kind": "rule"}
    assert found["rules/b.md"].valid_from == "2020-01-01"


def test_a_later_rule_goes_before_an_earlier_one_and_none_says_nothing(tmp_path: Path) -> None:
    rules = [
        {"match": "*", "access": ["staff"], "licence": "internal", "metadata": {}},
        {"match": "open/*", "access": [], "licence": None, "metadata": {"kind": "notice"}},
    ]
    found = _labelled(tmp_path, {"a.md": "x", "open/b.md": "y"}, rules)
    assert _document(found["a.md"]).access == ("staff",)
    opened = _document(found["open/b.md"])
    assert opened.access == () and opened.licence == "internal"
    assert opened.metadata == {"kind": "notice"}


def test_a_folder_above_the_place_speaks_of_it_too(tmp_path: Path) -> None:
    _write(tmp_path, {"docs/_folder.tokka.yaml": "access: [board]", "docs/rules/a.md": "x"})
    [document] = read_folder([tmp_path / "docs/rules"])[0]
    assert _document(read_labels([tmp_path / "docs/rules"]).label(document)).access == ("board",)
    [alone] = read_folder([tmp_path / "docs/rules/a.md"])[0]
    labels = read_labels([tmp_path / "docs/rules/a.md"])
    assert _document(labels.label(alone)).access == ("board",)


def test_a_link_obeys_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    _write(tmp_path, {"board/secret.md": "x", "board/_folder.tokka.yaml": "access: [board]"})
    (tmp_path / "open").mkdir()
    (tmp_path / "open/link.md").symlink_to(tmp_path / "board/secret.md")
    [document] = read_folder([tmp_path / "open"])[0]
    labelled = _document(read_labels([tmp_path / "open"]).label(document))
    assert labelled.access == ("board",)


def test_labels_hold_where_two_places_hold_the_same_names(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "one/a.md": "x",
            "two/a.md": "y",
            "two/b.md": "z",
            "two/_folder.tokka.yaml": "access: [t]",
        },
    )
    places = [tmp_path / "one", tmp_path / "two"]
    labels = read_labels(places)
    found = {d.id: _document(labels.label(d)).access for d in read_folder(places)[0]}
    assert found == {"one/a.md": (), "two/a.md": ("t",), "b.md": ("t",)}


def test_rows_of_jsonl_obey_their_files_sidecar_whatever_they_say_of_themselves(
    tmp_path: Path,
) -> None:
    rows = (
        '{"id": "law-1", "text": "第一条", "source": "https://laws.example", "access": ["all"]}\n'
        '{"id": "open.md", "text": "第二条", "source": "open.md", '
        '"metadata": {"file": "open.md:1"}}'
    )
    texts = {"laws.jsonl": rows, "laws.jsonl.tokka.yaml": "access: [legal]", "open.txt": "x"}
    found = {name: _document(row) for name, row in _labelled(tmp_path, texts).items()}
    assert found["law-1"].access == ("legal",)
    assert found["open.md"].access == ("legal",)
    assert found["open.txt"].access == ()
    assert found["law-1"].source == "https://laws.example"
    ruled = _labelled(tmp_path, {}, [{"match": "laws.jsonl", "licence": "CC0"}])
    assert _document(ruled["law-1"]).licence == "CC0"


def test_members_of_an_archive_obey_the_archives_sidecar(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("inner/a.md", "本文です。")
    found = _labelled(tmp_path, {"old.zip.tokka.yaml": "access: [archive]"})
    assert _document(found["old.zip/inner/a.md"]).access == ("archive",)


def test_sidecars_inside_an_archive_lock_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("a.md", "本文です。")
        archive.writestr("a.md.tokka.yaml", "access: [board]")
    assert "old.zip holds sidecars" in _locked(_labelled(tmp_path, {})["old.zip/a.md"])


def test_sidecars_in_a_remote_place_lock_what_they_speak_of() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("a.md", "a.md.tokka.yaml", "b.md", "sub/_folder.tokka.yaml", "sub/c.md"):
        store.pipe(f"/labels/{name}", b"text here")
    try:
        labels = read_labels(["memory://labels"])
        found = {d.id: labels.label(d) for d in read_folder(["memory://labels"])[0]}
    finally:
        store.rm("/labels", recursive=True)
    assert "remote place" in _locked(found["a.md"])
    assert "remote place" in _locked(found["sub/c.md"])
    assert _document(found["b.md"]).access == ()


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        ("access: board", "a.md.tokka.yaml:1: access must be a list such as [board], not 'board'"),
        ("licence: x\naccess:", "a.md.tokka.yaml:2: access must be a list such as [board], not"),
        ("access: [board, ]\nacess: [x]", "a.md.tokka.yaml:2: acess is no key of labels"),
        ("access: [null]", "a.md.tokka.yaml:1: access must be a text, not 'null'"),
        ("access: [' board']", "a.md.tokka.yaml:1: access holds ' board'"),
        ("access: [a]\naccess: []", "a.md.tokka.yaml:2: access stands twice"),
        ("access: [a", "a.md.tokka.yaml:1: it isn't YAML"),
        ("- access", "a.md.tokka.yaml:1: it must hold keys"),
        ("valid_from: 2024/4/1", ":1: valid_from must be a date such as 2024-04-01, got '2024/"),
        ("valid_from: 20240401", "valid_from must be a date"),
        ("licence: x\nvalid_to: 2024-02-30", "a.md.tokka.yaml:2: valid_to must be a date"),
        ("valid_from: 令和6年4月1日", "valid_from must be a date"),
        ("valid_from: 2025-01-01\nvalid_to: 2024-01-01", ":2: valid_to 2024-01-01 lies before"),
        ("metadata: [a]", "metadata must be names with texts, not a list"),
        ("metadata: {a: [b]}", "metadata must be a text, not a list"),
        ("title: ''", "title is empty"),
        ("title: !!python/name:os.system x", "a.md.tokka.yaml:1: title has a tag"),
        ("&a [*a]", "a.md.tokka.yaml:1:"),
    ],
)  # fmt: skip
def test_a_sidecar_that_is_not_understood_locks(tmp_path: Path, sidecar: str, reason: str) -> None:
    found = _labelled(tmp_path, {"a.md": "x", "a.md.tokka.yaml": sidecar, "b.md": "y"})
    assert reason in _locked(found["a.md"])
    assert _document(found["b.md"]).access == ()


def test_a_broken_folder_sidecar_locks_everything_below_it(tmp_path: Path) -> None:
    texts = {
        "in/_folder.tokka.yaml": "access: board",
        "in/deep/a.md": "x",
        "in/b.md": "y",
        "in/b.md.tokka.yaml": "access: [staff]",
        "out.md": "z",
    }
    found = _labelled(tmp_path, texts)
    assert "in/_folder.tokka.yaml:1" in _locked(found["in/deep/a.md"])
    assert "in/_folder.tokka.yaml:1" in _locked(found["in/b.md"])
    assert _document(found["out.md"]).access == ()


def test_bytes_that_are_no_text_and_huge_sidecars_lock(tmp_path: Path) -> None:
    _write(tmp_path, {"a.md": "x", "b.md": "y"})
    (tmp_path / "a.md.tokka.yaml").write_bytes("access: [役員]".encode("cp932"))
    (tmp_path / "b.md.tokka.yaml").write_bytes(b"# " + b"x" * 200_000)
    found = _labelled(tmp_path, {})
    assert "isn't UTF-8" in _locked(found["a.md"])
    assert "more than 100,000 bytes" in _locked(found["b.md"])


def test_a_sidecar_that_speaks_of_no_file_is_reported(tmp_path: Path) -> None:
    _write(tmp_path, {"loan.md": "x", "laon.md.tokka.yaml": "access: [board]"})
    [row] = read_labels([tmp_path]).unused
    assert row.item == "laon.md.tokka.yaml" and "no file beside it" in row.reason
    assert row.next_action


def test_a_document_from_nowhere_is_locked_where_sidecars_count(tmp_path: Path) -> None:
    _write(tmp_path, {"a.md": "x", "a.md.tokka.yaml": "access: [board]"})
    [document] = read_folder([tmp_path])[0]
    stranger = document.model_copy(update={"id": "elsewhere"})
    assert "which file" in _locked(read_labels([tmp_path]).label(stranger))
    assert Labels().label(stranger) == stranger


def test_wrong_rules_are_mistakes_of_the_project_named_together(tmp_path: Path) -> None:
    _write(tmp_path, {"a.md": "x"})
    rules = [
        {"match": "a*", "valid_from": "1.4.2024"},
        {"match": "b*", "access": ["", "x"]},
        {"match": "c*", "access": ["x"]},
    ]
    with pytest.raises(Mistakes) as raised:
        read_labels([tmp_path], rules)
    assert raised.value.items == [
        "documents: labels[0] (a*): valid_from must be a date such as 2024-04-01, got '1.4.2024'",
        "documents: labels[1] (b*): access holds ''; a label is a text without blanks around it",
    ]


def test_the_digest_follows_what_is_said(tmp_path: Path) -> None:
    _write(tmp_path, {"a.md": "x"})
    before = read_labels([tmp_path]).digest
    assert read_labels([tmp_path]).digest == before
    assert read_labels([tmp_path], [{"match": "*", "access": ["x"]}]).digest != before
    _write(tmp_path, {"a.md.tokka.yaml": "access: [x]"})
    labelled = read_labels([tmp_path]).digest
    _write(tmp_path, {"a.md.tokka.yaml": "access: [y]"})
    assert len({before, labelled, read_labels([tmp_path]).digest}) == 3


def test_values_are_the_texts_that_stand_there() -> None:
    facts = parse_sidecar("\ufefflicence: 1.10\naccess: [yes, 007]\n".encode())
    assert facts == {"licence": "1.10", "access": ("yes", "007")}
    assert parse_sidecar(b"# nothing yet\n") == {}
    assert parse_sidecar(b"access: []") == {"access": ()}
    with pytest.raises(Mistake):
        parse_sidecar(b"access: [[a]]")
