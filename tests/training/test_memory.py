"""Bytes by parameter and by token, against worked examples; measured peaks are benchmarks/."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokka.records import FinetuneSpec, PreferSpec, PretrainSpec, PullSpec, TrainingSpec
from tokka.training import memory
from tokka.training.memory import (
    activation_bytes_per_token,
    batch_tokens,
    estimate,
    trained_parameters,
)
from tokka.training.shape import Matrix, Shape

LLAMA_7B = Shape(
    layers=32,
    width=4096,
    feedforward=11008,
    queries=4096,
    keys=4096,
    vocabulary=32000,
    matrices=(Matrix(4096, 4096, 128), Matrix(11008, 4096, 64), Matrix(4096, 11008, 32)),
    embedding=32000 * 4096,
    head=32000 * 4096,
    other=65 * 4096,
    windows=(0,) * 32,
)
LORA = FinetuneSpec(data="examples.jsonl")
FULL = FinetuneSpec(data="examples.jsonl", method="full")
QLORA = FinetuneSpec(data="examples.jsonl", method="qlora")


def test_llama_2_7b_has_its_published_size() -> None:
    assert LLAMA_7B.parameters == 6_738_415_616
    assert LLAMA_7B.adapter(8) == 19_988_480  # PEFT's trainable parameters for all linear layers


def test_full_adamw_takes_16_bytes_a_parameter() -> None:
    """Rajbhandari et al. 2020: 16 bytes a parameter in mixed precision, of which 12 are float32."""
    found = estimate(LLAMA_7B, FULL)
    held = found.weights + found.optimiser + found.gradients
    assert held == 16 * LLAMA_7B.parameters


def test_lora_takes_2_bytes_a_frozen_and_16_a_trained_parameter() -> None:
    found = estimate(LLAMA_7B, LORA)
    trained = trained_parameters(LLAMA_7B, LORA)
    held = found.weights + found.optimiser + found.gradients
    assert held == 2 * LLAMA_7B.parameters + 16 * trained


def test_qlora_takes_about_half_a_byte_a_rounded_parameter() -> None:
    """Dettmers et al. 2023, section 3: 4.127 bits with double quantisation."""
    found = estimate(LLAMA_7B, QLORA)
    rounded = found.weights - 4 * trained_parameters(LLAMA_7B, QLORA)
    rounded -= 2 * (LLAMA_7B.parameters - LLAMA_7B.linear)
    assert 8 * rounded / LLAMA_7B.linear == pytest.approx(4.127, abs=0.001)


def test_all_parts_make_the_total() -> None:
    found = estimate(LLAMA_7B, LORA).as_json()
    total = found.pop("total")
    assert total == sum(found.values()) and all(size > 0 for size in found.values())


def test_the_longest_lesson_is_a_batch_by_itself() -> None:
    assert batch_tokens(LORA, longest=300) == LORA.batch_tokens
    assert batch_tokens(LORA, longest=3000) == 3000
    assert batch_tokens(PretrainSpec(window_tokens=4096), longest=10) == 4096
    preferred = PreferSpec(data="pairs.jsonl")
    assert batch_tokens(preferred, longest=3000) == 6000  # chosen and rejected


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        (LORA, LORA.model_copy(update={"batch_tokens": 2048})),
        (LORA, LORA.model_copy(update={"rank": 64})),
        (LORA, LORA.model_copy(update={"dora": True})),
        (QLORA, LORA),
        (LORA, FULL),
        (FULL, FULL.model_copy(update={"pull": PullSpec(l2=0.1)})),
        (PretrainSpec(), PretrainSpec(window_tokens=4096)),
        (
            PreferSpec(data="p", method="full", objective="orpo"),
            PreferSpec(data="p", method="full"),
        ),
    ],
)
def test_more_of_anything_never_takes_less(smaller: TrainingSpec, larger: TrainingSpec) -> None:
    assert estimate(LLAMA_7B, smaller).total < estimate(LLAMA_7B, larger).total


def test_accumulated_batches_take_no_more() -> None:
    many = LORA.model_copy(update={"accumulate": 8})
    assert estimate(LLAMA_7B, LORA) == estimate(LLAMA_7B, many)


def test_activations_grow_with_the_layers_and_the_loss_does_not() -> None:
    deeper = replace(LLAMA_7B, layers=64)
    once, twice = (activation_bytes_per_token(one, LORA) for one in (LLAMA_7B, deeper))
    assert 1.9 < twice / once < 2
    assert estimate(LLAMA_7B, LORA).loss == estimate(deeper, LORA).loss


def test_logits_of_all_positions_are_never_held() -> None:
    for spec in (LORA, FULL):
        long = spec.model_copy(update={"batch_tokens": 16_384})
        longer = spec.model_copy(update={"batch_tokens": 32_768})
        assert estimate(LLAMA_7B, long).loss == estimate(LLAMA_7B, longer).loss
        assert estimate(LLAMA_7B, longer).loss < 32_768 * LLAMA_7B.vocabulary * 4 / 5


def test_a_tied_head_waits_for_the_embeddings_gradient() -> None:
    many = replace(LLAMA_7B, vocabulary=256_000, embedding=256_000 * 4096, head=256_000 * 4096)
    tied = replace(many, head=0)
    assert estimate(tied, FULL).loss > estimate(many, FULL).loss


def test_what_is_computed_again_is_not_held() -> None:
    again = LORA.model_copy(update={"recompute": True})
    held, not_held = (activation_bytes_per_token(LLAMA_7B, one) for one in (LORA, again))
    assert not_held < held / 5


def test_the_loss_holds_as_many_cells_as_its_estimate_says() -> None:
    loss = pytest.importorskip("tokka.training.loss", exc_type=ImportError)
    own = (loss.BLOCK_CELLS, loss.CHUNK_CELLS, loss.CHUNK_POSITIONS)
    assert own == (memory.BLOCK_CELLS, memory.CHUNK_CELLS, memory.CHUNK_POSITIONS)
