"""Exam questions in documents and in training examples, as a step of the pipeline.

Documents (or examples) + the questions of all exams → `contamination.jsonl`, a line for each pair
that overlaps, and `counts.json` by kind. What is done about them is decided elsewhere: see
`documents_steps` and `dataset.vetting`.

>>> spoilt_documents(overlaps_of(build, prepared), gold={})
{'faq.md': 'domain/q1'}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tokka.pipeline import Build, asked_in_exams, embedder_name, embedder_of
from tokka.records import Document, Example, canonical_json
from tokka.store import count_lines, read_json, stream_records, write_json

DOCUMENTS, EXAMPLES, OVERLAPS = "documents.jsonl", "examples.jsonl", "contamination.jsonl"


def overlaps_of(build: Build, source: Path) -> Path:
    """Every pair of an exam question and a document (or training example) that overlap, as a step
    with `contamination.jsonl`. Paraphrases are looked for where an arm's search loads the embedder
    anyway."""
    dense = any(arm.retrieval and arm.retrieval.dense for arm in build.project.arms.values())

    def make(folder: Path) -> None:
        from dataclasses import asdict

        from tokka.dataset.contamination import contamination

        questions = asked_in_exams(build)
        embedder = embedder_of(build) if dense else None
        found: Counter[str] = Counter()
        with (
            build.observer.task("look for exam questions", _size(source)) as task,
            (folder / OVERLAPS).open("w", encoding="utf-8") as file,
        ):

            def texts() -> Iterator[tuple[str, str]]:
                for item, text in _texts(source):
                    yield item, text
                    task.advance()

            for one in contamination(questions, texts(), embedder=embedder):
                found[one.kind] += 1
                file.write(canonical_json(asdict(one)) + "\n")
        write_json(folder / "counts.json", found)

    inputs = {
        "source": build.workspace.digest(source),
        "exams": sorted(step.exam.digest for step in build.exams.values()),
        "embedder": embedder_name(build) if dense else "",
    }
    return build.step("overlaps", inputs, make)


def look_through_examples(build: Build) -> None:
    """Training examples that are near an exam question in words or in meaning: for a person to look
    at. Those in which a question stands were refused before."""
    if build.project.documents.contamination == "off":
        return
    for name, folder in build.examples.items():
        step = overlaps_of(build, folder)
        counts: dict[str, int] = read_json(step / "counts.json")
        if counts:
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))
            build.observer.notice(
                f"{name}: {sum(counts.values())} pairs with an exam question ({kinds}); look at "
                f"{step / OVERLAPS}"
            )


def _texts(source: Path) -> Iterator[tuple[str, str]]:
    if (source / DOCUMENTS).is_file():
        for document in stream_records(source / DOCUMENTS, Document):
            yield document.id, document.text
    else:
        for example in stream_records(source / EXAMPLES, Example):
            yield example.id, "\n".join(message.content for message in example.messages)


def _size(source: Path) -> int:
    file = source / DOCUMENTS
    return count_lines(file if file.is_file() else source / EXAMPLES)


def gold_documents(build: Build) -> dict[str, frozenset[str]]:
    """The documents that each question is asked about."""
    return {
        f"{step.name}/{question.id}": frozenset(question.document_ids)
        for step in build.exams.values()
        for question in step.questions()
    }


def spoilt_documents(overlaps: Path, gold: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Documents in which a question stands, with the first such question."""
    from tokka.dataset.contamination import LEAVES_OUT

    found: dict[str, str] = {}
    for line in (overlaps / OVERLAPS).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        question, item = row["question_id"], row["item_id"]
        if row["kind"] in LEAVES_OUT and item not in gold.get(question, ()):
            found.setdefault(item, question)
    return found
