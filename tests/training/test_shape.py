"""What a model is made of is read from its files as torch would count it, without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, UsageError
from tokka.records import ScratchSpec
from tokka.training.shape import Matrix, Shape, scratch_shape, shape_of

torch = pytest.importorskip("torch")
from families import make  # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Shape]]:
    def save(family: str) -> tuple[Any, Shape]:
        folder = tmp_path_factory.mktemp(family)
        module = make(family)
        module.save_pretrained(str(folder))
        return module, shape_of(folder)

    return save


@pytest.mark.parametrize("family", ["gemma3", "llama", "qwen3", "mixtral", "qwen3-moe", "gpt2"])
def test_every_parameter_is_counted_once(
    family: str, saved: Callable[[str], tuple[Any, Shape]]
) -> None:
    module, shape = saved(family)
    assert shape.parameters == sum(p.numel() for p in module.parameters())
    assert shape.layers == module.config.num_hidden_layers
    inside = [m for n, m in module.named_modules() if isinstance(m, torch.nn.Linear)]
    if family in ("gemma3", "llama", "qwen3"):
        heads = module.get_output_embeddings().weight
        matrices = sum(m.weight.numel() for m in inside if m.weight is not heads)
        assert shape.linear == matrices
        assert shape.active == matrices


def test_an_adapter_is_as_large_as_pefts(saved: Callable[[str], tuple[Any, Shape]]) -> None:
    peft = pytest.importorskip("peft", reason="needs tokka[train]")
    module, shape = saved("llama")
    for dora in (False, True):
        config = peft.LoraConfig(
            r=3, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=dora
        )
        model = peft.get_peft_model(module, config)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert shape.adapter(3, dora) == trained
        module = model.unload()


def test_of_experts_only_those_that_serve_a_token_count_for_time(
    saved: Callable[[str], tuple[Any, Shape]],
) -> None:
    module, shape = saved("mixtral")
    config = module.config
    layer = module.model.layers[0].mlp.experts
    experts = config.num_hidden_layers * sum(p.numel() for p in layer.parameters())
    share = config.num_experts_per_tok / config.num_local_experts
    assert share < 1
    assert shape.active == shape.linear - experts * (1 - share)
    assert shape.feedforward == config.num_experts_per_tok * config.intermediate_size


def test_a_layers_own_window_is_known(saved: Callable[[str], tuple[Any, Shape]]) -> None:
    module, shape = saved("gemma3")
    window = module.config.sliding_window
    kinds = module.config.layer_types
    assert shape.windows == tuple(window if k == "sliding_attention" else 0 for k in kinds)
    assert len(set(shape.windows)) == 2


def test_a_model_from_scratch_has_the_shape_that_was_told_before(tmp_path: Path) -> None:
    from tokka.training.scratch import make as make_model

    spec = ScratchSpec(vocabulary=300, layers=2, width=104, heads=4, context_tokens=64)
    make_model(tmp_path, ["The lamp of the lighthouse is blue. " * 40], spec, seed=0)
    made = shape_of(tmp_path)
    told = scratch_shape(spec.model_copy(update={"vocabulary": made.vocabulary}))
    assert told.matrices and told.parameters == made.parameters
    assert (told.linear, told.feedforward, told.queries, told.keys, told.windows) == (
        made.linear, made.feedforward, made.queries, made.keys, made.windows
    )  # fmt: skip


def test_only_the_header_of_a_weight_file_is_read(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": [1000, 64],
        "model.layers.0.self_attn.q_proj.weight": [64, 64],
        "model.norm.weight": [64],
    }
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            **{name: {"dtype": "BF16", "shape": sizes} for name, sizes in tensors.items()},
        }
    ).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)  # and no weights at all
    config = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 1000}))
    shape = shape_of(tmp_path)
    assert (shape.embedding, shape.linear, shape.other) == (64_000, 4096, 64)
    assert shape.matrices == (Matrix(64, 64),)
    assert shape.head == 0


@pytest.mark.parametrize(("tied", "head"), [(True, 0), (False, 64_000)])
def test_a_tied_head_is_no_matrix_of_its_own(tmp_path: Path, tied: bool, head: int) -> None:
    """Some files hold it a second time."""
    torch_file = pytest.importorskip("safetensors.torch")
    names = ("model.embed_tokens.weight", "lm_head.weight")
    weights = {name: torch.zeros(1000, 64) for name in names}
    torch_file.save_file(weights, str(tmp_path / "model.safetensors"))
    config = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config |= {"vocab_size": 1000, "tie_word_embeddings": tied}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(tmp_path).head == head


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')
    with pytest.raises(UsageError, match="holds no"):
        shape_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(UsageError, match="doesn't say num_hidden_layers"):
        shape_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(IntegrityError, match=r"model\.safetensors: its header can't be read"):
        shape_of(tmp_path)
