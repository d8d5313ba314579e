"""`tokka ask`: one question to a built candidate, through the same path as the exam."""

from __future__ import annotations

from tokka.pipeline import Models, Observer, load_candidate, open_arm, prepare
from tokka.project import Project
from tokka.records import Answer


def ask_arm(project: Project, arm: str, text: str, observer: Observer) -> Answer:
    """Answer with citations. Raises UsageError where the arm is unknown or not built."""
    from tokka.candidates.opening import asked
    from tokka.errors import UsageError

    if arm not in project.arms:
        raise UsageError(f"no arm {arm!r}; the project has: {', '.join(project.arms)}")
    build = prepare(project, observer)
    candidate = load_candidate(build, arm)
    with open_arm(build, candidate, Models(build)) as specialist:
        answer: Answer
        (answer,) = specialist.answer([asked(text)])
    return answer
