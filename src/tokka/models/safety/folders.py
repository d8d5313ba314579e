"""A model's folder, file by file: what is opened is checked, what could run is refused.

Folder → names of the files that nothing opens and that could run code elsewhere, or IntegrityError.
Links may lead nowhere else, but for the blobs of Hugging Face's own cache.

>>> check_folder(Path("models/gemma-3-270m"))
('training_args.bin',)
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.models.safety.gguf_header import check_gguf
from tokka.models.safety.kinds import CODE, CONVERT, PICKLES, PROGRAMS, kind_of, shown
from tokka.models.safety.papers import check_jinja, check_json, check_text, parsed
from tokka.models.safety.refusals import lies, oversized
from tokka.models.safety.safetensors_header import check_safetensors
from tokka.models.safety.templates import check_template

# The names that transformers, PEFT and tokka look for before they would fall back on a pickle.
GGUF, ADAPTER = "model.gguf", "adapter_model.safetensors"
SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", ADAPTER, GGUF)
INDEX = ".safetensors.index.json"
MAX_INDEX_BYTES = 64 * 2**20
MAX_FILES, MAX_DEPTH = 10_000, 8
_TEXTS = frozenset({".jsonl", ".model", ".spm", ".tiktoken", ".txt", ".vocab"})
_TEMPLATES = frozenset({"additional_chat_templates", "chat_templates"})
_SHARED = re.compile(r"\.so(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a model's folder; `parts` is its path inside, the name last."""

    path: Path
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return "/".join(self.parts)

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()


def check_folder(folder: Path, *, weights: bool = True, adapter: bool = False) -> tuple[str, ...]:
    """`weights`: some are wanted. `adapter`: the folder may be one. See `refuse_unsafe`."""
    found = list(_walk(folder))
    _refuse_code(folder, found)
    top = {one.name: one for one in found if len(one.parts) == 1}
    for one in top.values():
        if one.suffix == ".json" and not one.name.endswith(INDEX):
            check_json(one.path)
    if not adapter and "adapter_config.json" in top:
        raise IntegrityError(
            f"{folder}: holds adapter_config.json, so the weights that it names would be opened in "
            "place of the folder's own; keep an adapter in a folder of its own, and name the "
            "weights that it was trained on as base_model"
        )
    if weights:
        _refuse_absent(folder, top)
    for one in top.values():
        _check_file(folder, one)
    for one in found:
        if one.suffix == ".jinja" and len(one.parts) == 2 and one.parts[0] in _TEMPLATES:
            check_jinja(one.path)
    return tuple(one.name for one in found if _runs(one))


def _walk(folder: Path) -> Iterator[Found]:
    """Every file, sorted by path; folders whose name begins with a dot are no part of a model."""
    root = folder.resolve()
    waiting: list[tuple[str, ...]] = [()]
    count = 0
    while waiting:
        inside = waiting.pop()
        with os.scandir(root.joinpath(*inside)) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            count += 1
            if count > MAX_FILES or len(inside) > MAX_DEPTH:
                raise IntegrityError(
                    f"{folder}: holds more than {MAX_FILES:,} files, or folders in each other more "
                    f"than {MAX_DEPTH} deep; name the model's own folder"
                )
            if not entry.name.isprintable():
                raise IntegrityError(
                    f"{folder}: holds a file whose name has control characters "
                    f"({shown(entry.name)!r}); rename or delete it"
                )
            one = Found(folder.joinpath(*inside, entry.name), (*inside, entry.name))
            if entry.is_symlink():
                _check_link(folder, root, one)
                if entry.is_dir():
                    continue
            elif entry.is_dir():
                if not entry.name.startswith("."):
                    waiting.append(one.parts)
                continue
            if not stat.S_ISREG(entry.stat().st_mode):
                raise IntegrityError(f"{one.path}: is no ordinary file; delete it")
            yield one


def _check_link(folder: Path, root: Path, one: Found) -> None:
    try:
        target = one.path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a link to itself, too
        raise IntegrityError(f"{one.path}: is a link to nothing; delete it") from error
    # Hugging Face's cache: models--ID/snapshots/REVISION/file → models--ID/blobs/digest
    blobs = root.parent.parent / "blobs"
    cached = root.parent.name == "snapshots" and target.parent == blobs
    if not (target.is_relative_to(root) or cached):
        raise IntegrityError(
            f"{one.path}: is a link that leads out of {folder}; copy the file there"
        )


def _refuse_code(folder: Path, found: list[Found]) -> None:
    for one in found:
        if one.suffix in CODE or _SHARED.search(one.path.name.lower()):
            raise IntegrityError(
                f"{folder}: holds code ({one.name}), which tokka never runs; use a model that "
                "transformers knows without its own code, or delete the file if the model works "
                "without"
            )


def _refuse_absent(folder: Path, top: dict[str, Found]) -> None:
    """Weights must be there in a form that is opened; a pickle is what libraries fall back on."""
    safe = [name for name in SAFE_WEIGHTS if name in top]
    pickles = [one.name for one in top.values() if one.suffix in PICKLES]
    if not safe and pickles:
        raise IntegrityError(
            f"{folder}: its weights are pickles only ({pickles[0]}), which run code when they are "
            f"loaded; {CONVERT}"
        )
    others = [one.name for one in top.values() if one.suffix in PROGRAMS]
    if not safe and others:
        raise IntegrityError(
            f"{folder}: its weights are of a kind that tokka doesn't open ({others[0]}), since it "
            f"may hold code; {CONVERT}"
        )
    if "adapter_model.bin" in top and ADAPTER not in top:
        raise IntegrityError(f"{folder}: adapter_model.bin is a pickle; {CONVERT}")
    if not safe:
        raise IntegrityError(
            f"{folder}: holds no weights ({', '.join(SAFE_WEIGHTS)}); for a GGUF, name the .gguf "
            "file itself"
        )


def _check_file(folder: Path, one: Found) -> None:
    if one.suffix == ".safetensors":
        check_safetensors(one.path)
    elif one.name.endswith(INDEX):
        _check_index(folder, one.path)
    elif one.name == GGUF:
        for key, template in check_gguf(one.path).items():
            check_template(template, f"{one.path}: {shown(key)}")
    elif one.suffix == ".jinja":
        check_jinja(one.path)
    elif one.suffix in _TEXTS:
        check_text(one.path)


def _check_index(folder: Path, path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_INDEX_BYTES:
        raise oversized(path, size, MAX_INDEX_BYTES)
    value: Any = parsed(path, path.read_bytes())
    shards = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise lies(path, "has no weight_map")
    for shard in sorted({str(name) for name in shards.values()}):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise IntegrityError(
                f"{path}: shard {shown(shard)!r} is no safetensors file of this folder; {CONVERT}"
            )
        if not (folder / shard).is_file():
            raise IntegrityError(
                f"{folder}: shard {shown(shard)} is missing; download the model again"
            )


def _runs(one: Found) -> bool:
    """Whether a file that tokka never opens would run code where another program opens it."""
    if one.suffix in PICKLES or one.suffix in PROGRAMS:
        return True
    opened = one.suffix in _TEXTS | {".gguf", ".jinja", ".json", ".safetensors"}
    return not opened and bool(kind_of(one.path))
