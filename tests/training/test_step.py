"""A packed batch teaches what its lessons teach one by one: loss and gradients of each family."""

from __future__ import annotations

import random
from typing import Any

import pytest
from families import ALL, CONTEXT, FAMILIES, VOCABULARY, make

from tokka.records import FinetuneSpec
from tokka.training.lessons import Lesson

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs tokka[train]")
from tokka.training import packing, step  # noqa: E402
from tokka.training.adapters import with_adapter  # noqa: E402

SPEC = FinetuneSpec(data="-", rank=4, alpha=16)


def lessons(count: int = 5, prefix: int = 0) -> list[Lesson]:
    """Prompts of 5 to 60 tokens, answers of 1 to 6; all begin with the same `prefix` tokens."""
    draw = random.Random(count + prefix)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, VOCABULARY) for _ in range(n))

    shared = ids(prefix)
    made = []
    for number in range(count):
        prompt, answer = shared + ids(draw.randint(5, 60)), ids(draw.randint(1, 6))
        end = len(prompt + answer)  # a word of the prompt is learnt too
        made.append(Lesson(str(number), prompt + answer, ((2, 3), (len(prompt), end))))
    return made


def naive(model: Any, items: list[Lesson]) -> Any:
    """The mean over all learnt tokens, one lesson at a time, with all logits."""
    total, count = 0.0, 0
    for item in items:
        logits = model(input_ids=torch.tensor([item.ids])).logits[0].float()
        for start, stop in item.learnt:
            goal = torch.tensor(item.ids[start:stop])
            total = total + torch.nn.functional.cross_entropy(
                logits[start - 1 : stop - 1], goal, reduction="sum"
            )
            count += stop - start
    return total / count


def gradients(model: Any) -> dict[str, Any]:
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def batch_of(model: Any, items: list[Lesson]) -> dict[str, Any]:
    return step.collator(step.packs(model))([list(enumerate(items))])


def randomised(model: Any) -> Any:
    """B begins as zero, and with it A's gradient: a half-trained adapter shows all."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return model


@pytest.mark.parametrize("prefix", [0, 24])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", ALL)
def test_a_packed_batch_teaches_what_its_lessons_teach_one_by_one(
    family: str, method: str, prefix: int
) -> None:
    """Pitfall 8: neighbours in a packed row see each other. Gradients of every weight, float32."""
    model = make(family)
    items = lessons(prefix=prefix)
    assert max(len(item.ids) for item in items) < CONTEXT
    if method == "lora":
        model = randomised(with_adapter(model, SPEC))
    model.eval()  # GPT-2 drops out while it trains
    theirs = naive(model, items)
    theirs.backward()
    wanted = gradients(model)
    step.teach(model)
    assert step.packs(model) is FAMILIES[family].known
    mine = model(**batch_of(model, items))["loss"]
    mine.backward()
    found = gradients(model)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert set(found) >= {name for name, value in wanted.items() if value.abs().max() > 0}
    for name, value in wanted.items():
        if name in found:
            most = max(1.0, float(value.abs().max()))
            assert float((found[name] - value).abs().max()) <= 1e-5 * most, name


@pytest.mark.parametrize("family", ["gemma3", "llama", "qwen3"])
def test_what_lessons_share_is_read_once(family: str) -> None:
    model = make(family)
    items = lessons(prefix=30)
    batch = batch_of(model, items)
    assert len(batch["input_ids"]) == sum(len(item.ids) for item in items) - 4 * 30
    assert len(packing.pack(items, share=False).ids) == sum(len(item.ids) for item in items)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_as_many_learnt_tokens_as_tokens_are_not_taken_for_all_of_them(family: str) -> None:
    """A lesson that comes twice, half of it learnt: the picks are as many as the columns."""
    model = make(family)
    (item,) = lessons(1, prefix=30)
    ids = item.ids[:40]
    twice = [Lesson(name, ids, ((20, 40),)) for name in "ab"]
    theirs = naive(model, twice)
    step.teach(model)
    batch = batch_of(model, twice)
    assert len(batch["input_ids"]) == len(batch["picks"]) == 40
    torch.testing.assert_close(model(**batch)["loss"], theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gemma3", "phi3", "qwen3-moe", "gpt2"])
def test_layers_are_computed_again_on_the_way_back_to_the_same_gradients(family: str) -> None:
    found = []
    for again in (False, True):
        torch.manual_seed(0)  # A's first values
        model = randomised(with_adapter(make(family), SPEC))
        calls: list[int] = []
        causal = model.get_base_model()
        layer = causal.transformer.h[0] if family == "gpt2" else causal.model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        step.teach(model)
        model.train()
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        if again:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**batch_of(model, lessons(prefix=24)))["loss"].backward()
        assert len(calls) == 1 + again
        found.append(gradients(model))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_the_divisor_is_the_whole_steps_where_it_is_known() -> None:
    model = make("llama")
    step.teach(model)
    batch = batch_of(model, lessons())
    count = len(batch["labels"])
    alone, of_a_step = model(**batch)["loss"], model(**batch, num_items_in_batch=4 * count)["loss"]
    torch.testing.assert_close(4 * of_a_step, alone)
