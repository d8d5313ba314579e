"""What a training tells while it runs: progress, the curve, speed and its trackers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from families import make

from tokka.records import FinetuneSpec
from tokka.training.calibration import flops_per_token
from tokka.training.lessons import Lesson
from tokka.training.shape import shape_of

pytest.importorskip("transformers")
from tokka.training import watching
from tokka.training.watching import Watch, trackers

LESSONS = [Lesson(str(n), tuple(range(1, 11 + n)), ((5, 10 + n),)) for n in range(5)]
PLAN = [[0, 1], [2], [3], [4, 0], [1]]  # 21, 12, 13, 24 and 11 tokens
SPEC = FinetuneSpec(data="-", accumulate=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    make("llama").save_pretrained(str(folder))
    return folder


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watching, "time", made)
    monkeypatch.setattr(watching, "kept_machine", lambda dtype: None)
    return made


class Seen(list[tuple[int, str]]):
    def __call__(self, tokens: int, note: str) -> None:
        self.append((tokens, note))


def watch(base: Path, told: Any = None, keep: Any = lambda step: None, **how: Any) -> Watch:
    return Watch(LESSONS, PLAN, SPEC, base, "float32", told, keep, **how)


def run(watch: Watch, clock: Clock, steps: range, first: bool = True) -> None:
    """As `Trainer` calls it, a second a step."""
    control = SimpleNamespace(should_save=True)
    state = SimpleNamespace(
        global_step=steps.start, max_steps=steps.stop, is_world_process_zero=first
    )
    watch.on_train_begin(None, state, control)
    for step in steps:
        clock.now += 1.0
        state.global_step = step + 1
        watch.on_step_end(None, state, control)
        watch.on_log(None, state, control, logs={"loss": 4.0 - step})
        assert control.should_save is (step + 1 < steps.stop)
    watch.on_log(None, state, control, logs={"train_runtime": 3.0})  # the trainer's last words


def test_progress_is_told_the_tokens_of_each_step(base: Path, clock: Clock) -> None:
    told = Seen()
    run(watch(base, told), clock, range(3))
    assert [tokens for tokens, _ in told] == [33, 37, 11]
    assert [note for _, note in told] == [
        "loss 4.00 · 33 tokens/s",
        "loss 3.50 · 35 tokens/s",
        "loss 3.00 · 27 tokens/s",
    ]


def test_a_resumed_run_tells_what_was_done_before_and_times_only_itself(
    base: Path, clock: Clock
) -> None:
    told = Seen()
    resumed = watch(base, told)
    run(resumed, clock, range(2, 3))
    assert told == [(70, "resumed"), (11, "loss 2.00 · 11 tokens/s")]
    assert resumed.speed()["tokens_per_second"] == 11.0


def test_the_share_of_the_roofline_is_told_where_the_machine_was_measured(
    base: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = [LESSONS[i] for batch in PLAN for i in batch]
    tokens = sum(len(item.ids) for item in used)
    assert tokens == 81
    needed = flops_per_token(
        shape_of(base), SPEC, sum(item.supervised for item in used) / 81, 81 / len(used)
    )
    machine = SimpleNamespace(flops=4 * 27 * needed)
    monkeypatch.setattr(watching, "kept_machine", lambda dtype: machine)
    told = Seen()
    measured = watch(base, told)
    run(measured, clock, range(3))
    assert told[-1][1] == "loss 3.00 · 27 tokens/s · 25% of roofline"
    speed = measured.speed()
    assert (speed["seconds"], speed["roofline_share"]) == (3.0, 0.25)
    assert set(speed["energy"]) == {"joules", "counters", "reason"}


def test_shared_tokens_are_arithmetic_once_and_no_program_is_faster_than_the_machine(
    base: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(flops: float, read_tokens: int | None) -> float | None:
        monkeypatch.setattr(watching, "kept_machine", lambda _: SimpleNamespace(flops=flops))
        made = Watch(
            LESSONS, PLAN, SPEC, base, "float32", None, lambda _: None, read_tokens=read_tokens
        )
        run(made, clock, range(3))
        return made.roofline_share

    whole, half = share(1e9, None), share(1e9, 41)
    assert whole is not None and half is not None
    assert 0.4 * whole < half < whole
    assert share(0.9e9 * whole, None) is None  # it was measured while others kept it busy


@pytest.mark.parametrize(
    ("told", "worth", "measured"), [(True, 0, 1), (True, 1e30, 0), (False, 0, 0)]
)
def test_a_machine_is_measured_only_before_long_trainings_that_somebody_watches(
    base: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    told: bool,
    worth: float,
    measured: int,
) -> None:
    calls: list[str] = []

    def calibrate(dtype: str) -> Any:
        calls.append(dtype)
        return SimpleNamespace(flops=1e12)

    monkeypatch.setattr(watching, "calibrate", calibrate)
    monkeypatch.setattr(watching, "WORTH_CALIBRATING", worth)
    made = watch(base, Seen() if told else None)
    assert calls == ["float32"] * measured
    assert (made.speed()["roofline_share"] is None) is not bool(measured)


def test_the_note_is_a_mean_over_the_last_losses(base: Path, clock: Clock) -> None:
    told = Seen()
    many = Watch(LESSONS, PLAN * 10, SPEC, base, "float32", told, lambda step: None)
    run(many, clock, range(25))
    assert told[-1][1].startswith("loss -15.50 ")  # 4 − step, of steps 15 to 24


def test_only_the_first_of_several_processes_keeps_states(base: Path, clock: Clock) -> None:
    kept: list[int] = []
    run(watch(base, keep=kept.append), clock, range(3))
    assert kept == [1, 2, 3]
    run(watch(base, keep=kept.append), clock, range(3), first=False)
    assert kept == [1, 2, 3]


def test_a_step_of_two_processes_holds_the_batches_of_both(base: Path, clock: Clock) -> None:
    told = Seen()
    run(watch(base, told, processes=2), clock, range(2))
    assert [tokens for tokens, _ in told] == [21 + 12 + 13 + 24, 11]


def test_the_curve_holds_a_row_for_each_step(base: Path, clock: Clock) -> None:
    history = [
        {"step": 1, "loss": 4.5, "learning_rate": 0.1, "grad_norm": 2.0, "epoch": 0.3},
        {"step": 2, "loss": 4.0, "learning_rate": 0.2, "epoch": 0.6},
        {"step": 2, "train_runtime": 3.0},
    ]
    lines = watch(base).curve(history).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "tokens": 33, "loss": 4.5, "learning_rate": 0.1, "grad_norm": 2.0},
        {"step": 2, "tokens": 70, "loss": 4.0, "learning_rate": 0.2},
    ]


def test_nothing_is_tracked_where_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching.importlib.util, "find_spec", lambda name: None)
    assert trackers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("somewhere", ["", "sqlite:////elsewhere/mlflow.db"])
def test_mlflow_writes_beside_the_training_unless_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, somewhere: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", somewhere)
    places: list[str] = []
    fakes = {
        "mlflow": SimpleNamespace(set_tracking_uri=places.append),
        "transformers.integrations": SimpleNamespace(MLflowCallback=lambda: "told"),
    }
    monkeypatch.setattr(
        watching.importlib.util,
        "find_spec",
        lambda name: name if name in ("mlflow", "sqlalchemy") else None,
    )
    monkeypatch.setattr(watching.importlib, "import_module", fakes.__getitem__)
    assert trackers(tmp_path / "new") == ["told"]
    assert places == ([] if somewhere else [f"sqlite:///{tmp_path}/new/mlflow.db"])
