"""A GGUF's header: its settings, its tokens and where its tensors are, weights unread.

The package's own reader takes 15 seconds for a vocabulary of 262,144; this takes one.

    header = read_header(folder / "model.gguf")
    header.settings["tokenizer.ggml.eos_token_id"], header.tensors["output.weight"].shape
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tokka.models.safety import refuse_unsafe

# GGUF's kinds of values: number → struct's letter (ggml's docs/gguf.md).
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _LIST = 8, 9
_TOKENS = "tokenizer.ggml.tokens"
_ALIGNMENT = 32  # bytes, where the file says nothing else


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` as torch has it, rows first; `kind` is GGML's number; `offset` from the weights'
    beginning, in bytes."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """`settings` of lists are None; `tokens` are the vocabulary's texts; `start` is where the
    weights begin."""

    settings: Mapping[str, Any]
    tokens: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    start: int


def read_header(path: Path) -> Header:
    """Raises IntegrityError for a file that is no GGUF."""
    refuse_unsafe(path)
    with path.open("rb") as file:
        read = _Reader(file)
        file.seek(8)  # "GGUF" and its version
        tensors, entries = read.number("Q"), read.number("Q")
        settings: dict[str, Any] = {}
        tokens: tuple[str, ...] = ()
        for _ in range(entries):
            name, kind = read.text(), read.number("I")
            if name == _TOKENS:
                tokens = tuple(read.texts())
                settings[name] = None
            else:
                settings[name] = read.value(kind)
        found = dict(read.tensor() for _ in range(tensors))
        alignment = int(settings.get("general.alignment") or _ALIGNMENT)
        return Header(settings, tokens, found, -(-file.tell() // alignment) * alignment)


def rows_of(path: Path, header: Header, name: str, rows: int) -> Iterator[Any]:
    """A tensor's numbers in float32, `rows` rows at a time; a vector is one row."""
    import gguf
    import numpy as np

    tensor = header.tensors[name]
    kind = gguf.GGMLQuantizationType(tensor.kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = tensor.shape[0] if len(tensor.shape) > 1 else 1
    width = tensor.shape[-1] // block * size
    with path.open("rb") as file:
        file.seek(header.start + tensor.offset)
        for first in range(0, count, rows):
            own = min(rows, count - first)
            data = np.frombuffer(file.read(own * width), dtype=np.uint8).reshape(own, width)
            if kind.name == "F32":
                yield data.view(np.float32)
            elif kind.name == "F16":
                yield data.view(np.float16).astype(np.float32)
            else:
                with np.errstate(all="ignore"):  # what is no number is for the caller to say
                    yield gguf.dequantize(data, kind)


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def number(self, letter: str) -> Any:
        size = struct.calcsize(f"<{letter}")
        return struct.unpack(f"<{letter}", self._file.read(size))[0]

    def text(self) -> str:
        return self._file.read(self.number("Q")).decode(errors="surrogateescape")

    def texts(self) -> list[str]:
        self.number("I")
        return [self.text() for _ in range(self.number("Q"))]

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            return self.number(_SCALARS[kind])
        inner, count = self.number("I"), self.number("Q")
        if inner == _TEXT:
            for _ in range(count):
                self._file.seek(self.number("Q"), os.SEEK_CUR)
        else:
            self._file.seek(count * struct.calcsize(f"<{_SCALARS[inner]}"), os.SEEK_CUR)
        return None

    def tensor(self) -> tuple[str, Tensor]:
        name, dimensions = self.text(), self.number("I")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        return name, Tensor(shape, self.number("I"), self.number("Q"))
