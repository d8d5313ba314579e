"""Each kind of unsafe or broken model is planted and must be refused without being opened."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import IntegrityError, UsageError
from tokka.models.safety import refuse_unsafe

TENSORS = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def safetensors(path: Path, header: Any = TENSORS, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def gguf(path: Path, version: int = 3, tensors: int = 1, entries: int = 1) -> Path:
    numbers = ((version, 4), (tensors, 8), (entries, 8))
    start = b"".join(number.to_bytes(size, "little") for number, size in numbers)
    path.write_bytes(b"GGUF" + start + b"\0" * 100)
    return path


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def safe(folder: Path) -> Path:
    safetensors(folder / "model.safetensors")
    return folder


def test_a_safetensors_folder_passes(safe: Path) -> None:
    (safe / "training_args.bin").write_bytes(pickle.dumps(Bomb()))  # never read when loading
    refuse_unsafe(safe)


def test_shards_and_adapters_pass(folder: Path) -> None:
    safetensors(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse_unsafe(folder)
    (folder / "model.safetensors.index.json").unlink()
    safetensors(folder / "adapter_model.safetensors")
    refuse_unsafe(folder)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl"]
)
def test_weights_that_are_pickles_only_are_refused_with_what_to_do(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match=name) as refusal:
        refuse_unsafe(folder)
    assert "safe_serialization" in str(refusal.value)


def test_a_differently_named_safetensors_file_does_not_cover_for_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    safetensors(folder / "notes.safetensors")
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin"):
        refuse_unsafe(folder)


def test_a_pickled_adapter_beside_safe_weights_is_refused(safe: Path) -> None:
    (safe / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match=r"adapter_model\.bin"):
        refuse_unsafe(safe)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "adapter_config.json"])
@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "modeling_x.X"}},
        {"text_config": [{"auto_map": {}}]},
        {"trust_remote_code": True},
    ],
)
def test_a_model_that_asks_for_its_own_code_is_refused(
    safe: Path, name: str, config: dict[str, Any]
) -> None:
    (safe / name).write_text(json.dumps(config))
    with pytest.raises(IntegrityError, match=name):
        refuse_unsafe(safe)


def test_code_in_the_folder_is_refused(safe: Path) -> None:
    (safe / "modeling_x.py").write_text("raise SystemExit")
    with pytest.raises(IntegrityError, match=r"modeling_x\.py"):
        refuse_unsafe(safe)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": ' * 5_000 + "1" + "}" * 5_000])
def test_an_unreadable_or_absurd_config_never_crashes_the_check(safe: Path, text: str) -> None:
    (safe / "config.json").write_text(text)
    try:
        refuse_unsafe(safe)
    except IntegrityError as refusal:
        assert "config.json" in str(refusal)


@pytest.mark.parametrize("shard", ["../other.safetensors", "model.bin", "missing.safetensors"])
def test_an_index_may_name_only_safetensors_of_its_own_folder(folder: Path, shard: str) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(IntegrityError, match=shard.replace(".", r"\.")):
        refuse_unsafe(folder)


def test_a_pickle_named_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        refuse_unsafe(folder)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (TENSORS, b"\0" * 7),  # truncated download
        (TENSORS, b"\0" * 9),
        ({"a": {"data_offsets": [0, 8]}, "b": {"data_offsets": [4, 12]}}, b"\0" * 12),
        ({"a": {"data_offsets": [8, 0]}}, b"\0" * 8),
        ({"a": {"data_offsets": ["0", 8]}}, b"\0" * 8),
        ({"a": {}}, b""),
        ([], b""),
        (b"{not json", b""),
        (b"[" * 100_000, b""),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(
    tmp_path: Path, header: Any, data: bytes
) -> None:
    with pytest.raises(IntegrityError, match="download it again"):
        refuse_unsafe(safetensors(tmp_path / "model.safetensors", header, data))


def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(IntegrityError, match="header of"):
        refuse_unsafe(path)


def test_a_gguf_passes_under_any_name(tmp_path: Path) -> None:
    refuse_unsafe(gguf(tmp_path / "model.gguf"))
    refuse_unsafe(gguf(tmp_path / "blob"))


@pytest.mark.parametrize(
    "change", [{"version": 1}, {"version": 3 << 24}, {"tensors": 2**60}, {"entries": 2**60}]
)
def test_a_gguf_header_that_makes_no_sense_is_refused(
    tmp_path: Path, change: dict[str, int]
) -> None:
    with pytest.raises(IntegrityError, match=r"GGUF version|claims"):
        refuse_unsafe(gguf(tmp_path / "model.gguf", **change))


def test_a_cut_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(IntegrityError, match="ends inside its header"):
        refuse_unsafe(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["model.bin", "model.gguf", "model.safetensors"])
def test_pickles_and_archives_are_refused_under_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match="a pickle"):
        refuse_unsafe(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(IntegrityError, match="zip archive"):
        refuse_unsafe(path)


def test_an_empty_folder_an_unknown_file_and_a_missing_path_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"name the \.gguf"):
        refuse_unsafe(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(IntegrityError, match="neither safetensors nor GGUF"):
        refuse_unsafe(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="no such file"):
        refuse_unsafe(tmp_path / "absent")


@given(st.binary(max_size=64), st.sampled_from(["m.safetensors", "m.gguf", "m.bin"]))
def test_any_bytes_are_refused_or_pass_and_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        refuse_unsafe(path)
