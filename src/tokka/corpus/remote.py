"""Files behind a URL, through fsspec: listed with what their store says of them, and fetched.

Credentials come from the environment, as each store's own tools have it; none is taken from the
project file, and no message shows one.

>>> root, files = list_remote("s3://office/manuals/**/*.pdf", {"s3": {"anon": True}})
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.corpus.limits import MEGABYTE
from tokka.errors import ItemError, TokkaError, UsageError
from tokka.extras import require

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file", "local")
_EXTRA_OF = {"s3": "s3", "s3a": "s3"}
# Words of a setting's name that hold a secret: these must stay in the environment.
_SECRET = re.compile(
    r"(?:^|_)(?:key|secret|token|password|passwd|pwd|credentials?|connection_string)$", re.I
)
_STATES = ("ETag", "etag", "md5Hash", "md5", "content_md5", "sha256", "checksum")
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")

Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str
    size_bytes: int
    state: str


def is_remote(place: str | Path) -> bool:
    found = _URL.match(str(place))
    return bool(found) and found is not None and found[1].lower() not in _LOCAL


def local_path(place: str) -> str:
    """`file:///rules/a.md` as a path; a path as it is."""
    found = _URL.match(place)
    return place[found.end() :] if found else place


def without_secrets(url: str) -> str:
    """A URL without its user, password and query, for messages."""
    return re.sub(r"://[^/@]*@", "://", url).split("?", 1)[0]


def list_remote(url: str, options: Options) -> tuple[str, list[RemoteFile]]:
    """The path that ids are taken from, and every file under a URL, folder or glob.

    Raises UsageError where the URL holds a password, doesn't exist or can't be reached.
    """
    shown = without_secrets(url)
    if re.search("://[^/@]*:[^/@]*@", url):
        raise UsageError(
            f"corpus: the address of {shown} holds a password; keep it in the environment"
        )
    if "::" in url:
        raise UsageError(
            f"corpus: {shown} is a chain of addresses; name the archive itself, it is unpacked"
        )
    system, path = _system(url, options)
    try:
        if re.search(r"[*\[]", path):
            root = re.split(r"[*\[]", path)[0].rpartition("/")[0]
            entries = system.glob(path, detail=True)
        elif system.isfile(path):
            root, entries = path.rpartition("/")[0], {path: system.info(path)}
        else:
            root, entries = path, system.find(path, detail=True)
    except Exception as error:  # each store raises its own
        raise UsageError(_unreachable(shown, error)) from error
    files = [
        RemoteFile(name, int(info.get("size") or 0), _state(info))
        for name, info in entries.items()
        if info.get("type") == "file" and not name.endswith("/")
    ]
    if not files:
        raise UsageError(f"corpus: nothing lies at {shown}; correct the address")
    return root, files


def fetch(origin: str, path: str, target: Path, options: Options, limit_bytes: int) -> None:
    """Copy one file of the place `origin` to `target`.

    Raises ItemError where it can't be had, or is more than its store said: above `limit_bytes`.
    """
    shown = without_secrets(f"{origin.split('://')[0]}://{path.rpartition('://')[2]}")
    try:
        system, _ = _system(origin, options)
        copied = 0
        with system.open(path, "rb") as source, target.open("wb") as out:
            while piece := source.read(4 * MEGABYTE):
                copied += len(piece)
                if copied > limit_bytes:
                    raise ItemError(
                        f"read: {shown} has more than "
                        f"{limit_bytes // MEGABYTE:,} MB; "
                        "split it, or raise documents: max_file_megabytes"
                    )
                out.write(piece)
    except TokkaError:
        raise
    except Exception as error:  # each store raises its own
        reason = _unreachable(shown, error)
        raise ItemError(reason.replace("corpus:", "read:", 1)) from error


def _system(url: str, options: Options) -> tuple[Any, str]:
    """fsspec's file system for a URL, its host included, and the path in it."""
    found = _URL.match(url)
    assert found is not None
    protocol = found[1].lower()
    chosen = options.get(protocol, {})
    _refuse_secrets(protocol, chosen)
    url_to_fs = require("fsspec.core", extra="read").url_to_fs
    try:
        system, path = url_to_fs(url, **chosen)
        return system, str(path)
    except ImportError as error:
        extra = _EXTRA_OF.get(protocol)
        how = f"pip install 'tokka[{extra}]'" if extra else str(error)
        raise UsageError(f"corpus: {protocol}:// needs a package; install it: {how}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"corpus: {protocol}:// can't be opened ({type(error).__name__}); correct the "
            "address or documents: storage_options"
        ) from error


def _refuse_secrets(protocol: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if _SECRET.search(str(name)):
            raise UsageError(
                f"documents: storage_options: {protocol}: {name} may hold a secret; keep it in the "
                "environment, where the store's own tools look for it"
            )
        if isinstance(value, Mapping):
            _refuse_secrets(protocol, value)


def _state(info: Mapping[str, Any]) -> str:
    known = [str(info[name]) for name in _STATES if info.get(name)]
    known = known or [str(info[name]) for name in _TIMES if info.get(name)]
    return "-".join([str(info.get("size") or 0), *known[:1]])


def _unreachable(shown: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"corpus: nothing lies at {shown}; correct the address"
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""
    return (
        f"corpus: {shown} can't be reached ({reason or type(error).__name__}); "
        "check the address, the network and the store's variables in the environment"
    )
