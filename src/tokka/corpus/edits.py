"""Change a text and keep its page starts exact.

Text, page starts and edits → the new text and where its pages start now. A character that was on
page 3 stays on page 3, whatever was cut around it.

>>> apply("一頁\\n二頁\\n", (0, 3), [Edit(2, 3, "")])
('一頁二頁\\n', (0, 2))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Edit(NamedTuple):
    """`text[start:end]` becomes `text`; offsets in characters."""

    start: int
    end: int
    text: str = ""


def apply(
    text: str, page_starts: Sequence[int], edits: Iterable[Edit]
) -> tuple[str, tuple[int, ...]]:
    """The edited text and its page starts, as many as before and in the same order.

    `edits` are in order and disjoint. A page that starts inside of what is replaced starts as many
    characters into the replacement, at most at its end. Raises ValueError for edits that overlap.
    """
    parts: list[str] = []
    starts: list[int] = []
    done = length = page = 0  # read so far, written so far, pages placed

    def place(until: int, shift: int, most: int | None = None) -> None:
        nonlocal page
        while page < len(page_starts) and page_starts[page] < until:
            moved = page_starts[page] + shift
            starts.append(moved if most is None else min(moved, most))
            page += 1

    for start, end, new in edits:
        if start < done or end < start:
            raise ValueError(f"edits overlap: {start}:{end} after {done}")
        place(start + 1, length - done)
        parts += (text[done:start], new)
        length += start - done
        place(end, length - start, length + len(new))
        length += len(new)
        done = end
    place(len(text) + 1, length - done)
    parts.append(text[done:])
    return "".join(parts), tuple(starts)
