"""Where things stand in a chart: axis limits, round ticks, names that don't cover each other.

Pure arithmetic on estimated text widths, so a chart looks the same whatever fonts are installed.

>>> place([("rag", 3.0, 62.0), ("lora", 3.1, 60.0)], x_domain, y_domain, width=300, height=200)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FONT_SIZE = 12
# Offsets in pixels from the dot: right and left, near before far.
PLACES = ((9, -10), (9, 11), (-9, -10), (-9, 11), (9, -24), (9, 25), (-9, -24), (-9, 25))


def limits(values: Sequence[float], floor: float | None = None) -> list[float]:
    """An axis that holds all values with some room; it starts at `floor` where one is given."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or max(1.0, abs(high)) * 0.1
    start = low - room if floor is None else floor
    return [float(f"{end:.6g}") for end in (start, high + room)]


def ticks(domain: list[float]) -> list[float]:
    """Round numbers within the domain, at most eight: steps of 1, 2, 2.5 or 5 × a power of ten."""
    span = domain[1] - domain[0]
    power = 10.0
    while power > span:
        power /= 10
    while power * 10 <= span:
        power *= 10
    step = next(power * f for f in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5) if span / (power * f) <= 7)
    first = -(-domain[0] // step)
    marks = [float(f"{(first + k) * step:.6g}") for k in range(8)]
    return [mark for mark in marks if mark <= domain[1]]


@dataclass(frozen=True, slots=True)
class Label:
    """A name and its offset in pixels from its dot."""

    text: str
    align: Literal["left", "right"]
    dx: int
    dy: int


def place(
    points: Sequence[tuple[str, float, float]],
    x_domain: list[float],
    y_domain: list[float],
    width: int,
    height: int,
) -> list[Label]:
    """Names of points (name, x, y), each in the first of eight places that covers the least.

    Greedy, in the given order; dots and earlier names count as covered, and so do the edges.
    """
    centres = [
        (
            (x - x_domain[0]) / (x_domain[1] - x_domain[0]) * width,
            (y_domain[1] - y) / (y_domain[1] - y_domain[0]) * height,
        )
        for _, x, y in points
    ]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in centres]
    labels: list[Label] = []
    for (name, _, _), (x, y) in zip(points, centres, strict=True):
        text = shortened(name, 16)
        length = _units(text) * FONT_SIZE * 0.58
        best: tuple[float, Label, tuple[float, float, float, float]] | None = None
        for dx, dy in PLACES:
            x0 = x + dx if dx > 0 else x + dx - length
            box = (x0, y + dy - 7, x0 + length, y + dy + 7)
            cost = sum(_overlap(box, other) for other in taken)
            cost += 50 * (max(0.0, -x0) + max(0.0, x0 + length - width))
            cost += 50 * (max(0.0, -box[1]) + max(0.0, box[3] - height))
            if best is None or cost < best[0]:
                best = (cost, Label(text, "left" if dx > 0 else "right", dx, dy), box)
        assert best is not None
        labels.append(best[1])
        taken.append(best[2])
    return labels


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _units(text: str) -> int:
    """Width in half characters: a Japanese character counts as two."""
    return sum(1 if ord(character) < 0x2E80 else 2 for character in text)


def shortened(text: str, units: int) -> str:
    """At most `units` half characters, the last one an ellipsis where something was cut."""
    if _units(text) <= units:
        return text
    kept = ""
    for character in text:
        if _units(kept + character) > units - 1:
            break
        kept += character
    return kept + "…"
