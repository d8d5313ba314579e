"""What documents, examples and exams are, what was left out and why, what was found in them.

    the steps' folders → data-card.json; counts only: no text of a document, no personal datum

>>> card = data_card(release, steps)
>>> card["personal_data"]
{'looked_for': True, 'setting': 'mask', 'found': {'name': 12, 'phone': 3}, 'documents': 5}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tokka.records import Results
from tokka.release.lineage import behind
from tokka.release.records import Release
from tokka.release.steps import Step, Steps

NAMED = 5  # items shown for each reason
# What differs from item to item in a reason: quoted words, paths and ids, figures.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|「[^」]*」")
_PATH = re.compile(r"[^\s()]*/[^\s()]+")
_FIGURE = re.compile(r"\d[\d,.]*%?")


def data_card(release: Release, steps: Steps, results: Results | None) -> dict[str, Any]:
    """See the module. `missing` says in words what couldn't be found any more."""
    led = behind(release, steps)
    read = _of(led, "read")
    prepared = _of(led, "prepare")
    distinct = _of(led, "distinct")
    kept = _Kept()
    for step in distinct or read:
        for row in step.rows("documents.jsonl"):
            kept.add(row)
    examples = _of(led, "examples")
    dropped = _dropped(led)
    exams = [_exam(step) for step in steps.of_kind("exam") if _sat(step, release)]
    return {
        "release": {"name": release.name, "digest": release.digest},
        "language": release.language,
        "documents": {
            "read": sum(1 for step in read for _ in step.rows("documents.jsonl")),
            "kept": kept.documents,
            "chunks": sum(1 for step in _of(led, "chunk") for _ in step.rows("chunks.jsonl")),
            "characters": kept.characters,
        },
        "sources": [
            {
                "place": place,
                "kind": suffix,
                "documents": licences.total(),
                "licences": _sorted(licences),
            }
            for (place, suffix), licences in sorted(kept.sources.items())
        ],
        "licences": _sorted(kept.licences),
        "licensed": kept.licences.total() - kept.licences[""],
        "languages": _sorted(kept.languages),
        "access_labels": _sorted(kept.labels),
        "dropped": dropped,
        "left_out": sum(row["count"] for row in dropped),
        "duplicates": sum(row["count"] for row in dropped if row["stage"] == "duplicates"),
        "personal_data": _personal(prepared),
        "quality": _quality(prepared),
        "contamination": _contamination(led, steps),
        "examples": {
            "kept": sum(1 for step in examples for _ in step.rows("examples.jsonl")),
            "origins": _sorted(
                Counter(
                    str(r.get("origin", "")) for s in examples for r in s.rows("examples.jsonl")
                )
            ),
            "files": [{"file": s.label, "sha256": s.inputs.get("file", "")} for s in examples],
        },
        "exams": exams or _exams_of(results),
        "missing": _missing(release, led),
    }


class _Kept:
    """Counts over documents that are read one at a time: a corpus needn't fit into memory.
    `sources`: by the first folder of a document's id and the kind of its file, their licences."""

    def __init__(self) -> None:
        self.documents = self.characters = 0
        self.sources: dict[tuple[str, str], Counter[str]] = {}
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        name, licence = str(row["id"]), str(row.get("licence") or "")
        place = name.split("/", 1)[0] + "/" if "/" in name else "."
        suffix = name.rsplit(".", 1)[-1].lower() if "." in name else ""
        self.documents += 1
        self.characters += len(row.get("text", ""))
        self.sources.setdefault((place, suffix), Counter())[licence] += 1
        self.licences[licence] += 1
        self.languages[str(row.get("language") or "")] += 1
        self.labels.update(row.get("access", ()))


def _of(steps: Iterable[Step], kind: str) -> list[Step]:
    return [step for step in steps if step.kind == kind]


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _dropped(led: list[Step]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for step in led:
        for row in step.rows("dropped.jsonl"):
            groups.setdefault((row["stage"], pattern(row["reason"])), []).append(row["item"])
    return [
        {"stage": stage, "reason": reason, "count": len(items), "items": items[:NAMED]}
        for (stage, reason), items in sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))
    ]


def pattern(reason: str) -> str:
    """A reason without what differs from item to item, so that equal ones can be counted.

    >>> pattern("says 92% the same as manuals/man1/aecho.1.txt")
    'says … the same as …'
    """
    for changing in (_QUOTED, _PATH, _FIGURE):
        reason = changing.sub("…", reason)
    return reason


def _personal(prepared: list[Step]) -> dict[str, Any]:
    settings = sorted({str(step.inputs.get("personal_data", "off")) for step in prepared})
    found: Counter[str] = Counter()
    where: set[str] = set()
    for step in prepared:
        for row in step.rows("personal.jsonl"):
            found[row["kind"]] += 1
            where.add(row["document"])
    return {
        "looked_for": any(setting != "off" for setting in settings),
        "setting": ", ".join(settings) or "off",
        "found": _sorted(found),
        "documents": len(where),
    }


def _quality(prepared: list[Step]) -> dict[str, Any]:
    settings = sorted({str(step.inputs.get("quality", "off")) for step in prepared})
    rules = Counter(row["rule"] for step in prepared for row in step.rows("quality.jsonl"))
    return {"setting": ", ".join(settings) or "off", "rules": _sorted(rules)}


def _contamination(led: list[Step], steps: Steps) -> dict[str, Any]:
    """The overlaps of what led here with exam questions, also where they were only reported."""
    sources = {step.digest: step for step in led if step.kind in ("read", "prepare", "examples")}
    found = [s for s in steps.of_kind("overlaps") if s.inputs.get("source") in sources]
    kinds: dict[str, Counter[str]] = {"documents": Counter(), "examples": Counter()}
    questions: set[str] = set()
    for step in found:
        where = "examples" if sources[step.inputs["source"]].kind == "examples" else "documents"
        kinds[where].update(step.value("counts.json") or {})
        questions.update(row["question_id"] for row in step.rows("contamination.jsonl"))
    return {
        "looked_for": bool(found),
        **{where: _sorted(counts) for where, counts in kinds.items()},
        "questions": len(questions),
        "embedder": sorted({str(s.inputs.get("embedder") or "") for s in found} - {""}),
    }


def _sat(step: Step, release: Release) -> bool:
    exam = step.value("exam.json") or {}
    return release.exams.get(str(step.inputs.get("name"))) == exam.get("digest")


def _exam(step: Step) -> dict[str, Any]:
    exam = step.value("exam.json")
    left_out = sum(1 for _ in step.rows("dropped.jsonl"))
    return {key: exam[key] for key in ("name", "role", "digest", "questions")} | {
        "scorer": exam.get("scorer", ""),
        "left_out": left_out,
    }


def _exams_of(results: Results | None) -> list[dict[str, Any]]:
    keys = {"name", "role", "digest", "questions", "scorer"}
    exams = results.exams if results is not None else ()
    return [exam.model_dump(mode="json", include=keys) | {"left_out": 0} for exam in exams]


def _missing(release: Release, led: list[Step]) -> list[str]:
    kinds = {step.kind for step in led}
    wanted = []
    if "index" in release.candidate.artifacts:
        wanted += [("read", "the documents as they were read"), ("chunk", "the chunks")]
    if any(stage.finetune is not None for stage in release.candidate.arm.weights):
        wanted += [("examples", "the training examples")]
    return [
        f"{what}: no finished step of the kind {kind} is in the workspace any more"
        for kind, what in wanted
        if kind not in kinds
    ]
