"""A chat template is a program: look at it before anything renders it.

Template → nothing, or IntegrityError. transformers renders templates in Jinja's sandbox; this is
the wall before that one. First the template's tree: names that lead out of the sandbox, functions
and numbers that no chat needs and that would take all memory or time. Then it is rendered on
invented conversations in a child process with two seconds and half a gigabyte.

>>> check_template(text, "chat_template.jinja")

What stays possible: a template that grows without bounds only at some word of a conversation, which
costs the request that says it.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.extras import require
from tokka.models.safety import rehearsal
from tokka.models.safety.kinds import shown

MAX_CHARACTERS = 131_072
MAX_NUMBER = 10_000
TIMEOUT_SECONDS = 20.0  # the child takes 0.1 s; the rest is for a machine that is busy
_FUNCTIONS = frozenset({"cycler", "joiner", "lipsum", "self"})  # their code is reachable from them
_FILTERS = frozenset({"attr", "pprint", "urlize", "xmlattr"})
_BY_NAME = frozenset({"map", "select", "reject"})  # filters that take another filter's name
_FORMATS = frozenset({"format", "format_map"})
_WAYS_OUT = re.compile(
    r"__[a-z]+(?:_[a-z]+)*__|\b(?:func_|gi_|cr_|ag_|tb_|co_|f_)(?:globals|builtins|code|frame|locals|closure)\b"
)
_FIELD = re.compile(r"\{[^{}]*[.\[][^{}]*\}|\{[^{}]*:[^{}]*\d{4,}[^{}]*\}|%[-+ #0]*(?:\d{4,}|\*)")


def check_template(template: str, place: str) -> None:
    """`place` says in messages where the template stands. Raises IntegrityError; MissingExtra
    without Jinja."""
    if len(template) > MAX_CHARACTERS:
        raise _refused(place, f"has {len(template):,} characters, of at most {MAX_CHARACTERS:,}")
    reason = _reason(template)
    if reason:
        raise _refused(place, reason)


def _refused(place: str, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{place}: the chat template {reason}, so it is not rendered; take the template of the "
        "model's own publisher, or delete what does this"
    )


@functools.lru_cache(maxsize=64)
def _reason(template: str) -> str:
    require("jinja2", extra="local")
    from jinja2 import TemplateSyntaxError

    try:
        tree = rehearsal.environment().parse(template)
        reason = next(_reasons(tree), "")
    except TemplateSyntaxError as error:
        return f"is no Jinja (line {error.lineno}: {shown(error.message)})"
    except RecursionError:
        return "is nested too deeply"
    return reason or _rehearse(template)


def _reasons(tree: Any) -> Iterator[str]:
    """What no chat needs. Names count where they are looked up, and in texts that could be."""
    from jinja2 import nodes

    for node in _all(tree):
        where = f"(line {node.lineno})"
        if isinstance(node, (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)):
            yield f"loads another template {where}"
        elif isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            yield f"looks up {shown(node.attr)} {where}"
        elif isinstance(node, nodes.Name) and node.name in _FUNCTIONS and node.ctx == "load":
            yield f"uses {node.name} {where}"
        elif isinstance(node, nodes.Const):
            yield from _constant(node.value, where)
        elif isinstance(node, nodes.Filter):
            yield from _filter(node, where)
        elif isinstance(node, nodes.Call):
            yield from _call(node, where)
        elif isinstance(node, nodes.Pow):
            yield f"raises to a power {where}"
        elif isinstance(node, nodes.Mod) and isinstance(node.left, nodes.Const):
            if _is_format(node.left):
                yield f"formats with a text that isn't plain {where}"
        elif isinstance(node, nodes.Mul) and _product(node) > MAX_NUMBER:
            yield f"counts to more than {MAX_NUMBER:,} {where}"
        elif isinstance(node, nodes.Assign) and _doubles(node):
            yield f"joins a value with itself again and again {where}"


def _all(tree: Any) -> Iterator[Any]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(list(node.iter_child_nodes()))


def _product(node: Any) -> float:
    """Of the numbers in a chain of multiplications, whatever else is in it."""
    from jinja2 import nodes

    if isinstance(node, nodes.Mul):
        return _product(node.left) * _product(node.right)
    number = isinstance(node, nodes.Const) and isinstance(node.value, (int, float))
    return max(1.0, abs(node.value)) if number else 1.0


def _doubles(node: Any) -> bool:
    """`x = x ~ x`: in a loop of 40 turns, a terabyte."""
    from jinja2 import nodes

    target = node.target
    name = getattr(target, "name", None)
    read = (
        nodes.Getattr(nodes.Name(name, "load"), target.attr, "load")
        if isinstance(target, nodes.NSRef)
        else nodes.Name(name, "load")
    )
    waiting, count = [node.node], 0
    while waiting:
        part = waiting.pop()
        count += part == read
        if isinstance(part, nodes.Concat):
            waiting += part.nodes
        elif isinstance(part, (nodes.Add, nodes.Mul)):
            waiting += [part.left, part.right]
    return count > 1


def _constant(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, str):
        found = _WAYS_OUT.search(value)
        if found:
            yield f"names {shown(found[0])} {where}"
    elif isinstance(value, (int, float)) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        yield f"counts to more than {MAX_NUMBER:,} {where}"


def _filter(node: Any, where: str) -> Iterator[str]:
    from jinja2 import nodes

    first = node.args[0].value if node.args and isinstance(node.args[0], nodes.Const) else None
    if node.name in _FILTERS:
        yield f"uses the filter {node.name} {where}"
    elif node.name in _BY_NAME and (first in _FILTERS or first in _FORMATS):
        yield f"uses the filter {shown(first)} {where}"
    elif node.name in _BY_NAME and node.args and first is None:
        yield f"uses a filter whose name it computes {where}"
    elif node.name == "format" and _is_format(node.node):
        yield f"formats with a text that isn't plain {where}"


def _call(node: Any, where: str) -> Iterator[str]:
    from jinja2 import nodes

    target = node.node
    if isinstance(target, nodes.Getattr):
        name, of = target.attr, target.node
    elif isinstance(target, nodes.Getitem) and isinstance(target.arg, nodes.Const):
        name, of = target.arg.value, target.node
    else:
        return
    if name in _FORMATS and _is_format(of):
        yield f"formats with a text that isn't plain {where}"


def _is_format(node: Any) -> bool:
    """A format whose fields look into values or are wide, or that isn't known before."""
    from jinja2 import nodes

    if not isinstance(node, nodes.Const):
        return True
    return isinstance(node.value, str) and bool(_FIELD.search(node.value))


def _rehearse(template: str) -> str:
    """Why a child process couldn't render it; empty where it could."""
    script = Path(rehearsal.__file__)
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=template.encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "takes more time than a chat needs"
    said = done.stdout.decode("ascii", "replace")
    if done.returncode < 0:
        return "takes more time or memory than a chat needs"
    return {
        "ok": "",
        "too long": "makes a text without end",
        "SecurityError": "tries to leave its sandbox",
        "RecursionError": "calls itself without end",
        "MemoryError": "takes more memory than a chat needs",
    }.get(said, f"can't be rendered ({shown(said) or done.returncode})")
