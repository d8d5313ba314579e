"""Draw the few-shot examples of each question as the harness draws them.

Rows of the pool → places of the drawn rows, question by question. The default sampler is one
generator for the whole task, seeded with 1234 and used in the order of the questions, so that the
same rows come with every run, and with the first N questions too; `first_n` takes the first ones.

>>> drawn(pool, asked=rows, count=5, sampler="default", leave_out_asked=False)[0]
[41, 7, 230, 18, 3]
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tokka.errors import UsageError

SEED = 1234
SAMPLERS = ("default", "first_n")

Row = Mapping[str, Any]


def drawn(
    pool: Sequence[Row],
    asked: Sequence[Row],
    count: int,
    sampler: str,
    leave_out_asked: bool,
) -> list[list[int]]:
    """For each asked row the places in `pool` of its examples, in their order.

    `leave_out_asked`: rows equal to the asked one are no example for it. Raises UsageError where
    the pool is too small.
    """
    if count == 0:
        return [[] for _ in asked]
    generator = random.Random(SEED)
    places = list(range(len(pool)))
    found: list[list[int]] = []
    for row in asked:
        others = [p for p in places if pool[p] != row] if leave_out_asked else places
        needed = count + leave_out_asked if sampler == "default" else count
        if len(others) < count or (sampler == "default" and len(places) < needed):
            raise UsageError(
                f"num_fewshot: {count} examples are wanted and {len(others)} rows are there; ask "
                "for fewer with --shots, or add rows"
            )
        if sampler == "first_n":
            found.append(others[:count])
        elif not leave_out_asked:
            found.append(generator.sample(places, count))
        else:
            kept = [p for p in generator.sample(places, count + 1) if pool[p] != row][:count]
            found.append(kept if len(kept) == count else generator.sample(others, count))
    return found
