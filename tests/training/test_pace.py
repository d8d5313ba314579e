"""The pace is that of a real training, on few layers of the same kind."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokka.records import FinetuneSpec, PretrainSpec, ScratchSpec, TrainingSpec
from tokka.training import pace as pace_module
from tokka.training.calibration import Machine, flops_per_token
from tokka.training.pace import (
    OPTIMISER_BYTES,
    PACE_STEPS,
    Amount,
    Pace,
    kept_pace,
    measure_pace,
    training_seconds,
)
from tokka.training.shape import Shape, scratch_shape, shape_of

torch = pytest.importorskip("torch")
pytest.importorskip("peft", reason="needs tokka[train]")

MACHINE = Machine(
    name="tests",
    device="cpu",
    dtype="bfloat16",
    torch=torch.__version__,
    threads=1,
    flops=1e9,
    flops_float32=1e9,
    copied_bytes=1e9,
)
LORA = FinetuneSpec(data="examples.jsonl", rank=4, batch_tokens=256)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TOKKA_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the training: every step of it takes two seconds. Lists what it was given."""
    calls: list[dict[str, Any]] = []
    now = [0.0]

    def train(folder: Path, start: Any, lessons: Any, spec: Any, **how: Any) -> None:
        calls.append({"shape": shape_of(start.base), "lessons": lessons, "spec": spec, **how})
        for step in range(PACE_STEPS):
            now[0] += 2.0 if step else 50.0  # the first one warms up
            how["progress"](sum(len(one.ids) for one in lessons) // PACE_STEPS, "loss 1.00")

    module = types.ModuleType("tokka.training.training")
    module.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(pace_module, "time", clock)
    return calls


def test_the_efficiency_is_arithmetic_over_time_without_the_first_step(
    tiny_folder: Path, trained: list[dict[str, Any]]
) -> None:
    found = measure_pace(tiny_folder, shape_of(tiny_folder), LORA, MACHINE)
    assert found is not None
    (call,) = trained
    tokens = sum(len(one.ids) for one in call["lessons"]) / PACE_STEPS
    assert found.tokens_per_second == pytest.approx(tokens / 2)
    share = call["lessons"][0].supervised / len(call["lessons"][0].ids)
    length = len(call["lessons"][0].ids)
    needed = tokens * flops_per_token(call["shape"], call["spec"], share, length)
    stepping = call["shape"].adapter(4) * OPTIMISER_BYTES / MACHINE.copied_bytes
    assert found.efficiency == pytest.approx(needed / 1e9 / (2 - stepping))


def test_what_is_tried_is_the_stages_own_method_on_few_layers_and_words(
    tiny_folder: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "CUT_LAYERS", 1)
    monkeypatch.setattr(pace_module, "CUT_VOCABULARY", 50)
    spec = LORA.model_copy(update={"dora": True, "rank": 2})
    whole = shape_of(tiny_folder)
    measure_pace(tiny_folder, whole, spec, MACHINE)
    (call,) = trained
    assert (call["shape"].layers, call["shape"].vocabulary) == (1, 50)
    assert (call["shape"].width, call["shape"].queries) == (whole.width, whole.queries)
    assert max(max(one.ids) for one in call["lessons"]) < 50
    tried: TrainingSpec = call["spec"]
    assert (tried.method, tried.rank, tried.dora) == ("lora", 2, True)
    assert sum(len(one.ids) for one in call["lessons"]) == PACE_STEPS * tried.batch_tokens


def test_a_pace_is_kept_by_what_decides_it(
    tiny_folder: Path, trained: list[dict[str, Any]]
) -> None:
    shape = shape_of(tiny_folder)
    assert kept_pace(shape, LORA) is None
    found = measure_pace(tiny_folder, shape, LORA, MACHINE)
    assert measure_pace(tiny_folder, shape, LORA, MACHINE) == found == kept_pace(shape, LORA)
    assert len(trained) == 1
    for other in (
        LORA.model_copy(update={"rank": 8}),
        LORA.model_copy(update={"method": "full"}),
        PretrainSpec(method="lora", rank=4, batch_tokens=256, window_tokens=64),
    ):
        assert kept_pace(shape, other) is None
    # Longer, other data, another seed: not slower.
    assert kept_pace(shape, LORA.model_copy(update={"epochs": 9.0, "seed": 3})) == found
    measure_pace(tiny_folder, shape, LORA, MACHINE, again=True)
    assert len(trained) == 2


def test_a_slow_machine_tries_fewer_tokens(
    tiny_folder: Path, trained: list[dict[str, Any]]
) -> None:
    slow = MACHINE.model_copy(update={"flops": 1e3})
    measure_pace(tiny_folder, shape_of(tiny_folder), LORA, slow)
    assert sum(len(one.ids) for one in trained[0]["lessons"]) == PACE_STEPS * 64


def test_a_layer_too_large_to_make_is_not_tried(
    tiny_folder: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "CUT_PARAMETERS", 100)
    assert measure_pace(tiny_folder, shape_of(tiny_folder), LORA, MACHINE) is None
    assert not trained


def test_a_model_from_scratch_needs_no_folder(trained: list[dict[str, Any]]) -> None:
    scratch = ScratchSpec(vocabulary=300, layers=3, width=64, heads=4)
    shape = scratch_shape(scratch)
    assert measure_pace(scratch, shape, PretrainSpec(scratch=scratch), MACHINE) is not None
    tried: Shape = trained[0]["shape"]
    assert (tried.width, tried.feedforward, tried.layers) == (64, shape.feedforward, 2)


def test_the_real_training_has_a_pace(tiny_folder: Path) -> None:
    told: list[float] = []
    found = measure_pace(tiny_folder, shape_of(tiny_folder), LORA, MACHINE, tell=told.append)
    assert found is not None
    assert found.tokens_per_second > 0 and found.efficiency > 0
    assert sum(told) == pytest.approx(1)


def test_twice_the_tokens_take_twice_as_long(tiny_folder: Path) -> None:
    shape = shape_of(tiny_folder)
    pace = Pace(efficiency=0.5, tokens_per_second=100.0)

    def seconds(tokens: int, steps: int, spec: TrainingSpec = LORA) -> float:
        amount = Amount(tokens, tokens // 10, steps, 100.0, 200)
        return training_seconds(shape, spec, amount, MACHINE, pace)

    assert seconds(20_000, 20) == pytest.approx(2 * seconds(10_000, 10))
    per_token = flops_per_token(shape, LORA, 0.1, 100.0)
    assert seconds(10_000, 0) == pytest.approx(10_000 * per_token / 0.5e9)
    full = LORA.model_copy(update={"method": "full"})
    assert seconds(0, 10, full) == pytest.approx(10 * shape.parameters * OPTIMISER_BYTES / 1e9)
