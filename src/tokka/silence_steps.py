"""`retrieval.silence: tuned`: the threshold in its place, chosen by the development questions.

    candidate without a threshold + development questions → step silence-…/silence.json → candidate

The whole arm answers the development questions of the domain exams, as it would be served. The
threshold is the one that leaves the best mean when everything below it is met with silence, which
is right where the documents don't hold the answer. No test question or key takes part; the
candidate that comes back names the number, so its id covers it.

    candidate = silenced(build, arm, candidate_of(unheard(arm), ...))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokka.choosing import DevExam, dev_part
from tokka.errors import TokkaError, UsageError
from tokka.pipeline import DTYPE, VERSIONS, Build, Models, Task, open_arm
from tokka.records import Arm, Candidate
from tokka.retrieval.silence import Heard, Tried, Tuned, refuse_few, tune
from tokka.store import read_json, write_json

SILENCE = "silence.json"


def refuse_unhearable(build: Build) -> None:
    """Raise UsageError where a threshold is to be chosen and the development questions can't say
    it; nothing is trained for that."""
    arms = [arm.name for arm in build.project.arms.values() if _is_open(arm)]
    if not arms:
        return
    exams = _domain(build)
    unanswerable = sum(key.unanswerable for exam in exams for key in exam.keys)
    try:
        refuse_few(sum(len(exam.questions) for exam in exams), unanswerable)
    except UsageError as error:
        raise UsageError(f"arm {', '.join(arms)}: {error}") from error


def unheard(arm: Arm) -> Arm:
    """The arm that answers everything, where its threshold is yet to be chosen; else as it is."""
    return _with(arm, None) if _is_open(arm) else arm


def silenced(build: Build, arm: Arm, candidate: Candidate) -> Candidate:
    """The candidate with a number in place of `silence: tuned`; any other as it is.

    `arm` is what the project asks for, `candidate` what was built of `unheard(arm)`. Raises
    TokkaError where a development question got no score.
    """
    from tokka.arms.building import candidate_of

    if not _is_open(arm):
        return candidate
    exams = _domain(build)

    def make(folder: Path) -> None:
        write_json(folder / SILENCE, _as_json(tune(_heard(build, candidate, exams))))

    inputs = {
        "candidate": candidate.id,
        "exams": {e.exam.name: [e.exam.digest, e.show_options, e.rotate] for e in exams},
        "sitting": VERSIONS["sit"],
        "dtype": DTYPE,
    }
    found = read_silence(build.step("silence", inputs, make, arm.name))
    _tell(build, arm, found)
    return candidate_of(
        _with(candidate.arm, found.threshold),
        base_model=candidate.base_model,
        base_digest=candidate.base_digest,
        language=candidate.language,
        artifacts=candidate.artifacts,
        embedder=candidate.embedder,
    )


def read_silence(folder: Path) -> Tuned:
    """What a finished step says: the threshold, all that were tried, how many questions."""
    said = read_json(folder / SILENCE)
    tried = tuple(Tried(*one) for one in said["tried"])
    return Tuned(said["threshold"], tried, said["questions"], said["unanswerable"])


def _domain(build: Build) -> list[DevExam]:
    """The development parts of the domain exams; one without any takes no part."""
    steps = [step for step in build.exams.values() if step.exam.role == "domain"]
    parts = [dev_part(step, build.project.language) for step in steps]
    return [part for part in parts if part.questions]


def _heard(build: Build, candidate: Candidate, exams: Sequence[DevExam]) -> list[list[Heard]]:
    """Batches are remembered, so a killed choice goes on where it was."""
    models = Models(build)
    asked = sum(len(exam.questions) for exam in exams)
    label = f"{candidate.arm.name}: tune the silence"
    try:
        with build.observer.task(label, asked) as task:
            specialist = open_arm(build, candidate, models)
            return [_sat(build, specialist, candidate, dev, task) for dev in exams]
    finally:
        models.close()


def _sat(
    build: Build, specialist: Any, candidate: Candidate, dev: DevExam, task: Task
) -> list[Heard]:
    from tokka.exam.sitting import score_all, sit

    answers = sit(
        specialist,
        dev.exam,
        dev.questions,
        build.workspace.memo,
        lambda n: task.advance(n),
        dev.show_options,
        dev.rotate,
    )
    unanswerable = {key.question_id for key in dev.keys if key.unanswerable}
    heard = []
    scores = score_all(dev.exam, dev.questions, dev.keys, answers)
    for answer, score in zip(answers, scores, strict=True):
        if score.value is None or answer.confidence is None:
            raise TokkaError(
                f"arm {candidate.arm.name}: silence: tuned got no score for development question "
                f"{score.question_id} of {dev.exam.name}: {score.explanation}; run again, or give "
                "a number"
            )
        heard.append(Heard(answer.confidence, score.value, score.question_id in unanswerable))
    return heard


def _as_json(found: Tuned) -> dict[str, Any]:
    return {**found._asdict(), "tried": [list(one) for one in found.tried]}


def _tell(build: Build, arm: Arm, found: Tuned) -> None:
    mean = {one.threshold: one for one in found.tried}
    taken, open_one = mean[found.threshold], mean[0.0]
    build.observer.notice(
        f"{arm.name}: silent below {found.threshold:.3g}: mean {taken.mean:.3f} over "
        f"{found.questions} development questions ({found.unanswerable} without an answer), silent "
        f"on {taken.silent:.0%}; {open_one.mean:.3f} when it always answers"
    )
    if build.project.policy.split == "dev":
        build.observer.notice(
            f"{arm.name}: policy.split is dev, so the questions that chose its silence also judge "
            "it; set it to test for a verdict"
        )


def _is_open(arm: Arm) -> bool:
    return arm.retrieval is not None and arm.retrieval.silence == "tuned"


def _with(arm: Arm, silence: float | None) -> Arm:
    assert arm.retrieval is not None
    spec = arm.retrieval.model_copy(update={"silence": silence})
    return arm.model_copy(update={"retrieval": spec})
