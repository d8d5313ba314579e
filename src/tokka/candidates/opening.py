"""Candidate → Specialist. What `ask` and, later, the server open is what the exam opened.

specialist = open_candidate(candidate, workspace, model, embedder, examples)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tokka.candidates.specialist import Shots, Specialist
from tokka.errors import IntegrityError, UsageError
from tokka.models.opening import digest_of
from tokka.models.protocol import Embedder, LanguageModel
from tokka.records import Candidate, Message, Question, RetrievalSpec, fingerprint
from tokka.retrieval.hybrid import open_index
from tokka.retrieval.rerank import reranker_of
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
    model's, or None, and those of the adapters; `shots` picks examples. A likelihood reranker reads
    with the arm's own model, its weights after training: no second model in memory."""
    root = workspace.root.parent  # the project's folder
    _check_files(candidate, root)
    index = artifact(candidate, "index", workspace)
    retriever = None
    spec = candidate.arm.retrieval
    if index is not None and spec is not None:
        embedder = open_embedder() if spec.dense else None
        retriever = open_index(index, embedder, synonyms_of(spec, root))
    model = open_model(artifact(candidate, "weights", workspace), adapters_of(candidate, workspace))
    reranker = None if spec is None else reranker_of(spec, model, root, candidate.language)
    return Specialist(candidate, model, retriever, shots, reranker)


def search_files(spec: RetrievalSpec | None, root: Path) -> dict[str, str]:
    """Digests of the files of the project that a search reads: "reranker", "synonyms".

    Raises UsageError for one that isn't there."""
    found: dict[str, str] = {}
    if spec is None:
        return found
    if spec.rerank == "cross-encoder" and spec.reranker:
        if not (root / spec.reranker).is_dir():
            raise UsageError(
                f"retrieval: reranker is a folder that doesn't exist: {root / spec.reranker}; mend "
                "the path"
            )
        found["reranker"] = digest_of(root / spec.reranker, "")
    if spec.synonyms:
        (text,) = synonyms_of(spec, root).values()
        found["synonyms"] = fingerprint(text)
    return found


def synonyms_of(spec: RetrievalSpec, root: Path) -> dict[str, str]:
    """The text of the setting's file of synonyms, by its name; empty where it has none. Raises
    UsageError for a file that can't be read."""
    if not spec.synonyms:
        return {}
    path = root / spec.synonyms
    try:
        return {spec.synonyms: path.read_text(encoding="utf-8-sig")}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"retrieval: synonyms {path} can't be read ({error}); mend the path, or save the file "
            "as UTF-8"
        ) from error


def _check_files(candidate: Candidate, root: Path) -> None:
    """Raise IntegrityError where a file of the search isn't what it was when this was built."""
    for name, digest in search_files(candidate.arm.retrieval, root).items():
        if candidate.artifacts.get(name, "").partition("@")[2] != digest:
            raise IntegrityError(
                f"candidate {candidate.arm.name}: its {name} isn't what it was when it was built; "
                "run again"
            )


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
