"""Every attention matrix, MLP and expert gets an adapter that learns; no router ever changes."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft", reason="needs tokka[train]")
import families  # noqa: E402

from tokka.errors import UsageError  # noqa: E402
from tokka.models.torch_model import load_module  # noqa: E402
from tokka.records import FinetuneSpec  # noqa: E402
from tokka.training.adapters import linear_targets, save_adapter, with_adapter  # noqa: E402

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
STACKS = ("experts.gate_up_proj", "experts.down_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# Family → the ends of the names of everything that learns, and of everything that chooses.
MIXTURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mixtral": ((*ATTENTION, *STACKS), ("mlp.gate.weight",)),
    "qwen3-moe": ((*ATTENTION, *STACKS), ("mlp.gate.weight",)),
    "qwen2-moe": (
        (*ATTENTION, *STACKS, *MLP),
        ("mlp.gate.weight", "mlp.shared_expert_gate.weight"),
    ),
    "jetmoe": (
        ("kv_proj", "input_linear.weight", "output_linear.weight"),
        ("mlp.router.layer.weight", "experts.router.layer.weight"),
    ),
}
DENSE = ("gemma3", "phi3", "gpt2")
WAYS: dict[str, dict[str, Any]] = {"plain": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
JETMOE = {"num_key_value_heads": 2, "kv_channels": 12, "num_local_experts": 4}
IDS = torch.randint(5, families.VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(name: str) -> Any:
    """A random float32 module of the family."""
    if name != "jetmoe":
        return families.make(name)
    import transformers

    shape = {k: v for k, v in families.SHAPE.items() if k != "num_attention_heads"}
    config = transformers.AutoConfig.for_model("jetmoe", **shape, **JETMOE)
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for label, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.add_(0.2 * noise)
            else:
                wide = weight.shape[-1] ** 0.5
                weight.copy_(0.3 * noise if "embed" in label else 1.5 * noise / wide)
    return module.eval()


def spec(**how: Any) -> FinetuneSpec:
    return FinetuneSpec(data="examples.jsonl", rank=3, **how)


def adapted(name: str, **how: Any) -> Any:
    torch.manual_seed(0)
    return with_adapter(make(name), spec(**how)).train()


def learn(model: Any, steps: int = 3) -> list[float]:
    """A few steps of AdamW on the same tokens; the gradients of the last one stay."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def logits(module: Any) -> Any:
    with torch.inference_mode():
        return module.eval()(input_ids=IDS).logits


def weights(model: Any) -> dict[str, Any]:
    """The model's own weights by their own names, whatever PEFT has wrapped them in."""
    return {
        name.removeprefix("base_model.model.").replace("base_layer.", ""): weight.detach().clone()
        for name, weight in model.named_parameters()
        if "lora_" not in name
    }


def pairs(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """(what is adapted, A, B)."""
    for name, part in model.named_modules():
        if len(getattr(part, "lora_A", ())):
            own = name.removeprefix("base_model.model.").replace(".base_layer", "")
            label = getattr(part, "parameter_name", "")
            yield (
                f"{own}.{label}" if label else own,
                part.lora_A["default"].weight,
                part.lora_B["default"].weight,
            )


@pytest.mark.parametrize("name", MIXTURES)
def test_every_expert_and_attention_matrix_learns(name: str) -> None:
    ends, _ = MIXTURES[name]
    model = adapted(name)
    wanted = {
        label.removesuffix(".weight")
        for label in weights(make(name))
        if label.removesuffix(".weight").endswith(tuple(e.removesuffix(".weight") for e in ends))
    }
    assert {label.removesuffix(".weight") for label, _, _ in pairs(model)} == wanted
    losses = learn(model)
    assert losses[-1] < losses[0]
    for label, a, b in pairs(model):
        experts = a.shape[0] // 3
        assert (experts == 4) == (label in linear_targets(make(name)).parameters), label
        for expert in range(experts):
            of_b = b.grad.reshape(b.shape[0], 3, experts)[:, :, expert]
            of_a = a.grad.reshape(experts, 3, -1)[expert]
            assert of_b.abs().max() > 0 and of_a.abs().max() > 0, f"{label}, expert {expert}"


@pytest.mark.parametrize("name", MIXTURES)
def test_routers_stay_as_they_are_bit_for_bit(name: str) -> None:
    _, routers = MIXTURES[name]
    before = weights(make(name))
    model = adapted(name)
    learn(model)
    during = weights(model)
    folded = weights(model.merge_and_unload(safe_merge=True))
    choosing = [label for label in before if label.endswith(routers)]
    assert len(choosing) == (4 if name == "jetmoe" else 2)
    assert all(torch.equal(before[label], during[label]) for label in before)
    assert all(torch.equal(before[label], folded[label]) for label in choosing)
    assert any(not torch.equal(before[label], folded[label]) for label in before)


@pytest.mark.parametrize("name", ["jetmoe", "qwen2-moe"])
def test_all_linear_of_peft_would_change_what_chooses_and_leave_experts_out(name: str) -> None:
    """Why the layers are named here at all. When this fails, PEFT has learnt it."""
    _, routers = MIXTURES[name]
    before = weights(make(name))
    torch.manual_seed(0)
    wrong = peft.get_peft_model(make(name), peft.LoraConfig(r=3, target_modules="all-linear"))
    learn(wrong.train())
    folded = weights(wrong.merge_and_unload())
    assert any(not torch.equal(before[k], folded[k]) for k in before if k.endswith(routers))
    stacks = linear_targets(make(name)).parameters
    assert stacks and all(torch.equal(before[k], folded[k]) for k in stacks)


@pytest.mark.parametrize("name", [name for name in families.ALL if name not in MIXTURES])
def test_in_a_dense_model_all_layers_but_the_head_are_adapted(name: str) -> None:
    module = families.reference(name)
    targets = linear_targets(module)
    kinds = {"Linear", "Conv1D"}
    every = {n for n, part in module.named_modules() if type(part).__name__ in kinds}
    assert every - set(targets.modules) == {"lm_head"}
    assert targets.parameters == targets.routers == ()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*MIXTURES, *DENSE])
def test_a_folded_and_a_reopened_adapter_compute_what_was_trained(
    name: str, way: str, tmp_path: Path
) -> None:
    if name in MIXTURES and way == "dora":
        with pytest.raises(UsageError, match=r"dora doesn't reach experts .*use rslora"):
            adapted(name, dora=True)
        return
    model = adapted(name, **WAYS[way])
    assert any("magnitude" in label for label, _ in model.named_parameters()) == (way == "dora")
    learn(model)
    trained = logits(model)
    assert (trained - logits(make(name))).abs().max() > 0.1
    make(name).save_pretrained(str(tmp_path / "base"))
    save_adapter(model, tmp_path / "adapter")
    reopened = load_module(tmp_path / "base", "float32", [tmp_path / "adapter"])
    torch.testing.assert_close(logits(reopened), trained, rtol=1e-4, atol=1e-4)
    folded = model.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(logits(folded), trained, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen2-moe", "llama"])
def test_an_adapter_is_float32_and_the_frozen_weights_stay_as_they_are(name: str) -> None:
    model = with_adapter(make(name).to(torch.bfloat16), spec())
    for label, weight in model.named_parameters():
        assert weight.requires_grad == ("lora_" in label), label
        assert weight.dtype == (torch.float32 if "lora_" in label else torch.bfloat16), label


def test_alpha_is_twice_the_rank_unless_it_is_given() -> None:
    def scaling(**how: Any) -> float:
        parts = with_adapter(make("llama"), spec(**how)).modules()
        return float(next(p.scaling["default"] for p in parts if hasattr(p, "lora_A")))

    assert scaling() == 2.0
    assert scaling(alpha=4.5) == 1.5
    assert scaling(rslora=True) == pytest.approx(6 / math.sqrt(3))


def test_a_saved_adapter_is_the_same_bytes_wherever_it_was_trained(tmp_path: Path) -> None:
    found = []
    for where in ("here", "there"):
        make("qwen2-moe").save_pretrained(str(tmp_path / where / "base"))
        module = load_module(tmp_path / where / "base", "float32")
        torch.manual_seed(0)
        model = with_adapter(module, spec())
        save_adapter(model, tmp_path / where / "adapter")
        found.append({p.name: p.read_bytes() for p in (tmp_path / where / "adapter").iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"adapter_model.safetensors", "adapter_config.json"}
    named = json.loads(found[0]["adapter_config.json"])["target_modules"]
    assert named == sorted([*ATTENTION, *MLP])  # sorted: a set's order is another in each process


def test_a_router_with_a_layer_named_like_others_stays_out() -> None:
    class SomeRouter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj = torch.nn.Linear(48, 4)

    module = make("llama")
    module.model.layers[1].mlp.chooser = SomeRouter()
    labels = {label for label, _, _ in pairs(with_adapter(module, spec()))}
    assert len(labels) == 14
    assert not any("chooser" in label for label in labels)


# ---- what can't be told apart -------------------------------------------------------------------


def a_mixture(router: str, experts: Any, counted: int | None = 4) -> Any:
    """One layer whose block holds `experts` and a linear layer named `router`, as wide as they are
    many."""

    class Model(torch.nn.Module):
        def get_output_embeddings(self) -> Any:
            return self.head

    text = SimpleNamespace(**({"num_experts": counted} if counted else {}))
    block = torch.nn.Module()
    block.add_module(router, torch.nn.Linear(8, 4))
    block.experts = experts
    layer = torch.nn.Module()
    layer.dense = torch.nn.Linear(8, 8)
    layer.block = block
    model = Model()
    model.layers = torch.nn.ModuleList([layer])
    model.head = torch.nn.Linear(8, 16)
    model.config = SimpleNamespace(model_type="novel", get_text_config=lambda: text)
    return model


def a_stack(*shape: int) -> Any:
    part = torch.nn.Module()
    part.w1 = torch.nn.Parameter(torch.zeros(*shape))
    return part


def test_experts_that_are_layers_of_their_own_are_found() -> None:
    experts = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
    targets = linear_targets(a_mixture("gate", experts))
    assert targets.modules == ("layers.0.dense", *(f"layers.0.block.experts.{n}" for n in range(4)))
    assert targets.routers == ("layers.0.block.gate",)


@pytest.mark.parametrize("experts", [a_stack(4, 8, 8), None])
def test_a_router_without_a_routers_name_is_refused(experts: Any) -> None:
    if experts is None:
        experts = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
    with pytest.raises(UsageError, match=r"novel a router can't be told.*layers\.0\.block"):
        linear_targets(a_mixture("choice", experts))


def test_a_layer_as_wide_as_the_router_beside_it_is_refused() -> None:
    model = a_mixture("router", a_stack(4, 8, 8))
    model.layers[0].block.second = torch.nn.Linear(8, 4)
    with pytest.raises(UsageError, match=r"can't be told.*layers\.0\.block\.second"):
        linear_targets(model)


def test_experts_in_an_unknown_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"keeps its 4 experts in a way .*leave them out"):
        linear_targets(a_mixture("router", a_stack(32, 8)))


def test_three_dimensions_alone_make_no_expert() -> None:
    targets = linear_targets(a_mixture("mixer", a_stack(2, 8, 8), counted=None))
    assert targets.parameters == ()
    assert targets.modules == ("layers.0.dense", "layers.0.block.mixer")


def test_a_model_without_linear_layers_is_refused() -> None:
    model = a_mixture("gate", a_stack(4, 8))
    model.config.get_text_config = lambda: SimpleNamespace()
    model.layers[0].block = torch.nn.Identity()
    model.layers[0].dense = torch.nn.Identity()
    with pytest.raises(UsageError, match="novel has no linear layer"):
        with_adapter(model, spec())
