"""Model files as an attacker would write them: byte by byte, so that every field can lie.

>>> path.write_bytes(gguf([entry("general.architecture", 8, text("llama"))], [tensor("w")]))
>>> safetensors(path, {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

TENSORS = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


class Bomb:
    """Unpickled, it fails the test."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def safetensors(path: Path, header: Any = TENSORS, data: bytes = b"\0" * 8) -> Path:
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string; `length` is what it claims."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + body


def tensor(
    name: str | bytes = "w", shape: Sequence[int] = (4, 2), kind: int = 0, offset: int = 0
) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


ARCHITECTURE = entry("general.architecture", 8, text("llama"))


def gguf(
    entries: Sequence[bytes] = (ARCHITECTURE,),
    tensors: Sequence[bytes] = (tensor(),),
    data: bytes = b"\0" * 32,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; `counts` are the tensors and entries that it claims."""
    claimed = counts or (len(tensors), len(entries))
    header = b"GGUF" + struct.pack("<IQQ", version, *claimed) + b"".join([*entries, *tensors])
    return header + b"\0" * (-len(header) % alignment) + data
