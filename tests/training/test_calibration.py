"""The arithmetic of a training, and what is kept of the machine that does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tokka.records import FinetuneSpec, PreferSpec, PretrainSpec
from tokka.training import calibration
from tokka.training.calibration import calibrate, flops_per_token, kept_machine, roofline_flops
from tokka.training.shape import Matrix, Shape

torch = pytest.importorskip("torch")

GEMMA_3_270M = Shape(
    layers=18,
    width=640,
    feedforward=2048,
    queries=1024,
    keys=256,
    vocabulary=262_144,
    matrices=(
        Matrix(1024, 640, 18),
        Matrix(256, 640, 36),
        Matrix(640, 1024, 18),
        Matrix(2048, 640, 36),
        Matrix(640, 2048, 18),
    ),
    embedding=262_144 * 640,
    head=0,
    other=55_936,
    windows=(512, 512, 512, 512, 512, 0) * 3,
)
LORA = FinetuneSpec(data="examples.jsonl")
FULL = PretrainSpec()


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TOKKA_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "PRODUCT", (8, 16, 16))
    monkeypatch.setattr(calibration, "COPY_BYTES", 1024)
    monkeypatch.setattr(calibration, "PRODUCT_SECONDS", 0.0)
    monkeypatch.setattr(calibration, "COPY_SECONDS", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_full_training_takes_6_n_operations_a_token() -> None:
    """Kaplan et al. 2020, N being all but the embedding; the tied head is multiplied too."""
    assert flops_per_token(GEMMA_3_270M, FULL, 1.0) == 6 * (100_270_080 + 262_144 * 640)


def test_an_adapter_takes_4_n_and_the_head_only_where_something_is_learnt() -> None:
    small = 6 * GEMMA_3_270M.adapter(LORA.rank)
    body, head = 4 * 100_270_080, 4 * 262_144 * 640
    assert flops_per_token(GEMMA_3_270M, LORA, 0.0) == body + small
    assert flops_per_token(GEMMA_3_270M, LORA, 0.25) == body + small + head / 4


def test_attention_counts_what_a_window_lets_through() -> None:
    """12 × layers × width × half the length (Kaplan et al. 2020, table 1, thrice 2 · n · d)."""
    without = flops_per_token(GEMMA_3_270M, LORA, 0.0)
    short = flops_per_token(GEMMA_3_270M, LORA, 0.0, mean_tokens=200) - without
    assert short == 12 * 1024 * 18 * 100
    long = flops_per_token(GEMMA_3_270M, LORA, 0.0, mean_tokens=4000) - without
    assert long == 12 * 1024 * (15 * 512 + 3 * 2000)


def test_what_is_computed_again_is_paid_for() -> None:
    again = LORA.model_copy(update={"recompute": True})
    more = flops_per_token(GEMMA_3_270M, again, 0.1) - flops_per_token(GEMMA_3_270M, LORA, 0.1)
    assert more == 2 * 100_270_080


def test_a_preference_is_also_read_by_what_it_is_compared_with() -> None:
    dpo, orpo = (PreferSpec(data="p", objective=o) for o in ("dpo", "orpo"))
    more = flops_per_token(GEMMA_3_270M, dpo, 0.1) - flops_per_token(GEMMA_3_270M, orpo, 0.1)
    assert more == 2 * (100_270_080 + 262_144 * 640)


def test_a_machine_is_measured_once_for_each_dtype_and_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kept_machine() is None
    first = calibrate()
    assert first.flops > 0 and first.copied_bytes > 0 and first.threads == 1
    monkeypatch.setattr(calibration, "_product_rate", lambda dtype: 12.5)
    assert calibrate() == first == kept_machine()
    assert roofline_flops() == first.flops
    assert calibrate("float32").flops == 12.5
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert calibrate().flops == 12.5
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert kept_machine() is None


def test_again_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = calibrate()
    monkeypatch.setattr(calibration, "_product_rate", lambda dtype: 12.5)
    assert calibrate(again=True).flops == 12.5 != first.flops
    assert kept_machine() == calibrate()


def test_the_bar_comes_to_its_end_whether_measured_or_kept() -> None:
    for again in (True, False):
        told: list[float] = []
        calibrate(again=again, tell=told.append)
        assert sum(told) == pytest.approx(1)


def test_a_rate_is_the_best_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's turn on the processor is no property of the machine."""
    now = [0.0]
    taken = iter([5.0, 0.5, 3.0])

    def work() -> None:
        now[0] += next(taken)

    monkeypatch.setattr(calibration.time, "perf_counter", lambda: now[0])
    assert calibration._quickest(work, 1.0) == 0.5
