"""Whatever a file lost on its way out is found in the file itself."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gguf", reason="needs tokka[quantise]")
import numpy as np  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from tokka.models.base_template import base_template  # noqa: E402
from tokka.store import read_json, write_json  # noqa: E402
from tokka.training.export_checking import LIMITS, check_export  # noqa: E402
from tokka.training.gguf_file import read_header, rows_of  # noqa: E402
from tokka.training.quantise import quantise  # noqa: E402
from tokka.training.start import Start  # noqa: E402

TEMPLATE = base_template("en", bos=False)
LAYER = "blk.0.ffn_down.weight"


@pytest.fixture(scope="module")
def model(harbour: Path) -> Path:
    return harbour / "model"


def ends(folder: Path, token: object = 1) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": token})


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for kind in ("f16", "q8_0", "q4_k_m"):
        if kind == "q4_k_m":
            pytest.importorskip("libgguf", reason="needs tokka[quantise]")
        found[kind] = tmp_path_factory.mktemp("gguf") / kind
        quantise(found[kind], Start(model, "b" * 64), kind, template=TEMPLATE)  # type: ignore[arg-type]
        ends(found[kind])
    found["safetensors"] = tmp_path_factory.mktemp("safetensors") / "model"
    shutil.copytree(model, found["safetensors"])
    ends(found["safetensors"])
    return found


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(made[kind], tmp_path / kind))


def faults(folder: Path, source: Path) -> tuple[str, ...]:
    return check_export(folder, source, template=TEMPLATE).faults


def patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def place(path: Path, name: str) -> int:
    """Where a tensor's numbers begin in the file."""
    header = read_header(path)
    return header.start + header.tensors[name].offset


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_k_m", "safetensors"])
def test_a_faithful_export_has_no_fault(kind: str, made: dict[str, Path], model: Path) -> None:
    checked = check_export(made[kind], model, template=TEMPLATE)
    assert checked.faults == ()
    assert checked.identical is (kind == "safetensors")


@pytest.mark.parametrize("family", ["gemma3", "llama", "qwen2"])
def test_every_family_is_held_against_its_own_numbers(
    family: str, model: Path, tmp_path: Path
) -> None:
    """Norms that count from 1, interleaved heads, a rope by length, biases."""
    more: dict[str, Any] = {}
    if family == "gemma3":
        every_sixth = [*["sliding_attention"] * 5, "full_attention"]
        more = {"num_hidden_layers": 6, "layer_types": every_sixth, "query_pre_attn_scalar": 16}
    if family == "qwen2":
        more = {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
    source = tmp_path / "model"
    shutil.copytree(model, source)
    rows = read_json(model / "config.json")["vocab_size"]
    families.make(family, vocab_size=rows + 3, bos_token_id=0, **more).save_pretrained(str(source))
    quantise(tmp_path / "out", Start(source, ""), "f16")
    ends(tmp_path / "out")
    assert check_export(tmp_path / "out", source).faults == ()


# ---- a file of weights -------------------------------------------------------------------------


def test_random_bytes_in_one_row_are_found(copy: Any, model: Path) -> None:
    for kind in ("f16", "q8_0", "q4_k_m"):
        folder = copy(kind)
        noise = np.random.default_rng(0).integers(0, 60, 40, dtype=np.uint8).tobytes()
        patch(folder / "model.gguf", place(folder / "model.gguf", LAYER), noise)
        (fault,) = faults(folder, model)
        assert "lost more than their bits explain: " + LAYER in fault


def test_one_row_among_hundreds_is_found(copy: Any, model: Path) -> None:
    """Zeroed, it is 5 % of the tensor, less than its bits may take of all rows."""
    folder = copy("q4_k_m")
    path = folder / "model.gguf"
    patch(path, place(path, "token_embd.weight"), bytes(22))
    (fault,) = faults(folder, model)
    assert "lost more than their bits explain: token_embd.weight" in fault


def test_a_zeroed_layer_is_found(copy: Any, model: Path) -> None:
    folder = copy("q8_0")
    path = folder / "model.gguf"
    header = read_header(path)
    offsets = sorted(t.offset for t in header.tensors.values())
    begin = header.tensors[LAYER].offset
    end = next(offset for offset in offsets if offset > begin)
    patch(path, header.start + begin, bytes(end - begin))
    (fault,) = faults(folder, model)
    assert fault.endswith(f"{LAYER} (100.0 %)")


def test_what_is_no_number_is_found(copy: Any, model: Path) -> None:
    folder = copy("f16")
    path = folder / "model.gguf"
    patch(path, place(path, LAYER), np.array([np.nan], dtype=np.float16).tobytes())
    assert faults(folder, model) == (f"no numbers (NaN or infinity) stand in {LAYER}",)


def swapped(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert len(old) == len(new) and data.count(old) >= 1
    path.write_bytes(data.replace(old, new, 1))


def entry(key: str, kind: int) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind)


def test_another_template_in_the_file_is_found(copy: Any, model: Path) -> None:
    folder = copy("f16")
    swapped(folder / "model.gguf", b"'Question: '", b"'Quastion: '")
    assert faults(folder, model) == (
        "the chat template in model.gguf isn't the one that was examined",
    )


def test_another_end_in_the_file_is_found(copy: Any, model: Path) -> None:
    key = "tokenizer.ggml.eos_token_id"
    folder = copy("f16")
    began = entry(key, 4)
    swapped(folder / "model.gguf", began + struct.pack("<I", 1), began + struct.pack("<I", 7))
    assert faults(folder, model) == (f"{key} in model.gguf is 7, in the examined tokenizer 1",)


def test_an_end_that_is_gone_from_the_file_is_found(copy: Any, model: Path) -> None:
    folder = copy("f16")
    swapped(folder / "model.gguf", b"ggml.eos_token_id", b"ggml.eos_tokon_id")
    (fault,) = faults(folder, model)
    assert "eos_token_id in model.gguf is None" in fault


def test_a_bos_too_many_or_too_few_in_the_file_is_found(copy: Any, model: Path) -> None:
    key = "tokenizer.ggml.add_bos_token"
    folder = copy("f16")
    swapped(folder / "model.gguf", entry(key, 7) + b"\x01", entry(key, 7) + b"\x00")
    (fault,) = faults(folder, model)
    assert fault == f"{key} in model.gguf is False, in the examined tokenizer True"


def test_swapped_tokens_in_the_file_are_found(copy: Any, model: Path) -> None:
    folder = copy("f16")
    one, other = (struct.pack("<Q", 1) + text for text in (b"b", b"c"))
    swapped(folder / "model.gguf", one + other, other + one)
    (fault,) = faults(folder, model)
    assert fault.startswith("2 of ") and "tokens in model.gguf" in fault


def test_another_rope_in_the_file_is_found(copy: Any, model: Path) -> None:
    folder = copy("f16")
    began = entry("llama.rope.freq_base", 6)
    swapped(folder / "model.gguf", began + struct.pack("<f", 1e4), began + struct.pack("<f", 1e6))
    assert faults(folder, model) == (
        "llama.rope.freq_base in model.gguf is 1000000.0, not 10000.0",
    )


def test_a_tensor_under_another_name_is_found(copy: Any, model: Path) -> None:
    folder = copy("f16")
    swapped(folder / "model.gguf", b"blk.1.attn_v.weight", b"blk.7.attn_v.weight")
    (fault,) = faults(folder, model)
    assert "blk.1.attn_v.weight is missing in the one" in fault


# ---- a folder ----------------------------------------------------------------------------------


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(str(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


NAME = "model.layers.0.mlp.down_proj.weight"


def test_one_other_number_is_found(copy: Any, model: Path) -> None:
    folder = copy("safetensors")

    def nudge(tensors: dict[str, Any]) -> None:
        tensors[NAME][0, 0] += 1e-3

    changed(folder, nudge)
    checked = check_export(folder, model)
    assert checked.faults == (f"these tensors aren't the examined ones: {NAME}",)
    assert not checked.identical


def test_a_folder_with_what_is_no_number_is_found(copy: Any, model: Path) -> None:
    folder = copy("safetensors")

    def spoil(tensors: dict[str, Any]) -> None:
        tensors[NAME][0, 0] = float("inf")

    changed(folder, spoil)
    assert faults(folder, model) == (f"no numbers (NaN or infinity) stand in {NAME}",)


def test_a_missing_or_narrower_tensor_is_found(copy: Any, model: Path, tmp_path: Path) -> None:
    folder = copy("safetensors")
    changed(folder, lambda tensors: tensors.update({NAME: tensors[NAME][:, :-1].contiguous()}))
    (fault,) = faults(folder, model)
    assert f"{NAME} is (32, 63) in the one and (32, 64)" in fault
    changed(folder, lambda tensors: tensors.pop(NAME))
    (fault,) = faults(folder, model)
    assert f"{NAME} is missing in the one" in fault


def test_another_tokenizer_is_found(copy: Any, model: Path) -> None:
    for kind in ("safetensors", "f16"):
        folder = copy(kind)
        rules = json.loads((folder / "tokenizer.json").read_text())
        rules["model"]["merges"].reverse()
        (folder / "tokenizer.json").write_text(json.dumps(rules))
        (fault,) = faults(folder, model)
        assert fault == "its tokenizer's files aren't those of the model that was examined"


@pytest.mark.parametrize("told", [None, 0, [1, 5]])
def test_lost_or_other_ends_are_found(told: object, copy: Any, model: Path) -> None:
    folder = copy("safetensors")
    ends(folder, told)
    (fault,) = faults(folder, model)
    assert fault.startswith("generation_config.json ends an answer at the tokens")


def test_another_config_is_found(copy: Any, model: Path) -> None:
    folder = copy("safetensors")
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "rms_norm_eps": 1e-2})
    assert faults(folder, model) == ("config.json isn't the examined model's",)


def test_a_copied_gguf_is_the_very_file(made: dict[str, Path], copy: Any) -> None:
    folder = copy("q8_0")
    assert check_export(folder, made["q8_0"]).identical
    assert check_export(folder, made["q8_0"] / "model.gguf").identical
    patch(folder / "model.gguf", place(folder / "model.gguf", LAYER) + 7, b"\x01\x02")
    for source in (made["q8_0"], made["q8_0"] / "model.gguf"):
        checked = check_export(folder, source)
        assert checked.faults and not checked.identical


def test_the_limits_leave_room_for_what_rounding_takes(made: dict[str, Path], model: Path) -> None:
    """A third of each limit at least is left over, and a shuffled tensor loses far more."""
    wanted = load_file(str(model / "model.safetensors"))[NAME].float().numpy()
    size = float(np.sqrt(np.square(wanted).mean()))
    for kind, name in (("f16", "F16"), ("q8_0", "Q8_0"), ("q4_k_m", "Q5_0")):
        path = made[kind] / "model.gguf"
        header = read_header(path)
        found = np.concatenate(list(rows_of(path, header, "blk.1.ffn_up.weight", 8)))
        theirs = load_file(str(model / "model.safetensors"))["model.layers.1.mlp.up_proj.weight"]
        gap = float(np.sqrt(np.square(found - theirs.float().numpy()).mean()))
        assert gap / size < LIMITS[name][0] * 2 / 3
