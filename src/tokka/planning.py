"""What each training will take, before it starts: memory, time, energy, money.

    plan = plan_training(project, observer)             # tokka plan train
    plan.stages[0].fit.memory.total, plan.stages[0].seconds
    refuse_unfit(plan.stages)                           # UsageError with what would fit

Memory is counted from the model's shape and the stage's settings. Time is the arithmetic of the
tokens that are learnt, at the pace of a short training on this machine; only `tokka plan train`
measures that pace, all others use what it kept. Nothing is trained and no model is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokka.errors import UsageError
from tokka.project import Project
from tokka.records import Arm, ScratchSpec, Stage, TrainingSpec
from tokka.training.energy import JOULES_PER_KWH
from tokka.training.fitting import Fit, fitting, gigabytes, refuse, room_given
from tokka.training.pace import Amount, Pace, kept_pace, measure_pace, training_seconds
from tokka.training.shape import Shape, scratch_shape, shape_of

if TYPE_CHECKING:
    from tokka.pipeline import Build, Observer
    from tokka.training.calibration import Machine

UNMEASURED = "run tokka plan train for times"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage that trains. `number` is its place in the arm, from 1. `seconds` is None where the
    pace isn't known, and `note` says why; `watts` where the platform counts energy."""

    arm: str
    number: int
    kind: str
    method: str
    fit: Fit
    amount: Amount | None
    seconds: float | None = None
    watts: float | None = None
    cost_usd: float | None = None
    note: str = ""

    @property
    def place(self) -> str:
        return f"arm {self.arm}, stage {self.number} ({self.kind}, {self.method})"

    @property
    def joules(self) -> float | None:
        known = self.seconds is not None and self.watts is not None
        return self.seconds * self.watts if known else None  # type: ignore[operator]

    def as_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "stage": self.number,
            "kind": self.kind,
            "method": self.method,
            "memory_bytes": self.fit.memory.as_json(),
            "free_bytes": self.fit.room,
            "fits": self.fit.fits,
            "alternatives": [
                {**alternative.changes, "memory_bytes": alternative.memory.total}
                for alternative in self.fit.alternatives
            ],
            "tokens": self.amount.tokens if self.amount else None,
            "supervised_tokens": self.amount.supervised if self.amount else None,
            "steps": self.amount.steps if self.amount else None,
            "seconds": self.seconds,
            "joules": self.joules,
            "cost_usd": self.cost_usd,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    project: str
    stages: tuple[StagePlan, ...]
    machine: Machine | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "machine": self.machine.model_dump(mode="json") if self.machine else None,
            "stages": [stage.as_json() for stage in self.stages],
        }


def plan_training(
    project: Project,
    observer: Observer,
    arm: str | None = None,
    *,
    memory_gb: float | None = None,
    again: bool = False,
) -> TrainingPlan:
    """Plan every stage that trains, of all arms or of one, and measure the pace of this machine
    where that isn't kept; `again` measures anew. Raises Mistakes for mistakes in the files."""
    from tokka.extras import require
    from tokka.pipeline import DTYPE, prepare
    from tokka.training.calibration import calibrate

    if arm is not None and arm not in project.arms:
        raise UsageError(f"no arm {arm!r}; the project has: {', '.join(project.arms)}")
    torch = require("torch", extra="train")
    if project.threads:
        torch.set_num_threads(project.threads)
    build = prepare(project, observer)
    arms = [project.arms[arm]] if arm is not None else list(project.arms.values())
    if not any(_trains(stage) for one in arms for stage in one.weights):
        return TrainingPlan(project.name, ())
    with observer.task("measure this machine", 1) as task:
        machine = calibrate(DTYPE, again=again, tell=task.advance)

    def pace_of(base: Path | ScratchSpec, shape: Shape, spec: TrainingSpec) -> Pace | None:
        with observer.task(f"try {spec.method}", 1) as task:
            return measure_pace(base, shape, spec, machine, again=again, tell=task.advance)

    stages = _plans(build, arms, room_given(memory_gb), machine, pace_of)
    return TrainingPlan(project.name, stages, machine)


def plan_from_kept(build: Build) -> tuple[StagePlan, ...]:
    """Plan every stage that trains with what earlier measurements left, as `tokka check` does."""
    from tokka.pipeline import DTYPE
    from tokka.training.calibration import kept_machine

    arms = list(build.project.arms.values())
    if not any(_trains(stage) for arm in arms for stage in arm.weights):
        return ()
    machine = kept_machine(DTYPE) if find_spec("torch") is not None else None

    def pace_of(base: Path | ScratchSpec, shape: Shape, spec: TrainingSpec) -> Pace | None:
        return kept_pace(shape, spec, DTYPE)

    return _plans(build, arms, room_given(), machine, pace_of)


def refuse_unfit(plans: Sequence[StagePlan]) -> None:
    """Raise UsageError for the first stage that doesn't fit, with the nearest settings that do."""
    for plan in plans:
        refuse(plan.place, plan.fit)


def refuse_unfit_arms(build: Build) -> None:
    """Before `tokka run` builds anything: a plan by settings alone, without reading the examples,
    of every arm that isn't built yet. Right before each training its own lessons are looked at
    (`training.fitting.refuse_unfit`)."""
    from tokka.pipeline import candidate_folder, is_current
    from tokka.records import Candidate
    from tokka.store import read_record

    room = room_given()
    for arm in build.project.arms.values():
        built = candidate_folder(build) / f"{arm.name}.json"
        if built.exists() and is_current(build, read_record(built, Candidate)):
            continue
        for number, stage, shape, _ in _training_stages(build, arm):
            spec = _spec(stage)
            place = f"arm {arm.name}, stage {number} ({stage.kind}, {spec.method})"
            refuse(place, fitting(shape, spec, room))


def _plans(
    build: Build,
    arms: Sequence[Arm],
    room: int | None,
    machine: Machine | None,
    pace_of: Callable[[Path | ScratchSpec, Shape, TrainingSpec], Pace | None],
) -> tuple[StagePlan, ...]:
    from tokka.amounts import amount_of

    price = build.project.hourly_usd
    plans = []
    for arm in arms:
        for number, stage, shape, base in _training_stages(build, arm):
            spec = _spec(stage)
            amount = amount_of(build, arm, stage)
            fit = fitting(shape, spec, room, amount.longest)
            pace = pace_of(base, shape, spec) if machine is not None else None
            seconds, note = None, UNMEASURED
            if machine is not None and pace is not None:
                seconds = training_seconds(shape, spec, amount, machine, pace)
                note = ""
            plans.append(
                StagePlan(
                    arm=arm.name,
                    number=number,
                    kind=stage.kind,
                    method=spec.method,
                    fit=fit,
                    amount=amount,
                    seconds=seconds,
                    watts=pace.watts if pace is not None else None,
                    cost_usd=price * seconds / 3600 if price and seconds is not None else None,
                    note=note,
                )
            )
    return tuple(plans)


def _training_stages(build: Build, arm: Arm) -> list[tuple[int, Stage, Shape, Path | ScratchSpec]]:
    """(place from 1, stage, the model that it trains, where that model's kind is described)."""
    if build.base is None or not build.base.is_dir():
        return []
    base: Path | ScratchSpec = build.base
    found = []
    for number, stage in enumerate(arm.weights, 1):
        if stage.pretrain is not None and stage.pretrain.scratch is not None:
            base = stage.pretrain.scratch
        if _trains(stage):
            shape = scratch_shape(base) if isinstance(base, ScratchSpec) else shape_of(base)
            found.append((number, stage, shape, base))
    return found


def _trains(stage: Stage) -> bool:
    return isinstance(stage.spec, TrainingSpec)


def _spec(stage: Stage) -> TrainingSpec:
    assert isinstance(stage.spec, TrainingSpec)
    return stage.spec


# ---- in words ---------------------------------------------------------------------------------


def line_of(plan: StagePlan) -> str:
    """One line: what it takes, whether it fits."""
    memory = gigabytes(plan.fit.memory.total)
    if plan.fit.room is not None:
        memory += f" of {gigabytes(plan.fit.room)} free"
    if not plan.fit.fits:
        memory += ": doesn't fit"
    parts = [f"{plan.place}: {memory}", duration(plan.seconds) or plan.note]
    if plan.cost_usd is not None:
        parts.append(f"{plan.cost_usd:.2f} USD")
    return ", ".join(part for part in parts if part)


def duration(seconds: float | None) -> str:
    """Two figures are all that an estimate bears."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(1, math.ceil(seconds))} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"about {minutes:.0f} min"
    hours = minutes / 60
    return f"about {hours:.1f} h" if hours < 48 else f"about {hours / 24:.1f} days"


def energy(joules: float | None) -> str:
    if joules is None:
        return ""
    return f"{joules / JOULES_PER_KWH:.2f} kWh" if joules > 36_000 else f"{joules:.0f} J"
