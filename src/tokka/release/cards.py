"""The model card (in Hugging Face's layout), the data card and `.eval_results`, from the evidence.

    View → README.md, data-card.md, .eval_results/EXAM.yaml

Texts from outside (a use, a licence, a reason) can't break out of their place: YAML is dumped,
Markdown is escaped.

>>> readme(view).splitlines()[0]
'---'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel

from tokka.extras import require
from tokka.records import canonical_json
from tokka.release.claims import percent, points
from tokka.release.records import Head, ModelEntry, Release

if TYPE_CHECKING:
    from jinja2 import Environment

Language = Literal["ja", "en"]
TEMPLATES = Path(__file__).parent / "templates"
# Licences that Hugging Face knows by these names; anything else is `other` with its name.
KNOWN_LICENCES = (
    "apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0",
    "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "openrail",
)  # fmt: skip
_MARKED = re.compile(r"([\\`*_\[\]#|~<>&])")
_BREAKS = re.compile(r"\s*[\r\n\u0085\u2028\u2029]+\s*")


@dataclass(frozen=True, slots=True)
class View:
    """All that cards and pages tell. `registry` is the inventory's row of the version, if any."""

    release: Release
    model: ModelEntry | None
    claims: Mapping[str, Any]
    card: Mapping[str, Any]
    lineage: Mapping[str, Any]
    environment: Mapping[str, Any]
    approvals: Mapping[str, Any]
    inventory: Mapping[str, Any]
    rerun: Mapping[str, Any]
    head: Head
    key_fingerprint: str
    made_at: str
    mappings: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def language(self) -> Language:
        return "ja" if self.release.language == "ja" else "en"

    @property
    def licence(self) -> str:
        return (self.model.licence if self.model else "") or self.release.base_licence


@lru_cache
def words(language: Language) -> dict[str, str]:
    texts = yaml.safe_load((TEMPLATES / "words.yaml").read_text(encoding="utf-8"))
    return {key: text[language] for key, text in texts.items()}


def readme(view: View) -> str:
    front = yaml.safe_dump(front_matter(view), allow_unicode=True, sort_keys=False, width=100)
    return _markdown("README.md.j2", view, front=front)


def data_card_text(view: View) -> str:
    return _markdown("data-card.md.j2", view)


def front_matter(view: View) -> dict[str, Any]:
    """The YAML at the head of the model card (huggingface/hub-docs, modelcard.md)."""
    release, licence = view.release, view.licence
    known = next((name for name in KNOWN_LICENCES if licence.lower() == name), None)
    if known is None and licence.lower().startswith("gemma"):
        known = "gemma"
    found: dict[str, Any] = {
        "language": [release.language],
        "license": known or "other",
    }
    if known is None and licence:
        found["license_name"] = licence
    found |= {
        "base_model": release.candidate.base_model.removeprefix("hub:"),
        "library_name": "gguf" if release.serves in ("f16", "q8_0", "q4_k_m") else "transformers",
        "pipeline_tag": "text-generation",
        "tags": _tags(release),
        "model-index": [{"name": release.name, "results": _index(view)}],
    }
    return found


def _tags(release: Release) -> list[str]:
    tags = ["tokka"]
    tags += ["retrieval-augmented"] if release.candidate.arm.retrieval else []
    tags += sorted({stage.kind for stage in release.candidate.arm.weights})
    return tags


def _index(view: View) -> list[dict[str, Any]]:
    results = []
    for exam, digest in view.release.exams.items():
        metrics = [
            {
                "type": row["what"],
                "name": f"{row['text']['en']} ({row['method']}, n = {row['n']})",
                "value": round(row["estimate"], 6),
                "confidence_interval": [round(row["low"], 6), round(row["high"], 6)],
            }
            for row in view.claims["measured"]
            if row["exam"] == exam
        ]
        if metrics:
            results.append({
                "task": {"type": "text-generation"},
                "dataset": {"name": exam, "type": f"private/{exam}", "split": "test",
                            "revision": digest},
                "metrics": metrics,
                "source": {"name": "tokka", "url": "claims.json"},
            })  # fmt: skip
    return results


def eval_results(view: View) -> dict[str, str]:
    """Exam → the text of `.eval_results/EXAM.yaml` (huggingface.co/docs/hub/eval-results)."""
    found = {}
    for row in view.claims["measured"]:
        if row["what"] != "score":
            continue
        entry = {
            "dataset": {
                "id": f"private/{row['exam']}",
                "task_id": row["exam"],
                "revision": view.release.exams.get(row["exam"], ""),
            },
            "value": round(100 * row["estimate"], 4),
            "date": view.release.built_at[:10],
            "notes": f"{row['n']} questions, {100 * row['low']:.1f} to {100 * row['high']:.1f} "
            f"({row['method']})",
        }
        found[row["exam"]] = yaml.safe_dump([entry], allow_unicode=True, sort_keys=False)
    return found


# ---- templates ----------------------------------------------------------------------------------


@lru_cache
def environment_of(markup: bool) -> Environment:
    """Jinja with our filters. HTML is escaped by itself, Markdown by `md`."""
    jinja2 = require("jinja2", extra="release")
    made: Environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=markup,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters.update(md=markdown, percent=percent, points=points, settings=settings)
    return made


def markdown(value: object) -> str:
    """Text that stays text, on one line: nothing in it marks up, ends a table's cell or is HTML.

    >>> markdown("<b>|x|</b>")
    '\\\\<b\\\\>\\\\|x\\\\|\\\\</b\\\\>'
    """
    return _MARKED.sub(r"\\\1", _BREAKS.sub(" ", str(value)))


def settings(spec: BaseModel) -> str:
    """What a stage was set to, where that isn't the default."""
    return canonical_json(spec.model_dump(mode="json", exclude_defaults=True))


def _markdown(template: str, view: View, **more: object) -> str:
    return environment_of(markup=False).get_template(template).render(
        **context(view, view.language), **more
    )  # fmt: skip


def context(view: View, language: Language) -> dict[str, Any]:
    return {
        "w": words(language),
        "lang": language,
        "view": view,
        "release": view.release,
        "model": view.model,
        "licence": view.licence,
        "claims": view.claims,
        "card": view.card,
        "lineage": view.lineage,
        "environment": view.environment,
        "approvals": view.approvals,
    }
