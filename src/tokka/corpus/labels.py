"""Licence, access and validity of documents, from sidecar files and from the project's rules.

Places and rules → `Labels`, which give each document its facts. A sidecar is a small YAML file:
`loan.md.tokka.yaml` (or `loan.tokka.yaml`) beside loan.md, `_folder.tokka.yaml` in a folder for all
below it. What it may say:

    title: 融資規程
    licence: internal
    access: [loans, audit]     # whoever holds one of them; [] is everybody
    valid_from: 2024-04-01
    valid_to: 2025-03-31
    metadata: {office: 本店}

A file's own sidecar goes before its folder's, a nearer folder's before a farther one's, all of them
before the rules, and a later rule before an earlier one. What these say goes before what a row of
JSON lines says of itself. A sidecar that can't be understood locks: the documents that it speaks of
are dropped with the reason, since nobody knows who may see them.

>>> labels = read_labels(["documents"], [{"match": "board/*", "access": ["board"]}])
>>> labels.label(document).access
('board',)
"""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokka.corpus.formats import SIDECAR
from tokka.corpus.limits import ReadSettings
from tokka.corpus.places import Found, Place, list_places
from tokka.corpus.sidecars import Facts, Mistake, check_facts, parse_sidecar
from tokka.errors import ItemError, Mistakes
from tokka.records import Document, Dropped, fingerprint

FOLDER = "_folder" + SIDECAR
_MAX_BYTES = 100_000
_ROW = re.compile(r"(?s)(.+\.jsonl(?:\.gz)?):\d+")


@dataclass(frozen=True, slots=True)
class Rule:
    """Facts of every document whose id, or whose file's id, matches a shell pattern."""

    match: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Labels:
    """`sidecars`: by the id of a file, what is said of it, the farthest folder first. A text in
    place of facts is why nobody knows. `files`: the ids of all files that were looked at.
    `unused`: sidecars that speak of no file, and why: a mistake in a name, mostly."""

    rules: tuple[Rule, ...] = ()
    sidecars: Mapping[str, tuple[Facts | str, ...]] | None = None
    files: frozenset[str] = frozenset()
    unused: tuple[Dropped, ...] = ()

    @property
    def digest(self) -> str:
        """Changes with whatever could change a label."""
        said = {name: list(facts) for name, facts in (self.sidecars or {}).items()}
        rules = [[rule.match, rule.facts] for rule in self.rules]
        return fingerprint([rules, said, [row.item for row in self.unused]])

    def label(self, document: Document) -> Document | Dropped:
        """The document with the facts that are said of it, or why it can't be let through."""
        row = _ROW.fullmatch(document.metadata.get("file", ""))
        file = row[1] if row else document.id
        facts: Facts = {}
        for rule in self.rules:
            if any(fnmatch.fnmatchcase(name, rule.match) for name in (document.id, file)):
                _add(facts, rule.facts)
        if self.sidecars:
            listed = next((name for name in _enclosing(file) if name in self.files), None)
            if listed is None:
                return _locked(document, "it can't be told which file it comes from")
            for name in reversed(list(_enclosing(file))):  # a container's before its member's
                for said in self.sidecars.get(name, ()):
                    if isinstance(said, str):
                        return _locked(document, said)
                    _add(facts, said)
        if not facts:
            return document
        if metadata := facts.get("metadata"):
            facts["metadata"] = {**document.metadata, **metadata}
        return document.model_copy(update=facts)


def read_labels(
    places: Sequence[Place],
    rules: Sequence[Mapping[str, Any]] = (),
    settings: ReadSettings | None = None,
) -> Labels:
    """Labels from `rules` (`match` and facts, None where nothing is said) and from every sidecar
    beside and above the files under `places`.

    Sidecars in archives and in remote places aren't read; the documents that they would speak of
    are dropped, with the way out. Raises Mistakes naming every rule that is wrong, UsageError for a
    place that doesn't exist.
    """
    checked = _rules(rules)
    reading = _Reading()
    listing = list_places(places, settings=settings).found
    said: dict[str, tuple[Facts | str, ...]] = {}
    for found in listing:
        if not found.origin and (facts := tuple(reading.of(found))):
            said[found.id] = facts
        if found.id.lower().endswith(".zip") and not found.origin:
            said.update(_in_archive(found))
    said.update(_in_stores(listing))
    files = frozenset(found.id for found in listing)
    return Labels(checked, said, files, tuple(reading.unused()))


class _Reading:
    """Sidecars by folder, each read once."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}
        self._facts: dict[str, Facts | str] = {}
        self._used: set[str] = set()

    def of(self, found: Found) -> Iterator[Facts | str]:
        """What is said of a file, the farthest folder first, its own sidecars last. A link obeys
        its own folders, then those of the file that it leads to."""
        ways = [os.path.abspath(found.path)]
        if (real := os.path.realpath(found.path)) != ways[0]:
            ways.append(real)
        for way in ways:
            path = Path(way)
            for folder in reversed(path.parents):
                if FOLDER in self._in(str(folder)):
                    yield self._read(str(folder), FOLDER)
            for name in (_nfc(path.stem) + SIDECAR, _nfc(path.name) + SIDECAR):
                if name != FOLDER and name in self._in(str(path.parent)):
                    yield self._read(str(path.parent), name)

    def unused(self) -> Iterator[Dropped]:
        for folder, names in sorted(self._names.items()):
            for name in sorted(names):
                path = os.path.join(folder, names[name])
                if name != FOLDER and path not in self._used:
                    yield Dropped(
                        item=name,
                        reason=f"labels: {name} speaks of no file beside it",
                        stage="label",
                        next_action=f"name it as its document with {SIDECAR} added, or delete it",
                    )

    def _in(self, folder: str) -> dict[str, str]:
        """Sidecars of a folder: name in NFC → name on the disk."""
        if folder not in self._names:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []  # reading its files fails too, and is reported there
            self._names[folder] = {_nfc(n): n for n in names if n.endswith(SIDECAR)}
        return self._names[folder]

    def _read(self, folder: str, name: str) -> Facts | str:
        path = os.path.join(folder, self._names[folder][name])
        self._used.add(path)
        if path not in self._facts:
            shown = f"{Path(folder).name}/{name}"
            try:
                self._facts[path] = _sidecar(Path(path), shown)
            except ItemError as error:
                self._facts[path] = str(error)
        return self._facts[path]


def _sidecar(path: Path, shown: str) -> Facts:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ItemError(
            f"{shown} can't be read ({error.strerror}); grant read permission"
        ) from error
    if len(content) > _MAX_BYTES:
        raise ItemError(f"{shown} has more than {_MAX_BYTES:,} bytes; keep labels only")
    try:
        return parse_sidecar(content)
    except Mistake as mistake:
        raise ItemError(f"{shown}:{mistake.line}: {mistake.text}") from mistake


def _rules(rules: Sequence[Mapping[str, Any]]) -> tuple[Rule, ...]:
    checked, mistakes = [], []
    for number, rule in enumerate(rules):
        said = {key: value for key, value in rule.items() if value is not None and key != "match"}
        if not said.get("metadata", True):
            del said["metadata"]
        try:
            checked.append(Rule(str(rule["match"]), check_facts(said)))
        except Mistake as mistake:
            mistakes.append(f"documents: labels[{number}] ({rule['match']}): {mistake.text}")
    if mistakes:
        raise Mistakes("labels that can't be understood", mistakes)
    return tuple(checked)


def _in_archive(found: Found) -> Iterator[tuple[str, tuple[str]]]:
    try:
        with zipfile.ZipFile(found.path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return  # the reader says what is wrong with it
    if any(name.endswith(SIDECAR) for name in names):
        why = f"{found.id} holds sidecars, which aren't read in archives; unpack it, or write rules"
        yield found.id, (f"{why} under documents: labels",)


def _in_stores(listing: Sequence[Found]) -> Iterator[tuple[str, tuple[str]]]:
    """Files of remote places that a sidecar there would speak of."""
    remote = [found.id for found in listing if found.origin]
    for sidecar in (name for name in remote if name.endswith(SIDECAR)):
        folder, _, name = sidecar.rpartition("/")
        stem = name.removesuffix(SIDECAR)
        why = f"{sidecar} lies in a remote place, where sidecars aren't read; write a rule"
        for other in remote:
            path = PurePosixPath(other)
            beside = other.rpartition("/")[0] == folder and stem in (path.name, path.stem)
            below = name == FOLDER and (not folder or other.startswith(folder + "/"))
            if beside or below:
                yield other, (f"{why} under documents: labels",)


def _add(facts: Facts, more: Facts) -> None:
    metadata = {**facts.get("metadata", {}), **more.get("metadata", {})}
    facts.update(more)
    if metadata:
        facts["metadata"] = metadata


def _enclosing(file: str) -> Iterator[str]:
    """The id, then those of the containers that it may lie in."""
    yield file
    while "/" in file:
        file = file.rpartition("/")[0]
        yield file


def _locked(document: Document, why: str) -> Dropped:
    reason, _, action = why.partition("; ")
    return Dropped(
        item=document.id,
        reason=f"labels: who may see it is unknown: {reason}",
        stage="label",
        next_action=action or "give each document an id of its own",
    )


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
