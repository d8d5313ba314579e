"""Candidate → Specialist. What `ask` and, later, the server open is what the exam opened.

specialist = open_candidate(candidate, workspace, model, embedder, examples)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    open_model: Callable[[Path | None, Sequence[Path]], LanguageModel],
    open_embedder: Callable[[], Embedder],
    shots: Shots | None = None,
) -> Specialist:
    """Open all parts. `open_model` is given the folder of the weights that replace the base
    model's, or None, and those of the adapters; `shots` picks examples."""
    index = artifact(candidate, "index", workspace)
    retriever = None
    spec = candidate.arm.retrieval
    if index is not None and spec is not None:
        retriever = open_index(index, open_embedder() if spec.dense else None)
    model = open_model(artifact(candidate, "weights", workspace), adapters_of(candidate, workspace))
    return Specialist(candidate, model, retriever, shots)


def adapters_of(candidate: Candidate, workspace: Workspace) -> list[Path]:
    """The step folders of "adapter", "adapter-2", …, in the order in which they are folded."""
    found: list[Path] = []
    while True:
        name = "adapter" if not found else f"adapter-{len(found) + 1}"
        folder = artifact(candidate, name, workspace)
        if folder is None:
            return found
        found.append(folder)


def asked(text: str) -> Question:
    """A person's question as the exam would put it."""
    return Question(id="ask", messages=(Message(role="user", content=text),), form="short")
