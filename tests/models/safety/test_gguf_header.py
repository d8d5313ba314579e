"""Every field of a GGUF header is made to lie, and each lie is refused before anything reads on."""

import struct
import zipfile
from pathlib import Path

import pytest
from planted import ARCHITECTURE, array, entry, gguf, tensor, text

from tokka.errors import IntegrityError
from tokka.models.safety import refuse_unsafe
from tokka.models.safety.gguf_header import BLOCKS, check_gguf

TOKENS = entry(
    "tokenizer.ggml.tokens", 9, array(8, 4, text("a") + text("融資") + text("") + text("\0"))
)
HALF = struct.pack("<f", 0.5)


def check(tmp_path: Path, data: bytes) -> dict[str, str]:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return check_gguf(path)


def test_a_true_header_passes_and_its_templates_come_back(tmp_path: Path) -> None:
    entries = [
        ARCHITECTURE,
        TOKENS,
        entry("tokenizer.ggml.scores", 9, array(6, 4, HALF * 4)),
        entry("tokenizer.ggml.token_type", 9, array(5, 4, bytes(16))),
        entry("tokenizer.chat_template", 8, text("{{ messages }}")),
        entry("tokenizer.chat_template.tool_use", 8, text("{{ tools }}")),
        entry("general.alignment", 4, struct.pack("<I", 64)),
        entry("tokenizer.ggml.add_bos_token", 7, b"\1"),
        entry("llama.rope.freq_base", 6, HALF),
        entry("split.count", 2, b"\1\0"),
        entry("general.tags", 9, array(8, 0, b"")),
        entry("tokenizer.chat_templates", 9, array(8, 1, text("tool_use"))),
    ]
    tensors = [
        tensor("embedding", (32, 1), 8),  # Q8_0: 34 bytes
        tensor("norm", (3,), 0, offset=64),  # 12 bytes
        tensor("output", (256, 2, 1), 12, offset=128),  # Q4_K: 288 bytes
    ]
    found = check(tmp_path, gguf(entries, tensors, bytes(128 + 288), alignment=64))
    assert found == {
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
    }


def test_what_the_reference_writer_writes_passes_and_its_types_are_known(tmp_path: Path) -> None:
    reference = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    writer = reference.GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    writer.add_token_list(["a", "b"])
    writer.add_chat_template("{{ messages[0].content }}")
    for name in ("a", "b"):
        writer.add_tensor(name, numpy.ones((2, 3), dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert list(check_gguf(tmp_path / "model.gguf")) == ["tokenizer.chat_template"]
    theirs = {int(kind): size for kind, size in reference.GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in BLOCKS if kind in theirs} == BLOCKS


def test_a_long_vocabulary_is_walked_over_the_window_s_edges(tmp_path: Path) -> None:
    words = [str(i) + "x" * (4 * (i % 50)) for i in range(60_000)]  # 6 MB
    words[31_000] = "x" * 1_000_000
    for key in ("tokenizer.ggml.merges", "tokenizer.ggml.tokens"):
        words[-1] = "last"
        many = entry(key, 9, array(8, len(words), b"".join(map(text, words))))
        assert check(tmp_path, gguf([many, ARCHITECTURE])) == {}
        with pytest.raises(IntegrityError, match="unknown type"):
            check(tmp_path, gguf([many, entry("x", 13, b"")]))
        words[-1] = words[100]
    with pytest.raises(IntegrityError, match="a token twice"):
        many = entry("tokenizer.ggml.tokens", 9, array(8, len(words), b"".join(map(text, words))))
        check(tmp_path, gguf([many]))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("a", 13, b"\0" * 8)], "unknown type, 13"),
        ([entry("a", 7, b"\2")], "neither true nor false"),
        ([ARCHITECTURE, ARCHITECTURE], "stands twice"),
        ([entry("", 0, b"\0")], "is empty"),
        ([entry("a\nb", 0, b"\0")], "isn't plain"),
        ([entry(b"\xff", 0, b"\0")], "no UTF-8"),
        ([text("a", 2**63) + b"\0" * 9], "key of 9223372036854775808 bytes"),
        ([entry("a", 8, text("b", 2**64 - 1))], "ends inside its header"),
        ([entry("a", 8, text("b", 500))], "ends inside its header"),
        ([entry("a", 9, array(9, 1, array(0, 1, b"\0")))], "array of type 9"),
        ([entry("a", 9, array(6, 2**62, b""))], "ends inside its header"),
        ([entry("a", 9, array(8, 2**62, b""))], "claims 4611686018427387904 texts"),
        ([entry("a", 9, array(8, 2, text("b") + text("c", 10_000)))], "longer than the file"),
        ([TOKENS, entry("tokenizer.ggml.scores", 9, array(6, 2, HALF * 2))], "2 entries for 4"),
        ([entry("tokenizer.ggml.token_type", 9, array(5, 1, bytes(4)))], "1 entries for 0"),
        ([entry("general.alignment", 4, struct.pack("<I", 0))], "no power of two"),
        ([entry("general.alignment", 4, struct.pack("<I", 48))], "no power of two"),
        ([entry("general.alignment", 10, struct.pack("<Q", 32))], "no power of two"),
        ([entry("general.architecture", 8, text("../llama"))], "general.architecture"),
        ([entry("tokenizer.ggml.tokens", 9, array(8, 2, text("a") * 2))], "a token twice"),
        ([entry("tokenizer.ggml.tokens", 9, array(8, 2, text("a") + text("a\0b")))], "twice"),
        ([entry("tokenizer.chat_template", 9, array(8, 1, text("{{ x }}")))], "list instead"),
        ([entry("tokenizer.chat_template.a", 9, array(8, 0, b""))], "list instead"),
        ([entry("llama.block_count", 4, bytes(4))], "is 0, of 1 to 512"),
        ([entry("llama.block_count", 4, struct.pack("<I", 513))], "is 513, of 1 to 512"),
        ([entry("split.count", 2, b"\2\0")], "llama-gguf-split --merge"),
        ([entry("tokenizer.chat_template", 8, text("x" * 2**20 + "y"))], "of at most 1048576"),
    ],
)
def test_metadata_that_lies_is_refused(tmp_path: Path, entries: list[bytes], reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        check(tmp_path, gguf(entries))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([tensor("w" * 64)], "name of 64 bytes"),
        ([tensor("a\0b")], "no plain name"),
        ([tensor("")], "no plain name"),
        ([tensor(), tensor(offset=32)], "no plain name of its own"),
        ([tensor(kind=4)], "of type 4, which tokka doesn't know"),
        ([tensor(shape=())], "0 dimensions"),
        ([tensor(shape=(1, 1, 1, 1, 1))], "5 dimensions"),
        ([tensor(shape=(8, 0))], "the shape"),  # llama.cpp divides by it
        ([tensor(shape=(2**32, 2**32))], "the shape"),
        ([tensor(shape=(2**63,))], "the shape"),
        ([tensor(shape=(31, 8), kind=8)], "the shape"),  # no whole block of 32
        ([tensor(offset=32)], "begins at 32 instead of 0"),
        ([tensor("a"), tensor("b", offset=0)], "begins at 0 instead of 32"),
        ([tensor("a"), tensor("b", offset=64)], "begins at 64 instead of 32"),
        ([tensor("a", (2,)), tensor("b", offset=8)], "begins at 8 instead of 32"),
        ([tensor(shape=(4, 3))], "promises 48 bytes of weights, the file holds 32"),
    ],
)
def test_tensors_that_lie_are_refused(tmp_path: Path, tensors: list[bytes], reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        check(tmp_path, gguf(tensors=tensors))


@pytest.mark.parametrize(
    "counts", [(0, 1), (2**60, 1), (1, 2**60), (200_001, 1), (1, 2), (2, 1), (1, 0)]
)
def test_counts_that_the_file_can_t_hold_are_refused(
    tmp_path: Path, counts: tuple[int, int]
) -> None:
    with pytest.raises(IntegrityError):
        check(tmp_path, gguf(counts=counts))


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_other_versions_and_byte_orders_are_refused(tmp_path: Path, version: int) -> None:
    with pytest.raises(IntegrityError, match=f"GGUF version {version}"):
        check(tmp_path, gguf(version=version))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = gguf([ARCHITECTURE, TOKENS])
    check(tmp_path, whole)
    for length in range(len(whole)):
        with pytest.raises(IntegrityError):
            check(tmp_path, whole[:length])


def test_a_gguf_that_is_a_zip_archive_too_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.pkl", b"x")
    assert path.read_bytes().startswith(b"GGUF")
    with pytest.raises(IntegrityError, match="a zip archive at once"):
        refuse_unsafe(path)


def test_the_template_inside_a_gguf_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([entry("tokenizer.chat_template", 8, text("{{ ''.__class__ }}"))]))
    with pytest.raises(IntegrityError, match=r"tokenizer\.chat_template: .*__class__"):
        refuse_unsafe(path)
