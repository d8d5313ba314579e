"""What reading one file may cost, and how much of it a file and all that is inside it has used.

A corpus holds what other people sent: archives that unpack without end, a hundred thousand empty
rows, mails within mails. Each limit refuses with its number and what to do.

>>> Spent(ReadSettings()).unpack("mails.zip", declared_bytes=10**12, packed_bytes=10**6)
Traceback (most recent call last):
tokka.errors.ItemError: zip: mails.zip unpacks to more than ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokka.errors import ItemError

MEGABYTE = 1_000_000
MAX_DEPTH = 3  # containers around a document: a mail in an archive in an archive
MAX_MEMBERS = 100_000  # of one file, through all its containers
MAX_RATIO = 300  # deflate reaches 1,032; sheets of numbers about 30
MIN_SUSPICIOUS_BYTES = 10 * MEGABYTE
UNPACKED_FILES = 8  # an archive may hold this many times the largest file


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What the project says about reading (`documents:`). `storage_options` go to fsspec, by
    protocol; `seconds_per_file` is the time for one file, or for one page of a scan."""

    ocr: bool = False
    max_file_megabytes: int = 512
    max_pages: int = 1500
    storage_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds_per_file: float = 120

    @property
    def max_file_bytes(self) -> int:
        return self.max_file_megabytes * MEGABYTE


class Spent:
    """Shared by a file and everything inside it, so that nesting doesn't multiply the limits."""

    def __init__(self, settings: ReadSettings) -> None:
        self.settings = settings
        self._members = 0
        self._unpacked_bytes = 0

    def members(self, name: str, count: int) -> None:
        self._members += count
        if self._members > MAX_MEMBERS:
            raise ItemError(
                f"zip: {name} holds more than {MAX_MEMBERS:,} files; "
                "unpack it into a folder or list it under skip"
            )

    def unpack(self, name: str, declared_bytes: int, packed_bytes: int) -> None:
        """Called before a member is unpacked. Raises ItemError for one that would be too much."""
        check_size(name, declared_bytes, self.settings)
        self._unpacked_bytes += declared_bytes
        limit = UNPACKED_FILES * self.settings.max_file_bytes
        if self._unpacked_bytes > limit:
            raise ItemError(
                f"zip: {name} unpacks to more than {limit // MEGABYTE:,} MB; "
                "split it, or raise documents: max_file_megabytes"
            )
        ratio = declared_bytes / max(packed_bytes, 1)
        if declared_bytes >= MIN_SUSPICIOUS_BYTES and ratio > MAX_RATIO:
            raise ItemError(
                f"zip: {name} unpacks to {ratio:,.0f} times its size, as zip bombs do (limit "
                f"{MAX_RATIO}); unpack it into a folder if you trust it, or list it under skip"
            )


def check_size(name: str, size_bytes: int, settings: ReadSettings) -> None:
    """Raises ItemError, from the size alone, for a file above `max_file_megabytes`."""
    if size_bytes > settings.max_file_bytes:
        raise ItemError(
            f"read: {name} has {-(-size_bytes // MEGABYTE):,} MB, more than the limit of "
            f"{settings.max_file_megabytes:,}; split it, or raise documents: max_file_megabytes"
        )


def _nothing(_: str = "") -> None:
    pass


@dataclass(frozen=True, slots=True)
class Watch:
    """What one reading shares: which ids to leave out, and whom to tell how far it is.

    `begun` hears the id of every file before it is read, so that one that takes its process with
    it is known by name; `avoid` gives the reason for such ids the next time. `alive` is called at
    every page that takes long.
    """

    skip: tuple[str, ...] = ()
    avoid: Mapping[str, str] = field(default_factory=dict)
    begun: Callable[[str], None] = _nothing
    alive: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class File:
    """One file to be read: where its bytes lie on this machine, and the id of its document.

    A member of an archive has the id `archive.zip/inner/path` and `depth` containers around it.
    """

    path: Path
    id: str
    language: str = ""
    settings: ReadSettings = field(default_factory=ReadSettings)
    watch: Watch = field(default_factory=Watch)
    depth: int = 0
    spent: Spent | None = None

    @property
    def name(self) -> str:
        """The last part of the id, which has the suffix that tells the format."""
        return self.id.rsplit("/", 1)[-1]

    def data(self) -> bytes:
        """All its bytes. Raises ItemError for an empty file."""
        data = self.path.read_bytes()
        if not data:
            raise ItemError(f"read: {self.id} is empty; fill it or list it under skip")
        return data
