"""A release's folder holds what its list says, to the byte, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tokka.errors import IntegrityError, UsageError
from tokka.records import Arm, Candidate, Verdict
from tokka.release.reading import read_release
from tokka.release.records import Release
from tokka.store import read_record, sha256_file, write_json, write_text

FILES = ("workspace/steps/export-1/model.safetensors", "exam/results.json", "語彙.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "harbour-1"
    for name in FILES:
        write_text(made / name, f"bytes of {name}")
    seal(made, dict.fromkeys(FILES, ""))
    return made


def seal(folder: Path, files: dict[str, str]) -> Release:
    listed = {name: given or sha256_file(folder / name) for name, given in files.items()}
    candidate = Candidate(id="c", arm=Arm(name="rag"), base_model="m", base_digest="d")
    release = Release(
        model="harbour", version=1, candidate=candidate, served=candidate, serves="safetensors",
        artefacts=(), project_digest="p", results_digest="r", exams={},
        verdict=Verdict(arm="rag", candidate_id="c", outcome="pass", reasons=()),
        base_licence="ours", built_by="aya", built_at="2026-11-23T00:00:00Z", language="ja",
        files=listed,
    )  # fmt: skip
    write_json(folder / "release.json", release)
    return release


def test_a_folder_as_it_was_made_is_read(folder: Path) -> None:
    digest = read_record(folder / "release.json", Release).digest
    assert read_release(folder, digest).name == "harbour-1"
    for beside in ("act.json", "head.json"):  # these come after the list was closed
        write_text(folder / beside, "{}")
    assert read_release(folder, digest).digest == digest


def change(folder: Path) -> None:
    (folder / FILES[0]).write_text("other bytes")


def remove(folder: Path) -> None:
    (folder / FILES[0]).unlink()


def add(folder: Path) -> None:
    write_text(folder / "workspace/steps/export-1/model.gguf", "x")


def link(folder: Path) -> None:
    (folder / FILES[0]).rename(folder.parent / "elsewhere")
    (folder / FILES[0]).symlink_to(folder.parent / "elsewhere")


def link_a_folder(folder: Path) -> None:
    (folder / "exam").rename(folder.parent / "exam")
    (folder / "exam").symlink_to(folder.parent / "exam")


def hide_an_act(folder: Path) -> None:
    write_text(folder / "exam/act.json", "{}")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (change, r"model\.safetensors was changed"),
        (remove, r"model\.safetensors is missing"),
        (add, r"model\.gguf doesn't belong to the release"),
        (link, r"model\.safetensors is a link"),
        (link_a_folder, "exam is a link"),
        (hide_an_act, r"exam/act\.json doesn't belong"),
        (pipe, "pipe is neither file nor folder"),
    ],
)
def test_any_change_of_the_folder_is_found(
    tamper: Callable[[Path], None], told: str, folder: Path
) -> None:
    tamper(folder)
    with pytest.raises(IntegrityError, match=told):
        read_release(folder)


def test_a_list_that_was_changed_along_shows_in_the_release_digest(folder: Path) -> None:
    digest = read_record(folder / "release.json", Release).digest
    (folder / FILES[0]).write_text("other bytes")
    seal(folder, dict.fromkeys(FILES, ""))
    assert read_release(folder).digest != digest
    with pytest.raises(IntegrityError, match=f"expected {digest}; this isn't the release"):
        read_release(folder, digest)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_a_list_reaches_nowhere_outside(name: str, folder: Path) -> None:
    write_text(folder.parent / "outside", "x")
    seal(folder, {**dict.fromkeys(FILES, ""), name: "0" * 64})
    with pytest.raises(IntegrityError, match="lies outside the release"):
        read_release(folder)


def test_no_release_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no release\.json"):
        read_release(tmp_path)
    write_text(tmp_path / "release.json", "{}")
    with pytest.raises(IntegrityError, match="not a Release"):
        read_release(tmp_path)
