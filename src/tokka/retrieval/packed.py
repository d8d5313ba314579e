"""Arrays in one file, read without copying them: a header in JSON, then each array, aligned.

Also what it takes for a file to outlast a power cut: it is synced before anything names it.

>>> write_arrays(path, {"rows": np.arange(3)})
>>> read_arrays(path)["rows"]
array([0, 1, 2])
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokka.errors import IntegrityError

Array = npt.NDArray[Any]

_ALIGNED = 64  # bytes: a cache line, and what SIMD loads like
_LENGTH = 8


def write_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a new file and sync it."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Equal arrays give equal bytes."""
    write_synced(path, _pieces(arrays))


def read_arrays(path: Path) -> dict[str, Array]:
    """Views of the mapped file, read-only. Raises IntegrityError when it is damaged."""
    mapped = map_bytes(path)
    arrays: dict[str, Array] = {}
    try:
        length = int.from_bytes(mapped[:_LENGTH], "little")
        header = json.loads(mapped[_LENGTH : _LENGTH + length])
        for name, (dtype, shape, offset) in header.items():
            flat = np.frombuffer(mapped, dtype, int(np.prod(shape)), offset)
            arrays[name] = flat.reshape(shape)
    except (ValueError, TypeError, AttributeError) as error:
        raise IntegrityError(f"retrieval: {path} is damaged; build the index again") from error
    return arrays


def map_bytes(path: Path) -> mmap.mmap | bytes:
    """A file's bytes, mapped read-only; the map outlives the file's removal."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _pieces(arrays: Mapping[str, Array]) -> Iterable[bytes | memoryview]:
    # The offsets in the header depend on its length: they count from a fixed guess of it.
    names = sorted(arrays)
    guess = _up(_LENGTH + sum(len(name) + 120 for name in names) + 2)
    header, offset = {}, guess
    for name in names:
        array = arrays[name]
        header[name] = (array.dtype.str, list(array.shape), offset)
        offset = _up(offset + array.nbytes)
    written = json.dumps(header).encode()
    yield len(written).to_bytes(_LENGTH, "little") + written
    yield bytes(guess - _LENGTH - len(written))
    for name in names:
        array = np.ascontiguousarray(arrays[name])
        yield array.reshape(-1).view(np.uint8).data if array.size else b""
        yield bytes(_up(array.nbytes) - array.nbytes)


def _up(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
