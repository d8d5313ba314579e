"""An examples file before anything is learnt from it: what would spoil the training is refused.

Examples file and exam questions → `Kept`, or Mistakes with every one of them: an answer that is
cut, an example that stands there twice, an exam question among the examples. Whoever knows of them
may have them left out instead; they are then named as dropped.

    kept = vet(Path("examples.jsonl"), {"domain/q1": "店長の決裁限度額は。"})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokka.dataset import preferences
from tokka.dataset.decontamination import Kept, leaks, refuse_leaks
from tokka.dataset.examples import Mistake, contradictions, survey
from tokka.errors import Mistakes, UsageError
from tokka.records import Dropped, Example, Objective

LEAVE_OUT = "set leave_out_mistakes: true in the stage to train without them"


def vet(path: Path, question_texts: Mapping[str, str], *, leave_out_mistakes: bool = False) -> Kept:
    """The examples of a file that may be learnt.

    `question_texts` maps exam questions' ids to what they ask. Same questions with different
    answers are kept; a row says so. Raises Mistakes for rows that can't be read, and for all
    mistakes together unless they are left out; UsageError where nothing is left.
    """
    surveyed = survey(path)
    leaking = refuse_leaks(surveyed.examples, question_texts)
    leaked = [_mistake(row, surveyed.places) for row in leaking.dropped]
    mistakes = sorted([*surveyed.mistakes, *leaked], key=_line)
    refused = [*surveyed.unreadable, *([] if leave_out_mistakes else map(str, mistakes))]
    if refused:
        choice = f"; correct them, or {LEAVE_OUT}" if mistakes and not leave_out_mistakes else ""
        raise Mistakes(f"examples: {len(refused)} mistakes in {path}{choice}", refused)
    wrong = {mistake.place for mistake in mistakes}
    kept = [e for e in surveyed.examples if surveyed.places[e.id] not in wrong]
    if not kept:
        raise UsageError(f"examples: every example in {path} is a mistake; {mistakes[0]}")
    return Kept(tuple(kept), (*map(_dropped, mistakes), *_notice(kept, path.name)))


def vet_preferences(
    path: Path,
    objective: Objective,
    question_texts: Mapping[str, str],
    *,
    leave_out_mistakes: bool = False,
) -> preferences.Kept:
    """The preferences of a file in which no exam question stands. Raises Mistakes as
    `read_preferences` does, and for all that are left out unless that is wanted."""
    found = preferences.read_preferences(path, objective)
    kept = preferences.refuse_leaks(found, question_texts)
    if kept.dropped and not leave_out_mistakes:
        places = dict(zip([p.id for p in found], preferences.places(path), strict=True))
        raise Mistakes(
            f"preferences: {len(kept.dropped)} mistakes in {path}; correct them, or {LEAVE_OUT}",
            [
                f"{row.item}: {row.reason}; {row.next_action} "
                f"({places[row.item.removeprefix('preference ')]})"
                for row in kept.dropped
            ],
        )
    return kept


def vet_texts(path: Path, texts: Mapping[str, str], question_texts: Mapping[str, str]) -> None:
    """Raise Mistakes naming every one of `texts` (by place) in which an exam question stands."""
    found = {leak.item_id: leak for leak in reversed(leaks(question_texts, texts))}
    if found:
        raise Mistakes(
            f"general text: {len(found)} mistakes in {path}",
            [
                f"general text: exam question {found[place].question_id} stands in it "
                f"({found[place].kind}, overlap {found[place].overlap:.2f}); remove it ({place})"
                for place in texts
                if place in found
            ],
        )


def _mistake(row: Dropped, places: Mapping[str, str]) -> Mistake:
    example_id = row.item.removeprefix("example ")
    return Mistake(example_id, places[example_id], row.reason, row.next_action)


def _line(mistake: Mistake) -> int:
    return int(mistake.place.rpartition(":")[2])


def _dropped(mistake: Mistake) -> Dropped:
    return Dropped(
        item=f"example {mistake.example_id}",
        reason=mistake.reason,
        stage="dataset",
        next_action=mistake.next_action,
    )


def _notice(examples: list[Example], file: str) -> list[Dropped]:
    found = contradictions(examples)
    if not found:
        return []
    one, other = found[0]
    return [
        Dropped(
            item=file,
            reason="kept, though the same question is answered differently "
            f"(questions: {len(found)}, such as in examples {one.id} and {other.id})",
            stage="dataset",
            next_action="decide which answer is right, or say in the question what differs",
        )
    ]
