"""Write an evidence pack: everything that is known of a release, in one folder, signed.

    Gathered (what the project and the ledger know) → folder → PackManifest

>>> manifest = write_pack(gathered, folder)
>>> sorted(manifest.files)[:3]
['.eval_results/domain.yaml', 'README.md', 'approvals.json']

`evidence.py` gathers; nothing here knows a project.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.records import Results, canonical_json
from tokka.release.bom import bom
from tokka.release.cards import View, data_card_text, eval_results, readme
from tokka.release.chain import key_fingerprint
from tokka.release.claims import claims
from tokka.release.data_card import data_card
from tokka.release.decisions import decisions, registered
from tokka.release.environment import environment
from tokka.release.lineage import behind, documents, lineage
from tokka.release.mapping import framework_names, mapped, read_framework
from tokka.release.mapping_text import mapping_text
from tokka.release.model_signature import PUBLIC_KEY, SIGNATURE, public_pem, sign_model
from tokka.release.pack import PackManifest, as_json, plain_files, seal
from tokka.release.pages import page
from tokka.release.records import Entry, Head, Release
from tokka.release.steps import Steps
from tokka.release.trail import Trail, write_trail
from tokka.store import read_record, write_bytes, write_pieces, write_text

# Answers stay in the release: they quote passages, which not everybody who reads a pack may see.
EXAM_FILES = ("results.json", "candidate.json", "reexam.json", "scores.jsonl", "evidence.json")
MOST_EXAM_BYTES = 256_000_000  # of sittings and scores; an exam of 10,000 questions takes 40 MB


@dataclass(frozen=True, slots=True)
class Gathered:
    """`release_folder` is the release's own. `entries` is the whole trail, `sign` the ledger's key,
    `model_key` the file of the P-256 key. `scores` is a folder EXAM/ARM.jsonl of the run that was
    judged; `reproduction` and `timings` are what it wrote down. `monitoring` counts what was
    observed in service. `heads` were recorded elsewhere."""

    release_folder: Path
    entries: Sequence[Entry]
    trail: Trail
    head: Head
    sign: Callable[[bytes], bytes]
    model_key: Path
    made_at: str
    steps: Steps
    scores: Path | None = None
    reproduction: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] | None = None
    monitoring: Mapping[str, Any] | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)


def write_pack(gathered: Gathered, folder: Path) -> PackManifest:
    """Write the pack into `folder`, which must be empty. Raises IntegrityError where the release's
    record can't be read or the folder isn't empty."""
    if folder.exists() and any(folder.iterdir()):
        raise IntegrityError(f"{folder}: not empty; give another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    source = gathered.release_folder
    release = read_record(source / "release.json", Release)
    results = read_record(source / "exam" / "results.json", Results)
    model = registered(release, gathered.entries)
    decided = decisions(release, gathered.entries, gathered.made_at)
    _copied(gathered, folder)
    found = {
        "approvals": decided,
        "card": data_card(release, gathered.steps, results),
        "claims": claims(release, results, _score_files(folder)),
        "environment": environment(
            gathered.reproduction, gathered.timings, behind(release, gathered.steps)
        ),
        "inventory": {
            "model": model.model_dump(mode="json") if model else None,
            "stage": decided["stage"],
            "version": {
                key: value for key, value in decided["standing"].items() if key != "approvals"
            },
        },
        "lineage": lineage(release, gathered.steps),
        "rerun": rerun(release, gathered.reproduction),
    }
    for name, value in found.items():
        write_bytes(folder / f"{'data-card' if name == 'card' else name}.json", as_json(value))
    if gathered.monitoring is not None:
        write_bytes(folder / "monitoring.json", as_json(dict(gathered.monitoring)))
    rows = (canonical_json(row).encode() + b"\n" for row in documents(release, gathered.steps))
    write_pieces(folder / "lineage-documents.jsonl", rows)
    write_bytes(
        folder / "bom.cdx.json",
        bom(release, found["card"], found["claims"], found["environment"], model,
            gathered.made_at),
    )  # fmt: skip
    sign_model(source, folder / SIGNATURE, gathered.model_key)
    write_text(folder / PUBLIC_KEY, public_pem(gathered.model_key))
    write_trail(gathered.trail, folder / "trail")
    view = View(
        release=release,
        model=model,
        claims=found["claims"],
        card=found["card"],
        lineage=found["lineage"],
        environment=found["environment"],
        approvals=found["approvals"],
        inventory=found["inventory"],
        rerun=found["rerun"],
        head=gathered.head,
        key_fingerprint=key_fingerprint(gathered.head.public_key),
        made_at=gathered.made_at,
    )
    _told(view, folder)
    return seal(folder, release, gathered.head, made_at=gathered.made_at, sign=gathered.sign)


def _told(view: View, folder: Path) -> None:
    """Cards, mappings and pages: what people read."""
    write_text(folder / "README.md", readme(view))
    write_text(folder / "data-card.md", data_card_text(view))
    for exam, text in eval_results(view).items():
        write_text(folder / ".eval_results" / f"{exam}.yaml", text)
    mappings = []
    for name in framework_names():
        value = mapped(read_framework(name), folder)
        write_bytes(folder / "mappings" / f"{name}.json", as_json(value))
        write_text(folder / "mappings" / f"{name}.md", mapping_text(value, view.language))
        mappings.append(value)
    sizes = {name: (folder / name).stat().st_size for name in plain_files(folder)}
    whole = replace(view, mappings=tuple(mappings), files=sizes)
    for language in ("ja", "en"):
        write_text(folder / f"index.{language}.html", page(whole, language))


def rerun(release: Release, reproduction: Mapping[str, Any] | None) -> dict[str, Any]:
    """How to sit the exams again, and what must come out."""
    command = str((reproduction or {}).get("command") or "tokka run PROJECT")
    digests = {
        "project": release.project_digest,
        "base model": release.candidate.base_digest,
        **{f"exam {name}": digest for name, digest in release.exams.items()},
        "examined candidate": release.candidate.id,
        "results.json": release.results_digest,
    }
    project = shlex.quote(shlex.split(command)[2])
    return {
        "commands": [
            command,
            f"tokka exam rescore {project} --arm {release.candidate.arm.name}",
            "sha256sum .tokka/reports/*/results.json",
        ],
        "digests": digests,
        "seeds": dict((reproduction or {}).get("seeds") or {}),
    }


def _copied(gathered: Gathered, folder: Path) -> None:
    """The release's record and its exam's files, as they are; no weights, no documents."""
    source = gathered.release_folder
    shutil.copyfile(source / "release.json", folder / "release.json")
    for name, head in gathered.heads.items():
        write_bytes(folder / "heads" / f"{name}.json", as_json(head.model_dump(mode="json")))
    left = MOST_EXAM_BYTES
    copies = [
        (source / name, Path(name))
        for name in plain_files(source)
        if name.startswith("exam/scores/")
        or (name.startswith("exam/") and Path(name).name in EXAM_FILES)
    ]
    if gathered.scores is not None and gathered.scores.is_dir():
        copies += [
            (gathered.scores / name, Path("exam", "scores", name))
            for name in plain_files(gathered.scores)
            if name.endswith(".jsonl")
        ]
    for path, relative in copies:
        left -= path.stat().st_size
        target = folder / relative
        if left < 0 or target.exists():
            continue  # its digest stands in release.json; the claim says that the file isn't here
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _score_files(folder: Path) -> Callable[[str, str], list[str]]:
    """Those of an arm in the run that was judged, or of an exported format's second sitting."""
    names = plain_files(folder)

    def of(exam: str, who: str) -> list[str]:
        wanted = (f"exam/scores/{exam}/{who}.jsonl", f"exam/{who}/{exam}/scores.jsonl")
        return [name for name in names if name in wanted]

    return of
