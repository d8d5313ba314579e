"""Everything that serves and proves a release, in one folder of its own.

    folder = assemble(build, candidate, exported, also, reexams, facts)

    MODEL-VERSION/release.json           what is released, with every file's digest
                  workspace/steps/…      weights, index and examples, as the exam opened them
                  exam/                  the results, the examined candidate, the second sitting
                  artefacts/FORMAT/      other formats, examined too, but not served
                  Modelfile              of a GGUF, for Ollama

The folder appears whole or not at all, and holds no link out of it. `act.json` and `head.json` may
be put into it afterwards; `Release.files` lists every file but these and release.json.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokka.errors import IntegrityError, UsageError
from tokka.exporting import MODELFILE, Exported, copy_model, modelfile_of
from tokka.models.opening import kind
from tokka.records import Candidate, Verdict
from tokka.release.reading import RELEASE, read_release
from tokka.release.records import Artefact, Format, Reexam, Release
from tokka.store import locked, sha256_file, write_json, write_records, write_text

if TYPE_CHECKING:
    from tokka.pipeline import Build, Sat

UNSEEN = "unknown: the service doesn't say what it computes with, and may change it at any time"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a release says beside its files. `results` is the results.json that the gate read."""

    model: str
    version: int
    verdict: Verdict
    results: Path
    base_licence: str
    terms: tuple[str, ...]
    built_by: str
    built_at: str


def release_folder(build: Build, model: str, version: int) -> Path:
    return build.workspace.root / "releases" / f"{model}-{version}"


def assemble(
    build: Build,
    candidate: Candidate,
    served: Exported,
    also: Sequence[Exported],
    reexams: Mapping[Format, Reexam],
    facts: Facts,
) -> Path:
    """Write the release's folder; one that is there already for the same candidates is kept.

    `reexams` holds one of each exported format. Raises IntegrityError where the folder holds
    another release or was changed, UsageError for a reexamination that failed or a file of the
    project that lies outside of it.
    """
    for exported in (served, *also):
        _refuse_unexamined(exported, reexams)
    target = release_folder(build, facts.model, facts.version)
    with locked(build.workspace.root / "locks" / f"release-{target.name}.lock"):
        if target.exists():
            _refuse_another(target, candidate, served)
            return target
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of an assembly that was killed
        partial.mkdir(parents=True)
        _copy_steps(build, served.served, partial)
        _copy_files(build, served.served, partial)
        _write_exam(build, candidate, (served, *also), reexams, facts, partial)
        artefacts = [_served_artefact(build, candidate, served, reexams, partial)]
        artefacts += [_other_artefact(build, candidate, one, reexams, partial) for one in also]
        release = Release(
            model=facts.model,
            version=facts.version,
            candidate=candidate,
            served=served.served,
            serves=served.format,
            artefacts=tuple(artefacts),
            project_digest=build.project.digest,
            results_digest=sha256_file(facts.results),
            exams={name: step.exam.digest for name, step in build.exams.items()},
            verdict=facts.verdict,
            base_licence=facts.base_licence,
            terms=facts.terms,
            built_by=facts.built_by,
            built_at=facts.built_at,
            language=build.project.language,
            files=_digests(partial, partial),
        )
        write_json(partial / RELEASE, release)
        os.replace(partial, target)
    return target


def _refuse_unexamined(exported: Exported, reexams: Mapping[Format, Reexam]) -> None:
    reexam = reexams.get(exported.format)
    if reexam is None or reexam.faults or reexam.candidate_id != exported.served.id:
        why = "; ".join(reexam.faults) if reexam and reexam.faults else "it wasn't examined again"
        raise UsageError(
            f"release: the {exported.format} of {exported.served.arm.name} can't be shipped: {why}"
        )


def _refuse_another(folder: Path, candidate: Candidate, served: Exported) -> None:
    found = read_release(folder)
    if (found.candidate.id, found.served.id) != (candidate.id, served.served.id):
        raise IntegrityError(
            f"{folder}: holds the candidate {found.candidate.id} already; a version is never used "
            "twice: release under the next one"
        )


def _copy_steps(build: Build, served: Candidate, out: Path) -> None:
    from tokka.candidates.opening import artifact

    for name in ("weights", "index", "examples"):
        step = artifact(served, name, build.workspace)
        if step is not None:
            build.workspace.check(step)
            shutil.copytree(step, out / "workspace" / "steps" / step.name)


def _copy_files(build: Build, served: Candidate, out: Path) -> None:
    """What the search reads from the project's folder: synonyms, a reranker, an embedder."""
    spec, project = served.arm.retrieval, build.project
    if spec is None:
        return
    named = [spec.synonyms, spec.reranker if spec.rerank == "cross-encoder" else ""]
    if (
        spec.dense
        and kind(project.embedder) == "folder"
        and project.resolve(project.embedder).is_dir()
    ):
        named.append(project.embedder)
    for relative in filter(None, named):
        source = project.resolve(relative)
        target = (out / relative).resolve()
        if not target.is_relative_to(out.resolve()) or not source.exists():
            raise UsageError(
                f"release: {relative} isn't in the project's folder, so a release can't hold it; "
                "move it there and correct the project file"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def _write_exam(
    build: Build,
    candidate: Candidate,
    every: Sequence[Exported],
    reexams: Mapping[Format, Reexam],
    facts: Facts,
    out: Path,
) -> None:
    from tokka.exam.sitting import score_all

    folder = out / "exam"
    folder.mkdir()
    shutil.copyfile(facts.results, folder / "results.json")
    # What they took, what they were made from and with what.
    for beside in ("timings.json", "evidence.json", "reproduction.json"):
        if facts.results.with_name(beside).is_file():
            shutil.copyfile(facts.results.with_name(beside), folder / beside)
    if facts.results.with_name("scores").is_dir():
        shutil.copytree(facts.results.with_name("scores"), folder / "scores")
    write_json(folder / "candidate.json", candidate)
    for exported in every:
        own = folder / exported.format
        write_json(own / "reexam.json", reexams[exported.format])
        for sat in _sittings(build, exported):
            scores = score_all(sat.exam.exam, sat.questions, sat.exam.keys(), sat.answers)
            write_records(own / sat.exam.name / "answers.jsonl", sat.answers)
            write_records(own / sat.exam.name / "scores.jsonl", scores)


def _sittings(build: Build, exported: Exported) -> list[Sat]:
    """All are finished: no model is opened."""
    from tokka.pipeline import Models, sit_exam

    models = Models(build)
    try:
        return [sit_exam(build, exported.served, e, models, None) for e in build.exams.values()]
    finally:
        models.close()


def _served_artefact(
    build: Build,
    candidate: Candidate,
    exported: Exported,
    reexams: Mapping[Format, Reexam],
    out: Path,
) -> Artefact:
    place = out
    if exported.folder is not None:
        place = out / "workspace" / "steps" / exported.folder.name
        path = f"./{place.relative_to(out).as_posix()}/"
        _write_modelfile(build, candidate, exported, out, path)
    files = _digests(place, out) if exported.folder is not None else {}
    return _artefact(build, exported, reexams, files, out)


def _other_artefact(
    build: Build,
    candidate: Candidate,
    exported: Exported,
    reexams: Mapping[Format, Reexam],
    out: Path,
) -> Artefact:
    place = out / "artefacts" / exported.format
    assert exported.folder is not None  # an endpoint has no other format
    copy_model(exported.folder, place)
    _write_modelfile(build, candidate, exported, place, "./")
    return _artefact(build, exported, reexams, _digests(place, out), out)


def _write_modelfile(
    build: Build, candidate: Candidate, exported: Exported, folder: Path, path: str
) -> None:
    if not exported.is_gguf:
        return
    try:
        text = modelfile_of(build, candidate, exported, path)
    except UsageError as error:  # tokka serves it all the same
        build.observer.notice(str(error))
    else:
        write_text(folder / MODELFILE, text)


def _artefact(
    build: Build,
    exported: Exported,
    reexams: Mapping[Format, Reexam],
    files: dict[str, str],
    out: Path,
) -> Artefact:
    engines = {a.decoding.engine for sat in _sittings(build, exported) for a in sat.answers}
    return Artefact(
        format=exported.format,
        files=files,
        total_bytes=sum((out / name).stat().st_size for name in files),
        engine=", ".join(sorted(filter(None, engines))) or UNSEEN,
        reexam=reexams[exported.format],
    )


def _digests(folder: Path, root: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in found}
