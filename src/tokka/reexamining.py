"""The exported file sits the exams again, through the runtime that will serve it.

Candidate and Exported → Reexam: exam by exam a test that the loss is below the policy's
`max_conversion_loss`, and faults, each of which keeps the file from being released.

    reexam = reexamine(build, candidate, exported, models)
    reexam.faults        # () where it passes

The file itself is looked at first (`training.export_checking`): a fault there saves an exam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokka.exporting import QUANTISED, Exported, export
from tokka.pipeline import DTYPE, PARTS_BESIDE
from tokka.records import Answer, Candidate, Comparison, Score
from tokka.reexam_faults import Pair, end_faults, equal, nonsense_faults, prompt_faults
from tokka.release.records import Reexam

if TYPE_CHECKING:
    from tokka.pipeline import Build, ExamStep, Models, Sat
    from tokka.training.export_checking import Checked

PROBES = 3
SAME_WEIGHTS = "The weights are the examined ones, bit for bit, and so is every score"
UNSEEN = (
    "the weights behind an endpoint can't be seen: that its model is the examined one rests on its "
    "URL and name, and on the answers that it gave again"
)


@dataclass(frozen=True, slots=True)
class _Margin:
    """The policy of a conversion: it may lose less than this, and need gain nothing."""

    max_forgetting: float
    alpha: float
    power: float
    draws: int
    seed: int
    min_gain: float = 0.0


def reexamine(build: Build, candidate: Candidate, exported: Exported, models: Models) -> Reexam:
    """Examine the exported file where the candidate was examined, in all exams of the project.

    A file that is faulty in itself isn't examined. Where its weights are the examined ones bit for
    bit and every score is the same, that proves more than a test can, and too few questions don't
    keep it back. Raises IntegrityError where a part of it isn't what was built.
    """
    if exported.folder is None:
        return _probed(build, candidate, models)
    faults = _part_faults(build, candidate, exported)
    checked = _checked(build, candidate, exported)
    faults += checked.faults
    if faults:
        return Reexam(candidate_id=exported.served.id, faults=tuple(faults))
    comparisons: list[Comparison] = []
    same: dict[str, float] = {}
    pairs: list[Pair] = []
    from tokka.pipeline import sit_exam

    for step in build.exams.values():
        before = sit_exam(build, candidate, step, models, None)
        after = sit_exam(build, exported.served, step, models, None)
        incomplete = _incomplete_faults(step, before, after)
        if incomplete:
            faults += incomplete
            continue
        own = [
            Pair(step.name, q, a, b)
            for q, a, b in zip(before.questions, before.answers, after.answers, strict=True)
        ]
        pairs += own
        faults += prompt_faults(build, candidate, exported, step, own)
        theirs, mine = _scores(before), _scores(after)
        same[step.name] = _share_of_same(theirs, mine)
        proven = checked.identical and same[step.name] == 1
        found = _compared(build, step, before, after, theirs, mine, exported)
        if found.outcome == "inconclusive" and proven:
            found = found.model_copy(update={"reason": f"{found.reason} {SAME_WEIGHTS}."})
        elif found.outcome != "pass":
            faults.append(found.reason)
        comparisons.append(found)
    faults += end_faults(pairs, build.project.policy.seed) + nonsense_faults(pairs)
    return Reexam(
        candidate_id=exported.served.id,
        comparisons=tuple(comparisons),
        same=same,
        faults=tuple(faults),
    )


def _part_faults(build: Build, candidate: Candidate, exported: Exported) -> list[str]:
    """All but the weights must be the very parts that were examined."""
    from tokka.candidates.opening import artifact

    faults = []
    for name in ("weights", "index", "examples"):
        folder = artifact(exported.served, name, build.workspace)
        if folder is not None:
            build.workspace.check(folder)
    for name in PARTS_BESIDE:
        mine, theirs = exported.served.artifacts.get(name), candidate.artifacts.get(name)
        if mine != theirs:
            faults.append(f"its {name} is {mine}, and {theirs} was examined; release it again")
    return faults


def _checked(build: Build, candidate: Candidate, exported: Exported) -> Checked:
    from tokka.training.export_checking import Checked, check_export

    assert exported.folder is not None and exported.source is not None
    with build.observer.task(f"{candidate.arm.name}: compare the file's tensors", None):
        checked = check_export(
            exported.folder,
            exported.source,
            exported.adapters,
            dtype=DTYPE,
            template=exported.template,
        )
        adapters = any(name.startswith("adapter") for name in candidate.artifacts)
        if exported.format in QUANTISED and adapters:
            merged = export(build, candidate, "safetensors")  # what the GGUF was made from
            assert merged.folder is not None and merged.source is not None
            under = check_export(
                merged.folder,
                merged.source,
                merged.adapters,
                dtype=DTYPE,
                template=merged.template,
            )
            checked = Checked((*under.faults, *checked.faults), False)
    return checked


def _incomplete_faults(step: ExamStep, before: Sat, after: Sat) -> list[str]:
    faults = []
    for what, sat in (("examined candidate", before), ("exported file", after)):
        failed = sum(answer.status == "error" for answer in sat.answers)
        waiting = sum(score.status == "waiting" for score in _scores(sat))
        if not sat.questions:
            faults.append(f"{step.name}: it has no question in the policy's split; add some")
        if failed:
            faults.append(
                f"{step.name}: {failed} of {len(sat.answers)} answers of the {what} failed; run "
                "again to ask only these"
            )
        if waiting:
            faults.append(
                f"{step.name}: {waiting} answers of the {what} wait for a judge; judge them first"
            )
    return list(dict.fromkeys(faults))


def _scores(sat: Sat) -> list[Score]:
    from tokka.exam.sitting import score_all

    return score_all(sat.exam.exam, sat.questions, sat.exam.keys(), sat.answers)


def _share_of_same(before: Sequence[Score], after: Sequence[Score]) -> float:
    pairs = zip(before, after, strict=True)
    return sum((a.value, a.status) == (b.value, b.status) for a, b in pairs) / len(before)


def _compared(
    build: Build,
    step: ExamStep,
    before: Sat,
    after: Sat,
    theirs: Sequence[Score],
    mine: Sequence[Score],
    exported: Exported,
) -> Comparison:
    """The exported file against the examined candidate; whatever the exam is for, no loss."""
    from tokka.exam.sitting import method_of
    from tokka.stats.compare import ArmScores, compare

    policy = build.project.policy
    arm = before.candidate.arm.name
    margin = _Margin(
        policy.max_conversion_loss, policy.alpha, policy.power, policy.draws, policy.seed
    )
    sat = {
        f"{arm} as examined": ArmScores(
            before.candidate.id, theirs, True, method_of(before.questions, before.answers)
        ),
        f"{arm} ({exported.format})": ArmScores(
            after.candidate.id, mine, True, method_of(after.questions, after.answers)
        ),
    }
    clusters = {q.id: q.cluster_id or q.id for q in before.questions}
    exam = step.exam.model_copy(update={"role": "retention"})
    (found,) = compare(exam, f"{arm} as examined", sat, clusters, margin)
    return found


def _probed(build: Build, candidate: Candidate, models: Models) -> Reexam:
    """An endpoint keeps its weights: a few questions are asked again, and the answers compared."""
    from tokka.exam.sitting import sit
    from tokka.pipeline import open_arm, sit_exam

    pairs: list[Pair] = []
    faults: list[str] = []
    for step in build.exams.values():
        before = sit_exam(build, candidate, step, models, None)
        faults += _incomplete_faults(step, before, before)
        asked = before.questions[:PROBES]
        specialist = open_arm(build, candidate, models)
        again: Sequence[Answer] = sit(
            specialist, step.exam, asked, show_options=step.show_options, rotate=step.rotate
        )
        pairs += [
            Pair(step.name, q, a, b) for q, a, b in zip(asked, before.answers, again, strict=False)
        ]
    failed = [pair for pair in pairs if pair.after.status == "error"]
    if failed:
        faults.append(
            f"{candidate.base_model} failed {len(failed)} of {len(pairs)} questions that it had "
            "answered; start it again, then run again"
        )
    elif pairs and 2 * sum(map(equal, pairs)) < len(pairs):
        faults.append(
            f"{candidate.base_model} answers {sum(not equal(p) for p in pairs)} of {len(pairs)} "
            "questions otherwise than when it was examined; its model may have changed: run again"
        )
    same = {
        name: sum(equal(p) for p in pairs if p.exam == name) / sum(p.exam == name for p in pairs)
        for name in dict.fromkeys(pair.exam for pair in pairs)
    }
    return Reexam(candidate_id=candidate.id, same=same, faults=tuple(faults), notes=(UNSEEN,))
