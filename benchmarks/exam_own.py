"""tokka sits the same exams, as `tokka run` would: a contestant.

Job: `model` (folder), `dtype`, `sittings` (name, prompts, choices, answers). The clock runs from
the questions to their scores: rendering, tokenisation and whatever is compiled are inside, loading
the model is not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from measuring import Facts, contestant, tell, timed

from tokka.candidates.specialist import Specialist
from tokka.exam.sitting import score_all, sit
from tokka.models.opening import open_model
from tokka.records import Arm, Candidate, Exam, Key, Message, Question


def work(job: Facts) -> Facts:
    model: Any = open_model(job["model"], root=Path(), language="ja", dtype=job["dtype"])
    found = []
    with Specialist(_untouched(model), model) as specialist:
        for sitting in job["sittings"]:
            questions, keys = _asked(sitting), _keys(sitting)
            exam = _exam(sitting["name"], len(questions))
            sent: list[Any] = []
            _watch(model, sent)
            tell(f"{sitting['name']}: {len(questions)} questions")

            def whole(exam: Exam = exam, questions: Any = questions, keys: Any = keys) -> Any:
                answers = sit(specialist, exam, questions)
                return answers, score_all(exam, questions, keys, answers)

            run = timed(whole)
            tell(f"{sitting['name']}: {run.seconds:.1f} s")
            answers, scores = run.value
            found.append(
                {
                    "seconds": run.seconds,
                    "peak_bytes": run.peak_bytes,
                    "sent": sent,
                    "loglikelihoods": [list(answer.choice_loglikelihoods) for answer in answers],
                    "accuracy": sum(score.value or 0.0 for score in scores) / len(scores),
                }
            )
    return {"sittings": found}


def _untouched(model: Any) -> Candidate:
    return Candidate(
        id="base",
        arm=Arm(name="base"),
        base_model=model.name,
        base_digest=model.digest,
        language="ja",
    )


def _exam(name: str, questions: int) -> Exam:
    return Exam(
        name=name,
        role="domain",
        digest=name,
        scorer="f1",
        normalisation="sum",
        questions=questions,
        language="ja",
    )


def _asked(sitting: Facts) -> list[Question]:
    return [
        Question(
            id=str(number),
            messages=(Message(role="user", content=prompt),),
            form="choice",
            choices=tuple(choices),
            completion=prompt,
        )
        for number, (prompt, choices) in enumerate(
            zip(sitting["prompts"], sitting["choices"], strict=True)
        )
    ]


def _keys(sitting: Facts) -> list[Key]:
    return [
        Key(question_id=str(number), targets=(choices[answer],), choice=answer)
        for number, (choices, answer) in enumerate(
            zip(sitting["choices"], sitting["answers"], strict=True)
        )
    ]


def _watch(model: Any, sent: list[Any]) -> None:
    """Write down the token ids of every request, one entry an option, as the peer does."""
    original = type(model).score

    def score(requests: Any, *rest: Any, **named: Any) -> Any:
        sent.extend([request.prompt, option] for request in requests for option in request.options)
        return original(model, requests, *rest, **named)

    model.score = score


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the `tokka` command does
    contestant(work)
