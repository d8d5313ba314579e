"""Which state of an arm's weights is served: decided by the development questions, never the test.

    the last stage's checkpoints and its end × every α → development scores → choose-…/choice.json

Each point sits the development questions of every exam through the whole arm, as it would be
served. The best mean over the domain exams wins among the points that lose at most so much against
the control in each of the others. Only `DevExam` crosses from the exams into the choice, and it
holds no question or key of the test.

    weights = chosen_weights(build, arm, weights)      # called by stages.weights_of
    read_choice(weights)                               # why this one
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tokka.errors import Mistakes, TokkaError
from tokka.pipeline import (
    DTYPE,
    VERSIONS,
    Build,
    ExamStep,
    Models,
    Task,
    embedder_name,
    files_with,
    open_with,
    served_with,
)
from tokka.project_stages import from_scratch
from tokka.records import Arm, Candidate, Choice, ChoicePoint, Exam, Key, Question, TrainingSpec
from tokka.store import read_record, write_json

if TYPE_CHECKING:
    from tokka.stages import Weights

POINTS = "points"  # states that go part of the way; gone once they have sat the exams
CHOICE = "choice.json"
DIGITS = 9  # 0.4 − 0.3 is no loss above 0.1


@dataclass(frozen=True, slots=True)
class DevExam:
    """The development part of an exam. The digest of `exam` covers nothing else."""

    exam: Exam
    questions: tuple[Question, ...]
    keys: tuple[Key, ...]
    show_options: bool
    rotate: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """A state to be tried: `alpha` of what `weights` learnt in the last stage."""

    state: int
    alpha: float
    weights: Weights


def refuse_unchoosable(build: Build) -> None:
    """Raise Mistakes for all exams that can't help to choose; nothing is trained for that."""
    found = []
    for name, step in build.exams.items():
        questions = [question for question in step.questions() if question.split == "dev"]
        if not questions:
            found.append(
                f'exam {name}: none of its questions is for development; write "split": "dev" into '
                "some rows (rows without split are shared out, one cluster in five to dev)"
            )
        elif step.exam.scorer == "judge" and any(q.form == "short" for q in questions):
            found.append(
                f"exam {name}: its scorer judge gives no score while choosing; use another one, or "
                "remove choose from the arms"
            )
    if found:
        raise Mistakes(
            "choose: the development questions decide, and there is none to do so", found
        )


def chosen_weights(build: Build, arm: Arm, weights: Weights) -> Weights:
    """The state that `arm.choose` picks in place of `weights`, as a step with its own files.

    Where no state meets the floor, the one that loses least is taken, with a notice. Raises
    TokkaError where a development question got no score.
    """
    from tokka.stages import following

    assert arm.choose is not None and weights.before is not None
    before = weights.before
    exams = [dev_part(step, build.project.language) for step in build.exams.values()]
    trials = trials_of(build, arm, weights)
    allowed = arm.choose.max_loss
    max_loss = build.project.policy.max_forgetting if allowed is None else allowed
    control = build.project.arms[build.project.policy.control]

    def make(folder: Path) -> None:
        points = folder / POINTS
        models = Models(build)
        sat = (len(trials) + 1) * sum(len(exam.questions) for exam in exams)
        try:
            with build.observer.task(f"{arm.name}: choose among {len(trials)} states", sat) as task:
                held = _scores(build, control, _untouched(build), exams, models, task)
                found = []
                for number, trial in enumerate(trials):
                    part = points / str(number)  # its own: `Models` knows a model by its path
                    point = _part_of(build, trial, before, part)
                    own = _scores(build, arm, point, exams, models, task)
                    found.append(point_of(trial, point.digest, own, held, exams))
                    shutil.rmtree(part, ignore_errors=True)
        finally:
            models.close()
            shutil.rmtree(points, ignore_errors=True)
        choice = choose(found, trials[-1].state, max_loss, held, exams)
        _write(folder, trials[choice.taken], before)
        write_json(folder / CHOICE, choice)

    inputs = {
        "trials": [[trial.state, trial.alpha, trial.weights.digest] for trial in trials],
        "before": before.digest,
        "exams": {
            e.exam.name: [e.exam.role, e.exam.digest, e.show_options, e.rotate] for e in exams
        },
        "max_loss": max_loss,
        "arm": _candidate(build, arm, weights).id,
        "control": _candidate(build, control, _untouched(build)).id,
        "sitting": VERSIONS["sit"],
        "dtype": DTYPE,
    }
    folder = build.step("choose", inputs, make, arm.name)
    _tell(build, arm, read_record(folder / CHOICE, Choice))
    return following(build, before, folder, *weights.steps[len(before.steps) :])


def read_choice(weights: Weights) -> Choice | None:
    """How the last step of these weights was chosen; None where it wasn't."""
    path = weights.steps[-1] / CHOICE if weights.steps else None
    return read_record(path, Choice) if path is not None and path.is_file() else None


# ---- what is tried ----------------------------------------------------------------------------


def trials_of(build: Build, arm: Arm, weights: Weights) -> list[Trial]:
    """Where the last stage began (α = 0, for reference), then its checkpoints by number and its
    end, each at every α from the smallest. Random weights are no reference."""
    from tokka.stages import following

    assert arm.choose is not None and weights.before is not None
    stage, spec = weights.steps[-1], arm.weights[-1].spec
    assert isinstance(spec, TrainingSpec)
    folders = sorted((stage / "states").glob("[0-9]*"), key=lambda folder: int(folder.name))
    states = [(int(f.name), following(build, weights.before, f)) for f in folders]
    states.append((spec.checkpoints + 1, weights))
    alphas = sorted(set(arm.choose.alphas) - {0.0})
    random = len(arm.weights) == 1 and from_scratch(arm.weights)
    reference = [] if random else [Trial(0, 0.0, weights.before)]
    return reference + [Trial(number, a, state) for number, state in states for a in alphas]


def dev_part(step: ExamStep, language: str) -> DevExam:
    """The development questions of an exam and their keys: all that a choice may see."""
    from tokka.exam.importing import exam_digest

    questions = tuple(question for question in step.questions() if question.split == "dev")
    own = {question.id for question in questions}
    every = step.keys()
    keys = tuple(key for key in every if key.question_id in own)
    digest = exam_digest(questions, keys, step.exam.scorer, step.exam.normalisation)
    exam = step.exam.model_copy(
        update={"digest": digest, "questions": len(questions), "language": language}
    )
    return DevExam(exam, questions, keys, step.show_options, step.rotate)


def _part_of(build: Build, trial: Trial, before: Weights, folder: Path) -> Weights:
    from tokka.stages import following
    from tokka.training.merge import interpolate

    if trial.alpha in (0.0, 1.0):
        return trial.weights
    interpolate(folder, trial.weights.start, before.start, trial.alpha, DTYPE)
    return following(build, before, folder)


def _write(folder: Path, trial: Trial, before: Weights) -> None:
    """The chosen state's files: the same bytes as those that sat."""
    from tokka.training.merge import interpolate
    from tokka.training.weights_files import copy_papers

    if trial.alpha != 1.0:
        interpolate(folder, trial.weights.start, before.start, trial.alpha, DTYPE)
        return
    source = trial.weights.steps[-1]
    weights = [*source.glob("*.safetensors"), *source.glob("*.safetensors.index.json")]
    known = [source / name for name in ("config.json", "adapter_config.json", "training.json")]
    for path in [*weights, *(path for path in known if path.is_file())]:
        shutil.copyfile(path, folder / path.name)
    copy_papers(source, folder)


# ---- sitting the development questions --------------------------------------------------------


def _untouched(build: Build) -> Weights:
    from tokka.stages import Weights

    assert build.base is not None
    return Weights(build.base, build.base_digest)


def _candidate(build: Build, arm: Arm, weights: Weights) -> Candidate:
    """Its id covers all that decides answers, the state's digest in place of artifacts."""
    from tokka.arms.building import candidate_of

    parts = served_with(build, arm).items()
    return candidate_of(
        arm.model_copy(update={"weights": (), "choose": None}),
        base_model=build.project.base_model,
        base_digest=weights.digest,
        language=build.project.language,
        artifacts={
            **{name: f"{f.name}@{build.workspace.digest(f)}" for name, f in parts},
            **files_with(build, arm),
        },
        embedder=embedder_name(build) if arm.retrieval and arm.retrieval.dense else "",
    )


def _scores(
    build: Build,
    arm: Arm,
    weights: Weights,
    exams: Sequence[DevExam],
    models: Models,
    task: Task,
) -> dict[str, float]:
    """Mean scores by exam. Batches are remembered, so a killed choice goes on where it was."""
    from tokka.exam.sitting import score_all, sit

    def open_model(*_: Any) -> Any:
        return models.open(weights.whole, weights.adapters)

    specialist = open_with(build, _candidate(build, arm, weights), open_model)
    found = {}
    for dev in exams:
        answers = sit(
            specialist,
            dev.exam,
            dev.questions,
            build.workspace.memo,
            lambda n: task.advance(n),
            dev.show_options,
            dev.rotate,
        )
        scores = score_all(dev.exam, dev.questions, dev.keys, answers)
        values = [score.value for score in scores if score.value is not None]
        if len(values) < len(scores):
            first = next(score for score in scores if score.value is None)
            raise TokkaError(
                f"arm {arm.name}: choose got no score for {len(scores) - len(values)} development "
                f"questions of {dev.exam.name}; the first: {first.question_id}, "
                f"{first.explanation}; run again to ask only these"
            )
        found[dev.exam.name] = round(fmean(values), DIGITS)
    return found


def point_of(
    trial: Trial,
    digest: str,
    scores: dict[str, float],
    control: dict[str, float],
    exams: Sequence[DevExam],
) -> ChoicePoint:
    """What the development scores say of a state. Every exam but the domain's guards against
    loss."""
    domain = [scores[e.exam.name] for e in exams if e.exam.role == "domain"]
    losses = [control[e.exam.name] - scores[e.exam.name] for e in exams if e.exam.role != "domain"]
    return ChoicePoint(
        state=trial.state,
        alpha=trial.alpha,
        digest=digest,
        scores=scores,
        domain=round(fmean(domain), DIGITS),
        loss=round(max(losses), DIGITS) if losses else None,
    )


# ---- the choice -------------------------------------------------------------------------------


def choose(
    points: Sequence[ChoicePoint],
    end: int,
    max_loss: float,
    control: dict[str, float],
    exams: Sequence[DevExam],
) -> Choice:
    """The best in the domain among those that lose at most `max_loss`; ties go to the smaller loss,
    then to the earlier one. Where none meets that, the one that loses least. α = 0 never wins."""
    learnt = [i for i, point in enumerate(points) if point.alpha > 0]

    def loss(i: int) -> float:
        return points[i].loss or 0.0

    meet = [i for i in learnt if loss(i) <= max_loss]
    if meet:
        taken = min(meet, key=lambda i: (-points[i].domain, loss(i), i))
    else:
        taken = min(learnt, key=lambda i: (loss(i), -points[i].domain, i))
    point = points[taken]
    lost = "" if point.loss is None else f", loses {point.loss:.3f} of {max_loss:.3f} allowed"
    how = f"best of {len(meet)} that lose no more" if meet else "no state meets that; least lost"
    return Choice(
        points=tuple(points),
        taken=taken,
        end=end,
        max_loss=max_loss,
        met=bool(meet),
        control=control,
        questions={e.exam.name: len(e.questions) for e in exams},
        reason=f"state {point.state} of {end} at α = {point.alpha:g}: {point.domain:.3f} in the "
        f"domain{lost} ({how})",
    )


def _tell(build: Build, arm: Arm, choice: Choice) -> None:
    if not choice.met:
        build.observer.notice(
            f"{arm.name}: choose found no state that keeps the loss within "
            f"{choice.max_loss:g}; took the one that loses least ({choice.reason})"
        )
    if build.project.policy.split == "dev":
        build.observer.notice(
            f"{arm.name}: policy.split is dev, so the questions that chose its weights also judge "
            "them; set it to test for a verdict"
        )
