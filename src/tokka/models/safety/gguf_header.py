"""A GGUF file's header, walked to its end: every length, type and offset is checked by the file.

Path → its chat templates, or IntegrityError. The rules are those of llama.cpp's reader (ggml,
`gguf.cpp` and docs/gguf.md): keys once, no arrays in arrays, tensors behind each other with nothing
between but padding. Weights aren't read, and of long arrays only the lengths: 0.1 s for a
vocabulary of 262,144.

>>> check_gguf(Path("model.gguf"))
{'tokenizer.chat_template': "{% for message in messages %}…"}
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from tokka.errors import IntegrityError
from tokka.models.safety.kinds import ends_as_zip, shown
from tokka.models.safety.refusals import lies

VERSIONS = (2, 3)
MAX_TENSORS, MAX_ENTRIES = 200_000, 100_000
MAX_KEY_BYTES = 65_535
MAX_TEXT_BYTES = 2**20  # of one that is kept; others are passed over
MAX_STRINGS = 8_000_000  # of one array
MAX_NAME_BYTES = 63  # GGML_MAX_NAME, less its end
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 65_536
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
TEMPLATE, TOKENS = "tokenizer.chat_template", "tokenizer.ggml.tokens"
_STRING, _ARRAY, _BOOL, _UINT32 = 8, 9, 7, 4
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# ggml's types by number: values in a block, bytes of a block (ggml.h, and `GGML_QUANT_SIZES`).
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip
_WINDOW = 2**20


def check_gguf(path: Path) -> dict[str, str]:
    """The chat templates in a file's metadata, by key. Raises IntegrityError where header and file
    differ, where the file is one of several, or where llama.cpp would refuse it."""
    with path.open("rb") as file:
        walk = _Walk(path, file)
        tensors, entries = _counts(walk)
        templates, alignment = _check_entries(walk, entries)
        _check_tensors(walk, tensors, alignment)
    if ends_as_zip(path):
        raise lies(path, "is a GGUF file and a zip archive at once")
    return templates


class _Walk:
    """A place in a file that only moves on; never more than a megabyte of it is held."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.at = path, 0
        self.size = path.stat().st_size
        self._file = file
        self._window, self._start = b"", 0

    def take(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise lies(self.path, f"ends inside its header ({self.size} bytes)")
        low = self.at - self._start
        if low < 0 or low + count > len(self._window):
            self._fill(count)
            low = 0
        self.at += count
        return self._window[low : low + count]

    def skip(self, count: int) -> None:
        if count > self.size - self.at:
            raise lies(self.path, f"ends inside its header ({self.size} bytes)")
        self.at += count

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def text(self, most: int, what: str) -> str:
        length = self.number(8)
        if length > most:
            raise lies(self.path, f"{what} of {length} bytes, of at most {most}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise lies(self.path, f"{what} is no UTF-8") from error

    def skip_strings(self, count: int) -> None:
        """The loop that long lists go through: a quarter of a million lengths."""
        length_at = struct.Struct("<Q").unpack_from
        while count:
            low = self.at - self._start
            if low < 0 or low + 8 > len(self._window):
                if self.size - self.at < 8:
                    raise lies(self.path, f"ends inside its header ({self.size} bytes)")
                self._fill(8)
                low = 0
            window, last = self._window, len(self._window) - 8
            while count and low <= last:
                low += 8 + length_at(window, low)[0]
                count -= 1
            self.at = self._start + low
            if self.at > self.size:
                raise lies(self.path, "holds a text that is longer than the file")

    def different_strings(self, count: int) -> int:
        """How many of the next texts differ for llama.cpp, which reads them up to a zero byte and
        names empty ones by their place; 0.1 s and 30 MB for a quarter of a million."""
        length_at = struct.Struct("<Q").unpack_from
        seen: set[bytes | int] = set()
        while count:
            window, low = self._window, self.at - self._start
            last = len(window) - 8
            while count and 0 <= low <= last:
                end = low + 8 + length_at(window, low)[0]
                if end > len(window):
                    break
                seen.add(window[low + 8 : end].partition(b"\0")[0] or count)
                low, count = end, count - 1
            self.at = self._start + low
            if count:  # the next one lies across the window's end
                length = self.number(8)
                if length > MAX_TEXT_BYTES:
                    raise lies(self.path, f"holds a token of {length} bytes")
                seen.add(self.take(length).partition(b"\0")[0] or count)
                count -= 1
        return len(seen)

    def _fill(self, count: int) -> None:
        self._file.seek(self.at)
        self._start = self.at
        self._window = self._file.read(max(count, _WINDOW))
        if len(self._window) < count:
            raise lies(self.path, "became shorter while it was read")


def _counts(walk: _Walk) -> tuple[int, int]:
    """How many tensors and metadata entries the header claims."""
    if walk.take(4) != b"GGUF":
        raise lies(walk.path, "does not begin with GGUF")
    version, tensors, entries = walk.number(4), walk.number(8), walk.number(8)
    if version not in VERSIONS:
        raise IntegrityError(
            f"{walk.path}: GGUF version {version} is not 2 or 3; convert the model with a current "
            "llama.cpp (a big-endian file must be converted too)"
        )
    # The shortest tensor takes 33 bytes of the header, the shortest entry 14.
    if (
        not 0 < tensors <= min(MAX_TENSORS, walk.size // 33)
        or entries > min(MAX_ENTRIES, walk.size // 14)
    ):  # fmt: skip
        raise lies(
            walk.path,
            f"claims {tensors} tensors and {entries} metadata entries in {walk.size} bytes",
        )
    return tensors, entries


def _check_entries(walk: _Walk, entries: int) -> tuple[dict[str, str], int]:
    """The chat templates and the alignment."""
    seen: set[str] = set()
    templates: dict[str, str] = {}
    lengths: dict[str, int] = {}
    alignment = 32
    for _ in range(entries):
        key = walk.text(MAX_KEY_BYTES, "holds a key")
        if not key or not key.isprintable() or key in seen:
            raise lies(walk.path, f"its key {shown(key)!r} is empty, stands twice or isn't plain")
        seen.add(key)
        kind = walk.number(4)
        if kind == _ARRAY:
            lengths[key] = _skip_array(walk, key)
        elif kind == _STRING:
            if key.startswith(TEMPLATE):
                templates[key] = walk.text(MAX_TEXT_BYTES, f"its {shown(key)}")
            elif key == "general.architecture":
                _check_architecture(walk)
            else:
                walk.skip(walk.number(8))
        elif kind in _WIDTHS:
            value = walk.number(_WIDTHS[kind])
            if key == "general.alignment":
                alignment = _alignment(walk.path, kind, value)
            elif key == "split.count" and value > 1:
                raise IntegrityError(
                    f"{walk.path}: is one of {value} parts, and the others would be opened "
                    "unchecked; join them first (llama-gguf-split --merge)"
                )
            elif key.endswith(".block_count") and not 0 < value <= MAX_LAYERS:
                raise lies(walk.path, f"its {shown(key)} is {value}, of 1 to {MAX_LAYERS}")
            elif kind == _BOOL and value > 1:
                raise lies(walk.path, f"its {shown(key)} is neither true nor false")
        else:
            raise lies(walk.path, f"its {shown(key)} is of an unknown type, {kind}")
    _check_vocabulary(walk.path, lengths)
    return templates, alignment


def _skip_array(walk: _Walk, key: str) -> int:
    kind, count = walk.number(4), walk.number(8)
    if key == TEMPLATE or key.startswith(TEMPLATE + "."):
        raise lies(walk.path, f"its {shown(key)} is a list instead of a template")
    if kind == _STRING:
        if count > min(MAX_STRINGS, (walk.size - walk.at) // 8):
            raise lies(walk.path, f"its {shown(key)} claims {count} texts")
        if key != TOKENS:
            walk.skip_strings(count)
        elif walk.different_strings(count) < count:
            raise lies(walk.path, "its vocabulary holds a token twice, at which llama.cpp aborts")
    elif kind in _WIDTHS:
        walk.skip(count * _WIDTHS[kind])
    else:
        raise lies(walk.path, f"its {shown(key)} is an array of type {kind}, which nothing reads")
    return count


def _check_architecture(walk: _Walk) -> None:
    name = walk.text(128, "its general.architecture")
    if not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise lies(walk.path, f"its general.architecture is {shown(name)!r}")


def _alignment(path: Path, kind: int, value: int) -> int:
    if kind != _UINT32 or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise lies(path, f"its general.alignment is {value}, which is no power of two")
    return value


def _check_vocabulary(path: Path, lengths: dict[str, int]) -> None:
    """Readers take one score and one type a token, and don't look whether there is one."""
    tokens = lengths.get(TOKENS)
    for name in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        found = lengths.get(name)
        if found is not None and found != tokens:
            raise lies(path, f"{name} has {found} entries for {tokens or 0} tokens")


def _check_tensors(walk: _Walk, tensors: int, alignment: int) -> None:
    """Each begins where the one before it ends, and the last ends within the file."""
    seen: set[str] = set()
    end = last = 0
    for _ in range(tensors):
        name = walk.text(MAX_NAME_BYTES, "holds a tensor's name")
        if not name or not name.isprintable() or name in seen:
            raise lies(walk.path, f"its tensor {shown(name)!r} has no plain name of its own")
        seen.add(name)
        size = _tensor_bytes(walk, shown(name))
        offset = walk.number(8)
        if offset != end:
            raise lies(walk.path, f"its tensor {shown(name)} begins at {offset} instead of {end}")
        last = end + size
        end = -(-last // alignment) * alignment
    start = -(-walk.at // alignment) * alignment
    if start + last > walk.size:
        raise lies(
            walk.path,
            f"its header promises {last} bytes of weights, the file holds "
            f"{max(0, walk.size - start)}",
        )


def _tensor_bytes(walk: _Walk, name: str) -> int:
    count = walk.number(4)
    if not 0 < count <= MAX_DIMENSIONS:
        raise lies(walk.path, f"its tensor {name} has {count} dimensions")
    sizes = [walk.number(8) for _ in range(count)]
    kind = walk.number(4)
    if kind not in BLOCKS:
        raise IntegrityError(
            f"{walk.path}: its tensor {name} is of type {kind}, which tokka doesn't know; convert "
            "the model with another quantisation (Q4_K_M, Q8_0, F16)"
        )
    block, width = BLOCKS[kind]
    values = math.prod(sizes)
    if not 0 < values < 2**63 // 8 or sizes[0] % block:
        raise lies(walk.path, f"its tensor {name} has the shape {sizes}, which is none for it")
    return values // block * width
