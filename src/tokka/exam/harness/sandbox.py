"""Render Jinja templates in a process of their own, with bounded time and memory.

Templates and rows in as JSON on standard input, texts or errors out as JSON. A task file is
somebody else's text: its templates see the row and nothing else, through Jinja's immutable sandbox,
and one that would take all time or all memory ends this process, not the importer. So this file is
run as a script, in isolated mode, and imports nothing of tokka.

    python -I sandbox.py < {"templates": […], "rows": […], "jobs": [[template, row], …]}
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

CPU_SECONDS = 120
MEMORY_BYTES = 2 * 2**30
MAX_CHARACTERS = 1_000_000  # of one text


def main() -> None:
    """Read one request from standard input, write one reply to standard output."""
    _limit()
    request = json.loads(sys.stdin.buffer.read())
    sys.path += [path for path in request.get("path", []) if path not in sys.path]
    reply = rendered(request["templates"], request["rows"], request["jobs"])
    sys.stdout.buffer.write(json.dumps(reply).encode())


def rendered(
    templates: list[str], rows: list[dict[str, Any]], jobs: list[list[int]]
) -> list[dict[str, str]]:
    """{"text": …} or {"error": …} for each (template, row) of `jobs`, by their places."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["regex_replace"] = _regex_replace
    environment.globals.pop("lipsum", None)  # this and random: another prompt on each run
    environment.filters.pop("random", None)
    compiled: dict[int, Any] = {}
    replies: list[dict[str, str]] = []
    for template, row in jobs:
        try:
            if template not in compiled:
                compiled[template] = environment.from_string(templates[template])
            replies.append({"text": _joined(compiled[template].generate(**rows[row]))})
        except MemoryError:
            replies.append({"error": "takes too much memory"})
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
                AttributeError, RecursionError, re.error) as error:  # fmt: skip
            replies.append({"error": f"{type(error).__name__}: {error}"[:300]})
    return replies


def _joined(parts: Any) -> str:
    found, length = [], 0
    for part in parts:
        found.append(part)
        length += len(part)
        if length > MAX_CHARACTERS:
            raise ValueError(f"makes a text of more than {MAX_CHARACTERS:,} characters")
    return "".join(found)


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    """The one filter that the harness adds to Jinja's own."""
    return re.sub(pattern, replacement, text, count=count)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the parent's timeout remains
        return
    for name, most in (("RLIMIT_CPU", CPU_SECONDS), ("RLIMIT_AS", MEMORY_BYTES)):
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):
            continue  # a system that doesn't know this one


if __name__ == "__main__":
    main()
