"""A killed, damaged or doubled run never leaves work that is taken for whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka import store
from tokka.errors import IntegrityError, TokkaError
from tokka.records import Message
from tokka.store import (
    FolderMemo,
    Workspace,
    read_json,
    read_record,
    read_records,
    replace_folder,
    run_lock,
    write_json,
    write_records,
    write_text,
)

SOURCE = Path(__file__).parents[1] / "src"
INPUTS = {"documents": "d1", "max_tokens": 120}


class Killed(BaseException):
    """As sudden as a signal: no `except Exception` may see it."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    space = Workspace(tmp_path / ".tokka")
    space.prepare()
    return space


def writes(**files: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for name, text in files.items():
            write_text(folder / f"{name}.txt", text)

    return build


def never(folder: Path) -> None:
    pytest.fail(f"{folder} was built again")


# ---- files --------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise Killed

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(Killed):
                write_text(path, "new, and much longer")
        assert path.read_text() == "old"
        assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_file_appears_under_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, str]] = []
    rename = os.replace

    def watched(source: str, target: Path) -> None:
        seen.append((target.exists(), Path(source).read_text()))
        assert Path(source).parent == target.parent  # a rename across file systems isn't atomic
        rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_text(tmp_path / "a.txt", "すべて")
    assert seen == [(False, "すべて")]


def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "report.html", "x")
    (tmp_path / "other").touch()
    assert (tmp_path / "report.html").stat().st_mode == (tmp_path / "other").stat().st_mode


@given(text=st.text(), number=st.integers())
def test_records_and_json_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: int
) -> None:
    folder = tmp_path_factory.mktemp("records")
    messages = [
        Message(role="user", content=text),
        Message(role="assistant", content="\n\x85" + text),
    ]
    write_records(folder / "m.jsonl", messages)
    assert read_records(folder / "m.jsonl", Message) == messages
    write_json(folder / "m.json", messages[0])
    assert read_record(folder / "m.json", Message) == messages[0]
    write_json(folder / "v.json", {"text": text, "number": number})
    assert read_json(folder / "v.json") == {"text": text, "number": number}


def test_a_damaged_record_is_named_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    good = Message(role="user", content="x").model_dump_json()
    path.write_text(f'{good}\n{{"role": "us\n')
    with pytest.raises(IntegrityError, match=r"(?s)m\.jsonl:2: not a Message .*delete the folder"):
        read_records(path, Message)
    path.write_text("{")
    with pytest.raises(IntegrityError, match="delete the folder"):
        read_json(path)
    with pytest.raises(IntegrityError, match="delete the folder"):
        read_record(tmp_path / "gone.json", Message)


# ---- steps --------------------------------------------------------------------------------------


def test_a_finished_step_isnt_built_again_and_other_inputs_make_another(
    workspace: Workspace,
) -> None:
    first = workspace.step("chunk", INPUTS, writes(a="1"))
    assert workspace.step("chunk", dict(reversed(INPUTS.items())), never) == first
    other = workspace.step("chunk", {**INPUTS, "max_tokens": 60}, writes(a="2"))
    elsewhere = workspace.step("index", INPUTS, writes(a="3"))
    assert len({first, other, elsewhere}) == 3
    assert workspace.finished() == sorted({first, other, elsewhere})
    assert workspace.unfinished() == []


def test_the_manifest_is_written_last_and_names_every_file(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_manifest: list[list[str]] = []
    write = store.write_json

    def watched(path: Path, value: Any) -> None:
        at_manifest.append(sorted(p.name for p in path.parent.rglob("*")))
        assert path.parent.name.endswith(".partial")
        write(path, value)

    def build(folder: Path) -> None:
        assert not (folder / "manifest.json").exists()
        writes(a="1")(folder)
        (folder / "sub").mkdir()
        writes(b="22")(folder / "sub")
        (folder / "left.tmp").write_text("what a killed write left")

    monkeypatch.setattr(store, "write_json", watched)
    folder = workspace.step("chunk", INPUTS, build)
    assert at_manifest == [["a.txt", "b.txt", "left.tmp", "sub"]]
    manifest = workspace.manifest(folder)
    assert manifest.files == {"a.txt": 1, "sub/b.txt": 2}
    assert manifest.step == "chunk" and dict(manifest.inputs) == INPUTS
    assert manifest.digests["a.txt"] == store.sha256_file(folder / "a.txt")


def test_a_killed_build_is_given_its_partial_folder_back(workspace: Workspace) -> None:
    def killed(folder: Path) -> None:
        writes(checkpoint="half")(folder)
        raise Killed

    with pytest.raises(Killed):
        workspace.step("finetune", INPUTS, killed)
    (partial,) = workspace.unfinished()
    assert workspace.finished() == []

    def goes_on(folder: Path) -> None:
        assert folder == partial
        assert (folder / "checkpoint.txt").read_text() == "half"
        writes(adapter="whole")(folder)

    folder = workspace.step("finetune", INPUTS, goes_on)
    assert workspace.unfinished() == []
    assert set(workspace.manifest(folder).files) == {"checkpoint.txt", "adapter.txt"}


def test_the_seconds_of_a_killed_build_are_counted(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 40.0, 100.0, 102.0])
    monkeypatch.setattr(store.time, "monotonic", lambda: next(clock))

    def killed(folder: Path) -> None:
        raise Killed

    with pytest.raises(Killed):
        workspace.step("finetune", INPUTS, killed)
    folder = workspace.step("finetune", INPUTS, writes(a="1"))
    assert workspace.manifest(folder).seconds == 42.0
    assert set(workspace.manifest(folder).files) == {"a.txt"}


def test_a_run_killed_between_manifest_and_rename_finishes_to_the_same_step(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Workspace(workspace.root / "whole")
    expected = whole.digest(whole.step("chunk", INPUTS, writes(a="1", b="2")))
    rename = os.replace

    def killed(source: Any, target: Any) -> None:
        if str(source).endswith(".partial"):
            raise Killed
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            workspace.step("chunk", INPUTS, writes(a="1", b="2"))
    folder = workspace.step("chunk", INPUTS, writes(a="1", b="2"))
    assert set(workspace.manifest(folder).files) == {"a.txt", "b.txt"}
    assert workspace.digest(folder) == expected
    assert workspace.step("chunk", INPUTS, never) == folder


@pytest.mark.parametrize("damage", ["missing", "longer", "a folder"])
def test_a_finished_step_that_changed_is_refused_with_what_to_do(
    workspace: Workspace, damage: str
) -> None:
    folder = workspace.step("chunk", INPUTS, writes(a="1", b="2"))
    victim = folder / "b.txt"
    if damage == "longer":
        victim.write_text("22")
    else:
        victim.unlink()
    if damage == "a folder":
        victim.mkdir()
    with pytest.raises(IntegrityError, match=r"b\.txt: missing or changed .* delete .* run again"):
        workspace.step("chunk", INPUTS, never)


def test_a_step_folder_without_manifest_is_refused(workspace: Workspace) -> None:
    workspace.folder("chunk", INPUTS).mkdir(parents=True)
    with pytest.raises(IntegrityError, match=r"without manifest\.json; delete it"):
        workspace.step("chunk", INPUTS, never)


def test_a_steps_digest_follows_its_decisive_files_only(workspace: Workspace) -> None:
    def digest(decisive: tuple[str, ...], n: int, **files: str) -> str:
        inputs = {"run": n}
        return workspace.digest(workspace.step("index", inputs, writes(**files), decisive=decisive))

    decisive = ("index.txt",)
    first = digest(decisive, 1, index="same", segment="random 1")
    assert digest(decisive, 2, index="same", segment="random 2") == first
    assert digest(decisive, 3, index="other", segment="random 1") != first
    assert digest(("in*.txt", "none"), 4, index="same", segment="random 4") == first
    assert digest((), 4, index="same", segment="a") != digest((), 5, index="same", segment="b")


# ---- finished batches ---------------------------------------------------------------------------


def test_finished_batches_come_back_in_another_process(tmp_path: Path) -> None:
    value = {"values": [[-0.1, 1e-17, -3.0000000000000004]], "text": "質問"}
    FolderMemo(tmp_path).put("ab" * 32, value)
    assert FolderMemo(tmp_path).get("ab" * 32) == value
    assert FolderMemo(tmp_path).get("cd" * 32) is None


@pytest.mark.parametrize("damage", [b"", b'{"values": [[-0.', b"\xff\xfe\x00"])
def test_a_damaged_batch_is_computed_again_instead_of_stopping_the_run(
    tmp_path: Path, damage: bytes
) -> None:
    memo = FolderMemo(tmp_path)
    memo.put("ab" * 32, {"values": [1]})
    (entry,) = tmp_path.rglob("*.json")
    entry.write_bytes(damage)
    assert memo.get("ab" * 32) is None
    assert not entry.exists()
    memo.put("ab" * 32, {"values": [2]})
    assert memo.get("ab" * 32) == {"values": [2]}


# ---- two at once --------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from tokka.store import Workspace
with Workspace(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_told_and_a_killed_one_lets_go(workspace: Workspace) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workspace.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TokkaError, match=r"another run is at work .* tokka status"):
            workspace.lock().__enter__()
    finally:
        process.kill()
        process.wait()
    with workspace.lock():
        pass


def test_the_run_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), run_lock(tmp_path / "run.lock"):
        raise ValueError("broken")
    with run_lock(tmp_path / "run.lock"):
        pass


def test_the_first_of_two_finished_folders_wins(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / "who.txt", name)
        replace_folder(tmp_path / name, tmp_path / "target")
        assert not (tmp_path / name).exists()
    assert (tmp_path / "target" / "who.txt").read_text() == "first"
    with pytest.raises(OSError):
        replace_folder(tmp_path / "absent", tmp_path / "nowhere")


def test_the_workspace_asks_git_to_leave_it_alone(workspace: Workspace) -> None:
    assert (workspace.root / ".gitignore").read_text() == "*\n"


def test_what_is_written_is_readable_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "規程", "a": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n "a": 1,\n "b": "規程"\n}\n'
    assert json.loads(text) == {"b": "規程", "a": 1}
