"""A sentence-transformers model from a folder, as a source of vectors.

Folder → `Source`. Its parts are looked at before the library opens them: only the library's own
modules, only safetensors. What is put before a query or a passage is what the folder says itself
(`prompts` in config_sentence_transformers.json); without it, texts go in as they are.

>>> folder_source(Path("models/ruri-v3-30m")).embed(["融資の限度額"], "query").shape
(1, 256)
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.models.opening import cached_sha256
from tokka.models.safety import PICKLES, refuse_unsafe, refuse_unsafe_papers
from tokka.records import fingerprint

if TYPE_CHECKING:
    from tokka.models.embedder import Kind, Source, Vectors

MODULES = "modules.json"
_KNOWN = (
    "Dense",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
)
_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation|linear)\.\w+")
_GPU_BATCH = 32


def folder_source(folder: Path) -> Source:
    """Open a folder that `SentenceTransformer.save_pretrained` wrote.

    Loaded at the first text. Raises UsageError where it is no such folder, IntegrityError where it
    could run code or holds pickles only.
    """
    from tokka.models.embedder import Source

    _refuse_unsafe(folder)
    lock = threading.Lock()
    opened: list[Any] = []

    def embed(texts: Sequence[str], kind: Kind) -> Vectors:
        with lock:
            if not opened:
                opened.append(_load(folder))
            return _encode(opened[0], texts, kind)

    return Source(folder.name, folder_digest(folder), None, embed)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the folder's files and the library's version."""
    decisive = {".safetensors", ".json", ".txt", ".model"}
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in decisive)
    named = [(p.relative_to(folder).as_posix(), cached_sha256(p)) for p in files]
    try:
        version = importlib.metadata.version("sentence-transformers")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return fingerprint(["sentence-transformers", version, named])


def _load(folder: Path) -> Any:
    library = require("sentence_transformers", extra="sentence-transformers")
    try:
        return library.SentenceTransformer(
            str(folder), local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"embedder: {folder} can't be opened ({type(error).__name__}: {error}); save it again "
            "with SentenceTransformer.save_pretrained"
        ) from error


def _encode(model: Any, texts: Sequence[str], kind: Kind) -> Vectors:
    encode = model.encode_query if kind == "query" else model.encode_document
    # On a CPU float32 sums depend on a batch's shape in their last bits, and one text at a time is
    # hardly slower than many.
    batch = 1 if model.device.type == "cpu" else _GPU_BATCH
    rows: Vectors = encode(
        list(texts), batch_size=batch, convert_to_numpy=True, show_progress_bar=False
    )
    return rows


def _refuse_unsafe(folder: Path) -> None:
    listed = folder / MODULES
    if not listed.is_file():
        raise UsageError(
            f"embedder: {folder} holds no {MODULES}, so nothing says how its token vectors become "
            "one; save it with SentenceTransformer.save_pretrained"
        )
    try:
        parts = [(str(part["type"]), str(part["path"])) for part in json.loads(listed.read_bytes())]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{listed}: is not a list of modules ({error})") from error
    refuse_unsafe_papers(folder)
    for sort, place in parts:
        package, _, name = sort.rpartition(".")
        if package.split(".")[0] != "sentence_transformers" or name not in _KNOWN:
            raise IntegrityError(
                f"{listed}: asks for {sort}, which tokka doesn't open; it knows {', '.join(_KNOWN)}"
            )
        part = (folder / place).resolve()
        if not part.is_relative_to(folder.resolve()) or not part.is_dir():
            raise IntegrityError(f"{listed}: {place!r} is no folder inside the model's own")
        if any(p.suffix in PICKLES or p.suffix == ".safetensors" for p in part.iterdir()):
            refuse_unsafe(part)
        else:
            refuse_unsafe_papers(part)
        if name == "Dense":
            _check_activation(part / "config.json")


def _check_activation(config: Path) -> None:
    """The library imports and calls what this names."""
    try:
        named = json.loads(config.read_bytes()).get("activation_function", "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{config}: can't be read ({error}); download it again") from error
    if named and not _ACTIVATION.fullmatch(str(named)):
        raise IntegrityError(
            f"{config}: its activation_function is {named!r}; only torch's own are opened"
        )
