"""What it costs to go away from the beginning: distances and origins against the obvious way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families import VOCABULARY, make

from tokka.errors import UsageError
from tokka.records import FinetuneSpec, PullSpec
from tokka.training.lessons import Lesson
from tokka.training.start import Start

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs tokka[train]")
from tokka.models.torch_model import load_module  # noqa: E402
from tokka.training import step  # noqa: E402
from tokka.training.adapters import save_adapter, with_adapter  # noqa: E402
from tokka.training.pulling import Origin  # noqa: E402

NOWHERE = Start(Path("nowhere"), "digest")
ITEMS = [Lesson(str(n), tuple(range(5 + n, 35 + n)), ((20, 30),)) for n in range(3)]


def spec(**changes: Any) -> FinetuneSpec:
    return FinetuneSpec(data="-", rank=3, alpha=4.0, **changes)


def moved(model: Any) -> Any:
    """All that is trained, half-trained."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def gradients(model: Any, value: Any) -> dict[str, Any]:
    value.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen2-moe"])
def test_an_adapters_distance_is_the_squared_length_of_what_it_adds(
    family: str, rslora: bool
) -> None:
    """Half λ times it; stacked experts count one by one. PEFT itself says what is added."""
    asked = spec(pull=PullSpec(l2=0.3), rslora=rslora)
    model = moved(with_adapter(make(family), asked))
    distance = Origin(model, NOWHERE, asked, "float32").distance
    wanted = 0.0
    for part in model.modules():
        if hasattr(part, "lora_A") and len(part.lora_A):
            wanted = wanted + part.get_delta_weight("default").square().sum()
    wanted = 0.15 * wanted
    assert float(wanted) > 1e-3
    torch.testing.assert_close(distance(), wanted, rtol=1e-5, atol=1e-6)
    naive, mine = gradients(model, wanted), gradients(model, distance())
    assert set(mine) == set(naive) == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, value in naive.items():
        torch.testing.assert_close(mine[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_trainings_distance_is_that_of_all_weights(dtype: str) -> None:
    model = make("smollm2").to(getattr(torch, dtype)).float()
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    asked = spec(method="full", pull=PullSpec(l2=0.3))
    distance = Origin(model, NOWHERE, asked, dtype).distance
    assert float(distance()) == 0.0
    moved(model)
    wanted = 0.15 * sum((p - first[n]).square().sum() for n, p in model.named_parameters())
    torch.testing.assert_close(distance(), wanted, rtol=1e-5, atol=1e-6)
    naive, mine = gradients(model, wanted), gradients(model, 2.0 * distance())
    assert set(mine) == set(first)
    for name, value in naive.items():
        torch.testing.assert_close(mine[name], 2.0 * value, atol=1e-6, rtol=1e-5, msg=name)


def test_doras_lengths_have_no_distance() -> None:
    asked = spec(dora=True, pull=PullSpec(l2=0.1))
    with pytest.raises(UsageError, match="l2 doesn't know dora"):
        Origin(None, NOWHERE, asked, "float32")


# ---- what the beginning would have said ---------------------------------------------------------


def states(module: Any, items: list[Lesson]) -> Any:
    """Hidden states at the learnt tokens, one lesson at a time."""
    rows = []
    with torch.no_grad():
        for item in items:
            hidden = module.get_decoder()(input_ids=torch.tensor([item.ids])).last_hidden_state[0]
            rows += [hidden[start - 1 : stop - 1] for start, stop in item.learnt]
    return torch.cat(rows)


@pytest.mark.parametrize("family", ["gemma3", "phi3", "mixtral", "gpt2"])
def test_an_adapters_origin_is_the_model_without_it(family: str) -> None:
    asked = spec(pull=PullSpec(kl=0.1))
    untouched = make(family)
    model = moved(with_adapter(make(family), asked))
    origin = Origin(model, NOWHERE, asked, "float32")
    origin.reader = step.teach(model)
    batch = step.collator(step.packs(model))([list(enumerate(ITEMS))])
    found, head = origin.read(batch)
    torch.testing.assert_close(found, states(untouched, ITEMS), atol=1e-4, rtol=1e-4)
    assert torch.equal(head.weight, untouched.get_output_embeddings().weight)
    again = origin.reader(batch)
    assert (again - found).abs().max() > 1e-3  # the adapter is switched on again
    again.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_B" in n)


def test_a_full_trainings_origin_keeps_what_the_stage_began_with(tmp_path: Path) -> None:
    """Adapters of earlier stages are part of it."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    make("llama").save_pretrained(str(base))
    save_adapter(moved(with_adapter(load_module(base, "float32"), spec())), adapter)
    start = Start(base, "digest", (adapter,))
    model = load_module(base, "float32", (adapter,)).requires_grad_(True)
    wanted = states(model, ITEMS)
    origin = Origin(model, start, spec(method="full", pull=PullSpec(kl=0.1)), "float32")
    origin.reader = step.teach(model)
    moved(model)
    batch = step.collator(True)([list(enumerate(ITEMS))])
    found, head = origin.read(batch)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - states(load_module(base, "float32"), ITEMS)).abs().max() > 1e-3
    assert not found.requires_grad and not head.weight.requires_grad
    assert head.weight.shape == (VOCABULARY, 48)
