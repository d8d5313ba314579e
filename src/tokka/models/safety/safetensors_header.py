"""A safetensors file's header, checked against the file: it promises what is there, and no more.

Path → nothing, or IntegrityError. The format (huggingface/safetensors, README "Format"): 8 bytes
with the header's length, a JSON object of dtype, shape and span of each tensor, then the tensors
without a hole or an overlap.

>>> check_safetensors(Path("model.safetensors"))
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tokka.models.safety.json_outline import outline
from tokka.models.safety.kinds import ends_as_zip, shown
from tokka.models.safety.refusals import lies, oversized

# The format allows 100 MB; the largest real ones, of single files with 70,000 tensors, have 8.
MAX_HEADER_BYTES = 8 * 2**20
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_FIELDS = {"dtype", "shape", "data_offsets"}


def check_safetensors(path: Path) -> frozenset[str]:
    """The names of a file's tensors. Raises IntegrityError where header and file differ."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= size - 8:
            raise lies(
                path,
                f"is not a safetensors file (header of {length} bytes in a file of {size})",
            )
        if length > MAX_HEADER_BYTES:
            raise oversized(path, length, MAX_HEADER_BYTES)
        text = file.read(length)
    header = _parsed(path, text)
    _check_metadata(path, header.pop("__metadata__", {}))
    spans = sorted(_span(path, name, entry) for name, entry in header.items())
    end = 0
    for begin, stop in spans:
        if begin != end:
            raise lies(path, "its tensors overlap or leave holes")
        end = stop
    if end != size - 8 - length:
        raise lies(
            path, f"its header promises {end} bytes of weights, the file holds {size - 8 - length}"
        )
    if ends_as_zip(path):
        raise lies(path, "is a safetensors file and a zip archive at once")
    return frozenset(header)


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        if text[:1] != b"{":
            raise ValueError("it doesn't begin with a brace")
        outline(text)
        header: dict[str, Any] = json.loads(
            text.decode(), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise lies(path, f"its safetensors header can't be read ({shown(error)})") from error
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands twice, one reader takes the first entry and another the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} stands in it twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _check_metadata(path: Path, value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise lies(path, "its __metadata__ isn't texts by name")


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Begin and end of one tensor's bytes, which its dtype and shape must fill exactly."""
    label = shown(name)
    if not name or not name.isprintable():
        raise lies(path, f"its tensor {label!r} has a name with control characters, or none")
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise lies(path, f"its tensor {label} isn't described by dtype, shape and data_offsets")
    bits = BITS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if bits is None:
        raise lies(path, f"its tensor {label} is of an unknown dtype, {shown(entry['dtype'])}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise lies(path, f"its tensor {label} has a shape or a span that isn't made of sizes")
    begin, stop = offsets
    if stop < begin or math.prod(shape) * bits != (stop - begin) * 8:
        raise lies(
            path,
            f"its tensor {label} claims {stop - begin} bytes for {shown(shape)} of "
            f"{entry['dtype']}",
        )
    return begin, stop


def _sizes(value: Any) -> bool:
    # A bool is an int for Python; 16 dimensions are more than any library computes with.
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(size) is int and 0 <= size < 2**63 for size in value)
    )
