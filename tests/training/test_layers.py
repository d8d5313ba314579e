"""Layers in fewer passes give what transformers' and PEFT's own give: values, gradients, and all
that they were when they are put back."""

from __future__ import annotations

from typing import Any

import pytest
from families import KNOWN, VOCABULARY, make

from tokka.records import FinetuneSpec

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft", reason="needs tokka[train]")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from tokka.training import layers  # noqa: E402
from tokka.training.adapters import with_adapter  # noqa: E402

IDS = (torch.arange(1, 40) * 7 % VOCABULARY)[None]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def gradients(function: Any, *given: Any) -> list[Any]:
    """The value and the gradient of each input, from a slope that differs everywhere."""
    inputs = [x.detach().clone().requires_grad_() for x in given]
    value = function(*inputs)
    slope = torch.sin(torch.arange(value.numel()).float()).view(value.shape)
    value.backward(slope.to(value.dtype))
    return [value.detach(), *(x.grad for x in inputs)]


def assert_alike(mine: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    for number, (found, wanted) in enumerate(zip(mine, theirs, strict=True)):
        assert found.dtype == wanted.dtype and wanted.abs().max() > 1e-3
        scale = max(1.0, float(wanted.abs().max()))
        gap = float((found.double() - wanted.double()).abs().max())
        assert gap <= tolerance * scale, (number, gap)


# ---- functions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_norm_is_that_of_transformers(kind: str, dtype: Any) -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    theirs = (LlamaRMSNorm if kind == "llama" else Gemma3RMSNorm)(24).to(dtype)
    mine = type(theirs)(24).to(dtype)
    assert layers._forward_of(mine) is layers._norm
    x, weight = torch.randn(2, 5, 3, 24).to(dtype), torch.randn(24).to(dtype)

    def theirs_at(x: Any, weight: Any) -> Any:
        return torch.func.functional_call(theirs, {"weight": weight}, (x,))

    def mine_at(x: Any, weight: Any) -> Any:
        mine.weight = weight
        return layers._norm(mine, x)

    for module in (theirs, mine):  # an epsilon that counts
        setattr(module, "variance_epsilon" if kind == "llama" else "eps", 0.3)
    del mine.weight
    found, wanted = gradients(mine_at, x, weight), gradients(theirs_at, x, weight)
    assert_alike(found, wanted, 1e-5 if dtype == torch.float32 else 0.01)


def test_a_norm_that_was_made_float32_answers_in_the_states_dtype() -> None:
    """In a full training: whatever follows is then multiplied in bfloat16."""
    x, weight = torch.randn(4, 24).bfloat16(), torch.randn(24)
    for early in (True, False):
        value, to_x, to_weight = gradients(
            lambda x, w, early=early: layers._apply(layers._Norm, x, w, 1e-6, 0.0, early), x, weight
        )
        assert (value.dtype, to_x.dtype) == (torch.bfloat16, torch.bfloat16)
        assert to_weight.dtype == torch.float32


ACTS: dict[str, Any] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("cells", [1, 50, 2**17])
@pytest.mark.parametrize("act", ACTS)
def test_a_gated_activation_is_torchs_own(
    act: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "CACHED_CELLS", cells)
    gate, up = 3 * torch.randn(2, 7, 20), torch.randn(2, 7, 20)
    gate[0, 0, :4] = torch.tensor([0.0, -30.0, 30.0, -1e-4])

    def mine(gate: Any, up: Any) -> Any:
        return layers._apply(layers._Gated, gate, up, act)

    def theirs(gate: Any, up: Any) -> Any:
        return ACTS[act](gate) * up

    assert_alike(gradients(mine, gate, up), gradients(theirs, gate, up))
    short = gate.bfloat16(), up.bfloat16()
    assert_alike(gradients(mine, *short), gradients(theirs, *short), 0.02)


def test_a_rotation_is_that_of_transformers_and_its_own_inverse() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x, angles = torch.randn(1, 6, 3, 8), torch.randn(1, 6, 4)
    cos, sin = angles.cos(), angles.sin()

    def mine(x: Any) -> Any:
        return layers._apply(layers._Rotate, x, cos[:, :, None], sin[:, :, None])

    def theirs(x: Any) -> Any:
        both = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
        return apply_rotary_pos_emb(x, x, *both, unsqueeze_dim=2)[0]

    assert_alike(gradients(mine, x), gradients(theirs, x))
    back = layers._apply(layers._Rotate, mine(x), cos[:, :, None], -sin[:, :, None])
    torch.testing.assert_close(back, x)


@pytest.mark.parametrize("size", [8, 11])
def test_a_rotations_gradient_is_exact(size: int) -> None:
    """Size 11: what is beyond the angles stays as it is."""
    x = torch.randn(2, 3, 2, size, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(2, 3, 1, 4, dtype=torch.float64)
    turn = layers._Rotate.apply
    assert torch.autograd.gradcheck(lambda x: turn(x, angles.cos(), angles.sin()), (x,))
    assert torch.equal(turn(x, angles.cos(), angles.sin())[..., 8:], x[..., 8:])


def doubles(*shapes: tuple[int, ...]) -> list[Any]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("biased", [False, True])
def test_an_adapted_layers_gradients_are_exact(biased: bool) -> None:
    x, a, b = doubles((2, 3, 5), (2, 5), (4, 2))
    weight = torch.randn(4, 5, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64) if biased else None

    def mine(x: Any, a: Any, b: Any) -> Any:
        return layers._Adapted.apply(x, weight, bias, a, b, 0.7)

    wanted = functional.linear(x, weight, bias) + 0.7 * (x @ a.T) @ b.T
    torch.testing.assert_close(mine(x, a, b), wanted)
    assert torch.autograd.gradcheck(mine, (x, a, b))


@pytest.mark.parametrize("biased", [False, True])
def test_a_trained_layers_gradients_are_exact(biased: bool) -> None:
    x, weight, bias = doubles((2, 3, 5), (4, 5), (4,))
    given = (x, weight, bias if biased else None)
    torch.testing.assert_close(layers._Linear.apply(*given), functional.linear(*given))
    assert torch.autograd.gradcheck(layers._Linear.apply, given, atol=1e-5)


def test_a_trained_layers_weights_stay_float32_under_states_in_bfloat16() -> None:
    x, weight, bias = torch.randn(6, 5).bfloat16(), torch.randn(4, 5), torch.randn(4)
    mine = gradients(layers._Linear.apply, x, weight, bias)
    assert [part.dtype for part in mine] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert_alike(
        [p.float() for p in mine], gradients(functional.linear, x.float(), weight, bias), 0.03
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_computes_what_pefts_own_computes(rslora: bool, dtype: Any) -> None:
    spec = FinetuneSpec(data="-", rank=4, alpha=6.0, rslora=rslora)
    model = with_adapter(make("qwen2").to(dtype), spec)  # qwen2: biases
    adapted = next(p for p in model.modules() if layers._is_lora(p))
    assert adapted.base_layer.bias is not None
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    assert a.dtype == torch.float32
    b.data.normal_()
    found = []
    for forward in (layers._adapted, type(adapted).forward):
        x = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
        x.requires_grad_()
        value = forward(adapted, x)
        value.float().square().sum().backward()
        found.append([value.detach(), x.grad, a.grad, b.grad])
        a.grad = b.grad = None
    assert_alike(*found, 1e-5 if dtype == torch.float32 else 0.02)
    with model.disable_adapter():
        x = torch.randn(2, 7, 48).to(dtype)
        torch.testing.assert_close(layers._adapted(adapted, x), adapted.base_layer(x))


# ---- modules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", KNOWN)
def test_replaced_layers_say_the_same(family: str, method: str) -> None:
    """Called as anybody calls the model, without a packed view."""
    model = make(family)
    if method == "lora":
        model = with_adapter(model, FinetuneSpec(data="-", rank=2))
    causal = model.get_base_model() if method == "lora" else model
    own = causal(input_ids=IDS, use_cache=False).logits.detach()
    layers.replace(causal)
    replaced = [part for part in causal.modules() if "forward" in part.__dict__]
    assert replaced or method == "lora"
    now = causal(input_ids=IDS, use_cache=False).logits.detach()
    torch.testing.assert_close(now, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", KNOWN)
def test_only_a_decoder_whose_last_layer_is_ours_answers_at_the_picks_alone(family: str) -> None:
    """Phi-3 keeps query, key and value in one matrix: its layers stay transformers'."""
    assert layers.replace(make(family)) is (family != "phi3")


def test_a_model_of_float32_weights_needs_autocast_where_a_matrix_is_not_ours() -> None:
    assert [name for name in KNOWN if not layers.knows_all(make(name))] == [
        "mixtral", "qwen3-moe", "qwen2-moe",
    ]  # fmt: skip


class StrangeRMSNorm(nn.Module):
    """A norm with a bias: not the one that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.ones(4))
        self.eps = 1e-6


def lora(**how: Any) -> Any:
    config = peft.LoraConfig(r=2, target_modules=["layer"], **how)
    made = peft.inject_adapter_in_model(config, nn.ModuleDict({"layer": nn.Linear(4, 4)}))
    return made["layer"]


class Mlp(nn.Module):
    def __init__(self, act: Any) -> None:
        super().__init__()
        self.gate_proj = self.up_proj = self.down_proj = nn.Linear(4, 4)
        self.act_fn = act


def test_layers_that_are_not_known_are_left_alone() -> None:
    frozen = nn.Linear(4, 4).requires_grad_(False)
    two = lora()
    two.update_layer("other", 2, 2, config=peft.LoraConfig(r=2))
    strange = [
        nn.LayerNorm(4),
        StrangeRMSNorm(),
        frozen,
        lora(use_dora=True),
        lora(lora_dropout=0.1),
        lora(lora_bias=True),
        two,
        Mlp(nn.ReLU()),
    ]
    assert [layers._forward_of(part) for part in strange] == [None] * len(strange)
    assert layers._forward_of(nn.Linear(4, 4)) is layers._linear
    assert layers._forward_of(lora()) is layers._adapted
    assert layers._forward_of(Mlp(nn.SiLU())) is layers._gated
