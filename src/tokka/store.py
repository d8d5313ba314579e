"""The workspace: atomic writes, step folders, finished batches. Nothing here knows what a step
does.

A step's folder is named by the fingerprint of its inputs; `manifest.json` is written last, so a
folder without one is unfinished work. A killed step leaves `<step>-<fingerprint>.partial`, which
the next run of the same step is given back: builders that keep checkpoints go on from them, the
others overwrite.

    workspace = Workspace(root / ".tokka")
    folder = workspace.step("chunk", {"documents": digest, "max_tokens": 120}, build)
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tokka.errors import IntegrityError, TokkaError, UsageError
from tokka.records import canonical_json, fingerprint

R = TypeVar("R", bound=BaseModel)
FINGERPRINT_CHARACTERS = 16


def write_bytes(path: Path, data: bytes) -> None:
    write_pieces(path, (data,))


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Write to a temporary name in the same folder, sync, rename: a reader sees all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            # mkstemp's 0600 would hide a report from colleagues.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_text(path, json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """One JSON record a line; of a generator, one at a time is held."""
    write_pieces(path, (record.model_dump_json().encode() + b"\n" for record in records))


def read_text(path: Path, what: str) -> str:
    """A text file, gzipped or not, in UTF-8 or cp932. Raises UsageError naming `what` it is."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{what}: can't read {path}: {error}; check the file") from error
    for encoding in ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UsageError(f"{what}: {path.name} is neither UTF-8 nor cp932; save it as UTF-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{path}: can't be read as JSON ({error}); delete the folder {path.parent} and run "
            f"again"
        ) from error


def read_record(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(
            f"{path}: not a {kind.__name__} ({error}); delete the folder {path.parent} and run "
            f"again"
        ) from error


def read_records(path: Path, kind: type[R]) -> list[R]:
    return list(stream_records(path, kind))


def stream_records(path: Path, kind: type[R]) -> Iterator[R]:
    """One at a time. Raises IntegrityError at a line that is no such record."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                raise IntegrityError(
                    f"{path}:{number}: not a {kind.__name__} ({error}); "
                    f"delete the folder {path.parent} and run again"
                ) from error


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Converted models and embeddings of this user: $TOKKA_CACHE, else $XDG_CACHE_HOME/tokka."""
    chosen = os.environ.get("TOKKA_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokka"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on `path` across processes; it is released when a process dies."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path)):
        yield


@contextlib.contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """One run per workspace; a second one is told so instead of waiting without a word."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TokkaError(
            f"another run is at work in {path.parent}; wait for it, or follow it with: tokka status"
        ) from error
    try:
        yield
    finally:
        lock.release()


class FolderMemo:
    """Finished batches, one JSON file each (see `models.protocol.Memo`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Any | None:
        path = self._path(key)
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            path.unlink(missing_ok=True)  # a damaged entry is only worth computing again
            return None

    def put(self, key: str, value: Any) -> None:
        write_bytes(self._path(key), json.dumps(value, ensure_ascii=False).encode())


@dataclass(frozen=True, slots=True)
class Manifest:
    step: str
    fingerprint: str
    inputs: Mapping[str, Any]
    files: Mapping[str, int]  # relative path → bytes
    digests: Mapping[str, str]  # relative path → SHA-256
    seconds: float
    decisive: tuple[str, ...]
    label: str  # for people: which arm or exam


class Workspace:
    """`.tokka/` beside the project file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps = root / "steps"
        self.memo = FolderMemo(root / "batches")

    def prepare(self) -> None:
        self.steps.mkdir(parents=True, exist_ok=True)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            write_text(ignore, "*\n")

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return run_lock(self.root / "run.lock")

    def folder(self, step: str, inputs: Mapping[str, Any]) -> Path:
        return self.steps / f"{step}-{fingerprint([step, inputs])[:FINGERPRINT_CHARACTERS]}"

    def step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], None],
        *,
        decisive: tuple[str, ...] = (),
        label: str = "",
    ) -> Path:
        """Return the finished folder of this step, building it first where it isn't there.

        `build` writes into the folder it is given. `decisive` names the files that later steps
        depend on, by shell patterns, where others may differ from one build to the next (an index's
        segment names).
        Raises IntegrityError when a finished folder has lost a file or changed since.
        """
        folder = self.folder(name, inputs)
        if (folder / "manifest.json").exists():
            self.check(folder)
            return folder
        if folder.exists():
            raise IntegrityError(
                f"{folder}: a step folder without manifest.json; delete it and run again"
            )
        partial = folder.with_name(folder.name + ".partial")
        with locked(self.root / "locks" / f"{folder.name}.lock"):
            if (folder / "manifest.json").exists():
                return folder
            partial.mkdir(parents=True, exist_ok=True)
            (partial / "manifest.json").unlink(missing_ok=True)  # of a run killed before the rename
            started = time.monotonic()
            earlier = _read_seconds(partial)
            try:
                build(partial)
            except BaseException:
                _write_seconds(partial, earlier + time.monotonic() - started)
                raise
            (partial / ".seconds").unlink(missing_ok=True)
            files = sorted(p for p in partial.rglob("*") if p.is_file() and p.suffix != ".tmp")
            relative = [p.relative_to(partial).as_posix() for p in files]
            write_json(
                partial / "manifest.json",
                {
                    "schema_version": 1,
                    "step": name,
                    "decisive": sorted(decisive),
                    "label": label,
                    "fingerprint": fingerprint([name, inputs]),
                    "inputs": json.loads(canonical_json(inputs)),
                    "files": {r: p.stat().st_size for r, p in zip(relative, files, strict=True)},
                    "digests": {r: sha256_file(p) for r, p in zip(relative, files, strict=True)},
                    "seconds": round(earlier + time.monotonic() - started, 3),
                },
            )
            os.replace(partial, folder)
        return folder

    def manifest(self, folder: Path) -> Manifest:
        data = read_json(folder / "manifest.json")
        return Manifest(
            step=data["step"],
            fingerprint=data["fingerprint"],
            inputs=data["inputs"],
            files=data["files"],
            digests=data["digests"],
            seconds=data["seconds"],
            decisive=tuple(data["decisive"]),
            label=data.get("label", ""),
        )

    def digest(self, folder: Path) -> str:
        """SHA-256 over the digests of a finished step's decisive files: what later steps depend
        on; of all its files where none is named."""
        manifest = self.manifest(folder)
        patterns = manifest.decisive or ("*",)
        names = [n for n in manifest.digests if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
        return fingerprint({name: manifest.digests[name] for name in names})

    def check(self, folder: Path) -> None:
        """Every byte of a finished step, each time it is used: an adapter takes milliseconds.

        Raises IntegrityError where a file is missing or changed.
        """
        manifest = self.manifest(folder)
        for name, digest in manifest.digests.items():
            path = folder / name
            if not path.is_file() or sha256_file(path) != digest:
                raise IntegrityError(
                    f"{path}: missing or changed since it was made; delete {folder} and run again"
                )

    def unfinished(self) -> list[Path]:
        return sorted(self.steps.glob("*.partial")) if self.steps.exists() else []

    def finished(self) -> list[Path]:
        return (
            sorted(p.parent for p in self.steps.glob("*/manifest.json"))
            if self.steps.exists()
            else []
        )


def _read_seconds(partial: Path) -> float:
    try:
        return float((partial / ".seconds").read_text())
    except (OSError, ValueError):
        return 0.0


def _write_seconds(partial: Path, seconds: float) -> None:
    with contextlib.suppress(OSError):
        (partial / ".seconds").write_text(str(seconds))


def replace_folder(source: Path, target: Path) -> None:
    """Move a finished folder into place; whoever came first wins."""
    try:
        os.replace(source, target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(source, ignore_errors=True)
