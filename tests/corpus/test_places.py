"""Documents are found by path, glob and URL; loops, pipes and secrets are met with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokka.corpus.limits import ReadSettings
from tokka.corpus.places import files_state, list_places, resolve
from tokka.corpus.reading import read_corpus
from tokka.corpus.remote import fetch
from tokka.errors import ItemError, UsageError
from tokka.records import Document, Dropped


def _write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name} の本文です。", encoding="utf-8")


def _ids(places: list[Any], **more: Any) -> list[str]:
    return [one.id for one in list_places(places, **more).found]


def test_a_glob_takes_the_files_that_match_with_ids_from_its_folder(tmp_path: Path) -> None:
    _write(tmp_path, "docs/a.md", "docs/b/c.md", "docs/b/c.txt", "docs/.git/x.md", "other/a.md")
    assert _ids([str(tmp_path / "docs/**/*.md")]) == ["a.md", "b/c.md"]
    assert _ids([str(tmp_path / "docs/*.md")]) == ["a.md"]
    assert _ids([str(tmp_path / "docs/**")]) == ["a.md", "b/c.md", "b/c.txt"]
    assert _ids([str(tmp_path / "*/a.md")]) == ["docs/a.md", "other/a.md"]
    with pytest.raises(UsageError, match=r"no file matches .*\*\.pdf; correct"):
        _ids([str(tmp_path / "docs/*.pdf")])


def test_places_of_a_project_file_are_taken_from_its_folder_and_urls_as_they_are() -> None:
    root = Path("/home/you/aoba")
    assert resolve("docs/**/*.md", root) == "/home/you/aoba/docs/**/*.md"
    assert resolve("s3://office/rules", root) == "s3://office/rules"
    assert resolve("file:///srv/rules", root) == "file:///srv/rules"


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    _write(tmp_path, "a.md", "b/c.md")
    assert _ids([f"file://{tmp_path}"]) == ["a.md", "b/c.md"]


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    _write(tmp_path, "docs/a.md", "shared/b.md")
    (tmp_path / "docs/shared").symlink_to(tmp_path / "shared")
    (tmp_path / "docs/again").symlink_to(tmp_path / "docs")
    (tmp_path / "docs/above").symlink_to(tmp_path)
    found, dropped = list_places([tmp_path / "docs"])
    assert [one.id for one in found] == ["a.md", "shared/b.md"]
    assert [row.item for row in dropped] == ["above/", "again/"]
    assert all("a loop" in row.reason and row.next_action for row in dropped)
    assert _ids([str(tmp_path / "docs/**/*.md")]) == ["a.md", "shared/b.md"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    _write(tmp_path, "a.md")
    os.mkfifo(tmp_path / "pipe.md")
    found, dropped = list_places([tmp_path])
    assert [one.id for one in found] == ["a.md"]
    assert "pipe.md is no regular file" in dropped[0].reason


def test_the_state_of_files_tells_when_reading_would_give_something_else(tmp_path: Path) -> None:
    _write(tmp_path, "a.md", "b.md")
    before = files_state([tmp_path])
    os.utime(tmp_path / "a.md")
    assert files_state([tmp_path]) == before
    (tmp_path / "a.md").write_text("anders", encoding="utf-8")
    after = files_state([tmp_path])
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]
    assert files_state([tmp_path], skip=["b.md"]) == after[:1]


# ---- URLs -----------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def _texts(places: list[Any], kept: Path, **more: Any) -> dict[str, str]:
    rows = read_corpus(places, kept=kept, **more)
    return {row.id: row.text for row in rows if isinstance(row, Document)}


def test_folders_globs_and_files_behind_a_url_are_read(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/office/a.md", "甲の文。".encode())
    memory.pipe("/office/b/c.md", "乙の文。".encode())
    memory.pipe("/office/.hidden/d.md", b"no")
    assert _texts(["memory://office"], tmp_path / "1") == {"a.md": "甲の文。", "b/c.md": "乙の文。"}
    assert _texts(["memory://office/**/c.md"], tmp_path / "2") == {"b/c.md": "乙の文。"}
    assert _texts(["memory://office/a.md"], tmp_path / "3") == {"a.md": "甲の文。"}


def test_a_remote_file_too_large_is_refused_before_it_is_fetched(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/office/a.md", b"x" * 1_000_001)
    monkeypatch.setattr("tokka.corpus.remote.fetch", None)
    [row] = read_corpus(
        ["memory://office"], kept=tmp_path, settings=ReadSettings(max_file_megabytes=1)
    )
    assert isinstance(row, Dropped)
    assert "a.md has 2 MB, more than the limit of 1" in row.reason


def test_the_host_of_an_address_is_known_when_its_files_are_fetched(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    from fsspec.implementations.memory import MemoryFileSystem

    hosts: list[str] = []

    class Hosted(MemoryFileSystem):  # type: ignore[misc]
        protocol = "hosted"
        store: dict[str, Any] = {}  # noqa: RUF012 - as in the class above it
        cachable = False

        def __init__(self, host: str) -> None:
            super().__init__()
            hosts.append(host)

        @staticmethod
        def _get_kwargs_from_urls(path: str) -> dict[str, str]:
            return {"host": path.split("/")[2]}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.split("/", 3)[3] if "://" in path else path

    fsspec.register_implementation("hosted", Hosted, clobber=True)
    Hosted("setup").pipe("/rules/a.md", b"text")
    [found] = list_places(["hosted://server/rules"]).found
    fetch(found.origin, found.path, tmp_path / "copy", {}, 1000)
    assert (tmp_path / "copy").read_bytes() == b"text"
    assert hosts[1:] == ["server", "server"]
    with pytest.raises(ItemError, match=r"hosted:///rules/a.md has more than .*; split it"):
        fetch(found.origin, found.path, tmp_path / "copy", {}, 3)


def test_a_changed_remote_file_has_another_state(memory: Any) -> None:
    memory.pipe("/office/a.md", b"one")
    before = files_state(["memory://office"])
    memory.pipe("/office/a.md", b"two")
    assert files_state(["memory://office"]) != before


@pytest.mark.parametrize(
    ("place", "options", "reason"),
    [
        ("memory://nowhere/a.md", {}, "nothing lies at memory://nowhere/a.md"),
        ("nofs://x/y", {}, "nofs:// can't be opened"),
        ("ftp://me:hush@example.jp/x", {}, "ftp://example.jp/x holds a password"),
        ("zip://a::memory://x.zip", {}, "chain of addresses"),
        ("memory://x", {"memory": {"secret": "hush"}}, "memory: secret may hold a secret"),
        ("memory://x", {"memory": {"c": {"aws_access_key": "hush"}}}, "aws_access_key may hold"),
    ],
)
def test_addresses_that_lead_nowhere_or_hold_secrets_are_refused_without_showing_them(
    memory: Any, place: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        list_places([place], settings=ReadSettings(storage_options=options))
    assert "hush" not in str(caught.value)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(name, value)
    url = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="office")
    client.put_object(Bucket="office", Key="rules/loan.md", Body="限度額の文。".encode())
    client.put_object(Bucket="office", Key="rules/2024/fees.html", Body=b"<p>330 yen</p>")
    client.put_object(Bucket="office", Key="rules/.hidden.md", Body=b"no")
    yield url
    server.stop()
    patch.undo()


def test_documents_of_a_bucket_are_read_by_processes_of_their_own(s3: str, tmp_path: Path) -> None:
    settings = ReadSettings(storage_options={"s3": {"client_kwargs": {"endpoint_url": s3}}})
    found = _texts(["s3://office/rules"], tmp_path / "1", settings=settings)
    assert found == {"2024/fees.html": "330 yen\n", "loan.md": "限度額の文。"}
    [(name, state)] = files_state(["s3://office/rules/**/*.html"], settings=settings)
    assert name == "2024/fees.html"
    assert len(state) > 32  # an MD5 that the store keeps, and the size
    with pytest.raises(UsageError, match="nothing lies at s3://office/nowhere"):
        files_state(["s3://office/nowhere"], settings=settings)


def test_a_store_that_is_not_there_is_named_without_its_keys(s3: str) -> None:
    gone = {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}, "config_kwargs": {
        "connect_timeout": 1, "retries": {"max_attempts": 0}}}  # fmt: skip
    with pytest.raises(UsageError, match="s3://office/rules can't be reached") as caught:
        list_places(["s3://office/rules"], settings=ReadSettings(storage_options={"s3": gone}))
    assert "hush" not in str(caught.value)
