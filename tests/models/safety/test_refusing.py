"""Files by themselves: refused with their kind, or opened by the real readers without a crash."""

import json
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import ARCHITECTURE, TENSORS, Bomb, array, entry, gguf, safetensors, tensor, text

from tokka.errors import IntegrityError, UsageError
from tokka.models.safety import refuse_unsafe

MOST_BYTES = 64 * 2**20


def test_true_files_pass_under_any_name(tmp_path: Path) -> None:
    for name in ("model.gguf", "blob"):
        (tmp_path / name).write_bytes(gguf())
        assert refuse_unsafe(tmp_path / name) == ()
    assert refuse_unsafe(safetensors(tmp_path / "weights")) == ()
    # A header of 0x80 bytes begins as a pickle does.
    header = json.dumps(TENSORS).encode().ljust(0x80)
    assert refuse_unsafe(safetensors(tmp_path / "weights", header)) == ()


@pytest.mark.parametrize("name", ["model.bin", "model.gguf", "model.safetensors", "m.json", "m"])
def test_pickles_and_archives_are_refused_under_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match=r"is a pickle and was not opened.*safe_serialization"):
        refuse_unsafe(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match=r"a zip archive of a pickle \(data\.pkl\)"):
        refuse_unsafe(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.gguf", r"does not begin with GGUF but with 'hell'"),
        ("model.safetensors", "not a safetensors file"),
        ("notes.txt", "neither safetensors nor GGUF"),
    ],
)
def test_an_unknown_file_says_what_was_wanted(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_text("hello")
    with pytest.raises(IntegrityError, match=reason):
        refuse_unsafe(tmp_path / name)


def test_a_missing_path_is_the_user_s_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", Path("a\0b")):
        with pytest.raises(UsageError, match="no such file"):
            refuse_unsafe(path)


# ---- fuzzing ------------------------------------------------------------------------------------

WORDS = [text(word) for word in ("<s>", "</s>", "締切", "a")]
WHOLE_GGUF = gguf(
    [
        ARCHITECTURE,
        entry("llama.block_count", 4, b"\1\0\0\0"),
        entry("tokenizer.ggml.tokens", 9, array(8, len(WORDS), b"".join(WORDS))),
        entry("tokenizer.ggml.token_type", 9, array(5, len(WORDS), bytes(16))),
        entry("general.alignment", 4, b"\x20\0\0\0"),
    ],
    [tensor("token_embd.weight", (4, 4)), tensor("norm", (32,), 8, offset=64)],
    bytes(64 + 34),
)
_HEADER = {"__metadata__": {"format": "pt"}, **TENSORS,
           "v": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]}}  # fmt: skip
_TEXT = json.dumps(_HEADER).encode()
WHOLE_SAFETENSORS = len(_TEXT).to_bytes(8, "little") + _TEXT + bytes(16)
WHOLES = {"m.gguf": WHOLE_GGUF, "m.safetensors": WHOLE_SAFETENSORS}
EXTREMES = [0, 1, 2**7, 2**8 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@st.composite
def mutations(draw: Any, whole: bytes) -> bytes:
    """Bytes changed, lost or doubled, numbers made extreme: once or a few times."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["byte", "number", "cut", "double", "insert"]))
        if kind == "byte":
            data[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "number":
            width = draw(st.sampled_from([4, 8]))
            value = draw(st.sampled_from(EXTREMES)) % 2 ** (8 * width)
            data[place : place + width] = value.to_bytes(width, "little")
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        elif kind == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = draw(st.binary(max_size=12))
    return bytes(data)


def passes(path: Path, data: bytes) -> bool:
    """Whether a file is let through; another error than a refusal fails the test."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        refuse_unsafe(path)
    except IntegrityError as refusal:
        assert str(path) in str(refusal) and str(refusal).isprintable()
        return False
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < MOST_BYTES
    return True


FUZZ = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(mutations(WHOLE_SAFETENSORS))
def test_a_changed_safetensors_file_is_refused_or_the_real_reader_opens_it(
    tmp_path: Path, data: bytes
) -> None:
    reader = pytest.importorskip("safetensors")
    path = tmp_path / "m.safetensors"
    if passes(path, data) and not data.startswith(b"GGUF"):
        with reader.safe_open(str(path), framework="np") as file:
            assert all(file.get_slice(name).get_shape() is not None for name in file.keys())  # noqa: SIM118


@FUZZ
@given(mutations(WHOLE_GGUF))
def test_a_changed_gguf_file_is_refused_or_the_reference_reader_opens_it(
    tmp_path: Path, data: bytes
) -> None:
    reader = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    if passes(path, data) and data.startswith(b"GGUF"):
        found = reader.GGUFReader(path)
        assert len(found.tensors) > 0


@FUZZ
@given(st.binary(max_size=64), st.sampled_from(["m.safetensors", "m.gguf", "m.bin", "m"]))
def test_any_bytes_are_refused(tmp_path: Path, data: bytes, name: str) -> None:
    assert not passes(tmp_path / name, data)


_OPEN_ALL = """
import sys, xllamacpp
for path in sys.argv[1:]:
    try:
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx, params.warmup, params.fit_params, params.offline = 32, False, False, True
        params.cpuparams.n_threads = 1
        xllamacpp.Server(params)
    except Exception:
        pass
    print("survived", flush=True)
"""


def test_llama_cpp_survives_every_changed_file_that_is_let_through(tmp_path: Path) -> None:
    """The files are changed at fixed places: a crash would end the child before its last line."""
    pytest.importorskip("xllamacpp")
    chance = random.Random(6)
    let_through = []
    for number in range(1_500):
        data = bytearray(WHOLE_GGUF)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice([0, 1, 2, 9, 32, 127, 255])
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        try:
            refuse_unsafe(path)
        except IntegrityError:
            path.unlink()
        else:
            let_through.append(str(path))
    sample = chance.sample(let_through, 24)
    done = subprocess.run(
        [sys.executable, "-c", _OPEN_ALL, *sample], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["survived"] * len(sample), done.stderr[-400:]
