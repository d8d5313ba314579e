"""`tokka exam rescore`: what was sat and is stored, scored again without the model.

A project, or the folder of one sitting → `Rescored`, one per arm and exam. A project's exam is read
from its file as it is now, corrections included; the answers are those that the last built
candidate gave to the same questions. Nothing is written but to a folder that the caller names.

>>> [(r.new.arm, r.new.exam.name, r.new.sitting.primary) for r in rescored(path).sittings]
[('base', 'domain', Interval(estimate=0.5, …)), ('rag', 'domain', …)]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tokka.errors import UsageError
from tokka.exam.importing import Imported
from tokka.exam.rescoring import (
    Change,
    Stored,
    changes,
    is_stored,
    read_stored,
    rescore,
    write_stored,
)
from tokka.exam.sitting import asked_in
from tokka.pipeline import VERSIONS, imported, sitting_inputs
from tokka.project import Project, load_project
from tokka.records import Answer, Candidate, Example, Results, Score, Sitting
from tokka.store import Workspace, read_record, read_records

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rescored:
    """One sitting before and after; `old` holds what was last written of its scores. `place` is
    where it belongs below a folder of several, empty where it stands alone."""

    old: Stored
    new: Stored
    place: str = ""

    def as_json(self) -> dict[str, Any]:
        exam = self.new.exam
        return {
            "arm": self.new.arm,
            "exam": exam.name,
            "exam_digest": exam.digest,
            "normalisation": exam.normalisation,
            "scorer": exam.scorer,
            "asked": len(self.new.answers),
            "old": _mean(self.old),
            "new": _mean(self.new),
            "changed": [
                {
                    "question": change.new.question_id,
                    "old": change.old.value if change.old else None,
                    "new": change.new.value,
                    "status": change.new.status,
                    "explanation": change.new.explanation,
                }
                for change in self.changes()
            ],
        }

    def changes(self) -> list[Change]:
        """Empty where no scores were stored before: then there is nothing to compare with."""
        return changes(self.old.scores, self.new.scores) if self.old.scores else []


@dataclass(frozen=True, slots=True)
class RescoredAll:
    """`missing` says of each other arm and exam why there is nothing to score again."""

    sittings: tuple[Rescored, ...]
    missing: tuple[str, ...] = ()


def rescored(
    path: Path,
    exam: str | None = None,
    arm: str | None = None,
    *,
    normalisation: str | None = None,
    scorer: str | None = None,
) -> RescoredAll:
    """Score again what is stored at `path`: a project's sittings, or those of one of its exams or
    arms; or one sitting's folder.

    Raises UsageError for a name that isn't there and where no answer is stored, Mistakes where the
    exam's file or a corrected key has any.
    """
    how = {"normalisation": normalisation, "scorer": scorer}
    if is_stored(path):
        alone = read_stored(path)
        for what, wanted, got in (("exam", exam, alone.exam.name), ("arm", arm, alone.arm)):
            if wanted not in (None, got):
                raise UsageError(f"no {what} {wanted!r} in {path}; it holds {got!r}")
        return RescoredAll((Rescored(alone, rescore(alone, **how)),))
    stored, missing = _of_project(load_project(path), exam, arm)
    return RescoredAll(
        tuple(Rescored(s, rescore(s, **how), f"{s.exam.name}/{s.arm}") for s in stored),
        tuple(missing),
    )


def write_rescored(out: Path, found: RescoredAll) -> list[Path]:
    """Write each sitting as a folder: `out` itself for one that stands alone, else
    `out/EXAM/ARM`."""
    folders = [out / one.place for one in found.sittings]
    for folder, one in zip(folders, found.sittings, strict=True):
        write_stored(folder, one.new)
    return folders


def _mean(stored: Stored) -> dict[str, Any] | None:
    primary = stored.sitting.primary if stored.sitting else None
    return primary.model_dump(mode="json", exclude={"schema_version"}) if primary else None


def _of_project(
    project: Project, exam: str | None, arm: str | None
) -> tuple[list[Stored], list[str]]:
    workspace = Workspace(project.root / ".tokka")
    candidates = {
        name: _candidate(project, workspace, name) for name in _chosen("arm", arm, project.arms)
    }
    exams = [(name, imported(project, name)) for name in _chosen("exam", exam, project.exams)]
    found: list[Stored] = []
    missing: list[str] = []
    for name, own in exams:
        for of, candidate in candidates.items():
            stored = candidate and _stored(project, workspace, candidate, name, own)
            if stored:
                found.append(stored)
            else:
                missing.append(f"{of} has no stored answers to the questions of {name} as they are")
    if not found:
        raise UsageError(f"rescore: {missing[0]}; sit them with: tokka run {project.file}")
    return found, missing


def _chosen(what: str, name: str | None, named: Mapping[str, T]) -> list[str]:
    if name is not None and name not in named:
        raise UsageError(f"no {what} {name!r}; the project has: {', '.join(named)}")
    return list(named) if name is None else [name]


def _candidate(project: Project, workspace: Workspace, arm: str) -> Candidate | None:
    path = workspace.root / "candidates" / project.file.stem / f"{arm}.json"
    return read_record(path, Candidate) if path.is_file() else None


def _stored(
    project: Project, workspace: Workspace, candidate: Candidate, name: str, own: Imported
) -> Stored | None:
    spec, arm = project.exams[name], candidate.arm
    asked = asked_in(own.questions, project.policy.split, None)
    inputs = sitting_inputs(candidate, asked, spec.show_options, spec.rotate)
    folder = _folder(workspace, {"version": VERSIONS["sit"], **inputs})
    if folder is None or not asked:
        return None
    scores, sitting = _reported(project, workspace, candidate, name)
    shots = folder / "shots.jsonl"
    return Stored(
        own.exam,
        tuple(own.questions),
        tuple(own.keys),
        tuple(read_records(folder / "answers.jsonl", Answer)),
        arm=arm.name,
        candidate_id=candidate.id,
        split=project.policy.split,
        language=candidate.language,
        seed=project.policy.seed,
        top_k=arm.retrieval.top_k if arm.retrieval else 0,
        rotate=spec.rotate,
        scores=scores,
        sitting=sitting,
        shots=tuple(read_records(shots, Example)) if shots.is_file() else (),
    )


def _folder(workspace: Workspace, inputs: Mapping[str, object]) -> Path | None:
    """The finished sitting, its bytes checked, or one that ended with failed questions."""
    folder = workspace.folder("sit", inputs)
    if (folder / "manifest.json").is_file():
        workspace.check(folder)
        return folder
    partial = folder.with_name(folder.name + ".partial")
    return partial if (partial / "answers.jsonl").is_file() else None


def _reported(
    project: Project, workspace: Workspace, candidate: Candidate, exam: str
) -> tuple[tuple[Score, ...], Sitting | None]:
    """What the last report says of this candidate in this exam; nothing where it says nothing."""
    folder = workspace.root / "reports" / project.file.stem
    arm = candidate.arm.name
    results, scores = folder / "results.json", folder / "scores" / exam / f"{arm}.jsonl"
    if not (results.is_file() and scores.is_file()):
        return (), None
    for result in read_record(results, Results).arms:
        for sitting in result.sittings:
            if (sitting.candidate_id, sitting.exam) == (candidate.id, exam):
                return tuple(read_records(scores, Score)), sitting
    return (), None
