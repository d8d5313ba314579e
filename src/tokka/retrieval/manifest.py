"""The one file that says what an index is: which parts there are, and what made them.

A folder → `Manifest` and opened parts. Whatever isn't named in it isn't part of the index.

>>> manifest, opened = open_parts(folder)
>>> check_tools(folder, manifest, embedder)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokka.errors import IntegrityError, UsageError
from tokka.models.protocol import Embedder
from tokka.records import canonical_json
from tokka.retrieval.packed import Array
from tokka.retrieval.parts import FILES, VECTORS, Part
from tokka.retrieval.tokenise import tokeniser_version

MANIFEST = "index.json"

_FORMAT = 2
_OPENINGS = 5


@dataclass(frozen=True, slots=True)
class Named:
    """A part as the manifest names it; `removed`: the file of its removed rows, or empty."""

    name: str
    rows: int
    sizes: Mapping[str, int]
    removed: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`content` is of the chunks and facts alone: one for equal indexes, however they came to
    be. `generation` counts changes."""

    language: str
    tokeniser: str
    embedder: str
    embedder_digest: str
    rows: int
    content: str
    generation: int = 1
    parts: tuple[Named, ...] = ()
    format: int = field(default=_FORMAT)

    @property
    def digest(self) -> str:
        """Changes whenever a search could answer differently."""
        facts = asdict(replace(self, parts=(), generation=0))
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


Opened = tuple[Part, Array | None]  # and which of its rows live; None: all


def open_parts(folder: Path) -> tuple[Manifest, list[Opened]]:
    """What the manifest names. Raises IntegrityError where that isn't there, or was changed."""
    for opening in range(1, _OPENINGS + 1):
        manifest = read_manifest(folder)
        try:
            return manifest, [_opened(folder, named, manifest) for named in manifest.parts]
        except (FileNotFoundError, IntegrityError) as error:
            # Where it was changed in between, what is missing isn't part of it any more.
            if opening == _OPENINGS or read_manifest(folder) == manifest:
                if isinstance(error, IntegrityError):
                    raise
                raise IntegrityError(
                    f"retrieval: {error.filename} is missing; build the index again"
                ) from error
    raise AssertionError


def read_manifest(folder: Path) -> Manifest:
    """Raises IntegrityError when there is none, or one of another format."""
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"retrieval: {folder} holds no finished index; build it again")
    try:
        read: dict[str, Any] = json.loads(path.read_bytes())
        if read.get("format") != _FORMAT:
            raise IntegrityError(
                f"retrieval: {folder} has the index format {read.get('format')}, this version "
                f"reads {_FORMAT}; build it again"
            )
        return Manifest(**{**read, "parts": tuple(Named(**part) for part in read["parts"])})
    except (ValueError, OSError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"retrieval: {path} is damaged ({error}); build it again") from error


def check_tools(folder: Path, manifest: Manifest, embedder: Embedder | None) -> None:
    """Raises IntegrityError when the embedder or the tokeniser isn't the one that the index was
    built with; UsageError when an embedder is missing."""
    here = tokeniser_version(manifest.language) if manifest.tokeniser else ""
    if here != manifest.tokeniser:
        raise IntegrityError(
            f"retrieval: {folder} was built with {manifest.tokeniser}, installed is {here}; "
            "build it again"
        )
    if not manifest.embedder_digest:
        return
    if embedder is None:
        raise UsageError(
            f"retrieval: {folder} has vectors of {manifest.embedder}; open it with that embedder"
        )
    if embedder.digest != manifest.embedder_digest:
        raise IntegrityError(
            f"retrieval: {folder} was built with another embedder "
            f"({manifest.embedder} {manifest.embedder_digest[:12]}, now "
            f"{embedder.name} {embedder.digest[:12]}); build it again"
        )


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes of a part's files, by name."""
    files = [name for name in (*FILES, VECTORS) if (folder / name).exists()]
    return {name: os.path.getsize(folder / name) for name in files}


def _opened(folder: Path, named: Named, manifest: Manifest) -> Opened:
    where = folder / named.name
    if (sizes := sizes_of(where)) != named.sizes:
        raise IntegrityError(
            f"retrieval: the files in {where} have the sizes {sizes}, not those that were written; "
            "build the index again"
        )
    part = Part.open(where, bool(manifest.embedder_digest))
    if not named.removed:
        return part, None
    bits = np.frombuffer((folder / named.removed).read_bytes(), np.uint8)
    if len(bits) != -(-named.rows // 8):
        raise IntegrityError(
            f"retrieval: {folder / named.removed} is damaged; build the index again"
        )
    return part, ~np.unpackbits(bits, count=named.rows).astype(bool)
