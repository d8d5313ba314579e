"""What a suite is: its description, and how its publisher's files become questions.

`read(source, split)` yields `Found` for each question and `Left` for each that can't be one; rows
are in the owner's fields (see `exam.shapes`), without a split: `building` gives them that.

>>> suite("gsm8k").licence
'MIT'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tokka.exam.suites.files import Source
from tokka.records import Normalisation, ShortScorer


@dataclass(frozen=True, slots=True)
class Found:
    """A question: `row` in the owner's fields, `place` in the publisher's file. `shot` is the
    answer as a few-shot example shows it, where that isn't the key's first text."""

    row: dict[str, Any]
    place: str
    shot: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is left out, and why."""

    place: str
    reason: str
    next_action: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """`splits[0]` is the one that is built unless another is named; `shots` is the split that feeds
    few-shot examples ("" where the publisher has none). `passages`: the publisher gives texts to
    answer from, which `--no-context` leaves out. `pictures`: some questions need a picture."""

    name: str
    title: str
    language: str
    task: str
    measures: str
    measures_ja: str
    licence: str
    url: str
    files: tuple[str, ...]
    splits: tuple[str, ...]
    read: Callable[[Source, str], Iterator[Found | Left]]
    shots: str = ""
    scorer: ShortScorer = "contained"
    normalisation: Normalisation = "tokens"
    passages: bool = False
    pictures: bool = False
