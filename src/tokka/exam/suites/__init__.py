"""Public suites as recipes without data: each reads its publisher's own files and makes an exam.

    found = suite("jcommonsenseqa")           # what it is, its licence, where to get it
    built = build(found, Path("JGLUE"))       # see building.py

A recipe is a function without arguments that returns a `Suite`; `BUILTIN` names them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module

from tokka.errors import UsageError
from tokka.exam.suites.recipe import Suite

BUILTIN = {
    "jcommonsenseqa": "tokka.exam.suites.jglue:jcommonsenseqa",
    "jsquad": "tokka.exam.suites.jglue:jsquad",
    "jnli": "tokka.exam.suites.jglue:jnli",
    "jmmlu": "tokka.exam.suites.subjects:jmmlu",
    "mmlu": "tokka.exam.suites.subjects:mmlu",
    "lawqa_jp": "tokka.exam.suites.law:lawqa_jp",
    "igakuqa": "tokka.exam.suites.medicine:igakuqa",
    "pubmedqa": "tokka.exam.suites.medicine:pubmedqa",
    "medqa": "tokka.exam.suites.medicine:medqa",
    "gsm8k": "tokka.exam.suites.arithmetic:gsm8k",
    "tat-qa": "tokka.exam.suites.finance:tatqa",
    "financebench": "tokka.exam.suites.finance:financebench",
    "elyza-tasks-100": "tokka.exam.suites.tasks:elyza_tasks_100",
    "japanese-lm-fin-harness": "tokka.exam.suites.japanese_finance:japanese_lm_fin_harness",
}


def suite(name: str) -> Suite:
    """A suite by its name; raises UsageError naming the nearest ones."""
    if name not in BUILTIN:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), BUILTIN, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(BUILTIN)}"
        raise UsageError(f"suite {name!r} is unknown; {hint}")
    module, _, function = BUILTIN[name].partition(":")
    recipe: Callable[[], Suite] = getattr(import_module(module), function)
    return recipe()


def suites() -> list[Suite]:
    """All of them, in the order of `BUILTIN`."""
    return [suite(name) for name in BUILTIN]
