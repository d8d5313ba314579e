"""What the bytes of an unknown file are, told from their beginning; nothing is opened by a library.

Bytes → "a gzip archive of a tar archive of a pickle (data.pkl)", or nothing where they are nothing
that could run code. Archives are looked into as far as the first members and the first megabyte go;
`pickletools` only lists a pickle's instructions and carries none of them out.

>>> kind_of(Path("model.bin"))
'a zip archive of a pickle (archive/data.pkl)'
"""

from __future__ import annotations

import bz2
import lzma
import pickletools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD_BYTES = 2**20
CONVERT = (
    "get the model's safetensors version, or convert it on a machine that holds nothing of value "
    "(transformers: save_pretrained(folder, safe_serialization=True))"
)
PICKLES = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".mar", ".nemo", ".npy", ".npz", ".pickle", ".pkl"}
    | {".pt", ".pt2", ".pth", ".pyt", ".torch"}
)
CODE = frozenset({".dll", ".dylib", ".py", ".pyc", ".pyd", ".pyw", ".so"})
# Files that other programs run, or that hold a graph with operators of their own.
PROGRAMS = frozenset(
    {".bat", ".com", ".engine", ".exe", ".h5", ".hdf5", ".ipynb", ".jar", ".js", ".keras"}
    | {".llamafile", ".mlmodel", ".msgpack", ".node", ".onnx", ".ort", ".pb", ".plan", ".ps1"}
    | {".sh", ".tflite", ".wasm", ".whl"}
)
_DEPTH, _MEMBERS = 4, 16
_ZIP_END, _ZIP_TAIL = b"PK\x05\x06", 65_557  # the record and the longest comment behind it
_LZMA_MEMORY = 32 * 2**20
_PICKLE_HEAD = 65_536
_MAGIC = (
    (b"\x93NUMPY", "a NumPy array, which may hold pickles"),
    (b"\x89HDF", "an HDF5 file, in which Keras keeps layers with code"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x04\x22\x4d\x18", "an LZ4 archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows, or a llamafile)"),
    (b"\xcf\xfa\xed\xfe", "a program (macOS)"),
    (b"\xca\xfe\xba\xbe", "a program (macOS or Java)"),
    (b"\x00asm", "a program (WebAssembly)"),
    (b"#!", "a script"),
)
_GLOBALS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "PERSID"})
_CALLS = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID"})


def kind_of(path: Path) -> str:
    """What a file is that could run code or hides what it holds; empty for any other."""
    with path.open("rb") as file:
        return described(file.read(HEAD_BYTES))


def described(head: bytes) -> str:
    """`kind_of` for a file's first bytes; at most `HEAD_BYTES` of them are looked at."""
    return _described(head[:HEAD_BYTES], _DEPTH)


def opens_json(head: bytes) -> bool:
    """A safetensors header's first brace. Its length may look like a pickle's first byte."""
    return head[8:9] == b"{"


def ends_as_zip(path: Path) -> bool:
    """A file that begins as one thing and ends as a zip archive is read as either.

    The end record must point at a directory: its four bytes alone stand in weights by chance, in
    the last 64 KiB of one file in 65,000.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = max(0, size - _ZIP_TAIL)
        file.seek(start)
        tail = file.read(_ZIP_TAIL)
        at = tail.rfind(_ZIP_END)
        while at >= 0:
            if len(tail) - at >= 22:
                entries, length = struct.unpack_from("<HI", tail, at + 10)
                directory = start + at - length
                if entries and directory >= 0:
                    file.seek(directory)
                    if file.read(4) == b"PK\x01\x02":
                        return True
            at = tail.rfind(_ZIP_END, 0, at)
    return False


def _described(data: bytes, depth: int) -> str:
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] in (b"PK\x03\x04", _ZIP_END, b"PK\x07\x08"):
        return "a zip archive" + _inside(_zip_members(data), depth)
    if data[257:262] == b"ustar":
        return "a tar archive" + _inside(_tar_members(data), depth)
    unpacked = _unpacked(data)
    if unpacked is not None:
        name, inner = unpacked
        kind = _described(inner, depth - 1) if depth else ""
        return f"{name} archive" + (f" of {kind}" if kind else "")
    if data[2:4] == b"\r\n" and data[:2] >= b"\x03" and data[4:5] in (b"\0", b"\1", b"\2", b"\3"):
        return "compiled Python"
    return "a pickle" if _is_pickle(data) else ""


def _inside(members: Iterator[tuple[str, bytes]], depth: int) -> str:
    """ " of a pickle (data.pkl)" for the first member that is something."""
    for place, (name, data) in enumerate(members):
        if place == _MEMBERS or not depth:
            break
        kind = _described(data, depth - 1)
        if kind:
            return f" of {kind} ({shown(name)})"
    return ""


def shown(name: object, most: int = 80) -> str:
    """A name out of a file that nobody trusts, as it may stand in a message or a terminal."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(name))
    return text if len(text) <= most else text[: most - 1] + "…"


def _zip_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and first bytes, from the members' own headers: the directory may be far away."""
    at = 0
    while data[at : at + 4] == b"PK\x03\x04" and len(data) - at >= 30:
        method, packed, _, names, extra = struct.unpack_from("<H8xIIHH", data, at + 8)
        start = at + 30 + names + extra
        body = data[start : start + packed] if packed else data[start:]
        name = data[at + 30 : at + 30 + names].decode("utf-8", "replace")
        yield name, (_inflated(zlib.decompressobj(-15), body) or b"") if method == 8 else body
        if not packed:
            return  # its length stands behind it
        at = start + packed


def _tar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while data[at + 257 : at + 262] == b"ustar":
        name = data[at : at + 100].split(b"\0")[0].decode("utf-8", "replace")
        try:
            size = int(data[at + 124 : at + 135].strip(b" \0") or b"0", 8)
        except ValueError:
            return
        yield name, data[at + 512 : at + 512 + size]
        at += 512 + (size + 511) // 512 * 512


def _unpacked(data: bytes) -> tuple[str, bytes] | None:
    """The name and the first bytes of what a compressed stream holds; None for another file."""
    if data.startswith(b"\x1f\x8b"):
        return "a gzip", _inflated(zlib.decompressobj(31), data) or b""
    if data.startswith(b"BZh") and data[4:10] == b"1AY&SY":
        return "a bzip2", _inflated(bz2.BZ2Decompressor(), data) or b""
    if data.startswith(b"\xfd7zXZ\0"):
        return "an xz", _inflated(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), data) or b""
    if data[:1] == b"x" and data[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        inner = _inflated(zlib.decompressobj(), data)
        return None if not inner else ("a zlib", inner)
    if data.startswith(b"\x5d\0\0"):
        lone = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
        inner = _inflated(lone, data)
        return None if not inner else ("an lzma", inner)
    return None


def _inflated(stream: Any, data: bytes) -> bytes | None:
    """At most a megabyte, however far the archive would unpack."""
    try:
        found: bytes = stream.decompress(data, HEAD_BYTES)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError):
        return None
    return found


def _is_pickle(data: bytes) -> bool:
    """Protocol 2 and later say so themselves; an older one must read as instructions to its end,
    and import and call something, since prose begins with letters that are instructions too."""
    if data[:1] == b"\x80" and data[1:2] <= b"\x05" and len(data) > 1 and not opens_json(data):
        return True
    names: set[str] = set()
    try:
        for place, (operation, _, _) in enumerate(pickletools.genops(data[:_PICKLE_HEAD])):
            names.add(operation.name)
            if operation.name == "STOP":
                return bool(names & _GLOBALS and names & _CALLS)
            if place > 10_000:
                break
    except (ValueError, IndexError, EOFError, OverflowError, struct.error, MemoryError):
        return False
    return False
