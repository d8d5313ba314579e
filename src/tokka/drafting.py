"""A judged and exported candidate becomes a version: its folder, its number, its act.

    Draft → .tokka/releases/MODEL-VERSION/ and an entry in the ledger

>>> entered(ledger, draft).release.name
'aoba-shinkin-3'

The folder is written first. A version exists once its act is in the ledger; until then the folder
is a leftover that the next attempt takes or replaces. `act.json` and `head.json` come last.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokka.errors import IntegrityError, UsageError
from tokka.licences import Licence
from tokka.pipeline import Build
from tokka.project import Project
from tokka.records import Candidate, Verdict
from tokka.release.records import Entry, Format, Reexam, Release
from tokka.sealing import Looked
from tokka.store import read_record, sha256_file, write_json

if TYPE_CHECKING:
    from tokka.exporting import Exported
    from tokka.release.keys import ActorKey
    from tokka.release.ledger import Ledger

RELEASE, ACT, HEAD = "release.json", "act.json", "head.json"
ATTEMPTS = 20  # at a version number that others take at the same moment
LONGEST = 60  # characters of a model's name


@dataclass(frozen=True, slots=True)
class Draft:
    """All that a release is made of, but its version."""

    build: Build
    candidate: Candidate
    looked: Looked
    licence: Licence
    key: ActorKey
    exported: Sequence[tuple[Exported, Reexam]]


@dataclass(frozen=True, slots=True)
class Entered:
    """A release with its folder and its entry in the ledger."""

    release: Release
    folder: Path
    entry: Entry


def model_name(project: Project) -> str:
    """The project's name as the inventory spells it: letters, digits, `.`, `_`, `+` and `-`, and no
    number behind a hyphen, which is a version's place.

    >>> model_name(project)      # name: 青葉 信用金庫
    '青葉-信用金庫'
    """
    name = unicodedata.normalize("NFKC", project.name)
    name = re.sub(r"[^\w.+-]+", "-", name).strip("-.+")[:LONGEST].rstrip("-.+")
    name = re.sub(r"-(\d+)$", r".\1", name)
    if not re.match(r"\w", name):
        raise UsageError(
            f"release: {project.name!r} gives no name for the inventory; use letters or digits in "
            "the project's name:"
        )
    return name


def entered_before(
    ledger: Ledger, build: Build, candidate: Candidate, looked: Looked, wanted: Sequence[Format]
) -> Entered | None:
    """The release of this candidate that is in the ledger already, its files checked."""
    from tokka.release.reading import read_release

    name = model_name(build.project)
    entries = {
        entry.signed.act.digest: entry
        for entry in ledger.entries(name)
        if entry.signed.act.kind == "release"
    }
    for folder, found in _folders(build, name):
        entry = entries.get(found.digest)
        if entry is not None and _is_same(found, candidate, looked, wanted):
            return Entered(read_release(folder, found.digest), folder, entry)
    return None


def entered(ledger: Ledger, draft: Draft) -> Entered:
    """The folder under the next version, and its act. Where another process takes that version at
    the same moment, the ledger refuses the act, and the next one is tried."""
    from tokka.release import approval
    from tokka.release.duties import NotPermitted
    from tokka.release.reading import read_release

    asked, name = draft.build.project.release, model_name(draft.build.project)
    for attempt in range(ATTEMPTS):
        version = ledger.next_version(name)
        folder = _assembled(draft, name, version)
        found = read_release(folder)
        try:
            entry = approval.release(
                ledger,
                draft.key,
                found,
                approvals=asked.approvals,
                valid_days=asked.valid_days,
                validate_days=asked.validate_days,
            )
        except NotPermitted:
            if attempt + 1 == ATTEMPTS or ledger.next_version(name) == version:
                raise
            shutil.rmtree(folder)  # of a version that is another's now
            continue
        write_beside(ledger, folder, entry)
        return Entered(found, folder, entry)
    raise AssertionError  # the last attempt returned or raised


def _assembled(draft: Draft, name: str, version: int) -> Path:
    """The release's folder. One that a killed release left is taken as it is if it is of the same,
    and made again if not; one that was entered into some ledger is never touched."""
    from tokka.assembling import Facts, assemble, release_folder
    from tokka.release.keys import utc_now

    build, looked = draft.build, draft.looked
    folder = release_folder(build, name, version)
    wanted = [exported.format for exported, _ in draft.exported]
    if folder.exists() and not _is_left(folder, draft, wanted):
        if (folder / ACT).exists():
            raise UsageError(
                f"release: {folder} holds a release of another ledger; move it away, or name that "
                "ledger under ledger:"
            )
        shutil.rmtree(folder)
    (served, _), *others = draft.exported
    facts = Facts(
        model=name,
        version=version,
        verdict=_verdict(looked, draft.candidate),
        results=looked.folder / "results.json",
        base_licence=draft.licence.name,
        terms=draft.licence.terms,
        built_by=draft.key.name,
        built_at=utc_now(),
    )
    with build.observer.task(f"{name}-{version}: write the release", None):
        return assemble(
            build,
            draft.candidate,
            served,
            [exported for exported, _ in others],
            {exported.format: reexam for exported, reexam in draft.exported},
            facts,
        )


def _folders(build: Build, model: str) -> list[tuple[Path, Release]]:
    """Release folders of a model in this workspace, the newest version first."""
    folders = (build.workspace.root / "releases").glob(f"*/{RELEASE}")
    found = [(path.parent, read_record(path, Release)) for path in folders]
    own = [(folder, release) for folder, release in found if release.model == model]
    return sorted(own, key=lambda pair: -pair[1].version)


def _is_same(
    release: Release, candidate: Candidate, looked: Looked, wanted: Sequence[Format]
) -> bool:
    formats = (release.serves, *(a.format for a in release.artefacts if a.format != release.serves))
    return (
        release.candidate.id == candidate.id
        and release.results_digest == sha256_file(looked.folder / "results.json")
        and set(formats) == set(wanted)
        and release.serves == wanted[0]
    )


def _is_left(folder: Path, draft: Draft, wanted: Sequence[Format]) -> bool:
    """Whether a folder that no ledger knows is what would be written now."""
    with contextlib.suppress(IntegrityError):
        found = read_record(folder / RELEASE, Release)
        same = _is_same(found, draft.candidate, draft.looked, wanted)
        return same and found.built_by == draft.key.name and not (folder / ACT).exists()
    return False


def _verdict(looked: Looked, candidate: Candidate) -> Verdict:
    own = (r.verdict for r in looked.results.arms if r.arm.name == candidate.arm.name)
    found = next(own, None)
    assert found is not None  # the gate has refused an arm without one
    return found


def write_beside(ledger: Ledger, folder: Path, entry: Entry) -> None:
    """The act, and a head of the trail that lies outside of the database."""
    if not (folder / ACT).exists() or read_record(folder / ACT, Entry) != entry:
        write_json(folder / ACT, entry)
    if not (folder / HEAD).exists():
        write_json(folder / HEAD, ledger.head())
