"""A candidate's parts are the folders that it was built from, in the order of their names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tokka.candidates.opening import adapters_of, artifact, search_files
from tokka.errors import IntegrityError, UsageError
from tokka.records import Arm, Candidate, RetrievalSpec
from tokka.store import Workspace


def candidate(**artifacts: str) -> Candidate:
    named = {name.replace("_", "-"): entry for name, entry in artifacts.items()}
    return Candidate(id="c", arm=Arm(name="a"), base_model="m", base_digest="d", artifacts=named)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    found.prepare()
    return found


def step(workspace: Workspace, text: str) -> str:
    def build(folder: Path) -> None:
        (folder / "file").write_text(text)

    folder = workspace.step("finetune", {"text": text}, build)
    return f"{folder.name}@{workspace.digest(folder)}"


def test_adapters_come_in_the_order_of_their_numbers(workspace: Workspace) -> None:
    first, second, third = (step(workspace, text) for text in "abc")
    built = candidate(adapter_3=third, adapter_2=second, adapter=first, weights=third)
    assert [(folder / "file").read_text() for folder in adapters_of(built, workspace)] == [
        "a", "b", "c",
    ]  # fmt: skip
    assert adapters_of(candidate(weights=first), workspace) == []


def test_a_part_that_is_gone_or_another_is_an_error(workspace: Workspace) -> None:
    first, second = step(workspace, "a"), step(workspace, "b")
    mixed = first.partition("@")[0] + "@" + second.partition("@")[2]
    with pytest.raises(IntegrityError, match=r"adapter-2 in .* isn't what was built"):
        adapters_of(candidate(adapter=first, adapter_2=mixed), workspace)
    shutil.rmtree(workspace.steps / first.partition("@")[0])
    with pytest.raises(IntegrityError, match=r"weights in .* is gone; run again"):
        artifact(candidate(weights=first), "weights", workspace)


def test_files_of_the_search_are_known_by_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    weights, words = tmp_path / "encoder" / "model.safetensors", tmp_path / "words.txt"
    weights.write_bytes(b"one")
    words.write_text("a, b\n")
    spec = RetrievalSpec(rerank="cross-encoder", reranker="encoder", synonyms="words.txt")
    before = search_files(spec, tmp_path)
    assert set(before) == {"reranker", "synonyms"}
    weights.write_bytes(b"other")
    words.write_text("a, c\n")
    after = search_files(spec, tmp_path)
    assert all(before[name] != after[name] for name in before)
    assert search_files(RetrievalSpec(), tmp_path) == search_files(None, tmp_path) == {}


def test_a_file_of_the_search_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reranker is a folder that doesn't exist"):
        search_files(RetrievalSpec(rerank="cross-encoder", reranker="encoder"), tmp_path)
    with pytest.raises(UsageError, match=r"synonyms .*words.txt can't be read"):
        search_files(RetrievalSpec(synonyms="words.txt"), tmp_path)
    (tmp_path / "words.txt").write_bytes("融資, 貸付".encode("shift_jis"))
    with pytest.raises(UsageError, match="save the file as UTF-8"):
        search_files(RetrievalSpec(synonyms="words.txt"), tmp_path)
