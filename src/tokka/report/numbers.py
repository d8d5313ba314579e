"""Numbers as people read them: shares as percent, effects as signed percentage points.

Output is ASCII, so that a terminal of any encoding prints it; the page turns the minus signs into
typographic ones.

>>> percent(0.625), points(-0.031), points_bounds(-0.1, 0.02)
('62.5%', '-3.1', '[-10.0, +2.0]')
"""

from __future__ import annotations

import re

from tokka.records import Interval

MISSING = "-"


def _fixed(value: float, digits: int, sign: str = "") -> str:
    text = format(value, f"{sign}.{digits}f")
    return text.replace("-", "+" if sign else "") if float(text) == 0 else text


def percent(value: float) -> str:
    return _fixed(100 * value, 1) + "%"


def bounds(interval: Interval) -> str:
    """A share's interval in percent: `[53.1, 71.0]`."""
    return f"[{_fixed(100 * interval.low, 1)}, {_fixed(100 * interval.high, 1)}]"


def points(value: float) -> str:
    """A difference of two shares in signed percentage points: `+12.3`."""
    return _fixed(100 * value, 1, "+")


def size(value: float) -> str:
    """A width or margin in percentage points, without sign: `10.0`."""
    return _fixed(100 * value, 1)


def points_bounds(low: float, high: float) -> str:
    return f"[{points(low)}, {points(high)}]"


def probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_text(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def confidence(alpha: float) -> str:
    """The level of the two-sided interval of a one-sided test at `alpha`: 0.05 → `90%`."""
    return f"{100 * (1 - 2 * alpha):g}%"


def count(value: float) -> str:
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """Seconds, with as many digits as matter: `0.042`, `3.21`, `48`, `1,204`."""
    if value >= 20:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def money(usd: float) -> str:
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}" if usd >= 0.0001 else f"${usd:.2g}"


def typographic(text: str) -> str:
    """Turn the hyphens that stand for minus signs into U+2212; names such as `lora-2` stay."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\u2212", text)
