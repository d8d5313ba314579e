"""A release's folder, every byte of it checked.

    release = read_release(folder, expected_digest)     # what the ledger says was approved
    release.served, release.digest

What release.json says proves nothing by itself: whoever can change a file can change its digest
there too. It holds where its own digest is the one that was approved and signed.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tokka.errors import IntegrityError, UsageError
from tokka.release.records import Release
from tokka.store import read_record, sha256_file

RELEASE = "release.json"
UNLISTED = frozenset({RELEASE, "act.json", "head.json"})  # these come after the list was closed


def read_release(folder: Path, expected_digest: str | None = None) -> Release:
    """The release in `folder`. Raises UsageError where there is none; IntegrityError naming the
    first file that is missing, changed, a link or one too many, or where the release isn't the one
    with `expected_digest`."""
    if not (folder / RELEASE).is_file():
        raise UsageError(f"{folder}: holds no {RELEASE}; name a release's folder")
    release = read_record(folder / RELEASE, Release)
    if expected_digest is not None and release.digest != expected_digest:
        raise IntegrityError(
            f"{folder}: its digest is {release.digest}, expected {expected_digest}; this isn't the "
            "release that was approved: fetch it again, or release it anew"
        )
    check_files(folder, release)
    return release


def check_files(folder: Path, release: Release) -> None:
    """Raise IntegrityError unless the folder holds what the release lists, and nothing else."""
    found = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise _wrong(folder, name, "is a link")
        if path.is_file():
            found.add(name)
        elif not path.is_dir():
            raise _wrong(folder, name, "is neither file nor folder")
    for name in sorted(found - release.files.keys() - UNLISTED):
        raise _wrong(folder, name, "doesn't belong to the release")
    for name, digest in sorted(release.files.items()):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _wrong(folder, name, "lies outside the release")
        if name not in found:
            raise _wrong(folder, name, "is missing")
        if sha256_file(folder / name) != digest:
            raise _wrong(folder, name, "was changed")


def _wrong(folder: Path, name: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"{folder}: {name} {what}; restore the folder from a copy, or release it anew"
    )
