"""Zip archives, and the office files that are made of them, opened within limits.

Nothing is unpacked before its declared size, its ratio and the sum of all were found within
`limits`; no name inside an archive is ever used as a path.

>>> with opened(file, "epub") as archive:
...     data = unpacked(file, archive, "META-INF/container.xml")
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tokka.corpus.encoding import decode
from tokka.corpus.limits import File, Spent
from tokka.errors import ItemError

_OLE = b"\xd0\xcf\x11\xe0"
_ENTITY = re.compile(rb"<!\s*ENTITY", re.I)
_PROLOG_BYTES = 1 << 16
_UTF8_FLAG, _ENCRYPTED_FLAG = 0x800, 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
# What zipfile raises for archives that are cut, damaged or made by hand.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError)


@contextlib.contextmanager
def opened(file: File, what: str) -> Iterator[zipfile.ZipFile]:
    """Raises ItemError for an empty, broken or overfull archive and an encrypted office file."""
    with file.path.open("rb") as stream:
        head = stream.read(4)
        if not head:
            raise ItemError(f"read: {file.id} is empty; fill it or list it under skip")
        if head == _OLE:
            raise ItemError(
                f"{what}: {file.id} is encrypted or an old .{what[:3]}; "
                f"save it as .{what} without a password or list it under skip"
            )
        try:
            archive = zipfile.ZipFile(stream)
        except _BROKEN as error:
            raise broken(file, what, error) from error
        with archive:
            _spent(file).members(file.id, len(archive.infolist()))
            yield archive


def check_package(file: File, what: str) -> None:
    """For libraries that unpack an office file by themselves: all its parts within the limits, and
    no XML entities, which office files never have and bombs are built from.

    Raises ItemError.
    """
    with opened(file, what) as archive:
        for info in archive.infolist():
            _spent(file).unpack(file.id, info.file_size, info.compress_size)
            if info.filename.lower().endswith((".xml", ".rels")):
                try:
                    with archive.open(info) as part:
                        prolog = part.read(_PROLOG_BYTES)
                except _BROKEN as error:
                    raise broken(file, what, error) from error
                refuse_entities(file, what, prolog)


def refuse_entities(file: File, what: str, data: bytes) -> None:
    if _ENTITY.search(data[:_PROLOG_BYTES].replace(b"\0", b"")):  # UTF-16 too
        raise ItemError(
            f"{what}: {file.id} declares XML entities, as bombs do; "
            "save it again or list it under skip"
        )


def unpacked(file: File, archive: zipfile.ZipFile, info: zipfile.ZipInfo | str) -> bytes:
    """The bytes of one member. Raises ItemError where it is missing, broken or too large."""
    try:
        found = archive.getinfo(info) if isinstance(info, str) else info
        _spent(file).unpack(file.id, found.file_size, found.compress_size)
        return archive.read(found)
    except KeyError as error:
        raise broken(file, "zip", error) from error
    except _BROKEN as error:
        raise broken(file, "zip", error) from error


def unpack_to(file: File, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one member at `target`. Raises ItemError where it is encrypted, a link, broken, or
    more than the limits allow; zipfile itself stops at the declared size."""
    name = f"{file.id}/{name_of(info)}"
    if info.flag_bits & _ENCRYPTED_FLAG:
        raise ItemError(f"zip: {name} is encrypted; unpack it with its password or list it in skip")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ItemError(f"zip: {name} is a link, which isn't followed; put the file itself in")
    _spent(file).unpack(name, info.file_size, info.compress_size)
    try:
        with archive.open(info) as member, target.open("wb") as out:
            shutil.copyfileobj(member, out, 1 << 20)
    except _BROKEN as error:
        raise ItemError(
            f"zip: {name} is broken ({type(error).__name__}); pack it again or list it under skip"
        ) from error


def name_of(info: zipfile.ZipInfo) -> str:
    """The name as text, with `/`: names that don't say they are UTF-8 are often Shift_JIS."""
    name = info.filename
    if not info.flag_bits & _UTF8_FLAG and not name.isascii():
        with contextlib.suppress(UnicodeEncodeError, ItemError):
            name = decode(name.encode("cp437"), "name")
    return name.replace("\\", "/")


def leads_outside(name: str) -> bool:
    """Absolute, with a drive letter, or with `..` in it."""
    return name.startswith("/") or ".." in name.split("/") or bool(_DRIVE.match(name))


def broken(file: File, what: str, error: BaseException) -> ItemError:
    return ItemError(
        f"{what}: {file.id} is broken ({type(error).__name__}); save it again or list it under skip"
    )


def _spent(file: File) -> Spent:
    return file.spent or Spent(file.settings)
