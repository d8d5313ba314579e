"""The real files of the suites, where they are at hand: every question is asked or named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokka.dataset.examples import read_examples
from tokka.exam.importing import read_exam
from tokka.exam.suites import suite
from tokka.exam.suites.building import build, write_all

DATA = Path(os.environ.get("TOKKA_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "folder", "split", "questions", "left_out"),
    [
        ("jcommonsenseqa", "jglue", "valid", 1119, 0),
        ("jsquad", "jglue", "valid", 4436, 6),
        ("jnli", "jglue", "valid", 2434, 0),
        ("jmmlu", "jmmlu", "test", 7072, 25),
        ("lawqa_jp", "lawqa_jp", "selection", 140, 0),
        ("lawqa_jp", "lawqa_jp", "with-reference-randomized", 560, 0),
        ("pubmedqa", "pubmedqa", "test", 500, 0),
        ("pubmedqa", "pubmedqa", "all", 1000, 0),
        ("gsm8k", "gsm8k", "test", 1319, 0),
    ],
)
def test_a_published_suite_builds_whole(
    name: str, folder: str, split: str, questions: int, left_out: int, tmp_path: Path
) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"public data not at hand: {DATA / folder} (set TOKKA_DATA)")
    found = suite(name)
    built = build(found, DATA / folder, split)
    assert (len(built.rows), len(built.dropped)) == (questions, left_out)
    write_all(built, tmp_path / "exam.jsonl", None)
    exam, _, _ = read_exam(tmp_path / "exam.jsonl", name, "domain", scorer=found.scorer)
    assert (exam.questions, exam.language) == (questions, found.language)


def test_the_published_training_split_becomes_examples(tmp_path: Path) -> None:
    if not (DATA / "jglue").is_dir():
        pytest.skip(f"public data not at hand: {DATA / 'jglue'} (set TOKKA_DATA)")
    built = build(suite("jcommonsenseqa"), DATA / "jglue", shots=True)
    assert len(built.examples) + len(built.examples_dropped) == 8939
    write_all(built, tmp_path / "exam.jsonl", tmp_path / "shots.jsonl")
    assert len(read_examples(tmp_path / "shots.jsonl")) == len(built.examples)
