"""A reader's crash or endless loop costs one file; a killed read goes on to the same bytes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tokka.corpus import reading
from tokka.corpus.limits import ReadSettings
from tokka.corpus.reading import read_corpus
from tokka.corpus.rows import is_whole, read_rows, write_rows
from tokka.errors import MissingExtra, TokkaError
from tokka.records import Document, Dropped

# Stands for a PDF library, in the readers' processes only: it does what the file says.
FAKE = """
import os, signal
class PdfiumError(Exception): pass
class PdfDocument:
    def __init__(self, path):
        text = open(path).read()
        if "crash" in text:
            os.kill(os.getpid(), signal.SIGSEGV)
        while "loop" in text:
            pass
        if "fat" in text:
            self.held = [bytes(10**9) for _ in range(100)]
        print("noise that is no report")
        raise PdfiumError("as every file here")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pypdfium2.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.html").write_text("<p>before</p>")
    (docs / "z.html").write_text("<p>after</p>")
    return docs


def _read(
    docs: Path, kept: Path, seconds: float = 60.0, workers: int = 2
) -> list[Document | Dropped]:
    settings = ReadSettings(seconds_per_file=seconds)
    return list(read_corpus([docs], kept=kept, settings=settings, workers=workers))


def _shown(rows: list[Document | Dropped]) -> list[tuple[str, str]]:
    return [(r.id, r.text) if isinstance(r, Document) else (r.item, r.reason) for r in rows]


def test_a_crash_costs_one_file_and_is_named(fake: Path, tmp_path: Path) -> None:
    (fake / "m.pdf").write_text("crash")
    first, lost, last = _shown(_read(fake, tmp_path / "kept"))
    assert (first, last) == (("a.html", "before\n"), ("z.html", "after\n"))
    assert lost == ("m.pdf", "read: m.pdf breaks its reader (signal 11)")


def test_an_endless_loop_and_a_crash_inside_an_archive_cost_their_members(
    fake: Path, tmp_path: Path
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in {"a.md": "one", "b.pdf": "loop", "c.pdf": "crash", "d.md": "two"}.items():
            archive.writestr(name, text)
    (fake / "m.zip").write_bytes(out.getvalue())
    rows = _read(fake, tmp_path / "kept", seconds=1.5)
    assert _shown(rows)[1:-1] == [
        ("m.zip/a.md", "one"),
        ("m.zip/b.pdf", "read: m.zip/b.pdf takes longer than 1.5 seconds"),
        ("m.zip/c.pdf", "read: m.zip/c.pdf breaks its reader (signal 11)"),
        ("m.zip/d.md", "two"),
    ]


def test_a_reader_that_takes_all_memory_is_stopped_by_its_own_limit(
    fake: Path, tmp_path: Path
) -> None:
    (fake / "m.pdf").write_text("fat")
    _, lost, _ = _shown(_read(fake, tmp_path / "kept"))
    assert lost == ("m.pdf", "read: m.pdf needs more memory than one file may take")


def test_what_a_library_prints_is_no_report_and_a_missing_one_stops_the_run(
    fake: Path, tmp_path: Path
) -> None:
    (fake / "m.pdf").write_text("plain")
    assert "m.pdf is broken" in _shown(_read(fake, tmp_path / "kept"))[1][1]
    (tmp_path / "fake" / "pypdfium2.py").write_text(
        "raise ModuleNotFoundError('no', name='pypdfium2')"
    )
    with pytest.raises(MissingExtra, match=r"pip install 'tokka\[read\]'"):
        _read(fake, tmp_path / "kept")


def test_without_a_process_the_run_says_so(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake" / "pydantic.py").write_text("raise SystemError('no pydantic here')")
    with pytest.raises(TokkaError, match=r"no process starts for reading .*no pydantic here"):
        _read(fake, tmp_path / "kept")


def test_the_order_and_the_text_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(12):
        (docs / f"{n:02}.html").write_text(f"<p>{'words ' * (200 * (12 - n))}</p>")
    (docs / "rows.jsonl").write_text('{"id": "00.html", "text": "twice"}\n{"id": "r", "text": "x"}')
    one = _read(docs, tmp_path / "one", workers=1)
    three = _read(docs, tmp_path / "three", workers=3)
    assert one == three
    assert "00.html was already given by 00.html" in _shown(one)[-2][1]


def test_a_read_killed_midway_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(8):
        (docs / f"{n}.html").write_text(f"<p>page {n}</p>")
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tokka.corpus.reading import read_corpus\n"
        "for row in read_corpus([Path(sys.argv[1])], kept=Path(sys.argv[2]), workers=1):\n"
        "    print(row.id, flush=True); time.sleep(0.3)\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(docs), str(tmp_path / "kept")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "kept").rglob("*.jsonl")}
    assert 0 < len(before) < 8
    assert _read(docs, tmp_path / "kept") == _read(docs, tmp_path / "fresh")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_only_what_is_new_changed_or_failed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("a", "b", "c"):
        (docs / f"{name}.md").write_text(f"text of {name}")
    (docs / "d.md").write_bytes(b"")
    _read(docs, tmp_path / "kept")
    (docs / "b.md").write_text("other text of b")
    read: list[str] = []
    real = reading.read_task
    monkeypatch.setattr(reading, "read_task", lambda task: (read.append(task.id), real(task)))
    rows = _read(docs, tmp_path / "kept")
    assert read == ["b.md", "d.md"]
    assert ("b.md", "other text of b") in _shown(rows)


def test_progress_is_told_by_files(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("a")
    (tmp_path / "docs" / "b.md").write_text("b")
    heard: list[tuple[int, int]] = []
    rows = read_corpus(
        [tmp_path / "docs"], kept=tmp_path / "kept", progress=lambda *x: heard.append(x)
    )
    assert len(list(rows)) == 2
    assert heard == [(0, 2), (1, 2), (2, 2)]


def test_a_result_cut_short_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = Dropped(item="a", reason="because", stage="read")
    write_rows(path, [row, row])
    assert is_whole(path) and list(read_rows(path)) == [row, row]
    path.write_bytes(path.read_bytes()[:-20])
    assert not is_whole(path)
    write_rows(path, [row], again=lambda: True)
    assert not is_whole(path) and list(read_rows(path)) == [row]


def test_workers_end_with_the_reading(fake: Path, tmp_path: Path) -> None:
    (fake / "m.pdf").write_text("loop")
    rows = read_corpus([fake], kept=tmp_path / "kept", workers=2)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    assert "tokka.corpus.worker" not in children.stdout


def test_time_while_the_program_was_stopped_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z, and fg ten minutes later: no file took ten minutes."""
    from tokka.corpus import pool

    folder = tmp_path / "documents"
    folder.mkdir()
    for name in ("a.html", "b.html"):
        (folder / name).write_text("<p>The counter opens at nine.</p>")

    class Clock:
        jumped = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.jumped

    clock = Clock()
    monkeypatch.setattr(pool, "time", clock)
    listen = pool.Pool._listen

    def stopped_once(self: pool.Pool, wait: float) -> None:
        listen(self, wait)
        if not clock.jumped:
            clock.jumped = 600.0

    monkeypatch.setattr(pool.Pool, "_listen", stopped_once)
    rows = list(read_corpus([folder], kept=tmp_path / "kept", workers=1))
    assert [row.id for row in rows if isinstance(row, Document)] == ["a.html", "b.html"]
    assert clock.jumped
