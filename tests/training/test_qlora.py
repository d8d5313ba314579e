"""An adapter trained on four bits a weight is folded into the weights that it was trained on."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs tokka[train]")
bnb = pytest.importorskip("bitsandbytes", reason="needs tokka[qlora]")
import families  # noqa: E402

from tokka.errors import MissingExtra, TokkaError, UsageError  # noqa: E402
from tokka.models.nf4 import dequantised, load_nf4, quantised  # noqa: E402
from tokka.models.torch_model import load_module  # noqa: E402
from tokka.records import FinetuneSpec  # noqa: E402
from tokka.training.adapters import save_adapter, with_adapter  # noqa: E402

IDS = torch.randint(5, families.VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(0))
SPEC = FinetuneSpec(data="examples.jsonl", method="qlora", rank=8)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    families.make("llama", tie_word_embeddings=True).save_pretrained(str(folder))
    return folder


def logits(module: Any) -> Any:
    with torch.inference_mode():
        return module.eval()(input_ids=IDS).logits.float()


def learn(model: Any, steps: int) -> list[float]:
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def adapted(module: Any, spec: FinetuneSpec = SPEC) -> Any:
    torch.manual_seed(0)
    return with_adapter(module, spec)


def far(some: Any, other: Any) -> float:
    return float((some - other).norm() / other.norm())


def test_layers_take_four_bits_a_weight_and_the_rest_stays_bfloat16(base: Path) -> None:
    module = load_nf4(base)
    layers = [p for p in module.modules() if isinstance(p, bnb.nn.Linear4bit)]
    assert len(layers) == 14  # two layers of q, k, v, o, gate, up, down; not the head
    kept = sum(layer.weight.numel() for layer in layers)  # bytes: two weights each
    assert kept * 2 == sum(p.in_features * p.out_features for p in layers)
    for layer in layers:
        state = layer.weight.quant_state
        assert (state.quant_type, state.blocksize, state.nested) == ("nf4", 64, True)
        assert state.absmax.dtype == torch.uint8
    rest = [p for p in module.parameters() if not isinstance(p, bnb.nn.Params4bit)]
    assert {p.dtype for p in rest} == {torch.bfloat16}
    assert not any(p.requires_grad for p in module.parameters())
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight


def test_routers_and_stacked_experts_stay_bfloat16() -> None:
    module = quantised(families.make("qwen2-moe").to(torch.bfloat16))
    mlp = module.model.layers[1].mlp
    for part in (mlp.gate.weight, mlp.shared_expert_gate.weight, mlp.experts.gate_up_proj):
        assert part.dtype == torch.bfloat16
    assert isinstance(mlp.shared_expert.up_proj, bnb.nn.Linear4bit)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen2-moe"])  # qwen2: layers with biases
def test_rounded_weights_compute_what_nf4_computes(name: str) -> None:
    plain = families.make(name).to(torch.bfloat16)
    rounded = dequantised(copy.deepcopy(plain))
    four_bits = quantised(copy.deepcopy(plain))
    assert torch.equal(logits(rounded), logits(four_bits))
    assert far(logits(rounded), logits(plain)) > 0.03


def test_a_module_of_another_type_is_rounded_to_the_same_values() -> None:
    plain = families.make("llama").to(torch.bfloat16)
    wide = dequantised(copy.deepcopy(plain).float())
    for ours, theirs in zip(wide.parameters(), dequantised(plain).parameters(), strict=True):
        assert torch.equal(ours, theirs.float())


@pytest.mark.parametrize("dora", [False, True])
def test_gradients_through_nf4_are_those_of_the_rounded_weights(dora: bool) -> None:
    """In float32, so that nothing but the weights can make a difference."""
    plain = families.make("llama")
    four_bits = quantised(copy.deepcopy(plain))
    rounded = copy.deepcopy(plain)
    for name, layer in four_bits.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            rounded.get_submodule(name).weight.data.copy_(weight)
    gradients = []
    for module in (four_bits, rounded, plain):
        model = adapted(module, SPEC.model_copy(update={"dora": dora}))
        learn(model, 3)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    ours, theirs, unrounded = gradients
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    assert any(far(ours[name], unrounded[name]) > 0.05 for name in ours)


def test_looking_on_in_between_leaves_the_training_as_it_was(base: Path) -> None:
    straight, interrupted = adapted(load_nf4(base)), adapted(load_nf4(base))
    learn(straight, 1)
    logits(interrupted)
    learn(interrupted, 1)
    for one, other in zip(straight.parameters(), interrupted.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("how", [{}, {"rslora": True}, {"dora": True}])
def test_an_adapter_learns_and_folds_into_what_it_learnt_on(
    base: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    model = adapted(load_nf4(base), SPEC.model_copy(update=how))
    losses = learn(model, 12)
    assert losses[-1] < 0.8 * losses[0]
    trained = logits(model)
    save_adapter(model, tmp_path)
    folded = far(logits(load_module(base, "bfloat16", [tmp_path])), trained)
    (tmp_path / "training.json").unlink()  # nobody knows any more what it was trained on
    drifted = far(logits(load_module(base, "bfloat16", [tmp_path])), trained)
    assert folded < 0.03  # bfloat16 rounds the folded weights
    assert drifted > 10 * folded


def test_what_came_before_is_folded_in_before_four_bits_are_made(
    base: Path, tmp_path: Path
) -> None:
    first = adapted(load_module(base, "float32"))
    learn(first, 6)
    save_adapter(first, tmp_path / "first")
    second = adapted(load_nf4(base, [tmp_path / "first"]))
    learn(second, 6)
    trained = logits(second)
    save_adapter(second, tmp_path / "second")
    both = [tmp_path / "first", tmp_path / "second"]
    assert far(logits(load_module(base, "bfloat16", both)), trained) < 0.03
    assert far(logits(load_module(base, "bfloat16", both[1:])), trained) > 0.1


# ---- refusals -----------------------------------------------------------------------------------


def test_without_bitsandbytes_the_extra_is_named(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match=r"tokka\[qlora\]"):
        load_nf4(base)


def test_layers_that_nf4_cannot_hold_are_refused() -> None:
    with pytest.raises(UsageError, match=r"gpt2 \(a Conv1D\); use method lora"):
        quantised(families.make("gpt2"))


def test_a_machine_that_cannot_quantise_is_told_which_layer_and_what_to_do(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no kernel for quantize_4bit on this backend\nand more")

    monkeypatch.setattr(bnb.functional, "quantize_4bit", missing)
    wanted = r"q_proj into NF4 on cpu here \(no kernel .* backend\); use method lora"
    with pytest.raises(TokkaError, match=wanted):
        load_nf4(base)
