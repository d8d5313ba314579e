"""Check an evidence pack, a release's folder or a trail, where nothing else is at hand.

    pack, release folder or trail → Verified: a line for each check, and what none of them can say

Needs no project, no ledger and no network. What a pack can't prove about itself is said: whether
the key that signed it is the ledger's own, which its fingerprint tells to whoever knows it.

>>> verified = verify_pack(Path("aoba-1-evidence"))
>>> [check.what for check in verified.checks if check.holds is False]
[]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokka.errors import IntegrityError, TokkaError, UsageError
from tokka.records import canonical_json
from tokka.release.audit import verify_trail
from tokka.release.chain import head_holds, key_fingerprint, normal_pem
from tokka.release.decisions import decisions
from tokka.release.model_signature import PUBLIC_KEY, SIGNATURE, signed_files
from tokka.release.pack import MANIFEST, PackManifest, faults, read_manifest, signature_holds
from tokka.release.reading import RELEASE, read_release
from tokka.release.records import Entry, Head, Release
from tokka.release.trail import ENTRIES
from tokka.store import read_json, read_record, sha256_file

SHOWN = 10  # faults of one check that are listed


@dataclass(frozen=True, slots=True)
class Check:
    """`holds` None: not checked, for the reason in `detail`."""

    what: str
    holds: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """`fingerprint` is of the ledger's key inside; `trusted` says that a key was given to compare
    it with. `rerun` are commands, `digests` what they must give again."""

    kind: str
    name: str
    checks: tuple[Check, ...]
    fingerprint: str = ""
    trusted: bool = False
    rerun: tuple[str, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    head: Head | None = None

    @property
    def ok(self) -> bool:
        return all(check.holds is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "ok": self.ok,
            "checks": [{"what": c.what, "holds": c.holds, "detail": c.detail} for c in self.checks],
            "fingerprint": self.fingerprint,
            "trusted": self.trusted,
            "rerun": list(self.rerun),
            "digests": self.digests,
        }


def kind_of(folder: Path) -> str:
    """`pack`, `release` or `trail`; empty where it is none of them."""
    for name, kind in ((MANIFEST, "pack"), (RELEASE, "release"), (ENTRIES, "trail")):
        if (folder / name).is_file():
            return kind
    return ""


# ---- a pack -------------------------------------------------------------------------------------


def verify_pack(
    folder: Path,
    *,
    public_key: str | None = None,
    heads: Sequence[Head] = (),
    model: Path | None = None,
) -> Verified:
    """`public_key` (PEM) is the ledger's as known from elsewhere, `heads` were recorded elsewhere,
    `model` is the release's folder with the weights."""
    try:
        manifest = read_manifest(folder)
    except IntegrityError as error:
        return Verified("pack", folder.name, (Check("the manifest", False, str(error)),))
    key = normal(public_key) if public_key else manifest.public_key
    wrong = faults(folder, manifest)
    checks = [
        Check("every file", not wrong, _listed(wrong) or f"{len(manifest.files):,} files"),
        _signature(manifest, key, given=public_key is not None),
    ]
    if wrong:  # what the other checks read may be anything
        checks.append(Check("the release, its signature and the trail", None, "files differ"))
        return _pack(manifest, checks, public_key, (), {})
    release, check = _release(folder, manifest)
    checks.append(check)
    if release is not None:
        checks += _contents(folder, manifest, release, key, heads, model)
    rerun = read_json(folder / "rerun.json") if (folder / "rerun.json").is_file() else {}
    return _pack(
        manifest, checks, public_key, tuple(rerun.get("commands", ())), rerun.get("digests", {})
    )


def _pack(
    manifest: PackManifest,
    checks: Sequence[Check],
    public_key: str | None,
    rerun: tuple[str, ...],
    digests: dict[str, str],
) -> Verified:
    return Verified(
        kind="pack",
        name=manifest.release,
        checks=tuple(checks),
        fingerprint=_fingerprint(manifest.public_key),
        trusted=public_key is not None,
        rerun=rerun,
        digests=digests,
        head=manifest.head,
    )


def _signature(manifest: PackManifest, key: str, *, given: bool) -> Check:
    what = "the manifest's signature"
    if not signature_holds(manifest, key):
        by = "by the key that was given" if given else "by the key inside"
        return Check(what, False, f"not signed {by}: it was made or changed by somebody else")
    if manifest.head.public_key != manifest.public_key or not head_holds(
        manifest.head, manifest.public_key
    ):
        return Check(what, False, "the recorded end of the trail isn't signed by the same key")
    return Check(what, True, f"by the ledger {manifest.head.ledger}, made {manifest.made_at}")


def _release(folder: Path, manifest: PackManifest) -> tuple[Release | None, Check]:
    try:
        release = read_record(folder / RELEASE, Release)
    except IntegrityError as error:
        return None, Check("the release", False, str(error))
    same = (release.name, release.digest) == (manifest.release, manifest.release_digest)
    said = f"{release.name}, digest {release.digest}"
    return release, Check(
        "the release", same, said if same else f"the manifest is of another: {said}"
    )


def _contents(
    folder: Path,
    manifest: PackManifest,
    release: Release,
    key: str,
    heads: Sequence[Head],
    model: Path | None,
) -> list[Check]:
    checks = [_results(folder, release), _model_signature(folder, release)]
    report = verify_trail(folder / "trail", key, [manifest.head, *heads])
    wrong = [fault.reason for fault in report.faults]
    same = report.head == manifest.head
    if not wrong and not same:
        wrong = ["it ends elsewhere than the manifest records"]
    entries = report.entries
    checks.append(Check("the trail", not wrong, _listed(wrong) or f"{len(entries):,} entries"))
    checks.append(_approvals(folder, release, entries, manifest.made_at))
    checks.append(_shipped(release, model, folder))
    return checks


def _results(folder: Path, release: Release) -> Check:
    path = folder / "exam" / "results.json"
    if not path.is_file():
        return Check("the exam's results", False, "exam/results.json is missing")
    listed = release.files.get("exam/results.json")
    same = sha256_file(path) in (listed, release.results_digest)
    return Check("the exam's results", same, "as released" if same else "not those of the release")


def _model_signature(folder: Path, release: Release) -> Check:
    """The signed files are those of the release, and the record itself."""
    what = "the model's signature"
    try:
        pem = (folder / PUBLIC_KEY).read_text(encoding="utf-8")
        signed = signed_files(folder / SIGNATURE, pem)
    except (OSError, UnicodeDecodeError, IntegrityError) as error:
        return Check(what, False, str(error))
    expected = {**release.files, RELEASE: sha256_file(folder / RELEASE)}
    wrong = sorted(name for name, digest in expected.items() if signed.get(name) != digest)
    return Check(what, not wrong, _listed([f"{name}: other than signed" for name in wrong])
                 or f"{len(signed):,} files of the release")  # fmt: skip


def _approvals(folder: Path, release: Release, entries: Sequence[Entry], at: str) -> Check:
    """The decisions computed again from the trail; every act of it was its actor's to do."""
    found = decisions(release, entries, at)
    if read_json(folder / "approvals.json") != json.loads(canonical_json(found)):
        return Check("approvals.json", False, "not what the trail says")
    wrong = list(found["refused"])
    said = f"{found['stage'] or 'not in the registry'} at {at}, as the trail says"
    return Check("approvals.json", not wrong, _listed(wrong) or said)


def _shipped(release: Release, model: Path | None, folder: Path) -> Check:
    what = "the model's files"
    if model is None:
        return Check(what, None, "not given; check them with --model FOLDER")
    try:
        found = read_release(model, release.digest)
        pem = (folder / PUBLIC_KEY).read_text(encoding="utf-8")
        signed = signed_files(folder / SIGNATURE, pem)
        wrong = [n for n in ("act.json", "head.json") if _differs(model / n, signed.get(n))]
    except TokkaError as error:
        return Check(what, False, str(error))
    return Check(what, not wrong, _listed([f"{name}: other than signed" for name in wrong])
                 or f"{len(found.files):,} files, byte for byte as signed")  # fmt: skip


def _differs(path: Path, digest: str | None) -> bool:
    return digest is not None and (not path.is_file() or sha256_file(path) != digest)


# ---- a release's folder, a trail ----------------------------------------------------------------


def verify_release(folder: Path, expected_digest: str | None = None) -> Verified:
    """Every file of a release against its record, and the record against the digest that the trail
    says, where it is known. `head` is the one recorded beside it."""
    try:
        release = read_release(folder, expected_digest)
    except TokkaError as error:
        return Verified("release", folder.name, (Check("every file", False, str(error)),))
    checks = [Check("every file", True, f"{len(release.files):,} files")]
    checks.append(
        Check("the digest", True, f"{release.digest}, as the trail says")
        if expected_digest
        else Check("the digest", None, f"{release.digest}; compare it with the approval's")
    )
    head = None
    if (folder / "head.json").is_file():
        try:
            head = read_head(folder / "head.json")
        except IntegrityError as error:
            checks.append(Check("head.json", False, str(error)))
    return Verified("release", release.name, tuple(checks), head=head)


def verify_exported(
    folder: Path, *, public_key: str | None = None, heads: Sequence[Head] = ()
) -> Verified:
    """An exported trail, against heads that were recorded elsewhere."""
    report = verify_trail(folder, normal(public_key) if public_key else None, heads)
    wrong = [fault.reason for fault in report.faults]
    checks = [Check("the trail", not wrong, _listed(wrong) or f"{len(report.entries):,} entries")]
    if not heads:
        checks.append(Check("its end", None, "no head recorded elsewhere was given (--head FILE): "
                            "a trail cut short as a whole wouldn't show"))  # fmt: skip
    return Verified(
        "trail", report.ledger or folder.name, tuple(checks), report.fingerprint,
        public_key is not None, head=report.head,
    )  # fmt: skip


def read_head(path: Path) -> Head:
    """A head from a file: alone, or as a pack's manifest records it."""
    try:
        data = path.read_bytes()
        if path.name == MANIFEST:
            return PackManifest.model_validate_json(data).head
        return Head.model_validate_json(data)
    except (OSError, ValidationError) as error:
        raise IntegrityError(
            f"{path}: holds no head of a trail; give head.json of a release, or MANIFEST.json of "
            "an evidence pack"
        ) from error


def read_public_key(path: Path) -> str:
    """A public key's file. Raises UsageError where it can't be read."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise UsageError(f"public key: can't read {path}; give a file in PEM") from error


def normal(public_key: str) -> str:
    """The same key in one spelling. Raises IntegrityError for anything else."""
    try:
        return normal_pem(public_key)
    except ValueError as error:
        raise IntegrityError(
            "public key: no Ed25519 public key in PEM; give the ledger's, trail/ledger.pem"
        ) from error


def _fingerprint(public_key: str) -> str:
    try:
        return key_fingerprint(public_key)
    except ValueError:
        return ""


def _listed(wrong: Sequence[str]) -> str:
    more = f"; and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
    return "; ".join(wrong[:SHOWN]) + more
