"""What people see of suites in a terminal: the list, one suite, what was built, IgakuQA's marks.

Records → rich tables and lines of text; `cli_exam` prints them. `described` and `summary` are the
same as plain data, for --json.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from tokka.exam.igakuqa import PROHIBITED_LIMIT, Marks, Section, total
from tokka.exam.suites.building import Built
from tokka.exam.suites.recipe import Suite
from tokka.records import Dropped

SHOWN = 10


def list_of(suites: Sequence[Suite]) -> Table:
    """Name, what it measures with language and licence, and the files that it needs."""
    table = Table(show_lines=True)
    table.add_column("suite", no_wrap=True)
    table.add_column("what it measures", ratio=1)
    table.add_column("files in --source FOLDER", ratio=1, overflow="fold")
    for one in suites:
        what = f"{one.measures} ({one.task})\n{one.language} · {one.licence}"
        table.add_row(*map(escape, (one.name, what, "\n".join(one.files))))
    return table


def about(suite: Suite) -> Iterator[str]:
    """Everything that is known of one suite, a line each."""
    yield f"{suite.title}: {suite.measures}"
    yield f"  {suite.measures_ja}"
    yield f"  task      {suite.task}"
    yield f"  language  {suite.language}"
    yield f"  licence   {suite.licence}"
    yield f"  source    {suite.url}"
    yield f"  files     {', '.join(suite.files)}"
    yield f"  splits    {', '.join(suite.splits)}"
    yield f"  examples  {f'from {suite.shots}' if suite.shots else 'none published'}"
    yield f"  scorer    {suite.scorer} for short answers"
    yield f"  build     tokka exam build {suite.name} --source FOLDER"


def described(suite: Suite) -> dict[str, Any]:
    fields = ("name", "title", "language", "task", "measures", "measures_ja", "licence", "url")
    more = ("files", "splits", "shots", "scorer", "normalisation", "passages", "pictures")
    return {
        name: list(value) if isinstance(value := getattr(suite, name), tuple) else value
        for name in (*fields, *more)
    }


# ---- what was built ---------------------------------------------------------------------------


def summary(built: Built, out: Path, shots_out: Path | None, dry_run: bool) -> dict[str, Any]:
    return {
        "suite": built.suite.name,
        "split": built.split,
        "questions": len(built.rows),
        "topics": built.topics,
        "left_out": list(map(_plain, built.dropped)),
        "examples": len(built.examples),
        "examples_left_out": list(map(_plain, built.examples_dropped)),
        "files": [str(path) for path in built.opened],
        "out": str(out),
        "shots_out": str(shots_out) if shots_out else None,
        "settings": settings(built.suite, out),
        "dry_run": dry_run,
    }


def lines(built: Built, out: Path, shots_out: Path | None, dry_run: bool) -> Iterator[str]:
    """Counts, topics, what was left out and why, where it went, and how to examine with it."""
    suite, wrote = built.suite, "would write" if dry_run else "wrote"
    yield f"{suite.title}, split {built.split}: {len(built.rows)} questions"
    topics = [f"{name} {count}" for name, count in built.topics.items()]
    if topics:
        more = f", and {len(topics) - SHOWN} more topics" if len(topics) > SHOWN else ""
        yield f"  {', '.join(topics[:SHOWN])}{more}"
    yield from _left_out(built.dropped)
    yield f"  licence: {suite.licence}; source: {suite.url}"
    yield f"{wrote} {out}"
    if shots_out is not None:
        yield f"{wrote} {shots_out}: {len(built.examples)} examples"
        yield from _left_out(built.examples_dropped)
    scorer = f" --scorer {suite.scorer}" if suite.scorer != "contained" else ""
    yield f"next: tokka exam sit {shlex.quote(str(out))} --model MODEL{scorer} --out FOLDER"
    yield f"or in a project file: exams: {{{suite.name}: {_flow(settings(suite, out))}}}"


def settings(suite: Suite, out: Path) -> dict[str, str]:
    """What a project file says of the exam, where that isn't the default."""
    found = {"path": str(out), "role": "domain"}
    if suite.scorer != "contained":
        found["scorer"] = suite.scorer
    return found


def _left_out(dropped: Sequence[Dropped]) -> Iterator[str]:
    if dropped:
        yield f"  left out: {len(dropped)}"
    for one in dropped[:SHOWN]:
        action = f"; {one.next_action}" if one.next_action else ""
        yield f"    {one.item}: {one.reason}{action}"
    if len(dropped) > SHOWN:
        yield f"    and {len(dropped) - SHOWN} more; --json names all"


def _plain(one: Dropped) -> dict[str, str]:
    return {"item": one.item, "reason": one.reason, "next_action": one.next_action}


def _flow(fields: dict[str, str]) -> str:
    """YAML on one line; a path with more than plain characters stands in quotes."""
    plain = re.compile(r"[\w./-]+")
    said = {n: v if plain.fullmatch(v) else json.dumps(v) for n, v in fields.items()}
    return "{" + ", ".join(f"{name}: {value}" for name, value in said.items()) + "}"


# ---- IgakuQA's marks --------------------------------------------------------------------------


def marks_table(marks: Marks) -> Table:
    table = Table()
    for name in ("year", "section", "points", "of", "share", "right", "asked", "prohibited"):
        table.add_column(name, justify="left" if name in ("year", "section") else "right")
    for year, found in marks.years.items():
        verdict = f"{len(found.prohibited)}{': fails' if found.failed else ''}"
        for name, section in (*found.sections.items(), ("total", total(found.sections))):
            table.add_row(year, name, *_cells(section), verdict if name == "total" else "")
        table.add_section()
    for name, section in (*marks.totals.items(), ("total", total(marks.totals))):
        table.add_row("all", name, *_cells(section), "")
    return table


def marks_lines(marks: Marks) -> Iterator[str]:
    """What stood out: prohibited choices, questions without a prediction, unreadable ones."""
    for year, found in marks.years.items():
        if found.prohibited:
            end = f"; {PROHIBITED_LIMIT} fail the examination" if found.failed else ""
            yield f"{year}: prohibited choices: {', '.join(found.prohibited)}{end}"
        if found.missing:
            yield f"{year}: no prediction, so wrong: {_some(found.missing)}"
        if found.unreadable:
            yield f"{year}: predictions that are no letters: {_some(found.unreadable)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more; --json names all" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _cells(section: Section) -> tuple[str, ...]:
    share = f"{section.points / section.of:.1%}" if section.of else "-"
    return str(section.points), str(section.of), share, str(section.right), str(section.asked)
