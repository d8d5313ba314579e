"""Find a publisher's files in the folder that the user names, and read them.

    source = Source("JGLUE", "https://…", Path("JGLUE"))
    path = source.one("datasets/jnli-v*/valid-v*.json", "valid-v*.json")
    for row in source.rows(path, "sentence1", "sentence2", "label"): ...

Each pattern is also tried with .gz. A folder that holds none of the files is refused with their
names and where to get them; so is a file that isn't what was published.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from tokka.errors import Mistakes, UsageError
from tokka.exam.rows import Row, read_rows, read_text


@dataclass(frozen=True)
class Source:
    """The user's folder. `context`: passages that the publisher gives stand in the question.
    `text_only`: questions that need a picture are left out. `opened` grows as files are found."""

    title: str
    url: str
    folder: Path
    context: bool = True
    text_only: bool = False
    opened: list[Path] = field(default_factory=list)

    def one(self, *patterns: str) -> Path:
        """The one file of the first pattern that fits; raises UsageError for none or several."""
        found = self.several(*patterns)
        if len(found) > 1:
            raise UsageError(
                f"{self.title}: {len(found)} files fit ({', '.join(map(self._named, found[:4]))}); "
                "name the folder that holds one of them"
            )
        return found[0]

    def several(self, *patterns: str) -> list[Path]:
        """All files of the first pattern that fits, sorted; raises UsageError for none."""
        found = self.any(*patterns)
        if not found:
            raise self.refusal(patterns)
        return found

    def any(self, *patterns: str) -> list[Path]:
        """As `several`; empty where nothing fits."""
        if not self.folder.is_dir():
            raise UsageError(
                f"{self.title}: {self.folder} is no folder; name the folder that holds its files "
                f"(from {self.url})"
            )
        for pattern in patterns:
            fits = [*self.folder.glob(pattern), *self.folder.glob(f"{pattern}.gz")]
            if found := sorted(self._unpacked(fits)):
                self.opened.extend(path for path in found if path not in self.opened)
                return found
        return []

    def refusal(self, patterns: tuple[str, ...]) -> UsageError:
        return UsageError(
            f"{self.title}: {self.folder} isn't its folder: there is no "
            f"{' or '.join(patterns)} (nor .gz); get the files from {self.url}"
        )

    def rows(self, path: Path, *fields: str) -> list[Row]:
        """The rows of a JSON or JSON-lines file, each with these fields; raises UsageError."""
        read = read_rows(path)
        if read.mistakes:
            raise Mistakes(f"{self.title}: {path} is damaged; fetch it again", read.mistakes)
        for row in read.rows:
            missing = [name for name in fields if name not in row.fields]
            if missing:
                raise self.not_published(f"{path.name}:{row.line}", missing[0])
        return read.rows

    def not_published(self, place: str, name: str) -> UsageError:
        return UsageError(
            f"{self.title}: {place} has no field {name!r}, so it isn't the published file; "
            f"get that from {self.url}"
        )

    def _named(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    @staticmethod
    def _unpacked(paths: list[Path]) -> list[Path]:
        """Plain files before packed ones of the same name; hidden files aren't the publisher's."""
        plain = {path for path in paths if path.suffix != ".gz"}
        packed = (p for p in paths if p.suffix == ".gz" and p.with_suffix("") not in plain)
        return [p for p in (*plain, *packed) if p.is_file() and not p.name.startswith(".")]


def table(path: Path) -> list[tuple[int, list[str]]]:
    """The records of a comma-separated file with the lines that they begin at, empty ones left
    out; raises UsageError for a cell longer than the reader takes."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    records, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{path}:{line} isn't CSV: {error}; fetch the file again") from error
    return records


def stem(path: Path) -> str:
    """anatomy_test.csv.gz → anatomy_test"""
    return path.name.split(".", 1)[0]
