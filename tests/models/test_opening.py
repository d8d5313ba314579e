"""What names a state of weights: the files that decide answers, and nothing beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError
from tokka.models.opening import (
    adapted_digest,
    digest,
    digest_of,
    refuse_foreign,
    rounding,
)

CONFIG = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKKA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write(
        tmp_path / "adapter",
        {"adapter_config.json": CONFIG, "training.json": {"base_digest": "base", "steps": 3}},
        {"adapter_model.safetensors": b"weights"},
    )


def write(folder: Path, values: dict[str, Any], data: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(json.dumps(value))
    for name, content in data.items():
        (folder / name).write_bytes(content)
    return folder


def test_an_adapters_digest_follows_its_weights_and_shape(adapter: Path) -> None:
    first = adapted_digest("base", adapter)
    assert adapted_digest("another base", adapter) != first
    write(adapter, {"adapter_config.json": {**CONFIG, "lora_alpha": 8}}, {})
    shaped = adapted_digest("base", adapter)
    write(adapter, {"adapter_config.json": CONFIG}, {"adapter_model.safetensors": b"others"})
    assert len({first, shaped, adapted_digest("base", adapter)}) == 3


def test_an_adapters_digest_follows_the_rounding_that_it_was_trained_on(adapter: Path) -> None:
    plain = adapted_digest("base", adapter)
    assert rounding(adapter) == ""
    write(adapter, {"training.json": {"base_digest": "base", "quantisation": "nf4"}}, {})
    assert rounding(adapter) == "nf4" and adapted_digest("base", adapter) != plain


def test_neither_evidence_nor_the_order_of_a_list_changes_a_digest(adapter: Path) -> None:
    first = adapted_digest("base", adapter)
    turned = {**CONFIG, "target_modules": CONFIG["target_modules"][::-1]}  # type: ignore[index]
    evidence = {"training.json": {"base_digest": "base", "steps": 9}, "manifest.json": {"s": 1}}
    write(adapter, {"adapter_config.json": turned, **evidence}, {"curve.jsonl": b"{}"})
    assert adapted_digest("base", adapter) == first


def test_a_models_digest_leaves_evidence_out(tmp_path: Path) -> None:
    files = {"model.safetensors": b"weights", "tokenizer.json": b"{}", "chat_template.jinja": b"t"}
    folder = write(tmp_path / "model", {"config.json": {}}, files)
    first = digest_of(folder, "ja")
    assert digest("model", folder, "ja") == first != digest_of(folder, "en")
    write(folder, {"manifest.json": {"seconds": 1}, "training.json": {}, "merge.json": {}}, {})
    assert digest_of(folder, "ja") == first
    write(folder, {}, {"chat_template.jinja": b"another"})
    assert digest_of(folder, "ja") != first


def test_a_quantised_folder_has_a_digest_of_its_weights(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"config.json": {}}, {"model.gguf": b"weights"})
    first = digest_of(folder, "ja")
    write(folder, {}, {"model.gguf": b"others"})
    assert digest_of(folder, "ja") != first


def test_an_adapter_goes_on_what_it_was_trained_on_and_on_nothing_else(adapter: Path) -> None:
    refuse_foreign(adapter, "base")
    with pytest.raises(IntegrityError, match=r"trained on the weights base and .* into another;"):
        refuse_foreign(adapter, "another")
    (adapter / "training.json").unlink()
    with pytest.raises(IntegrityError, match="on weights that it doesn't name"):
        refuse_foreign(adapter, "base")
