"""What the workspace's manifests say of how things came to be: step folders, joined by digests.

    .tokka/steps/*/manifest.json → Steps: a graph from files to weights

A step's inputs hold the digests of the steps that it read, so the graph is read off them. Weights
go on as the digest of a state, which only who knows models can compute: `states` maps it to the
step that made it.

>>> steps = read_steps([workspace / "steps"])
>>> [s.name for s in steps.ancestors(["index-cfb3a05ddd73cec7"])]
['read-bd80…', 'prepare-b5a4…', 'distinct-2961…', 'chunk-c14f…', 'index-cfb3…']
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokka.records import fingerprint
from tokka.store import read_json


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step. `digest` is what later steps name it by, `files` path → SHA-256."""

    name: str
    kind: str
    label: str
    folder: Path
    inputs: Mapping[str, Any]
    files: Mapping[str, str]
    digest: str
    seconds: float

    def rows(self, file: str) -> Iterator[dict[str, Any]]:
        """The rows of a file of JSON lines; none where there is no such file."""
        path = self.folder / file
        if file in self.files and path.is_file():
            with path.open("rb") as lines:
                for line in lines:
                    yield json.loads(line)

    def value(self, file: str) -> Any:
        """The value of a JSON file, or None."""
        path = self.folder / file
        return read_json(path) if file in self.files and path.is_file() else None


@dataclass(frozen=True, slots=True)
class Steps:
    """All finished steps by folder name, and who made which state of weights."""

    by_name: Mapping[str, Step]
    states: Mapping[str, str] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Step]:
        return [step for step in self.by_name.values() if step.kind == kind]

    def parents(self, step: Step) -> list[Step]:
        """The steps whose digests stand in this one's inputs."""
        by_digest = {other.digest: name for name, other in self.by_name.items()}
        found = {}
        for text in _texts(step.inputs):
            named, _, digest = text.rpartition("@")
            name = named if named in self.by_name else by_digest.get(digest)
            name = name or self.states.get(digest)
            if name is not None and name != step.name and name in self.by_name:
                found[name] = self.by_name[name]
        return list(found.values())

    def ancestors(self, names: Iterable[str]) -> list[Step]:
        """These steps and all before them, each after those that it was made from."""
        done: dict[str, Step] = {}
        waiting: set[str] = set()

        def visit(step: Step) -> None:
            if step.name in done or step.name in waiting:
                return
            waiting.add(step.name)
            for parent in sorted(self.parents(step), key=lambda s: s.name):
                visit(parent)
            done[step.name] = step

        for name in names:
            if name in self.by_name:
                visit(self.by_name[name])
        return list(done.values())


def read_steps(folders: Sequence[Path], states: Mapping[str, str] | None = None) -> Steps:
    """The finished steps below `folders`; where a name stands twice, the first one's."""
    found: dict[str, Step] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/manifest.json")):
            if path.parent.name not in found and not path.parent.name.endswith(".partial"):
                found[path.parent.name] = _read(path)
    return Steps(found, dict(states or {}))


def _read(path: Path) -> Step:
    data = read_json(path)
    digests: dict[str, str] = data["digests"]
    patterns = data.get("decisive") or ["*"]  # as `store.Workspace.digest` counts
    decisive = {
        name: digest
        for name, digest in digests.items()
        if any(fnmatch.fnmatchcase(name, one) for one in patterns)
    }
    return Step(
        name=path.parent.name,
        kind=data["step"],
        label=data.get("label", ""),
        folder=path.parent,
        inputs=data["inputs"],
        files=digests,
        digest=fingerprint(decisive),
        seconds=float(data.get("seconds", 0.0)),
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
