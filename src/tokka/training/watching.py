"""What is seen of a training while it runs: progress, the curve, speed, trackers.

watch = Watch(lessons, plan, spec, base, progress, keep)
Trainer(callbacks=[watch, *trackers(folder)])
watch.curve(trainer.state.log_history)     # JSON lines: step, tokens, loss, learning rate
watch.speed()                              # tokens a second, share of the roofline, joules
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tokka.records import TrainingSpec
from tokka.training.calibration import calibrate, flops_per_token, kept_machine
from tokka.training.energy import Meter
from tokka.training.lessons import Lesson
from tokka.training.shape import shape_of

WORTH_CALIBRATING = 2e13  # operations: about a minute on two cores
AVERAGED_STEPS = 10  # a bar that jumps can't be read
METERED_SECONDS = 30.0


class Watch(TrainerCallback):
    """Tells `progress` (tokens just trained on, note) at each step and `keep` its number."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        plan: Sequence[Sequence[int]],
        spec: TrainingSpec,
        base: Path,
        dtype: str,
        progress: Callable[[int, str], None] | None,
        keep: Callable[[int], None],
        processes: int = 1,
        read_tokens: int | None = None,
    ) -> None:
        """`read_tokens`: how many tokens are computed, where lessons share some."""
        each = [sum(len(lessons[i].ids) for i in batch) for batch in plan]
        size = spec.accumulate * processes
        self._tokens = [sum(each[i : i + size]) for i in range(0, len(each), size)]
        self._progress, self._keep = progress, keep
        self._needed = _operations(base, spec, lessons, plan, read_tokens)
        self._flops = self._roofline(dtype)
        self._losses: list[float] = []
        self._done = self._first = 0
        self._seconds = 0.0
        self._meter = Meter()

    def _roofline(self, dtype: str) -> float | None:
        """Measured where it is kept, or where the training is worth three seconds."""
        machine = kept_machine(dtype)
        worth = self._needed * sum(self._tokens) > WORTH_CALIBRATING
        if machine is None and self._progress is not None and worth:
            machine = calibrate(dtype)
        return machine.flops if machine is not None else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first = self._done = state.global_step  # more than 0 where a run is resumed
        self._started = self._metered = time.perf_counter()
        if self._progress is not None and self._first:
            self._progress(sum(self._tokens[: self._first]), "resumed")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._keep(state.global_step)
        if state.global_step >= state.max_steps:
            control.should_save = False  # what stays is written next
        now = time.perf_counter()
        self._seconds = now - self._started
        if now - self._metered > METERED_SECONDS:
            self._meter.sample()
            self._metered = now

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self._losses = [*self._losses, float(logs["loss"])][-AVERAGED_STEPS:]
        fresh = sum(self._tokens[self._done : state.global_step])
        self._done = state.global_step
        if self._progress is not None:
            self._progress(fresh, self._note())

    def _note(self) -> str:
        note = f"loss {sum(self._losses) / len(self._losses):.2f}"
        pace = self.tokens_per_second
        if pace:
            note += f" · {pace:,.0f} tokens/s"
            share = self.roofline_share
            if share is not None:
                note += f" · {share:.0%} of roofline"
        return note

    @property
    def tokens_per_second(self) -> float:
        fresh = sum(self._tokens[self._first : self._done])
        return fresh / self._seconds if self._seconds else 0.0

    @property
    def roofline_share(self) -> float | None:
        """None where the machine's rate isn't known, or was taken while others kept it busy: no
        program is faster than the machine."""
        if not self._flops:
            return None
        share = self.tokens_per_second * self._needed / self._flops
        return share if share <= 1 else None

    def speed(self) -> dict[str, Any]:
        """What a rerun may not repeat. `seconds` since the last start, `roofline_share` of the
        machine's rate of matrix products (None where that was not measured)."""
        share = self.roofline_share
        return {
            "seconds": round(self._seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "roofline_share": None if share is None else round(share, 4),
            "energy": self._meter.reading().as_json(),
        }

    def curve(self, history: Sequence[dict[str, Any]]) -> str:
        rows = []
        for row in history:
            if "loss" in row:
                told = {"step": row["step"], "tokens": sum(self._tokens[: row["step"]])}
                told |= {k: row[k] for k in ("loss", "learning_rate", "grad_norm") if k in row}
                rows.append(json.dumps(told) + "\n")
        return "".join(rows)


def _operations(
    base: Path,
    spec: TrainingSpec,
    lessons: Sequence[Lesson],
    plan: Sequence[Sequence[int]],
    read_tokens: int | None,
) -> float:
    """Floating-point operations that a token of this training needs; shared ones need them once."""
    used = [lessons[i] for batch in plan for i in batch]
    tokens = sum(len(item.ids) for item in used)
    read = read_tokens or tokens
    supervised = sum(item.supervised for item in used)
    each = flops_per_token(shape_of(base), spec, supervised / read, tokens / len(used))
    return each * read / tokens


def trackers(folder: Path) -> list[Any]:
    """TensorBoard (events in `folder`/tensorboard) and MLflow where they are installed. MLflow
    writes where MLFLOW_TRACKING_URI says, else to `folder`/mlflow.db, for which it needs
    SQLAlchemy. Neither is sent what is learnt."""
    found: list[Any] = []
    integrations: Any = importlib.import_module("transformers.integrations")
    if importlib.util.find_spec("tensorboard") is not None:
        from torch.utils.tensorboard import SummaryWriter

        events: Any = SummaryWriter(str(folder / "tensorboard"))
        found.append(integrations.TensorBoardCallback(events))
    somewhere = os.environ.get("MLFLOW_TRACKING_URI")
    installed = importlib.util.find_spec("mlflow") is not None
    if installed and (somewhere or importlib.util.find_spec("sqlalchemy") is not None):
        mlflow: Any = importlib.import_module("mlflow")
        if not somewhere:  # a folder of files is refused by MLflow 3 on
            folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        found.append(integrations.MLflowCallback())
    return found
