"""Candidate → Specialist. What `ask` and, later, the server open is what the exam opened.

specialist = open_candidate(candidate, workspace, model, embedder, examples)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokka.candidates.specialist import Shots, Specialist
from tokka.errors import IntegrityError
from tokka.models.protocol import Embedder, LanguageModel
from tokka.records import Candidate, Message, Question
from tokka.retrieval.hybrid import open_index
from tokka.store import Workspace


def artifact(candidate: Candidate, name: str, workspace: Workspace) -> Path | None:
    """The step folder of a part of the candidate, its digest checked; None where it has no such
    part."""
    entry = candidate.artifacts.get(name)
    if entry is None:
        return None
    step, _, digest = entry.partition("@")
    folder = workspace.steps / step
    if not (folder / "manifest.json").exists():
        raise IntegrityError(
            f"candidate {candidate.arm.name}: its {name} in {folder} is gone; run again"
        )
    if workspace.digest(folder) != digest:
        raise IntegrityError(
            f"candidate {candidate.arm.name}: its {name} in {folder} isn't what was built; delete "
            "that folder and run again"
        )
    return folder


def open_candidate(
    candidate: Candidate,
    workspace: Workspace,
    open_model: Callable[[Path | None], LanguageModel],
    open_embedder: Callable[[], Embedder],
    shots: Shots | None = None,
) -> Specialist:
    """Open all parts. `open_model` is given the adapter's folder or None; `shots` picks
    examples."""
    index = artifact(candidate, "index", workspace)
    retriever = None
    spec = candidate.arm.retrieval
    if index is not None and spec is not None:
        retriever = open_index(index, open_embedder() if spec.dense else None)
    return Specialist(
        candidate, open_model(artifact(candidate, "adapter", workspace)), retriever, shots
    )


def asked(text: str) -> Question:
    """A person's question as the exam would put it."""
    return Question(id="ask", messages=(Message(role="user", content=text),), form="short")
