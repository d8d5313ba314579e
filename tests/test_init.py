"""`tokka init`: what it finds in a folder, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokka.errors import UsageError
from tokka.exam.importing import read_exam
from tokka.initialising import DEFAULT_MODELS, plan_init, write_init
from tokka.project import load_project
from tokka.records import Role

JAPANESE = "# 貸出規程\n\n住宅ローンの上限は三千万円とする。支店長が決裁する。\n"
ENGLISH = "# Loan rules\n\nThe limit of a housing loan is 30 million yen. The manager decides.\n"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("text", "language"), [(JAPANESE, "ja"), (ENGLISH, "en")])
def test_the_written_project_has_no_mistake(tmp_path: Path, text: str, language: str) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "loans.md").write_text(text, encoding="utf-8")
    write_init(plan_init(tmp_path))
    project = load_project(tmp_path)
    assert project.language == language
    assert project.base_model == DEFAULT_MODELS[project.language]
    assert project.corpus == ("documents/",)
    assert project.arms["few-shot"].prompt.shots_from == "examples.jsonl"


@pytest.mark.parametrize("language", ["ja", "en"])
def test_the_arms_that_are_commented_out_are_sound_too(tmp_path: Path, language: str) -> None:
    write_init(plan_init(tmp_path, language))
    file = tmp_path / "tokka.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  # lora:"))
    lines[start:] = [line.replace("  # ", "  ", 1) for line in lines[start:]]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert set(load_project(file).arms) == {"base", "few-shot", "rag", "lora", "lora-rag"}


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("role", ["domain", "retention"])
def test_the_starter_exams_can_be_sat(tmp_path: Path, language: str, role: Role) -> None:
    write_init(plan_init(tmp_path, language))
    _, questions, _ = read_exam(tmp_path / "exam" / f"{role}.jsonl", role, role)
    assert {question.form for question in questions} >= {"choice", "number"}
    assert any(question.split == "test" for question in questions)


def test_documents_beside_the_project_file_are_read_without_its_own_files(tmp_path: Path) -> None:
    from tokka.corpus.reading import files

    (tmp_path / "loans.txt").write_text(JAPANESE, encoding="utf-8")
    (tmp_path / "photo.raw").write_bytes(b"\x00")
    plan = plan_init(tmp_path)
    assert (dict(plan.counts), dict(plan.unread)) == ({".txt": 1}, {".raw": 1})
    write_init(plan)
    project = load_project(tmp_path)
    corpus = files([project.resolve(entry) for entry in project.corpus], project.skip)
    assert [name for name, _ in corpus] == ["loans.txt", "photo.raw"]


def test_planning_again_counts_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "loans.txt").write_text(JAPANESE, encoding="utf-8")
    plan = plan_init(tmp_path)
    write_init(plan)
    again = plan_init(tmp_path)
    assert again.counts == plan.counts
    assert not again.files and set(again.kept) == set(plan.files)


def test_nothing_that_exists_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "domain.jsonl").write_text('{"mine": 1}\n')
    plan = plan_init(tmp_path)
    assert plan.kept == ("exam/domain.jsonl",)
    (tmp_path / "examples.jsonl").write_text("appeared meanwhile\n")
    written = {path.name for path in write_init(plan)}
    assert written == {"tokka.yaml", "retention.jsonl"}
    assert (tmp_path / "exam" / "domain.jsonl").read_text() == '{"mine": 1}\n'
    assert (tmp_path / "examples.jsonl").read_text() == "appeared meanwhile\n"


def test_a_plan_alone_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "loans.txt").write_text(JAPANESE, encoding="utf-8")
    before = tree(tmp_path)
    plan_init(tmp_path)
    assert tree(tmp_path) == before


def test_an_empty_folder_gets_a_folder_for_documents(tmp_path: Path) -> None:
    folder = tmp_path / "new project"
    write_init(plan_init(folder))
    assert (folder / "documents").is_dir()
    assert load_project(folder).name == "new-project"


def test_at_most_two_things_are_asked_and_only_when_somebody_is_there(tmp_path: Path) -> None:
    asked = []

    def ask(question: str, choices: tuple[str, ...], default: str) -> str:
        asked.append(question)
        return choices[-1]

    plan = plan_init(tmp_path, ask=ask)
    assert asked == ["language", "base model"]
    assert (plan.language, plan.base_model) == ("en", "embedded:smollm2-135m-instruct")
    plan_init(tmp_path, "ja", "model.gguf", ask=ask)
    assert len(asked) == 2


def test_one_document_in_another_language_does_not_decide(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.md").write_text(JAPANESE, encoding="utf-8")
    (tmp_path / "d.md").write_text(ENGLISH, encoding="utf-8")
    assert plan_init(tmp_path).language == "ja"


def test_a_broken_document_does_not_stop_the_plan(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (tmp_path / "empty.md").write_bytes(b"")
    assert dict(plan_init(tmp_path).counts) == {".pdf": 1, ".md": 1}


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "loans.md"
    file.write_text(ENGLISH)
    with pytest.raises(UsageError, match="name the folder"):
        plan_init(file)
    with pytest.raises(UsageError, match="language must be ja or en, got 'fr'"):
        plan_init(tmp_path, "fr")


def test_starter_examples_repeat_no_starter_question(tmp_path: Path) -> None:
    for language in ("ja", "en"):
        folder = tmp_path / language
        write_init(plan_init(folder, language))
        rows = [
            json.loads(line)
            for name in ("exam/domain.jsonl", "exam/retention.jsonl", "examples.jsonl")
            for line in (folder / name).read_text(encoding="utf-8").splitlines()
        ]
        asked = [row.get("question") or row["messages"][0]["content"] for row in rows]
        assert len(set(asked)) == len(asked) == 10
