"""An evidence pack as files: sealed by a manifest, checked byte for byte, zipped alike each time.

    folder of evidence → MANIFEST.json (SHA-256 of every file, the trail's head, a signature)
    pack → faults (empty: every byte is what was signed)

The manifest is signed with the ledger's Ed25519 key over its canonical JSON without the signature.
Its file must be exactly what the record is written as: a manifest has one spelling.

>>> seal(folder, release, head, made_at="2026-11-23T01:02:03Z", sign=sign)
>>> faults(folder, read_manifest(folder))
[]
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

import tokka
from tokka.errors import IntegrityError
from tokka.records import Record, canonical_json
from tokka.release.chain import holds
from tokka.release.records import Head, Release
from tokka.store import sha256_file, write_bytes

MANIFEST = "MANIFEST.json"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows: no clock decides a byte
MOST_MANIFEST_BYTES = 64_000_000


class PackManifest(Record):
    """`files`: path in the pack → SHA-256, of every file but the manifest. `head` is the trail's
    end when the pack was made; `public_key` (PEM) is the ledger's, as in the head."""

    kind: Literal["tokka-evidence"] = "tokka-evidence"
    release: str
    release_digest: str
    made_at: str
    made_with: str
    head: Head
    files: dict[str, str]
    public_key: str
    signature: str = ""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"})).encode()

    @property
    def as_bytes(self) -> bytes:
        """The file's one spelling."""
        return as_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of the file: what `sha256sum MANIFEST.json` says."""
        return hashlib.sha256(self.as_bytes).hexdigest()


def as_json(value: Any) -> bytes:
    """How every JSON file of a pack is written."""
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def seal(
    folder: Path, release: Release, head: Head, *, made_at: str, sign: Callable[[bytes], bytes]
) -> PackManifest:
    """Write the manifest over all that lies in `folder`. `sign` is the ledger's key, whose public
    half stands in `head`. Raises IntegrityError where something there is no plain file."""
    manifest = PackManifest(
        release=release.name,
        release_digest=release.digest,
        made_at=made_at,
        made_with=f"tokka {tokka.__version__}",
        head=head,
        files={name: sha256_file(folder / name) for name in plain_files(folder)},
        public_key=head.public_key,
    )
    signature = base64.b64encode(sign(manifest.signed_bytes)).decode()
    sealed = manifest.model_copy(update={"signature": signature})
    write_bytes(folder / MANIFEST, sealed.as_bytes)
    return sealed


def read_manifest(folder: Path) -> PackManifest:
    """Raises IntegrityError where there is none, or it isn't written as one is."""
    path = folder / MANIFEST
    try:
        if path.is_symlink() or path.stat().st_size > MOST_MANIFEST_BYTES:
            raise IntegrityError(f"{path}: no manifest of a pack is like that; get the pack again")
        data = path.read_bytes()
        manifest = PackManifest.model_validate_json(data)
    except (OSError, ValidationError) as error:
        why = "is missing" if isinstance(error, OSError) else "is no manifest of an evidence pack"
        raise IntegrityError(f"{path}: {why}; get the pack again from who made it") from error
    if data != manifest.as_bytes:
        raise IntegrityError(f"{path}: changed since it was written; get the pack again")
    return manifest


def signature_holds(manifest: PackManifest, public_key: str) -> bool:
    """Whether the manifest was signed by the key whose public half (PEM) is given."""
    return holds(public_key, manifest.signed_bytes, manifest.signature)


def faults(folder: Path, manifest: PackManifest) -> list[str]:
    """Every file that is missing, changed or too many, by name."""
    try:
        found = set(plain_files(folder))
    except IntegrityError as error:
        return [str(error)]
    wrong = [f"{name}: missing" for name in sorted(set(manifest.files) - found)]
    wrong += [f"{name}: not in the manifest" for name in sorted(found - set(manifest.files))]
    wrong += [
        f"{name}: changed"
        for name in sorted(found & set(manifest.files))
        if sha256_file(folder / name) != manifest.files[name]
    ]
    return wrong


def plain_files(folder: Path) -> list[str]:
    """Every file below `folder` but the manifest, as sorted paths with slashes. Raises
    IntegrityError for a link or a device: what it points to isn't in the pack."""
    names = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                shown = path.relative_to(folder).as_posix()
                raise IntegrityError(f"{shown}: a link or a device; a pack holds plain files only")
        names += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
    return sorted(name for name in names if name != MANIFEST)


def zip_pack(folder: Path, path: Path) -> Path:
    """The same folder gives the same zip: one order, one time, one mode. All lies below one folder
    in it, named like the zip."""
    temporary = path.with_name(f".{path.name}.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted([*plain_files(folder), MANIFEST]):
            entry = zipfile.ZipInfo(f"{path.stem}/{name}", date_time=ZIP_TIME)
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
    os.replace(temporary, path)
    return path
