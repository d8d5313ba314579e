"""Look at a model before anything opens it: only safetensors folders and GGUF files are loaded.

Path → nothing, or a refusal. A pickle (.bin, .pt, .pth, .ckpt, .pkl) runs code when it is loaded,
and so does a model that brings its own Python; both are refused unopened. Headers are read, weights
are not: a check takes milliseconds and never maps more than a header.

>>> refuse_unsafe(Path("models/gemma-3-270m"))
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError, UsageError

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
# The names that transformers and PEFT look for before they fall back on a pickle.
SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
MAX_GGUF_ENTRIES = 10_000_000

_CONVERT = (
    "get the model's safetensors version, or convert it on a machine that holds nothing of value "
    "(transformers: save_pretrained(folder, safe_serialization=True))"
)
_MAGIC = {
    b"PK\x03\x04": "a zip archive, which is how PyTorch keeps pickles",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy array, which may hold pickles",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
}


def refuse_unsafe(path: Path) -> None:
    """Raise IntegrityError if loading `path` could run code or its headers are not what they claim.

    A folder is a Hugging Face model or adapter, a file a `.gguf` or a `.safetensors`. Raises
    UsageError where there is nothing at `path`.
    """
    if path.is_dir():
        _check_folder(path)
    elif path.is_file():
        _check_file(path)
    else:
        raise UsageError(f"{path}: there is no such file or folder; check the model's path")


def _check_folder(folder: Path) -> None:
    names = sorted(item.name for item in folder.iterdir())
    code = [name for name in names if name.endswith((".py", ".so", ".pyd", ".dll"))]
    if code:
        raise IntegrityError(
            f"{folder}: holds code ({code[0]}), which tokka never runs; use a model that "
            "transformers knows without its own code, or delete the file if the model works without"
        )
    for name in names:
        if name.endswith(".json") and "config" in name:
            _check_config(folder / name)
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    safe = [name for name in SAFE_WEIGHTS if name in names]
    if not safe and pickles:
        raise IntegrityError(
            f"{folder}: its weights are pickles only ({pickles[0]}), which run code when they are "
            f"loaded; {_CONVERT}"
        )
    if "adapter_model.bin" in names and "adapter_model.safetensors" not in names:
        raise IntegrityError(f"{folder}: adapter_model.bin is a pickle; {_CONVERT}")
    if not safe:
        raise IntegrityError(
            f"{folder}: holds no weights ({', '.join(SAFE_WEIGHTS)}); for a GGUF, name the .gguf "
            "file itself"
        )
    for name in names:
        if name.endswith(".safetensors"):
            _check_safetensors(folder / name)
        elif name.endswith(".safetensors.index.json"):
            _check_index(folder, folder / name)


def _check_config(path: Path) -> None:
    value = _read_json(path)
    for key, found in _entries(value):
        if key == "auto_map" or (key in ("trust_remote_code", "custom_pipelines") and found):
            raise IntegrityError(
                f"{path}: {key} asks for the model's own code, which tokka never runs; use a "
                "model that transformers knows without it"
            )


def _check_index(folder: Path, path: Path) -> None:
    value = _read_json(path)
    shards = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise IntegrityError(f"{path}: has no weight_map; download the model again")
    for shard in sorted({str(name) for name in shards.values()}):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise IntegrityError(
                f"{path}: shard {shard!r} is no safetensors file of this folder; {_CONVERT}"
            )
        if not (folder / shard).is_file():
            raise IntegrityError(f"{folder}: shard {shard} is missing; download the model again")


def _check_file(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, kind in _MAGIC.items():
        # A safetensors header may be 0x80 bytes long too; its ninth byte is the brace of its JSON.
        if start.startswith(magic) and not _opens_json(path):
            raise IntegrityError(f"{path}: is {kind} and was not opened; {_CONVERT}")
    if start.startswith(b"GGUF"):
        _check_gguf(path)
    elif path.suffix == ".gguf":
        raise IntegrityError(
            f"{path}: does not begin with GGUF but with {start[:4]!r}; download it again"
        )
    elif path.suffix == ".safetensors" or _opens_json(path):
        _check_safetensors(path)
    else:
        raise IntegrityError(
            f"{path}: is neither safetensors nor GGUF (begins with {start[:4]!r}); {_CONVERT}"
        )


def _check_gguf(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(24)
    if len(start) < 24:
        raise IntegrityError(f"{path}: ends inside its header ({size} bytes); download it again")
    version, tensors, entries = struct.unpack("<4xIQQ", start)
    if version not in (2, 3):
        raise IntegrityError(
            f"{path}: GGUF version {version} is not 2 or 3; convert the model with a current "
            "llama.cpp (a big-endian file must be converted too)"
        )
    if not 0 < tensors <= MAX_GGUF_ENTRIES or entries > MAX_GGUF_ENTRIES or tensors > size // 24:
        raise IntegrityError(
            f"{path}: claims {tensors} tensors and {entries} metadata entries in {size} bytes; "
            "download it again"
        )


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise IntegrityError(
                f"{path}: is not a safetensors file (header of {length} bytes in a file of "
                f"{size}); download it again"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted(
            (entry["data_offsets"][0], entry["data_offsets"][1]) for entry in tensors.values()
        )
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise IntegrityError(
            f"{path}: its safetensors header can't be read ({error}); download it again"
        ) from error
    end = 0
    for begin, stop in spans:
        if begin != end or stop < begin:
            raise IntegrityError(f"{path}: its tensors overlap or leave holes; download it again")
        end = stop
    if end != size - 8 - length:
        raise IntegrityError(
            f"{path}: its header promises {end} bytes of weights, the file holds "
            f"{size - 8 - length}; download it again"
        )


def _opens_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: is not valid JSON ({error}); download it again") from error


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth; without recursion, since the file isn't trusted."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield from ((str(key), found) for key, found in inner.items())
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
