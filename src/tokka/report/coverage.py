"""Risk and coverage as figures: how often the answers are wrong that an arm is surest of.

>>> for figure in coverage_figures(results, rows): figure.svg["ja"], figure.rows
"""

from __future__ import annotations

from tokka.records import Exam, Results, RiskCoverage
from tokka.report.charts import Curve, curves
from tokka.report.figures import Figure, Said
from tokka.report.numbers import MISSING, bounds, percent
from tokka.report.standing import Standing
from tokka.report.texts import LANGUAGES, both, exam_label, same, text


def coverage_figures(results: Results, rows: tuple[Standing, ...]) -> list[Figure]:
    """One chart per exam of the domain in which answers have a confidence."""
    return [
        _coverage(exam, found)
        for exam in results.exams
        if exam.role == "domain"
        and (found := [(r, s.coverage) for r in rows if (s := r.sitting(exam)) and s.coverage])
    ]


def _coverage(exam: Exam, found: list[tuple[Standing, RiskCoverage]]) -> Figure:
    lines = [
        Curve(
            row.arm,
            tuple((100 * covered, 100 * risk) for _, covered, risk in coverage.points),
            ends=row.silence is not None,
        )
        for row, coverage in found
    ]

    def draw(language: str) -> str:
        return curves(
            lines,
            x_title=text("coverage_x", language),
            y_title=text("coverage_y", language, exam=exam.name),
        )

    return Figure(
        caption=both("coverage_caption", exam=exam_label(exam)),
        svg={language: draw(language) for language in LANGUAGES},
        header=(
            both("arm"),
            both("coverage_aurc"),
            both("coverage_x"),
            both("coverage_y", exam=exam.name),
            both("coverage_threshold"),
        ),
        rows=tuple(_line(row, coverage) for row, coverage in found),
    )


def _line(row: Standing, coverage: RiskCoverage) -> tuple[Said, ...]:
    _, covered, risk = coverage.points[-1]
    aurc = coverage.aurc
    return (
        same(row.arm),
        same(f"{percent(aurc.estimate)} {bounds(aurc)}"),
        same(percent(covered)),
        same(percent(risk)),
        same(MISSING if row.silence is None else f"{row.silence:.3g}"),
    )
