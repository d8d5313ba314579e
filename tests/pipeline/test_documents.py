"""From files to an index: what each step keeps, what it leaves out, and what a change costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tokka import index_steps
from tokka.documents_steps import documents_of, facts_of, read_and_chunk
from tokka.errors import IntegrityError, UsageError
from tokka.index_steps import index_of
from tokka.overlap_steps import look_through_examples
from tokka.pipeline import Build
from tokka.project import load_project
from tokka.records import Caller, Document, Dropped, Example, Message, RetrievalSpec
from tokka.store import Workspace, read_json, read_records, write_records

for needed in ("numpy", "sudachipy", "snowballstemmer"):
    pytest.importorskip(needed, reason="needs tokka[retrieval]")

WORDS = RetrievalSpec(dense=False, top_k=10)
RULES = {
    "loans.md": "# Loans\n\nA loan of the credit union is at most 300 crowns.\n\n"
    "## Terms\n\nIt is paid back within 24 months, in equal parts.\n",
    "fees.md": "# Fees\n\nA transfer costs 2 crowns at the counter.\n",
    "hours.md": "# Hours\n\nThe office opens at nine and shuts at five on weekdays.\n",
}


class Listener:
    """Hears what a run says and nothing else."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def task(self, label: str, total: float | None) -> Any:
        return nullcontext(self)

    def advance(self, n: float = 1, note: str = "") -> None: ...

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Callable[..., Build]]:
    """A project with `RULES`; called with what `documents:` says, as YAML."""
    (tmp_path / "documents").mkdir()
    for name, text in RULES.items():
        (tmp_path / "documents" / name).write_text(text)
    (tmp_path / "exam.jsonl").write_text(
        '{"id": "q1", "question": "How many crowns does a transfer cost at the counter?", '
        '"answer": "2", "form": "number", "document_ids": ["fees.md"]}\n'
    )

    def opened(documents: str = "{}") -> Build:
        (tmp_path / "tokka.yaml").write_text(
            "name: office\nlanguage: en\nbase_model: http://127.0.0.1:9/v1#none\n"
            f"corpus: [documents/]\ndocuments: {documents}\nchunks: {{max_tokens: 24}}\n"
            "exams:\n  domain: {path: exam.jsonl, role: domain}\narms:\n  base: {}\n"
        )
        project = load_project(tmp_path)
        workspace = Workspace(project.root / ".tokka")
        workspace.prepare()
        build = Build(project, workspace, Listener())
        from tokka.pipeline import _exam

        build.exams["domain"] = _exam(build, "domain")
        return build

    yield opened


def steps(build: Build) -> set[str]:
    return {path.name for path in build.workspace.finished()}


def said(build: Build) -> list[tuple[str, str, str]]:
    return [(one.item, one.stage, one.reason) for one in build.dropped]


def found(build: Build, folder: Path, query: str, caller: Caller | None = None) -> list[str]:
    from tokka.retrieval.hybrid import open_index

    with open_index(folder, None) as index:
        passages = index.search(query, 10, WORDS, caller or Caller())
    return [f"{p.document_id} {p.start} {p.score:.6f} {p.lexical}" for p in passages]


def kept(folder: Path) -> list[str]:
    return [document.id for document in read_records(folder / "documents.jsonl", Document)]


def test_documents_become_chunks_with_their_facts_and_a_second_run_does_nothing(
    office: Callable[..., Build],
) -> None:
    build = office()
    read_and_chunk(build)
    index_of(build, WORDS)
    assert build.documents == 3 and build.chunks is not None
    facts = facts_of(build.chunks)
    assert facts["loans.md"].title == "Loans"
    before = steps(build)
    again = office()
    read_and_chunk(again)
    index_of(again, WORDS)
    assert steps(again) == before


def test_a_change_makes_the_index_that_a_fresh_one_would_be(
    office: Callable[..., Build], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_steps, "_MOST_CHANGED", 10)  # of few documents all may change
    sections = [f"## Rule {n}\n\nWhoever is late {n} times pays {n} crowns.\n" for n in range(12)]
    (tmp_path / "documents" / "rules.md").write_text("# Rules\n\n" + "\n".join(sections))
    build = office()
    read_and_chunk(build)
    first = index_of(build, WORDS)
    documents = tmp_path / "documents"
    (documents / "fees.md").write_text("# Fees\n\nA transfer costs 3 crowns at the counter.\n")
    (documents / "cards.md").write_text("# Cards\n\nA lost card costs 10 crowns.\n")
    (documents / "hours.md").unlink()
    changed = office()
    (documents / "more.md").write_text("# More\n\nA loan may be paid back early.\n")
    read_and_chunk(changed)
    second = index_of(changed, WORDS)
    linked = {p.stat().st_ino for p in first.rglob("*") if p.is_file()}
    assert linked & {p.stat().st_ino for p in second.rglob("*") if p.is_file()}
    digest = changed.workspace.digest(second)
    build.workspace.check(first)  # what it shares is as it was

    shutil.rmtree(tmp_path / ".tokka")
    fresh = office()
    read_and_chunk(fresh)
    afresh = index_of(fresh, WORDS)
    assert fresh.workspace.digest(afresh) == digest
    assert read_json(afresh / "content.json")["chunks"] >= 4


def test_a_changed_index_answers_like_a_fresh_one_and_has_its_digest(
    office: Callable[..., Build], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = office()
    read_and_chunk(build)
    index_of(build, WORDS)
    (tmp_path / "documents" / "cards.md").write_text("# Cards\n\nA lost card costs 10 crowns.\n")
    build = office()
    read_and_chunk(build)
    changed = index_of(build, WORDS)
    answers = [found(build, changed, query) for query in ("crowns", "lost card", "opens at nine")]
    digest = build.workspace.digest(changed)
    shutil.rmtree(changed)
    monkeypatch.setattr(index_steps, "_nearest", lambda *_: (None, (set(), set())))
    fresh = index_of(build, WORDS)
    assert answers == [
        found(build, fresh, query) for query in ("crowns", "lost card", "opens at nine")
    ]
    assert build.workspace.digest(fresh) == digest


def test_a_change_that_was_cut_off_is_made_again(
    office: Callable[..., Build], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokka.retrieval import building

    build = office()
    read_and_chunk(build)
    index_of(build, WORDS)
    (tmp_path / "documents" / "cards.md").write_text("# Cards\n\nA lost card costs 10 crowns.\n")
    build = office()
    read_and_chunk(build)
    whole = building._commit

    def cut_off(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "_commit", cut_off)
    with pytest.raises(KeyboardInterrupt):
        index_of(build, WORDS)
    monkeypatch.setattr(building, "_commit", whole)
    assert found(build, index_of(build, WORDS), "lost card")[0].startswith("cards.md")


def test_a_damaged_index_is_no_start_for_a_new_one(
    office: Callable[..., Build], tmp_path: Path
) -> None:
    build = office()
    read_and_chunk(build)
    first = index_of(build, WORDS)
    largest = max(first.glob("part-*/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"x" * largest.stat().st_size)
    (tmp_path / "documents" / "cards.md").write_text("# Cards\n\nA lost card costs 10 crowns.\n")
    build = office()
    read_and_chunk(build)
    assert found(build, index_of(build, WORDS), "lost card")[0].startswith("cards.md")
    with pytest.raises(IntegrityError):
        build.workspace.check(first)


def test_copies_are_left_out_and_prices_of_another_year_are_not(
    office: Callable[..., Build], tmp_path: Path
) -> None:
    documents = tmp_path / "documents"
    lines = [f"A transfer to branch {n} costs {n} crowns at the counter.\n" for n in range(40)]
    (documents / "list-2025.md").write_text("# Prices\n\n" + "".join(lines))
    (documents / "list-2026.md").write_text("# Prices\n\n" + "".join(lines) + "Of 2026.\n")
    (documents / "list-copy.md").write_text("# Prices\n\n" + "".join(lines))
    build = office()
    folder = documents_of(build, build.project.corpus)
    assert "list-copy.md" not in kept(folder)
    assert {"list-2025.md", "list-2026.md"} <= set(kept(folder))
    assert ("list-copy.md", "duplicates", "says the same as list-2025.md") in said(build)


def test_exam_questions_in_documents_are_told_and_left_out_where_they_would_be_learnt(
    office: Callable[..., Build], tmp_path: Path
) -> None:
    (tmp_path / "documents" / "faq.md").write_text(
        "# FAQ\n\nHow many crowns does a transfer cost at the counter? It costs 2 crowns.\n"
    )
    build = office()
    folder = documents_of(build, build.project.corpus)
    assert "faq.md" in kept(folder)
    (found_in,) = build.workspace.steps.glob("overlaps-*")
    lines = (found_in / "contamination.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["question_id"], row["item_id"]) for row in rows] == [("domain/q1", "faq.md")]
    assert rows[0]["overlap"] > 0.9
    learnt = documents_of(build, build.project.corpus, learnt=True)
    assert "faq.md" not in kept(learnt) and "fees.md" in kept(learnt)
    assert ("faq.md", "contamination", "exam question domain/q1 stands in it") in said(build)
    dropped = office("{contamination: drop}")
    assert "faq.md" not in kept(documents_of(dropped, dropped.project.corpus))
    off = office("{contamination: 'off'}")
    assert "faq.md" in kept(documents_of(off, off.project.corpus, learnt=True))


def test_examples_near_an_exam_question_are_told(office: Callable[..., Build]) -> None:
    build = office()
    asked = "Tell me: how many crowns does a transfer cost at the counter of the old town?"
    example = Example(
        id="e1",
        messages=(Message(role="user", content=asked), Message(role="assistant", content="2")),
    )
    folder = build.step("examples", {}, lambda f: write_records(f / "examples.jsonl", [example]))
    build.examples["examples.jsonl"] = folder
    look_through_examples(build)
    (notice,) = build.observer.notices  # type: ignore[attr-defined]
    assert notice.startswith("examples.jsonl: 1 pairs with an exam question (")
    off = office("{contamination: 'off'}")
    off.examples = build.examples
    look_through_examples(off)
    assert not off.observer.notices  # type: ignore[attr-defined]


def test_a_questions_own_document_stays_where_it_is_searched(
    office: Callable[..., Build], tmp_path: Path
) -> None:
    text = "# Fees\n\nHow many crowns does a transfer cost at the counter? It costs 2 crowns.\n"
    (tmp_path / "documents" / "fees.md").write_text(text)
    build = office("{contamination: drop}")
    assert "fees.md" in kept(documents_of(build, build.project.corpus))
    assert "fees.md" not in kept(documents_of(build, build.project.corpus, learnt=True))


def test_labels_reach_the_search(office: Callable[..., Build], tmp_path: Path) -> None:
    build = office("{labels: [{match: 'fees*', access: [counter], licence: CC0}]}")
    read_and_chunk(build)
    folder = index_of(build, WORDS)
    assert build.chunks is not None
    assert facts_of(build.chunks)["fees.md"].licence == "CC0"
    assert found(build, folder, "transfer", Caller(labels=("counter",)))
    assert not found(build, folder, "transfer", Caller(labels=()))
    assert found(build, folder, "transfer")


def test_a_sidecar_that_cannot_be_read_hides_its_document(
    office: Callable[..., Build], tmp_path: Path
) -> None:
    (tmp_path / "documents" / "fees.md.tokka.yaml").write_text("access: [counter\n")
    build = office()
    assert "fees.md" not in kept(documents_of(build, build.project.corpus))
    assert any(item == "fees.md" for item, _, _ in said(build))


def test_personal_data_is_masked_before_anything_else_sees_it(
    office: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokka.corpus.personal import protecting
    from tokka.corpus.personal.findings import Finding

    class Masking:
        def __init__(self, mode: str, key: bytes | None) -> None:
            assert (mode, key) == ("mask", None)

        def protect_all(self, documents: Any) -> Any:
            for document in documents:
                at = document.text.find("counter")
                spots = () if at < 0 else (Finding("name", at, at + 7, 1.0),)  # type: ignore[arg-type]
                text = document.text.replace("counter", "[NAME]")
                yield protecting.Protected(document.model_copy(update={"text": text}), spots)

    monkeypatch.setattr(protecting, "Protector", Masking)
    build = office("{personal_data: mask}")
    read_and_chunk(build)
    index_of(build, WORDS)
    folder = documents_of(build, build.project.corpus)
    assert any("[NAME]" in d.text for d in read_records(folder / "documents.jsonl", Document))
    for path in (*build.workspace.steps.glob("prepare-*"), *build.workspace.steps.glob("index-*")):
        for file in filter(Path.is_file, path.rglob("*")):
            assert b"counter" not in file.read_bytes(), file
    (prepared,) = build.workspace.steps.glob("prepare-*")
    (row,) = (prepared / "personal.jsonl").read_text().splitlines()
    assert json.loads(row) == {"document": "fees.md", "kind": "name", "page": None}


def test_a_pseudonym_key_is_asked_for_and_never_written(
    office: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKKA_PSEUDONYM_KEY", raising=False)
    build = office("{personal_data: pseudonymise}")
    with pytest.raises(UsageError, match="pseudonymise needs a key"):
        documents_of(build, build.project.corpus)
    from tokka.corpus.personal.protecting import Protector

    monkeypatch.setattr(Protector, "find_all", lambda self, texts, language: [[] for _ in texts])
    monkeypatch.setenv("TOKKA_PSEUDONYM_KEY", "a long secret that nobody knows")
    documents_of(build, build.project.corpus)
    for file in filter(Path.is_file, build.workspace.root.rglob("*")):
        assert b"a long secret" not in file.read_bytes(), file
    before = {name for name in steps(build) if name.startswith("prepare-")}
    monkeypatch.setenv("TOKKA_PSEUDONYM_KEY", "another secret that nobody knows")
    documents_of(build, build.project.corpus)
    assert {name for name in steps(build) if name.startswith("prepare-")} > before


def test_damaged_documents_are_reported_or_dropped(
    office: Callable[..., Build], tmp_path: Path
) -> None:
    broken = "縺薙ｌ縺ｯ譁\x87蟄怜喧縺代〒縺吶\n" * 20
    (tmp_path / "documents" / "broken.md").write_text(broken)
    build = office()
    folder = documents_of(build, build.project.corpus)
    assert "broken.md" in kept(folder)
    (prepared,) = build.workspace.steps.glob("prepare-*")
    rows = [json.loads(line) for line in (prepared / "quality.jsonl").read_text().splitlines()]
    assert {row["document"] for row in rows} == {"broken.md"}
    strict = office("{quality: drop}")
    assert "broken.md" not in kept(documents_of(strict, strict.project.corpus))
    assert any(d.item == "broken.md" and d.stage == "quality" for d in strict.dropped)
    assert all(isinstance(d, Dropped) for d in strict.dropped)
