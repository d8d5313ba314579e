"""The evidence on one page, in Japanese or English: opens offline, without scripts, prints on A4.

    View → HTML text; everything from outside is escaped, and a policy in the page forbids scripts

>>> page(view, "ja").startswith("<!DOCTYPE html>")
True
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from tokka.release.cards import TEMPLATES, Language, View, context, environment_of

if TYPE_CHECKING:
    from jinja2 import Environment


def page(view: View, language: Language) -> str:
    from markupsafe import Markup

    css = (TEMPLATES / "pack.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("pack.html.j2")
        .render(
            **context(view, language),
            css=Markup(css),  # our own file
            inventory=view.inventory,
        )
    )


@lru_cache
def _environment() -> Environment:
    jinja = environment_of(markup=True)
    jinja.filters.update(link=link, versions=versions)
    return jinja


def link(name: str) -> str:
    """A relative link to a file of the pack, whatever its name: never a scheme, never a way up."""
    return "./" + quote(name)


def versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
