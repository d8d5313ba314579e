"""A release's folder → the Specialist that was examined again.

release = read_release(folder, digest)              # release.reading: every byte checked
with open_released(folder, open_model=..., open_embedder=...) as specialist: ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from tokka.candidates.opening import artifact, open_candidate
from tokka.candidates.shots import shots_of
from tokka.candidates.specialist import Specialist
from tokka.errors import IntegrityError
from tokka.models.protocol import Embedder, LanguageModel
from tokka.records import Candidate, Example
from tokka.store import Workspace, read_json, read_records


def served_of(folder: Path) -> Candidate:
    """Who answers in the release at `folder`, which `read_release` has checked."""
    path = folder / "release.json"
    try:
        return Candidate.model_validate(read_json(path)["served"])
    except (KeyError, TypeError, ValidationError) as error:
        raise IntegrityError(
            f"{path}: names no candidate that answers; restore the folder from a copy"
        ) from error


def open_released(
    folder: Path,
    *,
    open_model: Callable[[Path | None, Sequence[Path]], LanguageModel],
    open_embedder: Callable[[], Embedder],
) -> Specialist:
    """Open all parts of a release from its own folder, and nothing from outside it.

    `open_model` is given the folder of the exported weights, None for an endpoint, and no adapters.
    Check the folder first: `release.reading.read_release`.
    """
    served = served_of(folder)
    workspace = Workspace(folder / "workspace")
    examples = artifact(served, "examples", workspace)
    shots = None
    if examples is not None:
        shots = shots_of(served.arm, read_records(examples / "examples.jsonl", Example))
    return open_candidate(served, workspace, open_model, open_embedder, shots)
