"""Charts as static SVG: forest plots, scatter plots and curves, drawn by Altair and vl-convert.

Values in, one `<svg>` element out: no script, no id, no style attribute, so that it can be inlined
under a strict content security policy and printed. Colours are CSS variables (`var(--pass)`), which
makes one drawing serve light, dark and paper; text stays text. Layout is fixed, never measured from
fonts, so the machine that draws needs no Japanese font.

>>> svg = forest([ForestRow("rag", 0.12, 0.04, 0.20, "pass")], margin=0.0, side="gain", ...)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokka.extras import require
from tokka.records import Outcome
from tokka.report.layout import FONT_SIZE, Label, limits, place, shortened, ticks
from tokka.report.numbers import points, points_bounds, size

WIDTH = 440  # pixels: two charts side by side on a desk, one on a phone, still legible there
# Vega wants real colours: these stand for CSS variables and are replaced in the SVG.
COLOURS = {
    "#0a0001": "ink",
    "#0a0002": "muted",
    "#0a0003": "rule",
    "#0a0004": "pass",
    "#0a0005": "fail",
    "#0a0006": "inconclusive",
    "#0a0007": "zone",
}
HEX = {name: colour for colour, name in COLOURS.items()}
SHAPES = {"pass": "circle", "fail": "cross", "inconclusive": "diamond", "control": "square"}
Mark = Outcome | Literal["control"]


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One arm's effect as shares (0.12 is 12 points)."""

    arm: str
    effect: float
    low: float
    high: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Dot:
    """A point with its intervals, in the units of the axes."""

    arm: str
    x: float
    y: float
    y_low: float
    y_high: float
    mark: Mark
    x_low: float | None = None
    x_high: float | None = None


@dataclass(frozen=True, slots=True)
class Trail:
    """Small marks joined by lines, such as the states of one training; each of `lines` runs through
    places of `marks`, and the mark at `ringed` was taken."""

    marks: tuple[tuple[float, float], ...]
    lines: tuple[tuple[int, ...], ...]
    ringed: int


@dataclass(frozen=True, slots=True)
class Zone:
    """What the policy accepts: right of `x` and above `y`."""

    x: float
    y: float


def forest(
    rows: Sequence[ForestRow],
    *,
    margin: float,
    side: Literal["gain", "loss"],
    axis_title: str,
    margin_label: str,
) -> str:
    """One line per arm: dot, interval and figures; a dashed line marks what had to be cleared."""
    alt = require("altair", extra="report")
    left, plot, right, step, top = 92, 214, WIDTH - 92 - 214, 34, 22
    line = 100 * (margin if side == "gain" else -margin)
    data = [
        {
            "row": index,
            "arm": shortened(row.arm, 13),
            "effect": 100 * row.effect,
            "low": 100 * row.low,
            "high": 100 * row.high,
            "figures": f"{points(row.effect)} {points_bounds(row.low, row.high)}".replace("-", "−"),
            "outcome": row.outcome,
        }
        for index, row in enumerate(rows)
    ]
    x_domain = limits([0.0, line, *(100 * end for row in rows for end in (row.low, row.high))])
    source = alt.InlineData(values=data)
    base = alt.Chart(source).encode(
        y=alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0.25))
    )
    x = alt.X(
        "effect:Q",
        scale=alt.Scale(domain=x_domain, nice=False, zero=False),
        axis=_axis(alt, axis_title, x_domain),
    )
    height = step * max(1, len(data))
    layers = [
        _upright(alt, 0.0, HEX["muted"], [1, 0], top=0, height=height),
        _upright(alt, line, HEX["ink"], [4, 3], top=-8, height=height),
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q"), x2="high:Q", color=_colour(alt)),
        base.mark_point(filled=True, size=95, opacity=1).encode(
            x=x, color=_colour(alt), shape=_shape(alt)
        ),
        base.mark_text(align="right", fontSize=FONT_SIZE, color=HEX["ink"]).encode(
            x=alt.value(-8), text="arm:N"
        ),
        base.mark_text(align="left", fontSize=11, color=HEX["ink"]).encode(
            x=alt.value(plot + 8), text="figures:N"
        ),
        _note(alt, margin_label, line, x_domain, plot),
    ]
    return _svg(alt, layers, plot, height, left, right, top, bottom=44)


def scatter(
    dots: Sequence[Dot],
    *,
    x_title: str,
    y_title: str,
    zone: Zone | None = None,
    x_from_zero: bool = False,
    trails: Sequence[Trail] = (),
    frontier: Sequence[tuple[float, float]] = (),
) -> str:
    """Dots with interval crosses and names beside them; `zone` shades what the policy accepts.
    `frontier` is joined by a dashed line, from left to right."""
    alt = require("altair", extra="report")
    left, plot, right, height, top = 58, WIDTH - 58 - 16, 16, 270, 28
    xs = [v for d in dots for v in (d.x, d.x_low, d.x_high) if v is not None]
    ys = [v for d in dots for v in (d.y_low, d.y_high)]
    small = [mark for trail in trails for mark in trail.marks]
    xs, ys = xs + [mark[0] for mark in small], ys + [mark[1] for mark in small]
    if zone:
        xs, ys = [*xs, zone.x, 0.0], [*ys, zone.y, 0.0]
    x_domain = limits([0.0, *xs] if x_from_zero else xs, floor=0.0 if x_from_zero else None)
    y_domain = limits(ys)
    data = [
        {
            "x": d.x,
            "y": d.y,
            "x_low": d.x if d.x_low is None else d.x_low,
            "x_high": d.x if d.x_high is None else d.x_high,
            "y_low": d.y_low,
            "y_high": d.y_high,
            "outcome": d.mark,
        }
        for d in dots
    ]
    base = alt.Chart(alt.InlineData(values=data))
    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=x_domain, nice=False, zero=False),
        axis=_axis(alt, x_title, x_domain),
    )
    y = alt.Y(
        "y:Q",
        scale=alt.Scale(domain=y_domain, nice=False, zero=False),
        axis=_axis(alt, y_title, y_domain, upright=True),
    )
    layers = []
    if zone:
        corner = [{"x": zone.x, "y": zone.y, "x2": x_domain[1], "y2": y_domain[1]}]
        layers.append(
            alt.Chart(alt.InlineData(values=corner))
            .mark_rect(color=HEX["zone"], opacity=1)
            .encode(x=alt.X("x:Q"), x2="x2:Q", y=alt.Y("y:Q"), y2="y2:Q")
        )
    if len(frontier) > 1:
        layers.append(_line(alt, frontier, HEX["ink"], strokeDash=[5, 4], strokeWidth=1.2))
    for trail in trails:
        layers += _trail(alt, trail)
    layers += [
        base.mark_rule(strokeWidth=1.5, opacity=0.65).encode(
            x=alt.X("x:Q"), y=alt.Y("y_low:Q"), y2="y_high:Q", color=_colour(alt)
        ),
        base.mark_rule(strokeWidth=1.5, opacity=0.65).encode(
            x=alt.X("x_low:Q"), x2="x_high:Q", y=alt.Y("y:Q"), color=_colour(alt)
        ),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=x, y=y, color=_colour(alt), shape=_shape(alt)
        ),
    ]
    labels = place([(dot.arm, dot.x, dot.y) for dot in dots], x_domain, y_domain, plot, height)
    for dot, label in zip(dots, labels, strict=True):
        layers.append(_label(alt, dot.x, dot.y, label))
    return _svg(alt, layers, plot, height, left, right, top, bottom=46)


@dataclass(frozen=True, slots=True)
class Curve:
    """An arm's (x, y) in the units of the axes, from left to right; a dot marks its end where the
    arm stops there by itself."""

    arm: str
    points: tuple[tuple[float, float], ...]
    ends: bool


DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4], [1, 4])


def curves(lines: Sequence[Curve], *, x_title: str, y_title: str) -> str:
    """One line per arm, from 0 to 100 on the x axis, told apart by its dashes and its name."""
    alt = require("altair", extra="report")
    left, plot, right, height, top = 58, WIDTH - 58 - 16, 16, 270, 28
    x_domain = [0.0, 100.0]
    y_domain = limits([0.0, *(y for line in lines for _, y in line.points)], floor=0.0)
    layers = []
    for number, line in enumerate(lines):
        dashes = DASHES[number % len(DASHES)]
        layers.append(_line(alt, line.points, HEX["ink"], strokeDash=dashes, strokeWidth=1.8))
    last = [{"x": x, "y": y} for line in lines if line.ends for x, y in line.points[-1:]]
    single = [{"x": x, "y": y} for line in lines if len(line.points) == 1 for x, y in line.points]
    axes = alt.Chart(alt.InlineData(values=last + single)).mark_point(
        filled=True, size=95, opacity=1, color=HEX["ink"], shape="diamond"
    )
    layers.append(
        axes.encode(
            x=alt.X(
                "x:Q",
                scale=alt.Scale(domain=x_domain, nice=False, zero=False),
                axis=_axis(alt, x_title, x_domain),
            ),
            y=alt.Y(
                "y:Q",
                scale=alt.Scale(domain=y_domain, nice=False, zero=False),
                axis=_axis(alt, y_title, y_domain, upright=True),
            ),
        )
    )
    named = [(line.arm, *line.points[-1]) for line in lines]
    beside = [("", x, y) for line in lines for x, y in line.points]  # no name covers a line
    labels = place([*named, *beside], x_domain, y_domain, plot, height)
    layers += [_label(alt, x, y, one) for (_, x, y), one in zip(named, labels, strict=False)]
    return _svg(alt, layers, plot, height, left, right, top, bottom=46)


def _trail(alt: Any, trail: Trail) -> list[Any]:
    """Hollow, so that a dot below can be seen; thin, so that no line is taken for an interval."""
    lines = [[trail.marks[place] for place in line] for line in trail.lines]
    layers = [_line(alt, line, HEX["muted"], strokeWidth=1) for line in lines if len(line) > 1]
    data = [{"x": x, "y": y} for x, y in dict.fromkeys(trail.marks)]
    taken = [dict(zip("xy", trail.marks[trail.ringed], strict=True))]
    for values, area, width in ((data, 26, 1.2), (taken, 150, 1.8)):
        layers.append(
            alt.Chart(alt.InlineData(values=values))
            .mark_point(
                shape="circle", filled=False, size=area, strokeWidth=width, color=HEX["muted"]
            )
            .encode(x=alt.X("x:Q"), y=alt.Y("y:Q"))
        )
    return layers


def _label(alt: Any, x: float, y: float, label: Label) -> Any:
    return (
        alt.Chart(alt.InlineData(values=[{"x": x, "y": y, "text": label.text}]))
        .mark_text(
            align=label.align,
            baseline="middle",
            dx=label.dx,
            dy=label.dy,
            fontSize=FONT_SIZE,
            fontWeight="bold",
            color=HEX["ink"],
        )
        .encode(x="x:Q", y="y:Q", text="text:N")
    )


def _line(alt: Any, points: Sequence[tuple[float, float]], colour: str, **style: Any) -> Any:
    values = [{"x": x, "y": y, "order": order} for order, (x, y) in enumerate(points)]
    return (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(color=colour, **style)
        .encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), order=alt.Order("order:Q"))
    )


def _axis(alt: Any, title: str, domain: list[float], upright: bool = False) -> Any:
    """Titles lie flat above the axis, also for y: rotated Japanese is hard to read."""
    flat = {"titleAngle": 0, "titleAlign": "left", "titleX": -50, "titleY": -14} if upright else {}
    return alt.Axis(
        title=title,
        titleFontSize=FONT_SIZE,
        titleFontWeight="normal",
        titleColor=HEX["muted"],
        titlePadding=8,
        labelFontSize=FONT_SIZE,
        labelColor=HEX["muted"],
        labelFlush=False,
        labelOverlap=False,
        domainColor=HEX["rule"],
        tickColor=HEX["rule"],
        gridColor=HEX["rule"],
        gridOpacity=0.6,
        grid=upright,
        tickCount=5,
        values=ticks(domain),
        **flat,
    )


def _colour(alt: Any) -> Any:
    names = ["pass", "fail", "inconclusive", "control"]
    colours = [HEX["pass"], HEX["fail"], HEX["inconclusive"], HEX["ink"]]
    return alt.Color("outcome:N", scale=alt.Scale(domain=names, range=colours), legend=None)


def _shape(alt: Any) -> Any:
    scale = alt.Scale(domain=list(SHAPES), range=list(SHAPES.values()))
    return alt.Shape("outcome:N", scale=scale, legend=None)


def _upright(alt: Any, value: float, colour: str, dash: list[int], top: int, height: int) -> Any:
    return (
        alt.Chart(alt.InlineData(values=[{"x": value}]))
        .mark_rule(color=colour, strokeDash=dash, strokeWidth=1.2)
        .encode(x=alt.X("x:Q"), y=alt.value(top), y2=alt.value(height))
    )


def _note(alt: Any, label: str, value: float, domain: list[float], width: int) -> Any:
    share = (value - domain[0]) / (domain[1] - domain[0])
    align = "left" if share < 0.25 else "right" if share > 0.75 else "center"
    return (
        alt.Chart(alt.InlineData(values=[{"x": value, "text": label}]))
        .mark_text(align=align, fontSize=11, color=HEX["muted"], clip=False)
        .encode(x=alt.X("x:Q"), y=alt.value(-14), text="text:N")
    )


def _svg(
    alt: Any,
    layers: list[Any],
    width: int,
    height: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
) -> str:
    chart = (
        alt.layer(*layers)
        .properties(
            width=width,
            height=height,
            padding={"left": left, "right": right, "top": top, "bottom": bottom},
            autosize=alt.AutoSizeParams(type="none"),
        )
        .configure(font="sans-serif", background="transparent", aria=False)
        .configure_view(stroke=None)
    )
    converter = require("vl_convert", extra="report")
    svg: str = converter.vegalite_to_svg(chart.to_dict())
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(
        r' (?:font-family|aria-roledescription|role|pointer-events|class)="[^"]*"', "", svg
    )
    svg = re.sub(
        r'^<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg
    )
    return svg


def margin_text(margin: float, side: Literal["gain", "loss"]) -> str:
    """The margin as it stands on the axis: `+0.0` for a gain, `−10.0` for a permitted loss."""
    return points(margin) if side == "gain" else "−" + size(margin)
