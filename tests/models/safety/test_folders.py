"""Each kind of unsafe or broken model folder is planted and must be refused unopened."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from planted import ARCHITECTURE, Bomb, entry, gguf, safetensors, text

from tokka.errors import IntegrityError
from tokka.models.safety import folders, refuse_unsafe, refuse_unsafe_papers

PICKLE = pickle.dumps(Bomb())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "config.json").write_text('{"model_type": "llama"}')
    (inner / "tokenizer_config.json").write_text("{}")
    return inner


@pytest.fixture
def safe(folder: Path) -> Path:
    safetensors(folder / "model.safetensors")
    return folder


def test_a_safetensors_folder_passes_and_what_nobody_opens_is_named(safe: Path) -> None:
    assert refuse_unsafe(safe) == ()
    (safe / "README.md").write_text("# model")
    (safe / "LICENSE").write_text("MIT")
    (safe / "vocab.txt").write_text("a\nb")
    assert refuse_unsafe(safe) == ()
    (safe / "training_args.bin").write_bytes(PICKLE)
    (safe / "pytorch_model.bin").write_bytes(PICKLE)  # safetensors are there and go first
    (safe / "renamed").write_bytes(PICKLE)
    (safe / "onnx").mkdir()
    (safe / "onnx" / "model.onnx").write_bytes(b"\x08\x07")
    assert refuse_unsafe(safe) == (
        "pytorch_model.bin", "renamed", "training_args.bin", "onnx/model.onnx",
    )  # fmt: skip


def test_shards_pass(folder: Path) -> None:
    safetensors(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refuse_unsafe(folder) == ()


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl", "m.joblib", "w.npy",
     "w.npz", "a.nemo", "a.mar", "PYTORCH_MODEL.BIN"],
)  # fmt: skip
def test_weights_that_are_pickles_only_are_refused_with_what_to_do(folder: Path, name: str) -> None:
    (folder / name).write_bytes(PICKLE)
    with pytest.raises(IntegrityError, match=name) as refusal:
        refuse_unsafe(folder)
    assert "safe_serialization" in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["tf_model.h5", "model.keras", "model.onnx", "saved_model.pb", "flax_model.msgpack"]
)
def test_weights_of_other_libraries_are_refused_with_what_to_do(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match=rf"doesn't open \({name}\).*safe_serialization"):
        refuse_unsafe(folder)


def test_a_differently_named_safetensors_file_does_not_cover_for_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(PICKLE)
    safetensors(folder / "notes.safetensors")
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin"):
        refuse_unsafe(folder)


def test_a_pickled_adapter_beside_safe_weights_is_refused(safe: Path) -> None:
    (safe / "adapter_model.bin").write_bytes(PICKLE)
    with pytest.raises(IntegrityError, match=r"adapter_model\.bin"):
        refuse_unsafe(safe)


def test_an_adapter_is_opened_as_one_and_never_as_a_model(folder: Path) -> None:
    """transformers would open the folder that its config names, which nobody looked at."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "/elsewhere"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    safetensors(folder / "adapter_model.safetensors")
    assert refuse_unsafe(folder, adapter=True) == ()
    safetensors(folder / "model.safetensors")
    with pytest.raises(IntegrityError, match="in place of the folder's own"):
        refuse_unsafe(folder)
    with pytest.raises(IntegrityError, match="in place of the folder's own"):
        refuse_unsafe_papers(folder)


@pytest.mark.parametrize(
    "name",
    ["modeling_x.py", "x.pyc", "x.SO", "x.so.1", "deep/er/handler.py", "custom_generate/x.py"],
)  # fmt: skip
def test_code_in_the_folder_is_refused(safe: Path, name: str) -> None:
    (safe / name).parent.mkdir(parents=True, exist_ok=True)
    (safe / name).write_text("raise SystemExit")
    with pytest.raises(IntegrityError, match=name):
        refuse_unsafe(safe)


def test_folders_that_begin_with_a_dot_are_no_part_of_a_model(safe: Path) -> None:
    (safe / ".git").mkdir()
    (safe / ".git" / "hook.py").write_text("raise SystemExit")
    assert refuse_unsafe(safe) == ()


@pytest.mark.parametrize(
    ("shard", "reason"),
    [
        ("../other.safetensors", "no safetensors file of this folder"),
        ("sub/other.safetensors", "no safetensors file of this folder"),
        ("model.bin", "no safetensors file of this folder"),
        ("..\\other.safetensors", "no safetensors file of this folder"),
        ("missing.safetensors", "is missing"),
    ],
)
def test_an_index_may_name_only_safetensors_of_its_own_folder(
    folder: Path, shard: str, reason: str
) -> None:
    (folder / "sub").mkdir()
    for place in (folder.parent, folder / "sub"):
        safetensors(place / "other.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(IntegrityError, match=reason):
        refuse_unsafe(folder)


def test_an_index_larger_than_such_files_are_isn_t_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_INDEX_BYTES", 4)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(IntegrityError, match="reads at most 4"):
        refuse_unsafe(folder)


@pytest.mark.parametrize("value", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_of_nothing_is_refused(folder: Path, value: str) -> None:
    (folder / "model.safetensors.index.json").write_text(value)
    with pytest.raises(IntegrityError, match="has no weight_map"):
        refuse_unsafe(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "vocab.txt", "spiece.model"])
def test_a_pickle_under_another_name_is_refused(safe: Path, name: str) -> None:
    (safe / name).write_bytes(PICKLE)
    with pytest.raises(IntegrityError, match=name):
        refuse_unsafe(safe)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "vocab.json", "generation_config.json"]
)
def test_a_pickle_under_a_config_s_name_is_refused(safe: Path, name: str) -> None:
    (safe / name).write_bytes(PICKLE)
    with pytest.raises(IntegrityError, match=rf"{name}: is not valid JSON"):
        refuse_unsafe(safe)


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "additional_chat_templates/x.jinja", "chat_templates/x.jinja"]
)
def test_every_template_that_is_read_is_looked_at(safe: Path, name: str) -> None:
    (safe / name).parent.mkdir(exist_ok=True)
    (safe / name).write_text("{{ ''.__class__ }}")
    with pytest.raises(IntegrityError, match=name):
        refuse_unsafe(safe)


def test_a_folder_of_quantised_weights_is_looked_at_whole(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(gguf())
    assert refuse_unsafe(folder) == ()
    template = entry("tokenizer.chat_template", 8, text("{{ ''.__class__ }}"))
    (folder / "model.gguf").write_bytes(gguf([ARCHITECTURE, template]))
    with pytest.raises(IntegrityError, match=r"model\.gguf: tokenizer\.chat_template"):
        refuse_unsafe(folder)
    (folder / "model.gguf").write_bytes(gguf())
    (folder / "tokenizer_config.json").write_text('{"auto_map": {}}')
    with pytest.raises(IntegrityError, match="auto_map"):
        refuse_unsafe(folder)


def test_a_tokenizer_s_folder_needs_no_weights_and_is_looked_at_as_closely(folder: Path) -> None:
    assert refuse_unsafe_papers(folder) == ()
    (folder / "config.json").write_text('{"auto_map": {}}')
    with pytest.raises(IntegrityError, match="auto_map"):
        refuse_unsafe_papers(folder)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"name the \.gguf"):
        refuse_unsafe(tmp_path)


def test_links_that_lead_out_of_the_folder_are_refused(safe: Path, tmp_path: Path) -> None:
    (safe / "same.txt").symlink_to("config.json")
    assert refuse_unsafe(safe) == ()
    outside = safetensors(tmp_path / "outside.safetensors")
    (safe / "model.safetensors").unlink()
    (safe / "model.safetensors").symlink_to(outside)
    with pytest.raises(IntegrityError, match=r"leads out of .*copy the file there"):
        refuse_unsafe(safe)
    (safe / "model.safetensors").unlink()
    safetensors(safe / "model.safetensors")
    for target, reason in ((tmp_path, "leads out"), (safe / "none", "nothing"), (safe / "l", "no")):
        (safe / "l").symlink_to(target)
        with pytest.raises(IntegrityError, match=reason):
            refuse_unsafe(safe)
        (safe / "l").unlink()


def test_the_blobs_of_the_hub_s_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    safetensors(blobs / "aa")
    (blobs / "bb").write_text("{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/aa")
    (snapshot / "config.json").symlink_to("../../blobs/bb")
    assert refuse_unsafe(snapshot) == ()
    (blobs / "bb").write_text('{"auto_map": {}}')
    with pytest.raises(IntegrityError, match="auto_map"):
        refuse_unsafe(snapshot)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(safe: Path) -> None:
    os.mkfifo(safe / "generation_config.json")
    with pytest.raises(IntegrityError, match="no ordinary file"):
        refuse_unsafe(safe)
    with pytest.raises(IntegrityError, match="no ordinary file"):
        refuse_unsafe(safe / "generation_config.json")


def test_a_name_that_would_write_to_the_terminal_is_refused(safe: Path) -> None:
    try:
        (safe / "a\x1b[31m.txt").write_text("x")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(IntegrityError, match="control characters") as refusal:
        refuse_unsafe(safe)
    assert "\x1b" not in str(refusal.value)


def test_a_folder_that_is_no_model_s_is_not_read_to_its_end(
    safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = safe.joinpath(*"abcdefghij")
    inner.mkdir(parents=True)
    (inner / "x").write_text("")
    with pytest.raises(IntegrityError, match="more than 8 deep"):
        refuse_unsafe(safe)
    monkeypatch.setattr(folders, "MAX_FILES", 2)
    with pytest.raises(IntegrityError, match="more than 2 files"):
        refuse_unsafe(safe)


def test_a_broken_file_is_found_by_its_place(safe: Path) -> None:
    value: dict[str, Any] = {"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}
    safetensors(safe / "extra.safetensors", value)
    with pytest.raises(IntegrityError, match=r"extra\.safetensors: its tensor w claims"):
        refuse_unsafe(safe)
