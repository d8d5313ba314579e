"""The leaderboard in the terminal: scores, effects and verdicts, each with its interval.

Results + timings → a rich table; colours vanish in a pipe, the words stay.

>>> Console().print(leaderboard(results, timings, "ja"), verdict_text(results, "ja"))
"""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tokka.records import Comparison, Exam, Interval, Results, Sitting, Timing
from tokka.report.numbers import MISSING, bounds, percent, points, points_bounds, seconds
from tokka.report.standing import Standing, standings
from tokka.report.texts import text
from tokka.report.verdict import verdict_text

__all__ = ["leaderboard", "verdict_text"]

STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "yellow"}


def leaderboard(results: Results, timings: Mapping[str, Timing], language: str) -> Table:
    """One row per arm, best domain score first; each exam shows score and, if compared, effect."""
    rows = standings(results, timings)
    table = Table(
        title=escape(results.project),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column(text("arm", language), overflow="fold")
    for exam in results.exams:
        role = text(f"role_{exam.role}", language)
        name = escape(exam.name)
        table.add_column(name if exam.name == role else f"{name}\n{role}", justify="right")
        if _compared(rows, exam):
            side = text(f"side_{'gain' if exam.role == 'domain' else 'loss'}", language)
            table.add_column(f"{side}\n{text('points_unit', language)}", justify="right")
    table.add_column(text("pace", language).replace(" / ", " /\n"), justify="right")
    table.add_column(text("verdict", language))
    for row in rows:
        cells: list[Text] = [Text(row.arm, style="bold" if row.is_winner else "")]
        for exam in results.exams:
            cells.append(_score(row.sitting(exam), language))
            if _compared(rows, exam):
                cells.append(_effect(row.comparison(exam)))
        pace = row.seconds_per_answer
        cells.append(Text(MISSING if pace is None else seconds(pace)))
        cells.append(_verdict(row, language))
        table.add_row(*cells)
    return table


def _compared(rows: tuple[Standing, ...], exam: Exam) -> bool:
    return any(row.comparison(exam) for row in rows)


def _score(sitting: Sitting | None, language: str) -> Text:
    if sitting is None:
        return Text(MISSING)
    if sitting.primary is None:
        return Text(text("partial" if sitting.partial else "no_score", language), style="yellow")
    interval: Interval = sitting.primary
    return Text.assemble(percent(interval.estimate), "\n", (_span(bounds(interval)), "dim"))


def _effect(comparison: Comparison | None) -> Text:
    if comparison is None:
        return Text(MISSING)
    style = STYLES[comparison.outcome]
    interval = points_bounds(comparison.low, comparison.high)
    return Text.assemble((points(comparison.effect), style), "\n", (_span(interval), "dim"))


def _span(interval: str) -> str:
    """`[31.6, 55.9]` as `31.6~55.9`: five arms and two exams then fit into 80 columns."""
    return interval.strip("[]").replace(", ", "~")


def _verdict(row: Standing, language: str) -> Text:
    if row.is_control:
        return Text(text("outcome_control", language), style="dim")
    if row.outcome is None:
        return Text(text("outcome_none", language), style="dim")
    return Text(text(f"outcome_{row.outcome}", language), style=STYLES[row.outcome])
