"""From files to chunks: the pipeline's steps before anything is indexed or trained on.

    read → prepare (labels, cleaning, quality, personal data)
    → distinct (duplicates; exam questions, see `overlap_steps`) → chunk

Each step is a folder of JSON lines; what it leaves out stands in its `dropped.jsonl` with the
reason, and what it only noticed in files of its own (`quality.jsonl`, `personal.jsonl`). No step
holds all documents at once.

>>> read_and_chunk(build)
>>> build.chunks
PosixPath('.tokka/steps/chunk-1f0c…')
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.overlap_steps import DOCUMENTS, gold_documents, overlaps_of, spoilt_documents
from tokka.pipeline import (
    Build,
    example_files,
    preference_files,
    renderer_of,
)
from tokka.records import Chunk, Document, DocumentFacts, Dropped, canonical_json
from tokka.store import count_lines, stream_records, write_json, write_records

if TYPE_CHECKING:
    from tokka.corpus.labels import Labels
    from tokka.corpus.limits import ReadSettings
    from tokka.corpus.personal.protecting import Protector
    from tokka.project import Project

DROPPED = "dropped.jsonl"


def documents_of(build: Build, names: Sequence[str], *, learnt: bool = False) -> Path:
    """The documents under places of the project, ready for use, as a step's folder. From those
    that are to be `learnt`, the ones with exam questions are always left out."""
    return _distinct(build, _prepared(build, _read(build, names), names), learnt=learnt)


def read_and_chunk(build: Build) -> None:
    """Documents and chunks; nothing where the project has no corpus."""
    project = build.project
    if not project.corpus:
        return
    documents = documents_of(build, project.corpus)

    def make(folder: Path) -> None:
        from tokka.corpus.chunking import chunk

        count = renderer_of(build).count
        spec = project.chunks
        total = count_lines(documents / DOCUMENTS)
        with build.observer.task("chunk documents", total) as task:

            def chunks() -> Iterator[Chunk]:
                for document in stream_records(documents / DOCUMENTS, Document):
                    yield from chunk(document, spec.max_tokens, count, spec.overlap_sentences)
                    task.advance()

            write_records(folder / "chunks.jsonl", chunks())
        facts = (d.facts for d in stream_records(documents / DOCUMENTS, Document))
        write_records(folder / "facts.jsonl", facts)

    inputs = {
        "documents": build.workspace.digest(documents),
        "chunks": project.chunks.model_dump(),
        "tokenizer": build.base_digest,
    }
    build.chunks = build.step("chunk", inputs, make)
    build.documents = count_lines(documents / DOCUMENTS)


def facts_of(chunks: Path) -> dict[str, DocumentFacts]:
    """What a chunk step's folder knows of each document, by id."""
    return {f.document_id: f for f in stream_records(chunks / "facts.jsonl", DocumentFacts)}


def own_files(project: Project) -> set[Path]:
    """The project file, its exams and its examples: a key in the corpus would be an open book."""
    named = [spec.path for spec in project.exams.values()]
    named += example_files(project) + preference_files(project)
    return {project.file.resolve(), *(project.resolve(name).resolve() for name in named)}


# ---- read ---------------------------------------------------------------------------------------


def _read(build: Build, names: Sequence[str]) -> Path:
    from tokka.corpus.reading import files_state, read_corpus

    project = build.project
    settings = read_settings(project)
    places, skip, kept_out = places_of(project, names)

    def make(folder: Path) -> None:
        dropped = [
            Dropped(
                item=name,
                reason="this project's own exam, examples or project file: no arm may see it",
                stage="read",
                next_action="move it out of the corpus, or list it under skip",
            )
            for name in kept_out
        ]
        with build.observer.task("read documents", 1) as task:
            done = 0.0

            def progress(files: int, total: int) -> None:
                nonlocal done
                now = files / max(1, total)
                task.advance(now - done, f"{files:,} of {total:,} files")
                done = now

            rows = read_corpus(
                places,
                skip,
                kept=build.workspace.root / "reading",
                settings=settings,
                progress=progress,
            )
            _write(folder, _sorted_out(rows, dropped), dropped)

    inputs: dict[str, Any] = {
        "files": files_state(places, skip, settings),
        "ocr": settings.ocr,
        "max_file_megabytes": settings.max_file_megabytes,
        "max_pages": settings.max_pages,
        "kept_out": kept_out,
    }
    return _step(build, "read", inputs, make)


def places_of(project: Project, names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Where to read, which ids to skip, and the ids among these that are the project's own."""
    from tokka.corpus.places import list_places
    from tokka.corpus.reading import resolve

    places = [resolve(name, project.root) for name in names]
    own = own_files(project)
    kept_out = [
        one.id
        for one in list_places(places, project.skip, read_settings(project)).found
        if not one.origin and Path(one.path).resolve() in own
    ]
    return places, [*project.skip, *map(glob.escape, kept_out)], kept_out


def read_settings(project: Project) -> ReadSettings:
    from tokka.corpus.limits import ReadSettings

    spec = project.documents
    return ReadSettings(
        ocr=spec.ocr,
        max_file_megabytes=spec.max_file_megabytes,
        max_pages=spec.max_pages,
        storage_options=spec.storage_options,
    )


def _sorted_out(rows: Iterable[Document | Dropped], dropped: list[Dropped]) -> Iterator[Document]:
    for row in rows:
        if isinstance(row, Document):
            yield row
        else:
            dropped.append(row)


# ---- prepare ------------------------------------------------------------------------------------


def _prepared(build: Build, read: Path, names: Sequence[str]) -> Path:
    project, spec = build.project, build.project.documents
    labels = labels_of(project, names)
    protector = _protector(project)

    def make(folder: Path) -> None:
        from tokka.corpus.cleaning import clean
        from tokka.corpus.language import UNDECIDED
        from tokka.corpus.quality import faults, summary

        dropped: list[Dropped] = list(labels.unused)
        changes: Counter[str] = Counter()
        found_faults: list[Any] = []
        total = count_lines(read / DOCUMENTS)
        with (
            build.observer.task("prepare documents", total) as task,
            (folder / "quality.jsonl").open("w", encoding="utf-8") as quality,
            (folder / "personal.jsonl").open("w", encoding="utf-8") as personal,
        ):

            def sound() -> Iterator[Document]:
                for document in stream_records(read / DOCUMENTS, Document):
                    task.advance()
                    labelled = labels.label(document)
                    if isinstance(labelled, Dropped):
                        dropped.append(labelled)
                        continue
                    document = labelled
                    if document.language == UNDECIDED:  # 規程: Chinese as well as Japanese
                        update = {"language": project.language}
                        document = document.model_copy(update=update)
                    if spec.clean:
                        cleaned = clean(document)
                        changes.update(cleaned.changes)
                        document = cleaned.document
                    wrong = faults(document) if spec.quality != "off" else []
                    for fault in wrong:
                        row = {"document": document.id, "rule": fault.rule, "reason": fault.reason}
                        quality.write(canonical_json(row) + "\n")
                    found_faults.extend(wrong)
                    if wrong and spec.quality == "drop":
                        dropped.append(_dropped(document, wrong[0].reason, "quality"))
                    elif not document.text.strip():
                        dropped.append(_dropped(document, "nothing is left of its text", "clean"))
                    else:
                        yield document

            def protected() -> Iterator[Document]:
                if protector is None:
                    yield from sound()
                    return
                before: list[Document] = []

                def remembered() -> Iterator[Document]:
                    for document in sound():
                        before.append(document)
                        yield document

                for one in protector.protect_all(remembered()):
                    original = before.pop(0)
                    for finding, page in zip(one.findings, one.pages(original), strict=True):
                        row = {"document": original.id, "kind": finding.kind, "page": page}
                        personal.write(canonical_json(row) + "\n")
                    yield one.document

            _write(folder, protected(), dropped)
        write_json(folder / "prepared.json", {"changes": changes, "faults": summary(found_faults)})

    inputs = {
        "documents": build.workspace.digest(read),
        "clean": spec.clean,
        "quality": spec.quality,
        "personal_data": spec.personal_data,
        "key": _key_digest(project),
        "labels": labels.digest,
        "language": project.language,
    }
    return _step(build, "prepare", inputs, make)


def labels_of(project: Project, names: Sequence[str]) -> Labels:
    from tokka.corpus.labels import read_labels
    from tokka.corpus.reading import resolve

    rules = [rule.model_dump() for rule in project.documents.labels]
    places = [resolve(name, project.root) for name in names]
    return read_labels(places, rules, read_settings(project))


def _protector(project: Project) -> Protector | None:
    spec = project.documents
    if spec.personal_data == "off":
        return None
    from tokka.corpus.personal.protecting import Protector

    return Protector(spec.personal_data, _key(project))


def _key(project: Project) -> bytes | None:
    said = os.environ.get(project.documents.pseudonym_key_env)
    return said.encode() if said else None


def _key_digest(project: Project) -> str:
    """Tells keys apart in a step's inputs, since another key gives other pseudonyms. 32 bits are
    enough for that; a key that somebody can guess is no protection, whatever is written here."""
    import hashlib
    import hmac

    key = _key(project)
    if project.documents.personal_data != "pseudonymise" or key is None:
        return ""
    return hmac.new(key, b"tokka: which key was this", hashlib.sha256).hexdigest()[:8]


# ---- distinct -----------------------------------------------------------------------------------


def _distinct(build: Build, prepared: Path, *, learnt: bool) -> Path:
    """Without documents that say what an earlier one says, or what an exam asks. A question's own
    document may hold its words, where it is only searched."""
    spec = build.project.documents
    how = "drop" if learnt and spec.contamination != "off" else spec.contamination
    overlaps = None if how == "off" else overlaps_of(build, prepared)

    def make(folder: Path) -> None:
        from tokka.corpus.duplicates import distinct

        dropped: list[Dropped] = []
        spoilt: dict[str, str] = {}
        if how == "drop" and overlaps is not None:
            spoilt = spoilt_documents(overlaps, {} if learnt else gold_documents(build))
        with build.observer.task("compare documents", count_lines(prepared / DOCUMENTS)) as task:

            def clean() -> Iterator[Document]:
                for document in stream_records(prepared / DOCUMENTS, Document):
                    task.advance()
                    if document.id in spoilt:
                        reason = f"exam question {spoilt[document.id]} stands in it"
                        dropped.append(_dropped(document, reason, "contamination"))
                    else:
                        yield document

            def kept() -> Iterator[Document]:
                near = spec.near_duplicates
                for document, of in distinct(clean(), near, build.workspace.root):
                    if of is None or not of.same_numbers:
                        yield document
                        continue
                    share = (
                        "the same as" if of.kind == "exact" else f"{of.similarity:.0%} the same as"
                    )
                    dropped.append(_dropped(document, f"says {share} {of.of}", "duplicates"))

            _write(folder, kept(), dropped)

    inputs = {
        "documents": build.workspace.digest(prepared),
        "near_duplicates": spec.near_duplicates,
        "contamination": how,
        "learnt": learnt,
        "overlaps": build.workspace.digest(overlaps) if overlaps and how == "drop" else "",
    }
    return _step(build, "distinct", inputs, make)


# ---- all of them --------------------------------------------------------------------------------


def _step(build: Build, name: str, inputs: dict[str, Any], make: Callable[[Path], None]) -> Path:
    folder = build.step(name, inputs, make)
    build.drop(folder / DROPPED)
    return folder


def _write(folder: Path, documents: Iterable[Document], dropped: list[Dropped]) -> None:
    """`dropped` is filled while the documents are written, and written after them."""
    write_records(folder / DOCUMENTS, documents)
    write_records(folder / DROPPED, dropped)


def _dropped(document: Document, reason: str, stage: str) -> Dropped:
    actions = {
        "quality": "mend it, list it under skip, or set documents: quality: report",
        "clean": "list it under skip, or set documents: clean: false",
        "contamination": "reword the question, or set documents: contamination: report",
        "duplicates": "nothing, or set documents: near_duplicates to null to keep both",
    }
    return Dropped(item=document.id, reason=reason, stage=stage, next_action=actions[stage])
