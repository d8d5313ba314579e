"""What results were made from: sealed when they are written, looked up again before a release.

    write_seal(build, candidates, limit)   by `reporting.conclude`: evidence.json
    look(project, "lora", observer)            before a release → Looked: results and their Evidence

To look, every step of the project is found as a run would find it, but nothing is built: a step
that isn't there means that the results are of something else. Then the results are computed once
more from the stored answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from tokka.errors import IntegrityError, TokkaError, UsageError
from tokka.pipeline import (
    VERSIONS,
    Build,
    Models,
    Observer,
    Sat,
    build_arm,
    imported,
    in_building_order,
    prepare,
    sit_exam,
    sitting_inputs,
)
from tokka.project import Project
from tokka.records import Candidate, Question, Results, Timing, fingerprint
from tokka.release.gate import Evidence
from tokka.release.seal import FILE, Seal, SealedSitting
from tokka.store import Workspace, read_json, read_record, sha256_file, write_json

if TYPE_CHECKING:
    from tokka.pipeline import ExamStep

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Looked:
    """`build` holds every finished step, None where one is missing. `candidate` is the arm's, as it
    would be built now."""

    results: Results
    evidence: Evidence
    folder: Path
    build: Build | None = None
    candidate: Candidate | None = None


class NotBuilt(UsageError):
    """A step that the project as it is now needs, and that no run has finished."""


class FinishedWorkspace(Workspace):
    """A workspace in which steps are found, their bytes checked, and never built."""

    def step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], None],
        *,
        decisive: tuple[str, ...] = (),
        label: str = "",
    ) -> Path:
        folder = self.folder(name, inputs)
        if not (folder / "manifest.json").is_file():
            of = f" of {label}" if label else ""
            raise NotBuilt(
                f"the step {name!r}{of} isn't there for the project as it is now, so the results "
                "are of something else; run again: tokka run"
            )
        self.check(folder)
        return folder


def report_folder(workspace: Workspace, project: Project, limit: int | None = None) -> Path:
    """Partial results have a folder of their own: a trial never replaces a judged report."""
    name = project.file.stem + (f"-limit-{limit}" if limit else "")
    return workspace.root / "reports" / name


def examined_digest(project: Project) -> str:
    """SHA-256 of what the project file says about building and examining: who owns a release, how
    it is served and where the ledger is changes no result."""
    beside = {"file", "release", "serve", "ledger"}
    return fingerprint(project.model_dump(mode="json", exclude=beside))


# ---- when results are written -----------------------------------------------------------------


def write_seal(build: Build, candidates: Sequence[Candidate], limit: int | None) -> Seal:
    """Seal the results that were just written, as the last of their files."""
    seal = seal_now(build, candidates, limit)
    write_json(report_folder(build.workspace, build.project, limit) / FILE, seal)
    return seal


def seal_now(build: Build, candidates: Sequence[Candidate], limit: int | None) -> Seal:
    """What `write_seal` would write: of the files as they are."""
    exams = {name: _of_step(step) for name, step in build.exams.items()}
    by_arm = {candidate.arm.name: candidate for candidate in candidates}
    return seal_of(build.project, build.workspace, build.base_digest, exams, by_arm, limit)


@dataclass(frozen=True, slots=True)
class _Exam:
    """One exam as it is now: `digest` covers questions and keys."""

    digest: str
    questions: Sequence[Question]
    show_options: bool
    rotate: bool


def _of_step(step: ExamStep) -> _Exam:
    return _Exam(step.exam.digest, step.questions(), step.show_options, step.rotate)


def seal_of(
    project: Project,
    workspace: Workspace,
    base_digest: str,
    exams: Mapping[str, _Exam],
    candidates: Mapping[str, Candidate],
    limit: int | None,
) -> Seal:
    """The seal of what lies in the workspace now; what isn't there has an empty digest."""
    folder = report_folder(workspace, project, limit)
    arms = [arm for arm in project.arms if arm in candidates]
    return Seal(
        project=project.name,
        project_digest=examined_digest(project),
        base_digest=base_digest,
        limit=limit,
        results_sha256=_sha256(folder / "results.json"),
        timings_sha256=_sha256(folder / "timings.json"),
        exams={name: exam.digest for name, exam in exams.items()},
        candidates={arm: candidates[arm].id for arm in arms},
        sittings=tuple(
            _sitting(project, workspace, folder, candidates[arm], name, exam, limit)
            for arm in arms
            for name, exam in exams.items()
        ),
    )


def _sitting(
    project: Project,
    workspace: Workspace,
    folder: Path,
    candidate: Candidate,
    name: str,
    exam: _Exam,
    limit: int | None,
) -> SealedSitting:
    from tokka.exam.sitting import asked_in

    asked = asked_in(exam.questions, project.policy.split, limit)
    inputs = sitting_inputs(candidate, asked, exam.show_options, exam.rotate)
    step = workspace.folder("sit", {"version": VERSIONS["sit"], **inputs})
    finished = (step / "manifest.json").is_file()
    return SealedSitting(
        arm=candidate.arm.name,
        exam=name,
        folder=step.name,
        digest=workspace.digest(step) if finished else "",
        scores_sha256=_sha256(_scores(folder, name, candidate.arm.name)),
    )


def _scores(folder: Path, exam: str, arm: str) -> Path:
    return folder / "scores" / exam / f"{arm}.jsonl"


def _sha256(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


# ---- before a release -------------------------------------------------------------------------


def look(project: Project, arm: str, observer: Observer) -> Looked:
    """The last results of a project with all that speaks for or against them.

    Raises UsageError where the project has no such arm or no results, Mistakes where an exam's file
    has any. What is stale or damaged raises nothing: it stands in the evidence.
    """
    if arm not in project.arms:
        raise UsageError(f"no arm {arm!r}; the project has: {', '.join(project.arms)}")
    workspace = FinishedWorkspace(project.root / ".tokka")
    folder = report_folder(workspace, project)
    if not (folder / "results.json").is_file():
        raise UsageError(f"no results yet; make them with: tokka run {project.file}")
    results = read_record(folder / "results.json", Results)
    broken: list[str] = []
    sealed = _try(broken, lambda: _read_seal(folder))
    found = _found(project, workspace, broken, observer)
    timing = _try(broken, lambda: _timing(folder, arm))
    build = candidate = again = None
    rebuilt = _try(broken, lambda: _again(project, workspace, observer))
    if rebuilt is not None:
        build, again, candidates = rebuilt
        candidate = candidates[arm]
    floors = {name: exam.floor for name, exam in project.exams.items() if exam.floor is not None}
    evidence = Evidence(
        sealed=sealed,
        found=found,
        broken=tuple(dict.fromkeys(broken)),
        again=again,
        timing=timing,
        hourly_usd=project.hourly_usd,
        floors=floors,
    )
    return Looked(results, evidence, folder, build, candidate)


T = TypeVar("T")


def _try(broken: list[str], found: Callable[[], T]) -> T | None:
    """What was found, or None and why not."""
    try:
        return found()
    except TokkaError as error:
        broken.append(str(error))
        return None


def _read_seal(folder: Path) -> Seal | None:
    return read_record(folder / FILE, Seal) if (folder / FILE).is_file() else None


def _timing(folder: Path, arm: str) -> Timing | None:
    path = folder / "timings.json"
    try:
        found = read_json(path).get(arm) if path.is_file() else None
        return None if found is None else Timing.model_validate(found)
    except (AttributeError, ValidationError) as error:
        raise IntegrityError(
            f"{path}: holds no timing of {arm} as a run writes it; make it again: tokka run"
        ) from error


def _found(project: Project, workspace: Workspace, broken: list[str], observer: Observer) -> Seal:
    """The seal as it would be written now, from the files themselves."""
    from tokka.models.opening import digest, kind, locate

    reference, root = project.base_model, project.root
    base = None
    if kind(reference) != "endpoint":
        base = locate(reference, root, observer.notice)
    elif project.endpoint.tokenizer is not None:
        base = locate(project.endpoint.tokenizer, root, observer.notice)
    exams = {}
    for name, spec in project.exams.items():
        own = imported(project, name)
        exams[name] = _Exam(own.exam.digest, own.questions, spec.show_options, spec.rotate)
    candidates = _try(broken, lambda: _on_disk(project, workspace)) or {}
    return seal_of(
        project, workspace, digest(reference, base, project.language), exams, candidates, None
    )


def _on_disk(project: Project, workspace: Workspace) -> dict[str, Candidate]:
    folder = workspace.root / "candidates" / project.file.stem
    paths = {arm: folder / f"{arm}.json" for arm in project.arms}
    return {arm: read_record(p, Candidate) for arm, p in paths.items() if p.is_file()}


def _again(
    project: Project, workspace: Workspace, observer: Observer
) -> tuple[Build, Results, dict[str, Candidate]]:
    """Every step found again, and the results that the stored answers come to."""
    from tokka.documents_steps import read_and_chunk
    from tokka.exam.sitting import score_all
    from tokka.overlap_steps import look_through_examples
    from tokka.reporting import results_of

    build = prepare(project, observer, workspace)
    read_and_chunk(build)
    look_through_examples(build)
    arms = in_building_order(list(project.arms.values()))
    candidates = {arm.name: build_arm(build, arm) for arm in arms}
    models = Models(build)
    order = list(project.arms)
    sat: list[Sat] = [
        sit_exam(build, candidates[arm], step, models, None)
        for step in sorted(build.exams.values(), key=lambda step: step.name)
        for arm in order
    ]
    keys = {name: step.keys() for name, step in build.exams.items()}
    scores = [score_all(s.exam.exam, s.questions, keys[s.exam.name], s.answers) for s in sat]
    return build, results_of(build, sat, scores, None), candidates
