"""Results and timings → one `Standing` per arm: all that tables, charts and sentences need.

>>> for standing in standings(results, timings): print(standing.arm, standing.primary(exam))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokka.records import (
    Arm,
    Candidate,
    Choice,
    Comparison,
    Exam,
    Interval,
    Outcome,
    Results,
    Role,
    Sitting,
    Timing,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """One arm; `sittings` and `comparisons` by exam name. `outcome` is None for the control,
    `silence` where the arm answers whatever it is asked."""

    arm: str
    config: Arm
    is_control: bool
    is_winner: bool
    outcome: Outcome | None
    reasons: tuple[str, ...]
    sittings: Mapping[str, Sitting]
    comparisons: Mapping[str, Comparison]
    timing: Timing | None
    choice: Choice | None = None
    silence: float | None = None

    def primary(self, exam: Exam | None) -> Interval | None:
        sitting = self.sitting(exam)
        return sitting.primary if sitting else None

    def sitting(self, exam: Exam | None) -> Sitting | None:
        return self.sittings.get(exam.name) if exam else None

    def comparison(self, exam: Exam | None) -> Comparison | None:
        return self.comparisons.get(exam.name) if exam else None

    @property
    def seconds_per_answer(self) -> float | None:
        timing = self.timing
        return timing.exam_seconds / timing.answers if timing and timing.answers else None

    @property
    def cost_per_answer_usd(self) -> float | None:
        timing = self.timing
        return timing.cost_usd / timing.answers if timing and timing.answers else None

    @property
    def tokens_per_answer(self) -> float | None:
        """Prompt and answer tokens together, over all exams."""
        answers = sum(sitting.answered for sitting in self.sittings.values())
        tokens = sum(s.tokens_in + s.tokens_out for s in self.sittings.values())
        return tokens / answers if answers else None


def first_exam(results: Results, role: Role) -> Exam | None:
    """The exam that stands for a role: the first one of it in the project file."""
    return next((exam for exam in results.exams if exam.role == role), None)


def standings(results: Results, timings: Mapping[str, Timing]) -> tuple[Standing, ...]:
    """Best domain score first; arms without one last; ties stay in the project's order."""
    rows = [
        Standing(
            arm=result.arm.name,
            config=result.arm,
            is_control=result.arm.name == results.control,
            is_winner=result.arm.name == results.winner,
            outcome=result.verdict.outcome if result.verdict else None,
            reasons=result.verdict.reasons if result.verdict else (),
            sittings={sitting.exam: sitting for sitting in result.sittings},
            comparisons={comparison.exam: comparison for comparison in result.comparisons},
            timing=timings.get(result.arm.name),
            choice=result.choice,
            silence=_threshold(result.candidate),
        )
        for result in results.arms
    ]
    domain = first_exam(results, "domain")

    def rank(row: Standing) -> float:
        interval = row.primary(domain)
        return -interval.estimate if interval else 1.0

    return tuple(sorted(rows, key=rank))


def _threshold(candidate: Candidate) -> float | None:
    """The built arm's own: the project may leave the number to be chosen."""
    spec = candidate.arm.retrieval
    return None if spec is None or spec.silence == "tuned" else spec.silence
