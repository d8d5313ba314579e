"""A safetensors header must promise exactly what the file holds."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from planted import TENSORS, safetensors

from tokka.errors import IntegrityError
from tokka.models.safety.safetensors_header import BITS, MAX_HEADER_BYTES, check_safetensors


def one(**changed: Any) -> dict[str, Any]:
    return {"w": {**TENSORS["w"], **changed}}


def test_true_headers_pass_with_the_names_of_their_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"format": "pt", "著者": "青葉"},
        "late": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]},
        **TENSORS,
        "empty": {"dtype": "I64", "shape": [3, 0], "data_offsets": [16, 16]},
        "scalar": {"dtype": "U8", "shape": [], "data_offsets": [16, 17]},
        "halves": {"dtype": "F4", "shape": [4], "data_offsets": [17, 19]},
    }
    assert check_safetensors(safetensors(path, header, bytes(19))) == set(header) - {"__metadata__"}
    padded = json.dumps(TENSORS).encode() + b"   "  # the writer fills up to eight bytes
    assert check_safetensors(safetensors(path, padded)) == {"w"}


def test_what_the_reference_writer_writes_passes(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    numpy = pytest.importorskip("numpy")
    for dtype in ("float64", "float32", "float16", "int64", "int8", "uint16", "bool", "complex64"):
        path = tmp_path / f"{dtype}.safetensors"
        reference.save_file({"重み": numpy.ones((3, 5), dtype=dtype), "b": numpy.ones(2)}, path)
        assert check_safetensors(path) == {"重み", "b"}
    assert {bits % 4 for bits in BITS.values()} <= {0, 2}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (one(shape=[3]), r"claims 8 bytes for \[3\] of F32"),
        (one(shape=[2**62, 2**62]), "claims 8 bytes"),
        (one(shape=[-2]), "isn't made of sizes"),
        (one(shape=[True, 2]), "isn't made of sizes"),
        (one(shape=["2"]), "isn't made of sizes"),
        (one(shape=2), "isn't made of sizes"),
        (one(shape=[1] * 17), "isn't made of sizes"),
        (one(data_offsets=[0, 8, 8]), "isn't made of sizes"),
        (one(data_offsets=[0.0, 8.0]), "isn't made of sizes"),
        (one(data_offsets=[0, 2**64]), "isn't made of sizes"),
        (one(data_offsets=[8, 0]), "claims -8 bytes"),
        (one(dtype="F31"), "unknown dtype, F31"),
        (one(dtype=["F32"]), "unknown dtype"),
        (one(dtype="\uff26\uff13\uff12"), "unknown dtype"),  # F32 in full width
        (one(more=1), "isn't described by"),
        ({"w": {"dtype": "F32"}}, "isn't described by"),
        ({"w": [0, 8]}, "isn't described by"),
        ({"a\nb": TENSORS["w"]}, "control characters"),
        ({"": TENSORS["w"]}, "control characters"),
        ({"\u202ew": TENSORS["w"]}, "control characters"),  # shown from right to left
        ({**TENSORS, "__metadata__": {"a": 1}}, "isn't texts by name"),
        ({**TENSORS, "__metadata__": None}, "isn't texts by name"),
        (b'{"w":1,"w":' + json.dumps(TENSORS["w"]).encode() + b"}", "w stands in it twice"),
        (b'{"w":{"dtype":"F32","dtype":"F32"}}', "dtype stands in it twice"),
        (b" " + json.dumps(TENSORS).encode(), "doesn't begin with a brace"),
        (b'{"w":NaN}', "NaN is no number"),
        (b"{" + b'"a":{' * 100 + b"}" * 101, "brackets in each other"),
        (json.dumps(TENSORS).encode("utf-16-le"), "can't be read"),
        (b'{"\xff":1}', "can't be read"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        check_safetensors(safetensors(tmp_path / "m.safetensors", header))


def test_holes_overlaps_and_wrong_ends_are_refused(tmp_path: Path) -> None:
    def two(begin: int) -> dict[str, Any]:
        return {**TENSORS, "v": {**TENSORS["w"], "data_offsets": [begin, begin + 8]}}

    check_safetensors(safetensors(tmp_path / "m", two(8), bytes(16)))
    for begin, size in ((4, 12), (12, 20), (0, 8), (8, 15), (8, 17)):
        with pytest.raises(IntegrityError, match=r"overlap or leave holes|promises 16 bytes"):
            check_safetensors(safetensors(tmp_path / "m", two(begin), bytes(size)))


def test_a_header_too_long_to_be_true_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + bytes(MAX_HEADER_BYTES + 1))
    with pytest.raises(IntegrityError, match="reads at most"):
        check_safetensors(path)


@pytest.mark.parametrize("length", [2**63, 3, 1, 0])
def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "m").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(IntegrityError, match=rf"header of {length} bytes in a file of 10"):
        check_safetensors(tmp_path / "m")


def test_weights_that_are_a_zip_archive_too_are_refused(tmp_path: Path) -> None:
    archived = tmp_path / "data.zip"
    with zipfile.ZipFile(archived, "w") as archive:
        archive.writestr("data.pkl", b"x")
    hidden = archived.read_bytes()
    header = {"w": {"dtype": "U8", "shape": [len(hidden)], "data_offsets": [0, len(hidden)]}}
    with pytest.raises(IntegrityError, match="a zip archive at once"):
        check_safetensors(safetensors(tmp_path / "m", header, hidden))
    chance = b"PK\x05\x06" + b"\x01" * 40  # the same four bytes by chance
    header = {"w": {"dtype": "U8", "shape": [44], "data_offsets": [0, 44]}}
    check_safetensors(safetensors(tmp_path / "m", header, chance))
