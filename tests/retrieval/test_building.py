"""An index changes at the cost of the change, answers as one built afresh, and survives kills."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokka.errors import IntegrityError, UsageError
from tokka.records import Caller, Chunk, RetrievalSpec
from tokka.retrieval import building, manifest
from tokka.retrieval.hybrid import (
    Index,
    build_index,
    compact_index,
    open_index,
    update_index,
)
from tokka.retrieval.manifest import open_parts, read_manifest

WORDS = ("融資", "規程", "期限", "窓口", "上限", "限度額")
SPEC = RetrievalSpec(candidates=50)
LEXICAL = RetrievalSpec(dense=False)


def _answers(index: Index) -> Any:
    found = [
        index.explain(query, 50, SPEC, caller)
        for query in (*WORDS, "融資の期限", "窓口規程")
        for caller in (Caller(), Caller(labels=()))
    ]
    return index.digest, len(index), found


# ---- what a build writes ------------------------------------------------------------------------


def _chunks(new_piece: Any, count: int = 6) -> list[Chunk]:
    return [
        new_piece(f"d{i}", f"{WORDS[i % 6]}の{WORDS[(i * 5 + 1) % 6]}", number)
        for i in range(count)
        for number in range(2)
    ]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_builds_are_equal_to_the_byte_and_another_corpus_has_another_digest(
    built: Any, new_piece: Any, tmp_path: Path
) -> None:
    chunks = _chunks(new_piece)
    a, b, c = (
        built(tmp_path / name, some)
        for name, some in (("a", chunks), ("b", chunks), ("c", chunks[1:]))
    )
    assert a.digest == b.digest != c.digest
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_other_facts_are_another_index(
    built: Any, new_piece: Any, new_facts: Any, tmp_path: Path
) -> None:
    chunks = _chunks(new_piece)
    dated = new_facts(chunks, valid_to="2025-03-31")
    digests = {
        built(tmp_path / "a", chunks).digest,
        built(tmp_path / "b", chunks, documents=dated).digest,
    }
    assert len(digests) == 2


def test_chunks_may_come_as_a_stream_and_progress_counts_all_parts(
    new_piece: Any, new_facts: Any, pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_ROWS_OF_A_PART", 5)
    chunks = _chunks(new_piece)
    facts = new_facts(chunks)
    seen: list[tuple[int, int]] = []
    told = lambda done, total: seen.append((done, total))  # noqa: E731
    build_index(iter(chunks), tmp_path / "s", SPEC, "ja", pairs(), told, documents=facts)
    assert seen == [(5, 5), (10, 10), (12, 12)]
    seen.clear()
    build_index(chunks, tmp_path / "l", SPEC, "ja", pairs(), told, documents=facts)
    assert seen == [(5, 12), (10, 12), (12, 12)]
    monkeypatch.undo()
    build_index(chunks, tmp_path / "one", SPEC, "ja", pairs(), documents=facts)
    assert len(read_manifest(tmp_path / "s").parts) == 3
    streamed, whole = (open_index(tmp_path / name, pairs()) for name in ("s", "one"))
    assert _answers(streamed) == _answers(whole)


def test_what_cant_be_built_is_said(
    new_piece: Any, new_facts: Any, pairs: Any, tmp_path: Path
) -> None:
    chunks = _chunks(new_piece)
    with pytest.raises(UsageError, match="no chunks"):
        build_index([], tmp_path, LEXICAL, "ja", None)
    with pytest.raises(UsageError, match="needs an embedder"):
        build_index(chunks, tmp_path, SPEC, "ja", None)
    with pytest.raises(UsageError, match="the chunk d0#0 is of the document d0, of which no facts"):
        build_index(chunks, tmp_path, LEXICAL, "ja", None, documents=new_facts(chunks[2:]))


def test_a_build_replaces_what_was_there(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path
) -> None:
    chunks = _chunks(new_piece)
    (tmp_path / "lexical").mkdir()  # of the format before
    (tmp_path / "chunks.jsonl").touch()
    (tmp_path / "index.json").write_text('{"format": 1}')
    (tmp_path / "part-000007").mkdir()  # of a killed build
    (tmp_path / "notes.txt").touch()
    built(tmp_path, chunks)
    assert sorted(os.listdir(tmp_path)) == ["index.json", "notes.txt", "part-000001"]
    build_index(chunks[:2], tmp_path, LEXICAL, "ja", None)
    with open_index(tmp_path, None) as index:
        assert len(index) == 2
    assert sorted(os.listdir(tmp_path)) == ["index.json", "notes.txt", "part-000002"]


# ---- what opening refuses -----------------------------------------------------------------------


def test_another_embedder_than_the_built_one_is_refused(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path
) -> None:
    built(tmp_path, _chunks(new_piece))
    with pytest.raises(IntegrityError, match="built with another embedder"):
        open_index(tmp_path, pairs("d2"))
    with pytest.raises(UsageError, match="vectors of pairs"):
        open_index(tmp_path, None)
    with pytest.raises(IntegrityError, match="built with another embedder"):
        update_index(tmp_path, [], ["d0"], {}, pairs("d2"))


def test_another_tokeniser_than_the_built_one_is_refused(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path, _chunks(new_piece))
    monkeypatch.setattr(manifest, "tokeniser_version", lambda language: "sudachipy==9")
    with pytest.raises(IntegrityError, match="installed is sudachipy==9"):
        open_index(tmp_path, pairs())


def test_an_unfinished_or_damaged_index_is_refused(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path
) -> None:
    built(tmp_path, _chunks(new_piece))
    part = tmp_path / "part-000001"
    for file in sorted(part.iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(IntegrityError, match="not those that were written"):
            open_index(tmp_path, pairs())
        file.unlink()
        with pytest.raises(IntegrityError, match="build the index again"):
            open_index(tmp_path, pairs())
        file.write_bytes(whole)
    rows = part / "rows.bin"
    whole = rows.read_bytes()
    rows.write_bytes(b"\xff" * len(whole))
    with pytest.raises(IntegrityError, match="is damaged"):
        open_index(tmp_path, pairs())
    rows.write_bytes(whole)
    file = tmp_path / "index.json"
    for text, said in (("{}", "format None"), ('{"format": 2}', "damaged"), ("{", "damaged")):
        file.write_text(text)
        with pytest.raises(IntegrityError, match=said):
            open_index(tmp_path, pairs())
    file.unlink()
    with pytest.raises(IntegrityError, match="no finished index"):
        open_index(tmp_path, pairs())


def test_a_changed_text_never_reaches_a_passage(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path
) -> None:
    built(tmp_path, [new_piece("a", "上限は300万円")])
    file = tmp_path / "part-000001" / "chunks.jsonl"
    file.write_bytes(file.read_bytes().replace(b"300", b"900"))
    with (
        open_index(tmp_path, pairs()) as index,
        pytest.raises(IntegrityError, match=r"chunks\.jsonl was changed at line 1"),
    ):
        index.search("上限", 4, SPEC)


# ---- changes ------------------------------------------------------------------------------------

CHANGES = st.lists(
    st.tuples(
        st.dictionaries(
            st.integers(0, 5),
            st.tuples(
                st.lists(st.lists(st.sampled_from(WORDS), max_size=4), min_size=1, max_size=2),
                st.booleans(),
            ),
            max_size=3,
        ),
        st.lists(st.integers(0, 5), max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(CHANGES)
def test_after_any_changes_an_index_answers_as_one_built_afresh(
    built: Any,
    new_piece: Any,
    new_facts: Any,
    pairs: Any,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[Any],
) -> None:
    folder = tmp_path_factory.mktemp("i")
    documents: dict[str, list[Chunk]] = {"d0": [new_piece("d0", "融資の規程")]}
    built(folder / "i", documents["d0"]).close()
    for added, removed, compacted in changes:
        fresh = {
            f"d{i}": [
                new_piece(f"d{i}", "。".join(words), n, ("staff",) if hidden else ())
                for n, words in enumerate(pieces)
            ]
            for i, (pieces, hidden) in added.items()
        }
        gone = {f"d{i}" for i in removed} | set(fresh)
        documents = {k: v for k, v in documents.items() if k not in gone} | fresh
        chunks = [chunk for pieces in fresh.values() for chunk in pieces]
        update_index(folder / "i", chunks, gone, new_facts(chunks), pairs())
        if compacted:
            compact_index(folder / "i")
    left = [chunk for name in sorted(documents) for chunk in documents[name]]
    with open_index(folder / "i", pairs()) as index:
        changed = _answers(index)
    if left:
        with built(folder / "s", left) as scratch:
            assert changed == _answers(scratch)
    else:
        assert changed[1] == 0 and not any(changed[2])
    named = {"index.json", ".lock"}
    parts = read_manifest(folder / "i").parts
    named |= {part.name for part in parts} | {part.removed for part in parts}
    assert set(os.listdir(folder / "i")) <= named


def test_a_change_writes_only_what_changed(
    built: Any, new_piece: Any, new_facts: Any, pairs: Any, tmp_path: Path
) -> None:
    built(tmp_path, _chunks(new_piece, 20)).close()
    before = _files(tmp_path / "part-000001")
    chunks = [new_piece("new", "融資の窓口")]
    embedder = pairs()
    embedded: list[str] = []
    embedder.passages = lambda texts: (embedded.extend(texts), pairs().passages(texts))[1]
    update_index(tmp_path, chunks, ["d3"], new_facts(chunks), embedder)
    assert embedded == ["融資の窓口"]
    assert _files(tmp_path / "part-000001") == before
    parts = [(part.name, part.rows, bool(part.removed)) for part in read_manifest(tmp_path).parts]
    assert parts == [("part-000001", 40, True), ("part-000002", 1, False)]


def test_a_document_that_is_there_must_be_removed_to_be_replaced(
    built: Any, new_piece: Any, new_facts: Any, pairs: Any, tmp_path: Path
) -> None:
    chunks = _chunks(new_piece)
    built(tmp_path, chunks).close()
    with pytest.raises(UsageError, match="the document d0 is in the index already"):
        update_index(tmp_path, chunks[:1], [], new_facts(chunks), pairs())
    update_index(tmp_path, chunks[:1], ["d0", "never there"], new_facts(chunks), pairs())
    assert len(open_index(tmp_path, pairs())) == len(chunks) - 1


def test_many_small_parts_and_many_dead_rows_are_merged(
    built: Any, new_piece: Any, new_facts: Any, pairs: Any, tmp_path: Path
) -> None:
    built(tmp_path, _chunks(new_piece, 40)).close()
    most = 0
    for i in range(12):
        chunks = [new_piece(f"n{i}", "融資の窓口")]
        update_index(tmp_path, chunks, [], new_facts(chunks), pairs())
        most = max(most, len(read_manifest(tmp_path).parts))
    assert most == building._MANY_PARTS
    update_index(tmp_path, [], [f"d{i}" for i in range(20)], {}, pairs())
    opened = open_parts(tmp_path)[1]
    assert sum(len(part) for part, _ in opened) == 52  # the dead ones are gone from disk
    assert len(open_index(tmp_path, pairs())) == 52


def test_an_opened_index_goes_on_as_it_was(
    built: Any, new_piece: Any, new_facts: Any, pairs: Any, tmp_path: Path
) -> None:
    chunks = _chunks(new_piece)
    index = built(tmp_path, chunks)
    before = _answers(index)
    update_index(tmp_path, [], [f"d{i}" for i in range(5)], {}, pairs())
    assert before == _answers(index)
    assert len(open_index(tmp_path, pairs())) == 2


def test_an_index_that_changes_while_it_is_opened_is_opened_as_it_is_now(
    built: Any, new_piece: Any, pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path, _chunks(new_piece)).close()
    read, times = manifest.read_manifest, 0

    def overtaken(folder: Path) -> Any:
        nonlocal times
        found, times = read(folder), times + 1
        if times == 1:
            monkeypatch.setattr(manifest, "read_manifest", read)
            update_index(folder, [], [f"d{i}" for i in range(5)], {}, pairs())
            monkeypatch.setattr(manifest, "read_manifest", overtaken)
        return found

    monkeypatch.setattr(manifest, "read_manifest", overtaken)
    assert len(open_index(tmp_path, pairs())) == 2


# ---- kills --------------------------------------------------------------------------------------

WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


class _Operations:
    """Calls `at_last` when this process touches the files of a folder for the n-th time."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.left = -1
        self.seen = 0
        self.at_last: Callable[[], None] = lambda: None
        self.written: set[str] = set()  # in place
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in WATCHED:
            return
        if not any(str(argument).startswith(self.folder) for argument in arguments[:2]):
            return
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self.written.add(str(arguments[0]))
        self.seen += 1
        self.left -= 1
        if self.left == 0:
            self.at_last()


@pytest.fixture(scope="module")
def operations() -> Iterator[_Operations]:
    operations = _Operations()  # an audit hook can't be taken away
    yield operations
    operations.folder = None


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ("build", "killed"),
        ("update", "killed"),
        ("compact", "killed"),
        ("update", "full disk"),
    ],
)
def test_a_change_that_is_broken_off_anywhere_is_made_or_not_made(
    built: Any,
    new_piece: Any,
    new_facts: Any,
    pairs: Any,
    tmp_path: Path,
    operations: _Operations,
    change: str,
    how: str,
) -> None:
    fresh = [new_piece("d1", "限度額の窓口"), new_piece("n", "融資の限度額")]
    facts = new_facts(fresh)
    folder, beginning = tmp_path / "i", tmp_path / "beginning"
    built(beginning, _chunks(new_piece)).close()
    more = [new_piece("e", "期限")]
    update_index(beginning, more, ["d0"], new_facts(more), pairs())

    def make() -> None:
        if change == "build":
            build_index(fresh, folder, SPEC, "ja", pairs(), documents=facts)
        elif change == "update":
            update_index(folder, fresh, ["d1", "e", "n"], facts, pairs())
        else:
            building._DEAD, kept = 0.0, building._DEAD
            try:
                compact_index(folder)
            finally:
                building._DEAD = kept

    def state() -> Any:
        with open_index(folder, pairs()) as index:
            found = [index.search(query, 9, SPEC) for query in ("融資の期限", "限度額")]
            return len(index), index.digest, found

    shutil.copytree(beginning, folder)
    before = state()
    operations.folder, operations.seen, operations.written = str(folder), 0, set()
    make()
    operations.folder, total = None, operations.seen
    after = state()
    assert total > 15
    assert str(folder / "index.json") not in operations.written  # it is put in place, whole
    assert (before == after) == (change == "compact")
    outcomes = []
    for n in range(1, total + 1):
        shutil.rmtree(folder)
        shutil.copytree(beginning, folder)
        if how == "killed":
            _forked(operations, folder, n, make)
        else:
            operations.folder, operations.left, operations.at_last = str(folder), n, _raise
            with contextlib.suppress(OSError, IntegrityError):  # some is tried again
                make()
            operations.folder = None
        found = state()
        assert found in (before, after), f"operation {n} of {total}"
        outcomes.append(found == after)
        if n % 5 == 0:  # what was left lying about is in nobody's way
            make()
            assert state() == after
    if change != "compact" and how == "killed":  # up to one moment it isn't made, then it is
        assert set(outcomes) == {False, True}
        assert outcomes == sorted(outcomes)


def _forked(operations: _Operations, folder: Path, n: int, make: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        try:
            operations.folder, operations.left, operations.at_last = str(folder), n, _kill
            make()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    from tokka.retrieval.packed import read_arrays, write_arrays

    arrays = {
        "a": np.arange(7, dtype=np.int32),
        "b": np.empty((0, 4), np.float32),
        "c": np.ones((3, 2), np.uint8),
        "long_name_of_an_array": np.array([2**60]),
    }
    write_arrays(tmp_path / "x.bin", arrays)
    read = read_arrays(tmp_path / "x.bin")
    assert list(read) == sorted(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and np.array_equal(read[name], array)
        assert not read[name].flags.writeable
