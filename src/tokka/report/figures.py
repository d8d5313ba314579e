"""Results → the figures of the page: charts in both languages, captions, and what they show.

>>> for figure in effect_figures(results, rows): figure.svg["ja"], figure.caption["en"], figure.rows
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokka.records import Choice, ChoicePoint, Comparison, Exam, Interval, Results
from tokka.report.charts import Dot, ForestRow, Mark, Trail, Zone, forest, margin_text, scatter
from tokka.report.numbers import (
    MISSING,
    bounds,
    confidence,
    count,
    money,
    percent,
    points,
    points_bounds,
    seconds,
    typographic,
)
from tokka.report.standing import Standing, first_exam
from tokka.report.texts import LANGUAGES, both, exam_label, join, same, text

Said = dict[str, str]


@dataclass(frozen=True, slots=True)
class Figure:
    """`svg` is empty where there is nothing to draw. `rows` are the figures behind the chart."""

    caption: Said
    svg: Said
    header: tuple[Said, ...]
    rows: tuple[tuple[Said, ...], ...]


def effect_figures(results: Results, rows: tuple[Standing, ...]) -> list[Figure]:
    """One forest plot per exam in which some arm was compared with the control."""
    return [
        _forest(results, exam, compared)
        for exam in results.exams
        if (compared := [c for row in rows if (c := row.comparison(exam))])
    ]


def _forest(results: Results, exam: Exam, compared: list[Comparison]) -> Figure:
    first = compared[0]
    lines = [ForestRow(c.arm, c.effect, c.low, c.high, c.outcome) for c in compared]
    margin = margin_text(first.margin, first.side)

    def draw(language: str) -> str:
        return forest(
            lines,
            margin=first.margin,
            side=first.side,
            axis_title=text("forest_axis", language),
            margin_label=text(f"forest_margin_{first.side}", language, margin=margin),
        )

    return Figure(
        caption=both(
            "forest_caption",
            exam=exam_label(exam),
            control=results.control,
            level=confidence(first.alpha),
        ),
        svg={language: draw(language) for language in LANGUAGES},
        header=(both("arm"), both("effect_points"), both("interval"), both("verdict")),
        rows=tuple(
            (
                same(c.arm),
                same(points(c.effect)),
                same(points_bounds(c.low, c.high)),
                both(f"outcome_{c.outcome}"),
            )
            for c in compared
        ),
    )


def tradeoff_figures(results: Results, rows: tuple[Standing, ...]) -> list[Figure]:
    """Gain against forgetting; quality against seconds; against money, or tokens if all is free."""
    domain, retention = first_exam(results, "domain"), first_exam(results, "retention")
    figures: list[Figure] = []
    if domain and retention:
        figures.append(_gain_and_loss(results, rows, domain, retention))
    if domain:
        name = domain.name
        figures.append(
            _quality(
                rows,
                domain,
                lambda row: row.seconds_per_answer,
                seconds,
                both("seconds_caption", exam=name),
                "seconds",
            )
        )
        priced = any(row.cost_per_answer_usd for row in rows)
        figures.append(
            _quality(
                rows,
                domain,
                (lambda row: row.cost_per_answer_usd)
                if priced
                else (lambda row: row.tokens_per_answer),
                money if priced else count,
                both("cost_caption", exam=name) if priced else both("tokens_caption"),
                "cost" if priced else "tokens",
            )
        )
    return figures


def _mark(row: Standing) -> Mark:
    return "control" if row.is_control else row.outcome or "inconclusive"


def _gain_and_loss(
    results: Results, rows: tuple[Standing, ...], domain: Exam, retention: Exam
) -> Figure:
    """Learning against forgetting: arms by the questions that judge them, and the states that were
    chosen from by the development questions."""
    dots = [Dot(row.arm, 0.0, 0.0, 0.0, 0.0, "control", 0.0, 0.0) for row in rows if row.is_control]
    table: list[tuple[Said, ...]] = []
    zone: Zone | None = None
    for row in rows:
        gain, loss = row.comparison(domain), row.comparison(retention)
        if gain is None or loss is None:
            continue
        zone = Zone(x=-100 * loss.margin, y=100 * gain.margin)
        dots.append(
            Dot(
                arm=row.arm,
                x=100 * loss.effect,
                y=100 * gain.effect,
                y_low=100 * gain.low,
                y_high=100 * gain.high,
                mark=_mark(row),
                x_low=100 * loss.low,
                x_high=100 * loss.high,
            )
        )
        table.append(
            (
                same(row.arm),
                same(f"{points(gain.effect)} {points_bounds(gain.low, gain.high)}"),
                same(f"{points(loss.effect)} {points_bounds(loss.low, loss.high)}"),
            )
        )
    chosen = [(row.arm, row.choice) for row in rows if table and row.choice]
    trails = []
    for arm, choice in chosen:
        changes = [_change(choice, point, retention, domain) for point in choice.points]
        marks = tuple((100 * kept, 100 * gained) for kept, gained in changes)
        trails.append(Trail(marks, trail_lines(choice), choice.taken))
        for place, (kept, gained) in enumerate(changes):
            name = both("scatter_state", arm=arm, state=state_name(choice, place))
            if place == choice.taken:
                name = both("scatter_taken", state=name)
            table.append((name, same(points(gained)), same(points(kept))))

    def draw(language: str) -> str:
        return scatter(
            dots,
            x_title=text("scatter_x", language, exam=retention.name),
            y_title=text("scatter_y", language, exam=domain.name),
            zone=zone,
            trails=trails,
            frontier=frontier([(dot.x, dot.y) for dot in dots]),
        )

    return Figure(
        caption=_learning_caption(rows, domain, bool(chosen)),
        svg={language: draw(language) for language in LANGUAGES} if table else {},
        header=(
            both("arm"),
            both("scatter_y", exam=domain.name),
            both("scatter_x", exam=retention.name),
        ),
        rows=tuple(table),
    )


def frontier(marks: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The marks that none of the others equals or beats in both directions, from left to right
    (Pareto)."""
    found: list[tuple[float, float]] = []
    for mark in sorted(set(marks), key=lambda mark: (-mark[0], -mark[1])):
        if not found or mark[1] > found[-1][1]:
            found.append(mark)
    return found[::-1]


def trail_lines(choice: Choice) -> tuple[tuple[int, ...], ...]:
    """Places of the points to be joined: from the start through the states, for each α; where the
    end is the only state, from the start through the α."""
    places = range(len(choice.points))
    start = tuple(i for i in places if choice.points[i].state == 0)
    learnt = [i for i in places if choice.points[i].state > 0]
    if {choice.points[i].state for i in learnt} == {choice.end}:
        return ((*start, *learnt),)
    alphas = sorted({choice.points[i].alpha for i in learnt})
    return tuple(
        (*start, *(i for i in learnt if choice.points[i].alpha == alpha)) for alpha in alphas
    )


def state_name(choice: Choice, place: int) -> Said:
    """A state that was chosen from, in words."""
    point = choice.points[place]
    if point.state == 0:
        return both("state_start")
    alpha = f"{point.alpha:g}"
    if point.state == choice.end:
        return both("state_end", alpha=alpha)
    return both("state_kept", number=point.state, alpha=alpha)


def choice_notes(rows: tuple[Standing, ...]) -> list[Said]:
    """One sentence for each arm whose state was chosen: which, by how many questions, and whether
    it keeps to what may be lost."""
    notes = []
    for row in rows:
        if row.choice is None:
            continue
        choice, point = row.choice, row.choice.points[row.choice.taken]
        key = "choice_taken" if choice.met else "choice_missed"
        if point.loss is None:
            key = "choice_unguarded"
        notes.append(
            both(
                key,
                arm=row.arm,
                state=state_name(choice, choice.taken),
                states=sum(one.alpha > 0 for one in choice.points),
                questions=count(sum(choice.questions.values())),
                domain=percent(point.domain),
                change=points(-point.loss) if point.loss is not None else "",
                allowed=points(-choice.max_loss),
            )
        )
    return notes


def _change(
    choice: Choice, point: ChoicePoint, retention: Exam, domain: Exam
) -> tuple[float, float]:
    kept, gained = (
        point.scores[exam.name] - choice.control[exam.name] for exam in (retention, domain)
    )
    return kept, gained


def _learning_caption(rows: tuple[Standing, ...], domain: Exam, chosen: bool) -> Said:
    splits = {s.split for row in rows if (s := row.sitting(domain))}
    split = both("split_dev" if splits == {"dev"} else "split_test")
    caption, states = both("scatter_caption", split=split), both("scatter_states")
    return {each: join([caption[each], states[each] if chosen else ""], each) for each in LANGUAGES}


def _quality(
    rows: tuple[Standing, ...],
    exam: Exam,
    measure: Callable[[Standing], float | None],
    show: Callable[[float], str],
    caption: Said,
    axis: str,
) -> Figure:
    dots: list[Dot] = []
    table: list[tuple[Said, ...]] = []
    for row in rows:
        score, value = row.primary(exam), measure(row)
        if score is None or value is None:
            continue
        dots.append(
            Dot(
                row.arm,
                value,
                100 * score.estimate,
                100 * score.low,
                100 * score.high,
                _mark(row),
            )
        )
        table.append(
            (same(row.arm), same(show(value)), same(f"{percent(score.estimate)} {bounds(score)}"))
        )

    def draw(language: str) -> str:
        return scatter(
            dots,
            x_title=text(f"{axis}_axis", language),
            y_title=text("quality_axis", language, exam=exam.name),
            x_from_zero=True,
        )

    return Figure(
        caption=caption,
        svg={language: draw(language) for language in LANGUAGES} if dots else {},
        header=(both("arm"), both(f"{axis}_axis"), both("quality_axis", exam=exam.name)),
        rows=tuple(table),
    )


def cell(interval: Interval | None) -> str:
    """A share with its interval, for a table cell."""
    if interval is None:
        return MISSING
    return typographic(f"{percent(interval.estimate)} {bounds(interval)}")
