"""`tokka evidence`, `tokka verify`: gather what is known of a release, and check it again anywhere.

    project, ledger, release's folder → evidence pack, recorded in the trail
    pack, release, trail or project → Verified, one or several

>>> made = make_evidence(load_project(path), "aoba-1", actor="suzuki")
>>> made.folder, made.manifest.digest == made.entry.signed.act.details["manifest"]
(PosixPath('…/.tokka/evidence/aoba-1'), True)
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.errors import IntegrityError, TokkaError, UsageError
from tokka.pipeline import WEIGHTS_STEPS
from tokka.project import Project
from tokka.records import Candidate
from tokka.release.pack import MANIFEST, PackManifest, zip_pack
from tokka.release.reading import RELEASE, read_release
from tokka.release.records import Entry, Head, Release
from tokka.release.verifying import (
    Check,
    Verified,
    kind_of,
    read_head,
    verify_exported,
    verify_pack,
    verify_release,
)
from tokka.store import Workspace, locked, read_json, sha256_file

if TYPE_CHECKING:
    from tokka.release.ledger import Ledger
    from tokka.release.steps import Steps

MODEL_KEY = "model-signing.pem"  # beside the ledger's key
MOST_OBSERVATIONS = 100_000


@dataclass(frozen=True, slots=True)
class Made:
    """`entry` is the act that records the pack in the trail; None for a dry run, which writes
    nothing."""

    name: str
    folder: Path
    zip: Path | None = None
    manifest: PackManifest | None = None
    entry: Entry | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "release": self.name,
            "folder": str(self.folder),
            "zip": str(self.zip) if self.zip else None,
            "files": len(self.manifest.files) if self.manifest else 0,
            "manifest": self.manifest.digest if self.manifest else None,
            "head": self.manifest.head.hash if self.manifest else None,
            "entry": self.entry.number if self.entry else None,
        }


# ---- make ---------------------------------------------------------------------------------------


def make_evidence(
    project: Project,
    name: str,
    *,
    out: Path | None = None,
    zipped: bool = False,
    actor: str | None = None,
    model_key: Path | None = None,
    dry_run: bool = False,
) -> Made:
    """Write the pack of MODEL or MODEL-VERSION and record it. A pack of the same release that is
    there already is replaced.

    Raises UsageError where the release, its folder, the actor's key or the ledger's isn't here, or
    `out` holds something else; IntegrityError where the release isn't the one that was entered.
    """
    from tokka.release.keys import load_key
    from tokka.release.ledger import open_ledger
    from tokka.release.registry import standing_of

    workspace = Workspace(project.root / ".tokka")
    with open_ledger(project.ledger, project.root, create=False) as ledger:
        version = standing_of(ledger, name).version
        source = workspace.root / "releases" / version.name
        if not source.is_dir():
            raise UsageError(f"evidence: {source} isn't here; copy the release's folder there")
        release = read_release(source, version.digest)
        folder = (out or workspace.root / "evidence" / version.name).resolve()
        _refuse_other(folder, source, release)
        key = load_key(actor)
        if dry_run:
            return Made(version.name, folder)
        with locked(workspace.root / "locks" / f"evidence-{version.name}.lock"):
            manifest = _written(project, ledger, release, source, folder, model_key)
            entry = _recorded(ledger, key, release, manifest)
            target = folder.with_name(f"{folder.name}.zip")
            packed = zip_pack(folder, target) if zipped else None
    return Made(version.name, folder, packed, manifest, entry)


def _refuse_other(folder: Path, source: Path, release: Release) -> None:
    """Only an older pack of the same release is replaced."""
    if folder.is_relative_to(source.resolve()):
        raise UsageError(f"evidence: {folder} is in the release itself; give another --out")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        pack = PackManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        pack = None
    if pack is None or (pack.release, pack.release_digest) != (release.name, release.digest):
        what = f"the pack of {pack.release}" if pack else "something else than an evidence pack"
        raise UsageError(f"evidence: {folder} holds {what}; give another --out")


def _written(
    project: Project,
    ledger: Ledger,
    release: Release,
    source: Path,
    folder: Path,
    model_key: Path | None,
) -> PackManifest:
    """The pack in place: written beside and moved, so that a killed one leaves no half of it."""
    from tokka.release.keys import utc_now
    from tokka.release.model_signature import ensure_key
    from tokka.release.packing import Gathered, write_pack

    trail, head, entries = _moment(ledger)
    if model_key is not None and not model_key.is_file():
        raise UsageError(f"evidence: no key at {model_key}; give a P-256 private key in PEM")
    reports = _reports(project, release)
    gathered = Gathered(
        release_folder=source,
        entries=entries,
        trail=trail,
        head=head,
        sign=ledger.sign,
        model_key=model_key or ensure_key(ledger.key_file.with_name(MODEL_KEY)),
        made_at=utc_now(),
        steps=steps_of(project, release, source),
        scores=reports / "scores" if reports else None,
        reproduction=_json_of("reproduction.json", source / "exam", reports),
        timings=_json_of("timings.json", source / "exam", reports),
        monitoring=_monitoring(ledger, release),
        heads={"release": read_head(source / "head.json")} if _has_head(source) else {},
    )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    manifest = write_pack(gathered, partial)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def _moment(ledger: Ledger) -> tuple[Any, Head, list[Entry]]:
    """The trail, its end and its entries at one moment, whoever appends meanwhile."""
    from tokka.release.audit import verify_trail

    trail = ledger.trail()
    report = verify_trail(trail, ledger.public_key)
    if not report.ok or report.head is None:
        raise IntegrityError(
            f"evidence: the trail doesn't hold ({report.faults[0].reason}); see: tokka verify"
        )
    return trail, report.head, list(report.entries)


def _recorded(ledger: Ledger, key: Any, release: Release, manifest: PackManifest) -> Entry:
    from tokka.release.approval import perform

    return perform(
        ledger,
        key,
        "evidence",
        model=release.model,
        version=release.version,
        digest=release.digest,
        details={
            "manifest": manifest.digest,
            "head": manifest.head.hash,
            "entries": manifest.head.number,
            "made_at": manifest.made_at,
        },
    )


def _reports(project: Project, release: Release) -> Path | None:
    """The folder of the run that was judged, if it is still what the release was made from."""
    from tokka.sealing import report_folder

    folder = report_folder(Workspace(project.root / ".tokka"), project, None)
    path = folder / "results.json"
    same = path.is_file() and sha256_file(path) == release.results_digest
    return folder if same else None


def _json_of(name: str, *folders: Path | None) -> Mapping[str, Any] | None:
    """From the first folder that has it."""
    for folder in folders:
        if folder is not None and (folder / name).is_file():
            value: Mapping[str, Any] = read_json(folder / name)
            return value
    return None


def _has_head(folder: Path) -> bool:
    return (folder / "head.json").is_file()


def _monitoring(ledger: Ledger, release: Release) -> dict[str, Any] | None:
    """How many answers were observed in service, and when; nothing of what they said."""
    rows = [
        row
        for row in ledger.observations(limit=MOST_OBSERVATIONS)
        if (row.model, row.version) == (release.model, release.version)
    ]
    if not rows:
        return None
    times = sorted(row.time for row in rows)
    return {"observations": len(rows), "first": times[0], "last": times[-1]}


def steps_of(project: Project, release: Release, source: Path) -> Steps:
    """The finished steps of the project and of the release's own workspace, with the states of
    weights that they made."""
    from tokka.release.steps import read_steps

    folders = [project.root / ".tokka" / "steps", source / "workspace" / "steps"]
    found = read_steps(folders)
    return read_steps(folders, _states(found, release.candidate))


def _states(steps: Steps, candidate: Candidate) -> dict[str, str]:
    """Digest of a state of weights → the step that made it: what later stages name it by."""
    from tokka.models.opening import adapted_digest, digest_of

    states: dict[str, str] = {}
    for step in steps.by_name.values():
        if step.kind not in WEIGHTS_STEPS:
            continue
        with contextlib.suppress(OSError, TokkaError):
            if "adapter_model.safetensors" in step.files:
                before = step.inputs.get("weights")
                state = adapted_digest(before, step.folder) if isinstance(before, str) else ""
            else:
                state = digest_of(step.folder, candidate.language)
            states[state] = step.name
    states.pop("", None)
    return states


# ---- check --------------------------------------------------------------------------------------


def verify_path(
    path: Path,
    *,
    public_key: str | None = None,
    heads: Sequence[Head] = (),
    model: Path | None = None,
) -> Verified:
    """A pack (folder or zip), a release's folder or an exported trail; needs nothing else.

    Raises UsageError for a path that is none of them, IntegrityError for a zip that no pack is.
    """
    with _folder_of(path) as folder:
        kind = kind_of(folder)
        if kind == "pack":
            return verify_pack(folder, public_key=public_key, heads=heads, model=model)
        if kind == "release":
            if public_key or heads:
                raise UsageError(
                    f"verify: {path} is a release, which holds no trail; --public-key and --head "
                    "are for an evidence pack (tokka evidence) or an exported trail"
                )
            return verify_release(folder)
        if kind == "trail":
            return verify_exported(folder, public_key=public_key, heads=heads)
    raise UsageError(
        f"verify: {path} is no evidence pack (MANIFEST.json), no release (release.json) and no "
        "exported trail (trail.jsonl)"
    )


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[Path]:
    from tokka.release.unpacking import unpacked

    if path.is_dir():
        yield path
    elif path.is_file() and path.suffix.lower() == ".zip":
        with unpacked(path) as folder:
            yield folder
    elif path.exists():
        raise UsageError(f"verify: {path} is neither a folder nor a .zip; give one of these")
    else:
        raise UsageError(f"verify: {path} isn't there")


def heads_of(path: Path) -> list[Head]:
    """The heads that somebody recorded: a file, a release's folder, a pack, or its zip."""
    if path.is_file() and path.suffix.lower() != ".zip":
        return [read_head(path)]
    with _folder_of(path) as folder:
        for name in (MANIFEST, "head.json"):
            if (folder / name).is_file():
                return [read_head(folder / name)]
    raise UsageError(f"verify: {path} records no head; give head.json or an evidence pack")


def verify_project(project: Project, heads: Sequence[Head] = ()) -> list[Verified]:
    """The project's trail against every head that its releases and packs record, its releases and
    its packs."""
    from tokka.release.ledger import open_ledger

    root = project.root / ".tokka"
    releases = _folders(root / "releases", RELEASE)
    packs = _folders(root / "evidence", MANIFEST)
    broken: list[Check] = []
    recorded = [*heads, *_recorded_heads(releases, packs, broken)]
    try:
        ledger = open_ledger(project.ledger, project.root, create=False)
    except IntegrityError as error:
        return [Verified("ledger", project.ledger, (Check("the trail", False, str(error)),))]
    with ledger:
        wrong = ledger.check(recorded)
        head = ledger.head()
        said = f"{head.number:,} entries, {len(recorded)} heads recorded elsewhere"
        checks = [Check("the trail", not wrong, "; ".join(wrong) or said), *broken]
        found = [
            Verified("ledger", ledger.id, tuple(checks), _fingerprint(ledger), True, head=head)
        ]
        digests = {f"{row.model}-{row.version}": row.digest for row in ledger.versions()}
        found += [verify_release(folder, digests.get(folder.name)) for folder in releases]
        found += [_of_project(ledger, folder, heads) for folder in packs]
    return found


def _folders(place: Path, name: str) -> list[Path]:
    """Those that hold a file of this name; what a killed command left begins with a dot."""
    found = (path.parent for path in place.glob(f"*/{name}"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def _fingerprint(ledger: Ledger) -> str:
    from tokka.release.chain import key_fingerprint

    return key_fingerprint(ledger.public_key)


def _recorded_heads(
    releases: Sequence[Path], packs: Sequence[Path], broken: list[Check]
) -> Iterator[Head]:
    named = [folder / "head.json" for folder in releases if _has_head(folder)]
    for path in [*named, *(folder / MANIFEST for folder in packs)]:
        try:
            yield read_head(path)
        except IntegrityError as error:
            broken.append(Check(f"{path.parent.name}/{path.name}", False, str(error)))


def _of_project(ledger: Ledger, folder: Path, heads: Sequence[Head]) -> Verified:
    """A pack of this project: signed by its ledger, and recorded in its trail."""
    from dataclasses import replace

    verified = verify_pack(folder, public_key=ledger.public_key, heads=heads)
    digest = sha256_file(folder / MANIFEST)
    acts = (entry.signed.act for entry in ledger.entries())
    known = any(act.kind == "evidence" and act.details.get("manifest") == digest for act in acts)
    again = f"no act in the trail records it; make it again: tokka evidence {verified.name}"
    said = "an act in the trail records its manifest" if known else again
    return replace(verified, checks=(*verified.checks, Check("the record of it", known, said)))
