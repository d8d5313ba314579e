"""What a task makes of a row: prompts, targets and options from field names, templates and lists.

A specification such as `doc_to_text` is the name of a field, a Jinja template, or (for options and
targets) the value itself. All templates of an import are rendered together, in a process of their
own (see `sandbox`).

    renderings = Renderings(fields=["question", "answer"])
    text = renderings.ask("doc_to_text", "Q: {{question}}", row)     # a promise
    renderings.fulfil(task)
    renderings.text(text)
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokka.errors import Mistakes, UsageError
from tokka.exam.harness.task_file import TaskFile
from tokka.extras import require

TIMEOUT_SECONDS = 180.0
MAX_TEMPLATE_CHARACTERS = 100_000
SHOWN_MISTAKES = 20
_LIBRARIES = ("site-packages", "dist-packages")  # where Jinja may lie; never the current folder


@dataclass(frozen=True, slots=True)
class Asked:
    """A value that is known once all templates are rendered: `value`, or the text of `job`."""

    name: str
    value: Any = None
    job: int | None = None


@dataclass(slots=True)
class Renderings:
    """`fields` are the names of the asked rows' fields: one of them alone stands for its value."""

    fields: Sequence[str]
    _templates: dict[str, int] = field(default_factory=dict)
    _rows: list[Mapping[str, Any]] = field(default_factory=list)
    _row_places: dict[int, int] = field(default_factory=dict)
    _jobs: dict[tuple[int, int], int] = field(default_factory=dict)
    _asked: list[tuple[str, int, str]] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)

    def ask(self, name: str, specification: Any, row: Mapping[str, Any], row_name: str) -> Asked:
        """Promise the value of a specification for a row; `row_name` stands in mistakes."""
        if not isinstance(specification, str):
            return Asked(name, value=specification)
        if specification in self.fields:
            if specification not in row:
                raise UsageError(f"{name}: {row_name} has no field {specification!r}; add it")
            return Asked(name, value=row[specification])
        return Asked(name, job=self._job(name, specification, row, row_name))

    def resolve(self, name: str, specification: Any, row: Mapping[str, Any], where: str) -> Asked:
        """As `ask`, where the row's own fields decide what a name is (description, gen_prefix)."""
        if not specification:
            return Asked(name, value=None)
        if specification in row:
            return Asked(name, value=row[specification])
        return Asked(name, job=self._job(name, str(specification), row, where))

    def fulfil(self, task: TaskFile) -> None:
        """Render everything that was asked for. Raises Mistakes with each template that fails, the
        row and the place in the task."""
        require("jinja2", extra="local")
        request = {
            "templates": list(self._templates),
            "rows": self._rows,
            "jobs": [list(job) for job in self._jobs],
            "path": [path for path in sys.path if Path(path).name in _LIBRARIES],
        }
        replies = _child(request)
        wrong: dict[str, None] = {}
        for (name, _, row_name), reply in zip(self._asked, replies, strict=True):
            if "error" in reply:
                place = task.place(*name.split("."))
                said = f"{name}: {reply['error']}, in {row_name}; correct the template ({place})"
                wrong[said] = None
            self._texts.append(reply.get("text", ""))
        if wrong:
            items = list(wrong)
            more = len(items) - SHOWN_MISTAKES
            shown = items[:SHOWN_MISTAKES] + ([f"and {more} more"] if more > 0 else [])
            raise Mistakes(f"import: {len(items)} prompts of {task.name} can't be made", shown)

    def raw(self, asked: Asked) -> tuple[Any, bool]:
        """The value, and whether it was written by a template."""
        if asked.job is not None:
            return self._texts[asked.job], True
        return asked.value, False

    def _job(self, name: str, template: str, row: Mapping[str, Any], row_name: str) -> int:
        if len(template) > MAX_TEMPLATE_CHARACTERS:
            raise UsageError(f"{name}: a template of {len(template):,} characters; shorten it")
        place = self._templates.setdefault(template, len(self._templates))
        if id(row) not in self._row_places:
            self._row_places[id(row)] = len(self._rows)
            self._rows.append(row)
        key = (place, self._row_places[id(row)])
        if key not in self._jobs:
            self._jobs[key] = len(self._jobs)
            self._asked.append((name, place, row_name))
        return self._jobs[key]


def literal(text: str) -> Any:
    """A Python literal in a text, as the harness reads lists; ValueError where it is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text[:60]!r} is no list") from error


def _child(request: dict[str, Any]) -> list[dict[str, str]]:
    if not request["jobs"]:
        return []
    script = Path(__file__).with_name("sandbox.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=json.dumps(request, default=str).encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"import: the templates took more than {TIMEOUT_SECONDS:.0f} seconds; simplify them, "
            "or import fewer rows with --limit"
        ) from error
    if done.returncode != 0:
        raise UsageError(
            "import: the templates took more time or memory than is given to them; simplify them, "
            "or import fewer rows with --limit"
        )
    replies: list[dict[str, str]] = json.loads(done.stdout)
    return replies
