"""A model's folder as a merge reads and writes it: one tensor at a time.

Folder in Hugging Face's layout ↔ tensors by name. Written folders are complete: weights, config,
tokenizer, template, generation config, licence texts.

    write_model(folder, module, base)                  # a module in memory
    weights = Weights(base)                            # nothing read yet
    write_tensors(folder, weights.shards, lambda name: 2 * weights[name])
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.models.safety import refuse_unsafe
from tokka.records import fingerprint
from tokka.store import read_json, sha256_file, write_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Beside the weights in memory, a shard is held once more while its file is written.
SHARD_BYTES = 2 * 10**9
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
)
_PAPERS = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
_TERMS = ("LICEN", "NOTICE", "USE_POLICY", "COPYING")  # they travel with everything made from it


class Weights(Mapping[str, Any]):
    """Tensors of a folder by name, each read from its file when it is asked for.

    Raises IntegrityError where the folder holds no safetensors.
    """

    def __init__(self, folder: Path) -> None:
        refuse_unsafe(folder)
        self.folder = folder
        self._open: dict[str, Any] = {}
        index = folder / INDEX
        if index.exists() and not (folder / WEIGHTS).exists():
            found: dict[str, str] = read_json(index)["weight_map"]
        else:
            found = dict.fromkeys(self._file(WEIGHTS).keys(), WEIGHTS)
        self._file_of = {name: found[name] for name in sorted(found)}

    @property
    def shards(self) -> dict[str, list[str]]:
        """File name → names of its tensors."""
        shards: dict[str, list[str]] = {}
        for name, file in self._file_of.items():
            shards.setdefault(file, []).append(name)
        return dict(sorted(shards.items()))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(self._file_of[name]).get_slice(name).get_shape())

    def __getitem__(self, name: str) -> Any:
        return self._file(self._file_of[name]).get_tensor(name)

    def __iter__(self) -> Any:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def _file(self, name: str) -> Any:
        from safetensors import safe_open

        if name not in self._open:
            self._open[name] = safe_open(str(self.folder / name), framework="pt")
        return self._open[name]


def write_tensors(
    folder: Path, shards: Mapping[str, Sequence[str]], tensor: Callable[[str], Any]
) -> None:
    """Write each shard's tensors, computed one by one; an index where there are several shards."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    size = 0
    for file, names in shards.items():
        made = {name: tensor(name).contiguous() for name in names}
        size += sum(value.numel() * value.element_size() for value in made.values())
        files.update(dict.fromkeys(names, file))
        save_file(made, str(folder / file), metadata={"format": "pt"})
    if list(shards) != [WEIGHTS]:
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": files})


def write_model(folder: Path, module: Any, base: Path) -> None:
    """A module as a complete model folder; what is no weight comes from `base`, where it began."""
    module.name_or_path = ""
    module.save_pretrained(str(folder), max_shard_size=SHARD_BYTES)
    (folder / "generation_config.json").unlink(missing_ok=True)  # the base's own is copied
    copy_papers(base, folder)


def write_trained(folder: Path, model: Any, base: Path) -> None:
    """Trained weights as a complete model folder, rounded to the dtype that `base` has there. Of
    `base`, which may be a stage's folder, only what belongs to a model is copied."""
    import torch

    config = read_json(base / "config.json")
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    rounded: dict[int, Any] = {}  # by address: tied weights stay one
    state = {}
    for name, value in model.state_dict().items():
        address = value.data_ptr()
        if address not in rounded:
            rounded[address] = value.detach().to(getattr(torch, dtype))
        state[name] = rounded[address]
    model.save_pretrained(str(folder), state_dict=state, max_shard_size=SHARD_BYTES)
    (folder / "generation_config.json").unlink(missing_ok=True)  # the base's own is copied
    copy_papers(base, folder)
    shutil.copyfile(base / "config.json", folder / "config.json")


def write_config(source: Path, folder: Path, dtype: str) -> None:
    """The config of `source`, saying the dtype that the weights now have."""
    config = read_json(source / "config.json")
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", {**config, "dtype": dtype})


def copy_papers(base: Path, folder: Path) -> None:
    """Tokenizer, chat template, generation config and terms: all of a model but its weights and
    config."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(base.iterdir()):
        terms = path.name.upper().startswith(_TERMS)
        if path.is_file() and (path.name in _PAPERS or terms):
            shutil.copyfile(path, folder / path.name)
    templates = base / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, folder / templates.name, dirs_exist_ok=True)


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over what decides token ids."""
    found = {}
    for name in TOKENIZER_FILES:
        with contextlib.suppress(FileNotFoundError):
            found[name] = sha256_file(folder / name)
    if not found:
        raise IntegrityError(f"{folder}: holds no tokenizer; add the model's tokenizer.json")
    return fingerprint(found)
