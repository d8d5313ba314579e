"""A task of lm-evaluation-harness → the rows of an exam file, and the shots that they hold.

Each row carries the whole prompt as the harness would send it (`completion`), so that the exam
needs neither the task nor its data again. An exam that tokka exported comes home as it was, as long
as the task still asks what was exported.

>>> imported = import_task(Path("faq.yaml"))
>>> write_task(imported, Path("faq.jsonl"))    # faq.jsonl, faq.shots.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import Mistakes, UsageError
from tokka.exam.checking import check_rows
from tokka.exam.harness.data import splits_of
from tokka.exam.harness.prompts import Item, Items, items_of
from tokka.exam.harness.settings import TaskSettings, settings_of, with_first_chain
from tokka.exam.harness.task_file import TaskFile, allowed_roots, read_task
from tokka.exam.rows import Row
from tokka.store import write_text

HOME = "tokka"  # the column in which an exported row keeps its own fields
SHOWN_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class ImportedTask:
    """`rows` are those of an exam file; `shots` are {"id", "text"}; `left_out` are sentences."""

    name: str
    version: str
    multiple_choice: bool
    metrics: tuple[str, ...]
    chains: tuple[str, ...]
    shot_count: int
    rows: list[dict[str, Any]]
    shots: list[dict[str, str]]
    notices: list[str]
    left_out: list[str]

    @property
    def normalisation(self) -> str:
        """By which tokka's score is the harness's first metric."""
        by = {"acc": "sum", "acc_norm": "characters", "acc_bytes": "bytes"}
        return by.get(self.metrics[0], "sum")

    def lines(self) -> list[str]:
        """What was imported, for people."""
        metric = self.metrics[0]
        kind = "choice questions" if self.multiple_choice else "questions answered in writing"
        decides = (
            f"{metric} is --normalisation {self.normalisation}"
            if self.multiple_choice
            else f"{metric} after the filter {self.chains[0]!r} decides"
        )
        return [
            f"{self.name}: {len(self.rows)} {kind}, {self.shot_count} shots each",
            f"metrics {', '.join(self.metrics)}; {decides}",
            *(f"note: {notice}" for notice in self.notices),
            *(f"left out: {said}" for said in self.left_out),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "version": self.version,
            "questions": len(self.rows),
            "form": "choice" if self.multiple_choice else "short",
            "shots": self.shot_count,
            "metrics": list(self.metrics),
            "normalisation": self.normalisation if self.multiple_choice else None,
            "filters": list(self.chains),
            "notices": self.notices,
            "left_out": self.left_out,
        }


def import_task(
    path: Path,
    *,
    shots: int | None = None,
    limit: int | None = None,
    chain: str | None = None,
    roots: Sequence[Path] = (),
    leave_out_mistakes: bool = False,
) -> ImportedTask:
    """Read a task and make its prompts. `chain` names the chain of filters that decides the score.

    Raises Mistakes or UsageError for whatever can't be taken over; with `leave_out_mistakes` single
    rows that are wrong are left out and named instead.
    """
    notices: list[str] = []
    task = read_task(path, roots)
    settings = settings_of(task, notices, shots)
    splits = splits_of(task, allowed_roots(path, roots), notices)
    asked = _split(task, splits, settings.asked_split, "test_split")
    if not asked:
        raise UsageError(f"import: split {settings.asked_split} of {path} is empty; add rows")
    asked = asked[:limit]
    pool_name, pool = _pool(task, settings, splits)
    made = items_of(task, settings, asked, pool, notices)
    names = _names(asked, settings.asked_split)
    shot_names = _names(pool, pool_name) if pool else []
    marking = _marking(task, settings, chain)
    rows: list[dict[str, Any]] = []
    mistakes = [f"{names[place]}: {said}" for place, said in made.mistakes]
    for item in made.items:
        row = _row(item, names[item.place], settings, marking, [shot_names[p] for p in item.shots])
        row = _came_home(asked[item.place], row) or row
        wrong = check_rows([Row(item.place + 1, row)], path.name).mistakes
        mistakes += [f"{names[item.place]}: {_said(mistake)}" for _, mistake in wrong]
        rows += [] if wrong else [row]
    rows, mistakes = _against_each_other(rows, path, mistakes)
    if mistakes and not (leave_out_mistakes and rows):
        more = len(mistakes) - SHOWN_MISTAKES
        raise Mistakes(
            f"import: {len(mistakes)} of {len(asked)} rows of {task.name} can't be asked "
            "(--leave-out-mistakes imports the others)",
            mistakes[:SHOWN_MISTAKES] + ([f"and {more} more"] if more > 0 else []),
        )
    return ImportedTask(
        name=settings.name,
        version=settings.version,
        multiple_choice=settings.multiple_choice,
        metrics=settings.metrics,
        chains=tuple(one.name for one in settings.marking.chains) if settings.marking else (),
        shot_count=settings.shots.count,
        rows=rows,
        shots=_shots(made, rows, shot_names),
        notices=list(dict.fromkeys(notices)),
        left_out=mistakes,
    )


def write_task(imported: ImportedTask, out: Path) -> list[Path]:
    """The exam file, and beside it the shots where there are some. Each appears whole or not at
    all."""
    write_text(out, _lines(imported.rows))
    if not imported.shots:
        return [out]
    write_text(shots_path(out), _lines(imported.shots))
    return [out, shots_path(out)]


def shots_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.shots.jsonl")


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---- rows -------------------------------------------------------------------------------------


def _split(
    task: TaskFile, splits: Mapping[str, list[dict[str, Any]]], name: str, field: str
) -> list[dict[str, Any]]:
    if name not in splits:
        raise UsageError(
            f"{field}: the data has no split {name!r}, it has {', '.join(splits)}; correct the "
            f"name ({task.place(field)})"
        )
    return splits[name]


def _pool(
    task: TaskFile, settings: TaskSettings, splits: Mapping[str, list[dict[str, Any]]]
) -> tuple[str, list[dict[str, Any]]]:
    """Where shots come from, by the harness's order: a split or samples of their own, else the
    training, validation or test rows."""
    if not settings.shots.count:
        return "", []
    if settings.shots.split is not None:
        return settings.shots.split, _split(task, splits, settings.shots.split, "fewshot_split")
    if settings.shots.samples is not None:
        return "sample", settings.shots.samples
    for field in ("training_split", "validation_split", "test_split"):
        name = getattr(settings, field)
        if name is not None:
            return name, _split(task, splits, name, field)
    return "", []


def _names(rows: Sequence[Mapping[str, Any]], split: str) -> list[str]:
    """The rows' own ids where all have one and no two the same, else the split and the place."""
    own = [row.get("id") for row in rows]
    texts = [str(one).strip() for one in own if isinstance(one, str | int)]
    if len(texts) == len(rows) and len(set(texts)) == len(rows) and all(texts):
        return texts
    return [f"{split}-{place}" for place in range(len(rows))]


def _marking(task: TaskFile, settings: TaskSettings, chain: str | None) -> dict[str, Any] | None:
    marking = settings.marking
    if marking is None:
        if chain is not None:
            raise UsageError(f"--filter {chain}: {task.name} is a choice task and has no filters")
        return None
    if chain is not None:
        try:
            marking = with_first_chain(marking, chain)
        except KeyError as error:
            names = ", ".join(one.name for one in marking.chains)
            raise UsageError(f"--filter {chain}: {task.name} has {names}; name one") from error
    return marking.model_dump(mode="json", exclude_defaults=True)


def _row(
    item: Item,
    name: str,
    settings: TaskSettings,
    marking: dict[str, Any] | None,
    shots: Sequence[str],
) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name, "question": item.question.strip() or item.completion.strip()}
    if settings.multiple_choice:
        row |= {"form": "choice", "choices": list(item.choices), "answer_index": item.gold}
        row |= {"completion": item.completion, "delimiter": settings.turn.target_delimiter}
    else:
        row |= {"form": "short", "answer": list(item.targets), "completion": item.completion}
        row |= {"stop": list(settings.stop), "max_tokens": settings.max_tokens}
        row["marking"] = marking
    row["split"] = "test"
    if shots:
        row["shots"] = list(shots)
    return row


def _came_home(source: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row that was exported, where the task still asks and marks what was exported."""
    kept = source.get(HOME)
    if not isinstance(kept, str):
        return None
    try:
        home = json.loads(kept)
    except ValueError:
        return None
    if not isinstance(home, dict) or not isinstance(home.get("row"), dict):
        return None
    asked = {name: value for name, value in row.items() if name not in ("id", "question", "split")}
    return home["row"] if home.get("asks") == asked else None


def _against_each_other(
    rows: list[dict[str, Any]], path: Path, mistakes: list[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    checked = check_rows([Row(place, row) for place, row in enumerate(rows)], path.name)
    bad = {line for line, _ in checked.mistakes}
    between = [f"{rows[line]['id']}: {_said(mistake)}" for line, mistake in checked.mistakes]
    return [row for place, row in enumerate(rows) if place not in bad], [*mistakes, *between]


def _said(mistake: str) -> str:
    """A mistake of an exam file without its place, which would be that of no file."""
    return mistake.removeprefix("exam: ").rpartition(" (")[0]


def _shots(
    made: Items, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, str]]:
    used = {name for row in rows for name in row.get("shots", ())}
    return [
        {"id": names[place], "text": text}
        for place, text in made.shot_texts.items()
        if names[place] in used
    ]
