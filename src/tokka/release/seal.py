"""What results were made from, written down when they are written, and compared before a release.

    Results, files → Seal (evidence.json beside results.json)
    Seal as written, Seal as found now → Difference, one for each thing that isn't what it was

A seal isn't signed: whoever may write the workspace may write it too. It finds what is stale,
partial or from elsewhere; what was written by hand shows when scores are computed again from the
answers.

>>> [d.code for d in differences(sealed, found)]
['exam changed']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tokka.records import Record

FILE = "evidence.json"
DifferenceCode = Literal[
    "foreign project", "project changed", "base changed", "partial", "results changed",
    "timings changed", "exam changed", "candidate changed", "answers changed", "scores changed",
]  # fmt: skip


class SealedSitting(Record):
    """One arm's sitting of one exam. `folder` is the step's, empty where it has none; `digest` is
    over its files, `scores_sha256` of the scores beside the results. Empty: there is no such file.
    """

    arm: str
    exam: str
    folder: str
    digest: str
    scores_sha256: str


class Seal(Record):
    """All that one `results.json` was made from. `exams`: name → digest. `candidates`: arm → id."""

    project: str
    project_digest: str
    base_digest: str
    limit: int | None
    results_sha256: str
    timings_sha256: str
    exams: dict[str, str]
    candidates: dict[str, str]
    sittings: tuple[SealedSitting, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """`subject` names the exam, the arm or the file; `sealed` and `found` are both values."""

    code: DifferenceCode
    subject: str = ""
    sealed: str = ""
    found: str = ""
    exam: str = field(default="", kw_only=True)


def differences(sealed: Seal, found: Seal) -> Iterator[Difference]:
    """Everything in which two seals differ, and whether the sealed results are partial at all.

    What follows from something that is already named isn't named again: a changed exam has other
    sittings.
    """
    if sealed.project != found.project:
        yield Difference("foreign project", "", sealed.project, found.project)
    elif sealed.project_digest != found.project_digest:
        yield Difference("project changed", "", sealed.project_digest, found.project_digest)
    if sealed.base_digest != found.base_digest:
        yield Difference("base changed", "", sealed.base_digest, found.base_digest)
    if sealed.limit is not None:
        yield Difference("partial", "", str(sealed.limit), "")
    if sealed.results_sha256 != found.results_sha256:
        yield Difference("results changed", "", sealed.results_sha256, found.results_sha256)
    if sealed.timings_sha256 != found.timings_sha256:
        yield Difference("timings changed", "", sealed.timings_sha256, found.timings_sha256)
    exams = _changed(sealed.exams, found.exams)
    for name in exams:
        yield Difference(
            "exam changed", name, sealed.exams.get(name, ""), found.exams.get(name, "")
        )
    arms = _changed(sealed.candidates, found.candidates)
    for name in arms:
        yield Difference(
            "candidate changed",
            name,
            sealed.candidates.get(name, ""),
            found.candidates.get(name, ""),
        )
    yield from _sittings(sealed, found, set(exams), set(arms))


def _changed(sealed: dict[str, str], found: dict[str, str]) -> list[str]:
    return [name for name in {**sealed, **found} if sealed.get(name) != found.get(name)]


def _sittings(sealed: Seal, found: Seal, exams: set[str], arms: set[str]) -> Iterator[Difference]:
    then = {(s.arm, s.exam): s for s in sealed.sittings}
    now = {(s.arm, s.exam): s for s in found.sittings}
    for arm, exam in {**then, **now}:
        if arm in arms or exam in exams:
            continue
        old, new = then.get((arm, exam)), now.get((arm, exam))
        before = (old.folder, old.digest) if old else ("", "")
        after = (new.folder, new.digest) if new else ("", "")
        if before != after:
            yield Difference("answers changed", arm, before[1], after[1], exam=exam)
        scores = (old.scores_sha256 if old else "", new.scores_sha256 if new else "")
        if scores[0] != scores[1]:
            yield Difference("scores changed", arm, scores[0], scores[1], exam=exam)
