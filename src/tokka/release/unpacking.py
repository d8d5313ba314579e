"""Take a zip from somebody else apart, so that nothing lands outside and nothing fills the disk.

zip → a temporary folder with the pack, gone afterwards

>>> with unpacked(Path("aoba-1-evidence.zip")) as folder:
...     read_manifest(folder)

What an entry claims to hold is not believed: bytes are counted while they are written. Refused are
names that leave the folder, differ only in case or stand twice, links, encrypted entries, and more
than `most_files` or `most_bytes`.
"""

from __future__ import annotations

import contextlib
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tokka.errors import IntegrityError
from tokka.release.pack import MANIFEST

MOST_FILES = 20_000
MOST_BYTES = 2 * 1024**3
MOST_NAME_CHARACTERS = 400
PIECE = 1 << 20


@contextlib.contextmanager
def unpacked(
    path: Path, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES
) -> Iterator[Path]:
    """The folder that holds the manifest. Raises IntegrityError for a zip that no pack is."""
    with tempfile.TemporaryDirectory(prefix="tokka-pack-") as temporary:
        root = Path(temporary)
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, root, path.name, most_files, most_bytes)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            raise IntegrityError(
                f"{path.name}: damaged, or no zip ({type(error).__name__}); get the pack again"
            ) from error
        except (OSError, RuntimeError) as error:
            raise IntegrityError(f"{path.name}: can't be unpacked: {error}") from error
        yield _top(root, path.name)


def _unpack(
    archive: zipfile.ZipFile, root: Path, zip_name: str, most_files: int, most_bytes: int
) -> None:
    entries = archive.infolist()
    if len(entries) > most_files:
        raise IntegrityError(
            f"{zip_name}: {len(entries):,} entries; a pack has at most {most_files:,}"
        )
    seen: set[str] = set()
    left = most_bytes
    for entry in entries:
        name = _safe_name(entry, zip_name)
        if name.casefold() in seen:
            raise IntegrityError(f"{zip_name}: {name} stands in it twice; get the pack again")
        seen.add(name.casefold())
        target = root / name
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("xb") as file:
            while piece := source.read(PIECE):
                left -= len(piece)
                if left < 0:
                    raise IntegrityError(
                        f"{zip_name}: unpacks to more than {most_bytes:,} bytes; a pack doesn't, "
                        "so it was left alone"
                    )
                file.write(piece)


def _safe_name(entry: zipfile.ZipInfo, zip_name: str) -> str:
    name = entry.filename
    parts = PurePosixPath(name).parts
    mode = entry.external_attr >> 16
    wrong = (
        "an empty or overlong name" if not name.strip() or len(name) > MOST_NAME_CHARACTERS
        else "a name with a control character" if any(ord(c) < 32 or ord(c) == 127 for c in name)
        else "an absolute path" if name.startswith("/") or "\\" in name or ":" in name
        else "a path that leaves the folder" if ".." in parts or "." in name.split("/")
        else "a link" if stat.S_ISLNK(mode)
        else "an encrypted entry" if entry.flag_bits & 0x1
        else ""
    )  # fmt: skip
    if wrong:
        raise IntegrityError(
            f"{zip_name}: holds {wrong} ({name[:80]!r}); no pack does, so it was left alone"
        )
    return name.rstrip("/")


def _top(root: Path, zip_name: str) -> Path:
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    found = [place for place in places if (place / MANIFEST).is_file()]
    others = [p for p in root.iterdir() if p not in found] if root not in found else []
    if len(found) != 1 or others:
        raise IntegrityError(
            f"{zip_name}: holds {len(found)} evidence packs and {len(others)} other things; "
            "give one zip as tokka evidence --zip writes it"
        )
    return found[0]
