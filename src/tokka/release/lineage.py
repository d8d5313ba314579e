"""From the digests of documents to the files that are shipped, as the steps' manifests say.

    documents → chunks → index ─┐
    examples → stages → weights ┴→ exported files → release

>>> lineage(release, steps)["steps"][0]["files"]
{'documents.jsonl': '97a7…', …}

`documents` are a file of their own, one line each: a corpus may hold a hundred thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tokka.records import Candidate
from tokka.release.records import Release
from tokka.release.steps import Step, Steps

SOURCES = ("read", "prepare", "distinct", "overlaps", "chunk", "index")


def parts_of(candidate: Candidate) -> dict[str, str]:
    """Artifact → name of the step's folder."""
    return {part: entry.partition("@")[0] for part, entry in candidate.artifacts.items()}


def behind(release: Release, steps: Steps) -> list[Step]:
    """Every step that led to what is shipped, in order."""
    names = [*parts_of(release.candidate).values(), *parts_of(release.served).values()]
    return steps.ancestors(dict.fromkeys(names))


def lineage(release: Release, steps: Steps) -> dict[str, Any]:
    """`steps` in order, each with what it was made from and its files; `missing` are the parts
    whose manifests aren't there any more."""
    led = behind(release, steps)
    known = {step.name for step in led}
    parts = {
        "examined": parts_of(release.candidate),
        "served": parts_of(release.served),
    }
    wanted = dict.fromkeys(name for part in parts.values() for name in part.values())
    return {
        "release": {"name": release.name, "digest": release.digest},
        "base_model": {"reference": release.candidate.base_model,
                       "digest": release.candidate.base_digest},
        "project_digest": release.project_digest,
        "candidates": {
            "examined": {"id": release.candidate.id, "parts": parts["examined"]},
            "served": {"id": release.served.id, "parts": parts["served"]},
        },
        "steps": [_shown(step, steps) for step in led],
        "sittings": [
            _shown(step, steps) | {"candidate": step.inputs.get("candidate")}
            for step in steps.of_kind("sit")
            if step.inputs.get("candidate") in (release.candidate.id, release.served.id)
        ],
        "exams": release.exams,
        "exported": [
            {"format": a.format, "engine": a.engine, "files": a.files} for a in release.artefacts
        ],
        "files": release.files,
        "documents": "lineage-documents.jsonl",
        "missing": [name for name in wanted if name not in known],
    }  # fmt: skip


def _shown(step: Step, steps: Steps) -> dict[str, Any]:
    return {
        "step": step.name,
        "kind": step.kind,
        "label": step.label,
        "digest": step.digest,
        "made_from": sorted(parent.name for parent in steps.parents(step)),
        "files": dict(step.files),
        "seconds": step.seconds,
    }


def documents(release: Release, steps: Steps) -> Iterator[dict[str, Any]]:
    """Each document that may be cited or was learnt from: its digest, how many chunks it became,
    and whether an index holds it."""
    led = behind(release, steps)
    facts: dict[str, dict[str, Any]] = {}
    for step in led:
        if step.kind == "distinct" or (step.kind == "read" and not _has(led, "distinct")):
            for row in step.rows("documents.jsonl"):
                facts.setdefault(row["id"], row)
    chunks: Counter[str] = Counter()
    indexed: set[str] = set()
    for step in led:
        if step.kind == "chunk":
            chunks.update(row["document_id"] for row in step.rows("chunks.jsonl"))
        if step.kind == "index":
            indexed.update(step.value("documents.json") or {})
    for name in sorted({*facts, *chunks, *indexed}):
        row = facts.get(name, {})
        yield {
            "id": name,
            "sha256": row.get("sha256", ""),
            "source": row.get("source", ""),
            "title": row.get("title", ""),
            "licence": row.get("licence", ""),
            "language": row.get("language", ""),
            "chunks": chunks[name],
            "indexed": name in indexed,
        }


def _has(steps: list[Step], kind: str) -> bool:
    return any(step.kind == kind for step in steps)
