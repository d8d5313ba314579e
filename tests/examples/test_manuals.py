"""examples/manuals: the publishers' texts become an office's files and an exam, twice the same."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tokka.corpus.reading import read_corpus
from tokka.exam.importing import import_exam
from tokka.project import load_project
from tokka.records import Document

ROOT = Path(__file__).parents[2]
MANUALS = ROOT / "examples" / "manuals"
PLACES = (os.environ.get("TOKKA_DATA", "data"), ROOT / "shared/data", ROOT.parent / "shared/data")
FOUND = (Path(place) / "debian_docs" for place in PLACES)
DATA = next((p for p in FOUND if (p / "manpages-ja.jsonl.gz").is_file()), None)
NEEDS_DATA = pytest.mark.skipif(
    DATA is None, reason="the publishers' texts are not here; set TOKKA_DATA to their folder"
)
Row = dict[str, Any]


def module(name: str, known_as: str = "") -> ModuleType:
    """Other examples have a `prepare` too, so that one's name must differ."""
    known_as = known_as or name
    spec = importlib.util.spec_from_file_location(known_as, MANUALS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


pages, questions = module("pages"), module("questions")
prepare = module("prepare", "manuals_prepare")


def man(name: str, purpose: str, options: str = "") -> Any:
    text = (
        f"{name.upper()}(1)\n\n名前\n       {name} - {purpose}\n\n書式\n       {name}\n\n{options}"
    )
    row = {"id": f"usr/share/man/ja/man1/{name}.1.gz", "title": f"{name}.1", "text": text + options}
    return pages.read_pages({"manpages-ja": [row]})[0]


def kinds(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["topic"], []).append(row)
    return found


# ---- pages ---------------------------------------------------------------------------------------


def test_numbers_of_headings_become_levels_and_tables_and_commands_are_marked() -> None:
    text = (
        "Chapter 1. Disks\n\nChapter 1. Disks\n\n  1.1. Names\n\n1.1. Names\n\nSome words.\n\n"
        "1.1.2. Tools\n\n Table 1.1. List of tools\n\n  package   description\n\n"
        "   mc   a | b\n\n   vim   an editor\n\nRun it:\n\n# apt install mc"
    )
    made = pages.markdown("Chapter 1. Disks", text)
    assert made.count("# Chapter 1. Disks") == 1
    assert "\n## 1.1. Names\n" in made and "\n### 1.1.2. Tools\n" in made
    assert "| package | description |\n| --- | --- |\n| mc | a \\| b |\n| vim | an editor |" in made
    assert "```\n# apt install mc\n```" in made


def test_a_web_page_has_headings_navigation_and_preformatted_lines() -> None:
    text = "20.4. Memory\n\nPrev UpHome Next\n\n20.4.1. Buffers\n\n a < b\n\nSynopsis\n\nx\n  y"
    made = pages.webpage("20.4. Memory", text)
    assert made.count("20.4. Memory") == 2  # the title and one heading
    assert "<nav>Prev UpHome Next</nav>" in made and "<h3>20.4.1. Buffers</h3>" in made
    assert "<p>a &lt; b</p>" in made and "<h2>Synopsis</h2>" in made
    assert "<pre>x\n  y</pre>" in made


def test_a_justified_paragraph_becomes_one_line() -> None:
    assert questions.flow("       タイプとク\n       リエータを  変更する") == (
        "タイプとクリエータを変更する"
    )
    assert questions.flow("the aut‐\n       ofs daemon") == "the autofs daemon"


# ---- questions -----------------------------------------------------------------------------------

PURPOSES = {
    "kiru": "ファイルの先頭だけを取り出す",
    "maku": "端末の画面を巻き戻して見せる",
    "nuru": "背景を一色で塗りつぶす道具",
    "oru": "長い行を幅に合わせて折り返す",
    "soru": "行末の空白を残らず取り除く",
}


def test_a_page_is_asked_for_by_what_it_says_of_itself_among_its_neighbours() -> None:
    rows = kinds(questions.exam_rows([man(*one) for one in PURPOSES.items()]))["man-name"]
    assert len(rows) == len(PURPOSES)
    for row in rows:
        (gold,) = row["document_ids"]
        name = Path(gold).name.removesuffix(".1.txt")
        right = row["choices"]["ABCD".index(row["answer"])]
        assert {right, row["question"]} & {f"{name}(1)", PURPOSES[name]} or name in row["question"]
        assert (PURPOSES[name] in row["question"]) == (right == f"{name}(1)")
        assert right in (f"{name}(1)", PURPOSES[name])


def test_two_pages_with_one_purpose_are_not_asked_for() -> None:
    both = dict(PURPOSES) | {"oru": PURPOSES["maku"]}
    rows = questions.exam_rows([man(*one) for one in both.items()])
    assert not [r for r in rows if {"manpages/man1/oru.1.txt"} & set(r.get("document_ids", ()))]


def test_the_wrong_options_of_an_option_are_those_of_its_page() -> None:
    said = {f"-{letter}": f"{word}ときの動きを決めます。" for letter, word in zip(
        "abcde", ("急ぐ", "静かな", "詳しい", "乾いた", "長い"), strict=True
    )}  # fmt: skip
    listed = "".join(f"       {o}     {text}余談。\n\n" for o, text in said.items())
    (row,) = kinds(questions.exam_rows([man("kiru", "切る", f"オプション\n{listed}")]))[
        "man-option"
    ]
    (option,) = re.findall(r"オプション (-\w) の", row["question"])
    assert row["choices"]["ABCD".index(row["answer"])] == said[option]
    assert set(row["choices"]) < set(said.values())


# ---- with the publishers' texts ------------------------------------------------------------------


@pytest.fixture(scope="module")
def every_page() -> list[Any]:
    assert DATA is not None
    rows = {name: prepare._rows(DATA / f"{name}.jsonl.gz") for name in pages.SOURCES}
    found: list[Any] = pages.read_pages(rows)
    return found


@pytest.fixture(scope="module")
def exam(every_page: list[Any]) -> list[Row]:
    made: list[Row] = questions.exam_rows(every_page)
    return made


@NEEDS_DATA
def test_the_exam_is_large_in_both_languages_and_never_ambiguous(exam: list[Row]) -> None:
    assert len(exam) >= 300 and len({row["question"] for row in exam}) == len(exam)
    japanese = sum(bool(re.search("[ぁ-ん]", row["question"])) for row in exam)
    assert 100 < japanese < len(exam) - 100
    assert set(Counter(row["topic"] for row in exam)) == set(questions.MOST)
    for row in exam:
        if row["form"] == "choice":
            folded = {option.casefold() for option in row["choices"]}
            assert len(row["choices"]) == len(folded) == 4 and row["answer"] in "ABCD"


@NEEDS_DATA
def test_the_answer_stands_in_the_page_that_the_question_names(
    every_page: list[Any], exam: list[Row]
) -> None:
    texts = {page.id: questions.flow(page.text) for page in every_page}
    for row in exam:
        if row["topic"] in ("unanswerable", "man-name"):
            continue
        answer = row["answer"]
        said = row["choices"]["ABCD".index(answer)] if row["form"] == "choice" else answer[0]
        assert questions.flow(said) in texts[row["document_ids"][0]], row["id"]


@NEEDS_DATA
def test_what_is_unanswerable_stands_nowhere(every_page: list[Any], exam: list[Row]) -> None:
    rows = kinds(exam)["unanswerable"]
    english = [row["question"] for row in rows if "PostgreSQL" in row["question"]]
    assert 0 < len(english) < len(rows)
    for question in english:
        (name,) = re.findall(r"parameter (\w+)", question)
        assert not any(name in page.text for page in every_page)


@NEEDS_DATA
def test_a_slice_is_a_project_that_can_be_read_and_is_the_same_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    said = prepare.prepare(DATA, first, 40)
    command = [sys.executable, MANUALS / "prepare.py", "--data", DATA, "--out", second]
    again = subprocess.run(  # another process: sets have another order there
        [*map(str, command), "--documents", "40"], capture_output=True, text=True, check=True
    )
    assert again.stdout.splitlines() == said
    files = {p.relative_to(first) for p in first.rglob("*") if p.is_file()}
    assert files == {p.relative_to(second) for p in second.rglob("*") if p.is_file()}
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)

    project = load_project(first / "tokka.yaml")
    read = read_corpus([first / "documents"], kept=tmp_path / "reading")
    documents = [row for row in read if isinstance(row, Document)]
    assert len(documents) == 40 + len(
        zipfile.ZipFile(first / "documents" / prepare.COPIES).namelist()
    )
    ids = {document.id for document in documents}
    imported = import_exam(first / "exam/domain.jsonl", "domain", "domain")
    assert imported.questions
    assert {name for q in imported.questions for name in q.document_ids} <= ids
    assert project.exams["retention"].role == "retention"


def test_old_pages_keep_their_encoding_where_it_has_their_signs() -> None:
    old = man("kiru", "ファイルの先頭だけを取り出す")
    page = replace(old, id="manpages/man8/kiru.8.txt")
    assert prepare.encoded(page).decode("euc_jp") == page.written
    assert prepare.encoded(old).decode() == old.written
    other = replace(page, written="kiru ‐ 𠮷\n😀")
    assert prepare.encoded(other).decode() == other.written


def test_one_copy_in_three_has_a_note() -> None:
    kept = [man(*one) for one in PURPOSES.items()]
    noted = [text.endswith(prepare.NOTE) for _, text in prepare.copies(kept)]
    assert noted == [True, False, False, True, False]


def test_a_parameter_that_exists_is_never_called_unanswerable() -> None:
    names = ("lock_wait_limit", "lock_wait_delay", "tea_pot_lid", "deep_sea_delay")
    names += ("deep_sea_limit", "salt_box_size")
    said = "".join(f"{name} (integer)\n\n The default is {n}2.\n\n" for n, name in enumerate(names))
    row = {"id": "usr/html/runtime-config-a.html", "title": "20.1. A", "text": said}
    made = questions.exam_rows(pages.read_pages({"postgresql-doc-15": [row]}))
    (only,) = kinds(made)["unanswerable"]  # lock_wait_delay and lock_wait_limit are there
    assert "tea_pot_size" in only["question"]


@NEEDS_DATA
def test_documents_of_somebody_else_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "mine.md").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match="isn't mine"):
        prepare.prepare(DATA, tmp_path, 5)
    assert [path.name for path in (tmp_path / "documents").iterdir()] == ["mine.md"]
