"""What the base model may be used under, as far as it is known: it travels with what is made of it.

    licence_of(build)     # Licence("Gemma is provided under …", terms=(…, "LICENCE.html"))

An embedded model's licence is known; a folder's stands in its README; of anything else the project
file must say it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tokka.errors import UsageError
from tokka.models.embedded import EMBEDDED
from tokka.models.opening import kind
from tokka.pipeline import Build

PAPERS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING")


@dataclass(frozen=True, slots=True)
class Licence:
    """`name`: a licence's name, or what it demands in a sentence. `terms`: what must travel along,
    sentences and the names of files that lie with the weights."""

    name: str
    terms: tuple[str, ...] = ()


def licence_of(build: Build) -> Licence:
    """The base model's licence and its terms. Raises UsageError where nobody says what it is."""
    project = build.project
    papers = _papers(build.base)
    if kind(project.base_model) == "embedded":
        model = EMBEDDED[project.base_model.removeprefix("embedded:")]
        said = (project.release.licence,) if project.release.licence else ()
        return Licence(model.licence, (model.licence, *said, *papers))
    name = project.release.licence.strip() or _of_card(build.base)
    if not name:
        raise UsageError(
            f"release: nothing says what {project.base_model} may be used under; write "
            f"release: {{licence: …}} in {project.file}, as its publisher says"
        )
    return Licence(name, papers)


def _papers(base: Path | None) -> tuple[str, ...]:
    """Files with licences and notices beside the weights; the export takes them along."""
    if base is None or not base.exists():
        return ()
    folder = base if base.is_dir() else base.parent
    files = (path.name for path in folder.iterdir() if path.is_file())
    return tuple(sorted(name for name in files if name.upper().startswith(PAPERS)))


def _of_card(base: Path | None) -> str:
    """`license:` of a model card's front matter (Hugging Face's README.md)."""
    card = base / "README.md" if base is not None and base.is_dir() else None
    if card is None or not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\r?\n(.*?)\r?\n---", text, flags=re.DOTALL)
    found = re.search(r"^license:[ \t]*(\S[^\r\n]*)", front[1], re.MULTILINE) if front else None
    return found[1].strip().strip("\"'") if found else ""
