"""Where documents lie: a file, a folder, a glob, or any URL that fsspec opens.

Places → `Found` files in the order of their ids, and a row for each thing that can't be read.

>>> list_places(["rules", "minutes/**/*.pdf", "s3://office/manuals"]).found[0].id
'loans/limits.md'
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tokka.corpus.formats import SIDECAR, dropped, hidden, skipped
from tokka.corpus.limits import ReadSettings
from tokka.corpus.remote import RemoteFile, is_remote, list_remote, local_path, without_secrets
from tokka.errors import UsageError
from tokka.records import Dropped
from tokka.store import sha256_file

Place = str | Path


@dataclass(frozen=True, slots=True)
class Found:
    """A file that isn't read yet. `path` is local, or lies in the remote place `origin`. `state`
    changes when the file does: size and times of change, or what the store says (etag)."""

    id: str
    path: str
    size_bytes: int
    state: str
    origin: str = ""


class Listing(NamedTuple):
    found: list[Found]
    dropped: list[Dropped]


def resolve(place: str, root: Path) -> str:
    """A place of a project file as an absolute path or glob, taken from `root`; a URL as it is."""
    return place if is_remote(place) or "://" in place else str(root / place)


def list_places(
    places: Sequence[Place], skip: Sequence[str] = (), settings: ReadSettings | None = None
) -> Listing:
    """Every file under `places`, sorted by id.

    An id is the POSIX path from the place given (a file given by itself: its name; a glob: the
    folder before its first wildcard), in Unicode NFC so that a macOS copy has the same ids. Where
    two places hold the same id, those get their place's name in front. Hidden files and Office's
    lock files (`~$…`) are left out. Links to folders are followed, except in a loop. Raises
    UsageError for a place that doesn't exist or can't be reached.
    """
    rows: list[Dropped] = []
    listed: list[tuple[tuple[str, ...], list[tuple[str, Found]]]] = []
    seen: set[str] = set()  # one place may lie inside another
    for place in places:
        if is_remote(place):
            root, entries = _remote(str(place), settings or ReadSettings())
        else:
            path = Path(local_path(str(place)))
            root, entries = _local(path, rows)
        new = []
        for inner, found in entries:
            real = (
                f"{found.origin.split('://')[0]}:{found.path}"
                if found.origin
                else _real(found.path)
            )
            if real not in seen:
                seen.add(real)
                new.append((clean(inner), found))
        listed.append((root, new))
    labels = _labels([root for root, _ in listed])
    clashes = Counter(inner for _, entries in listed for inner, _ in entries)
    named = [
        (f"{label}/{inner}" if clashes[inner] > 1 else inner, found)
        for label, (_, entries) in zip(labels, listed, strict=True)
        for inner, found in entries
    ]
    kept = [
        Found(name, found.path, found.size_bytes, found.state, found.origin)
        for name, found in named
        if not skipped(name, skip)
    ]
    rows = [row for row in rows if not skipped(row.item, skip)]
    return Listing(sorted(kept, key=lambda one: (one.id, one.path)), rows)


def files_state(
    places: Sequence[Place], skip: Sequence[str] = (), settings: ReadSettings | None = None
) -> list[tuple[str, str]]:
    """(id, what its content is known by): the SHA-256 of a local file, what the store tells of a
    remote one. Nothing is fetched. Two equal lists mean that reading would give the same."""
    listing = list_places(places, skip, settings)
    states = [(found.id, found.state if found.origin else _sha256(found)) for found in listing[0]]
    return states + [(row.item, row.reason) for row in listing.dropped]


def _sha256(found: Found) -> str:
    try:
        return sha256_file(Path(found.path))
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _remote(place: str, settings: ReadSettings) -> tuple[tuple[str, ...], list[tuple[str, Found]]]:
    root, files = list_remote(place, settings.storage_options)

    def found(one: RemoteFile) -> tuple[str, Found]:
        inner = one.path.removeprefix(root).strip("/") or PurePosixPath(one.path).name
        return inner, Found(inner, one.path, one.size_bytes, one.state, place)

    entries = [found(one) for one in files]
    label = tuple(part for part in re.split("[:/]+", without_secrets(place)) if part)
    return label, [entry for entry in entries if not hidden(entry[0].split("/"))]


def _local(path: Path, rows: list[Dropped]) -> tuple[tuple[str, ...], list[tuple[str, Found]]]:
    """The parts of the place's path, and (id within it, file) of every file in it."""
    root, paths = path, iter([path])
    if path.is_dir():
        paths = _walk(path, path, (path.resolve(),), rows)
    elif path.is_file():
        root = path.parent
    elif glob.has_magic(str(path)):
        root, paths = _matching(path, rows)
    else:
        raise UsageError(f"corpus: {path} doesn't exist; correct the path or create the folder")
    entries = []
    for one in paths:
        inner = one.relative_to(root).as_posix()
        if (found := _found(inner, one, rows)) is not None:
            entries.append((inner, found))
    return root.resolve().parts, entries


def _matching(pattern: Path, rows: list[Dropped]) -> tuple[Path, Iterator[Path]]:
    """The folder before the first wildcard, and the files below it that match; a pattern names
    files, never a folder. glob.glob isn't used: it goes round in loops of links."""
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    wanted = parts[fixed:]
    if not root.is_dir():
        raise UsageError(f"corpus: {root} doesn't exist; correct the path or create the folder")
    paths = _walk(root, root, (root.resolve(),), rows)
    found = [path for path in paths if _matches(path.relative_to(root).parts, wanted)]
    if not found:
        raise UsageError(f"corpus: no file matches {pattern}; correct the pattern")
    return root, iter(found)


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_matches(parts[i:], wanted[1:] or ("*",)) for i in range(len(parts)))
    first = bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0])
    return first and _matches(parts[1:], wanted[1:])


def _found(inner: str, path: Path, rows: list[Dropped]) -> Found | None:
    name = clean(inner)
    try:
        state = path.stat()
    except OSError as error:
        why = f"read: {name} can't be read ({error.strerror})"
        rows.append(dropped(name, f"{why}; correct the link, or check the disk and try again"))
        return None
    if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for without end
        rows.append(dropped(name, f"read: {name} is no regular file; list it under skip"))
        return None
    # An unpacked archive or a copy that keeps times may bring other words at the same size and time
    # of change; the time of change of the file's record can't be set.
    seen = f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"
    return Found(name, str(path), state.st_size, seen)


def _walk(folder: Path, root: Path, above: tuple[Path, ...], rows: list[Dropped]) -> Iterator[Path]:
    """Files of a folder, then of the folders in it; `above` are the real folders on the way."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        name = clean(folder.relative_to(root).as_posix()) + "/"
        why = f"read: the folder {name} can't be listed ({error.strerror})"
        rows.append(dropped(name, f"{why}; grant read permission"))
        return
    shown = [e for e in entries if not hidden([e.name]) and not e.name.endswith(SIDECAR)]
    folders = [Path(entry.path) for entry in shown if entry.is_dir()]
    yield from (Path(entry.path) for entry in shown if not entry.is_dir())
    for inner in folders:
        real = inner.resolve()
        if inner.is_symlink() and any(one.is_relative_to(real) for one in above):
            name = clean(inner.relative_to(root).as_posix()) + "/"
            why = f"read: {name} is a link to a folder that holds it, a loop"
            rows.append(dropped(name, f"{why}; remove the link or list it under skip"))
        else:
            yield from _walk(inner, root, (*above, real), rows)


def _real(path: str) -> str:
    return os.path.realpath(path)


def _labels(roots: Sequence[tuple[str, ...]]) -> list[str]:
    """The shortest tails of the places' paths that tell them apart."""
    labels = ["" for _ in roots]
    for depth in range(1, max(map(len, roots), default=0) + 1):
        labels = ["/".join(part.strip("/") for part in root[-depth:]) for root in roots]
        if len(set(labels)) == len(set(roots)):
            break
    return labels


def clean(name: str) -> str:
    """NFC; bytes of a file name that aren't UTF-8 (old archives) become U+FFFD."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", readable)
