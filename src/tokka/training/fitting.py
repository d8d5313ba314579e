"""Does a training fit the memory, and if not, which settings near it do?

    fit = fitting(shape, spec, room, longest=412)
    fit.fits, fit.alternatives          # False, (Alternative(changes={"batch_tokens": 512, …}), …)
    refuse_unfit("arm tuned, stage 1 (finetune)", start.base, spec, lessons)     # UsageError

What gives way, in this order of closeness: tokens of a batch (with more batches a step, so the step
stays what it was), time (`recompute`), the length of a window, the rank, the method from full to
lora to qlora. Every alternative is itself estimated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.records import PreferSpec, PretrainSpec, TrainingSpec
from tokka.training.lessons import Lesson
from tokka.training.memory import CUDA_RUNTIME_BYTES, RUNTIME_BYTES, Memory, estimate
from tokka.training.room import has_gpu, room_bytes
from tokka.training.shape import Shape, scratch_shape, shape_of

GB = 1e9
ALTERNATIVES = 3
LEAST_BATCH, LEAST_WINDOW, LEAST_RANK = 128, 64, 4
METHODS = ("full", "lora", "qlora")
# How far a change is from what was asked: a smaller batch changes speed alone, a method much.
COST = {"batch": 1.0, "recompute": 1.2, "window": 1.5, "rank": 2.0, "method": 6.0}


@dataclass(frozen=True, slots=True)
class Alternative:
    """Settings in place of the spec's, and what they take."""

    changes: dict[str, Any]
    memory: Memory

    def __str__(self) -> str:
        said = ", ".join(f"{key}: {_yaml(value)}" for key, value in self.changes.items())
        return f"{said} ({gigabytes(self.memory.total)})"


@dataclass(frozen=True, slots=True)
class Fit:
    """`room`: bytes that may be taken, None where the platform doesn't say; then all fits."""

    memory: Memory
    room: int | None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def fits(self) -> bool:
        return self.room is None or self.memory.total <= self.room


def fitting(shape: Shape, spec: TrainingSpec, room: int | None, longest: int = 0) -> Fit:
    """An estimate, and the nearest settings that fit where it doesn't."""
    memory = estimate(shape, spec, longest, runtime=runtime_bytes())
    if room is None or memory.total <= room:
        return Fit(memory, room)
    return Fit(memory, room, nearest(shape, spec, room, longest))


def nearest(shape: Shape, spec: TrainingSpec, room: int, longest: int) -> tuple[Alternative, ...]:
    """Up to three settings that fit, the closest first. Of two that fit, one that only gives up
    more is no alternative, unless there is nothing else."""
    found = []
    for steps, changed in _neighbours(spec):
        memory = estimate(shape, changed, _longest(spec, changed, longest), runtime=runtime_bytes())
        if memory.total <= room:
            cost = sum(COST[name] * number for name, number in steps.items())
            found.append((cost, steps, changed, memory))
    found.sort(key=lambda one: (one[0], -one[3].total))
    least = [one for one in found if not any(_only_less(one[1], other[1]) for other in found)]
    rest = [one for one in found if one not in least]
    chosen = sorted([*least, *rest][:ALTERNATIVES], key=lambda one: one[0])
    return tuple(Alternative(_changes(spec, one[2]), one[3]) for one in chosen)


def runtime_bytes() -> int:
    return CUDA_RUNTIME_BYTES if has_gpu() else RUNTIME_BYTES


def room_given(memory_gb: float | None = None) -> int | None:
    """What `--memory-gb` says, else what there is."""
    return round(memory_gb * GB) if memory_gb is not None else room_bytes()


def refuse_unfit(
    place: str,
    base: Path,
    spec: TrainingSpec,
    lessons: Sequence[Lesson] = (),
    room: int | None = None,
) -> None:
    """Right before a training: raise UsageError with what fits, unless the training does.

    A `base` whose size can't be read (no safetensors) is let through: loading it will say why.
    """
    scratch = spec.scratch if isinstance(spec, PretrainSpec) else None
    if scratch is None and not list(base.glob("*.safetensors")):
        return
    shape = scratch_shape(scratch) if scratch else shape_of(base)
    longest = max((len(lesson.ids) for lesson in lessons), default=0)
    refuse(place, fitting(shape, spec, room if room is not None else room_bytes(), longest))


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def gigabytes(size: int) -> str:
    return f"{size / GB:.2f} GB" if size < 10 * GB else f"{size / GB:.1f} GB"


def refuse(place: str, fit: Fit) -> None:
    """Raise UsageError where it doesn't fit."""
    if fit.fits or fit.room is None:
        return
    needs = f"{place}: needs {gigabytes(fit.memory.total)}, but {gigabytes(fit.room)} are free"
    if not fit.alternatives:
        raise UsageError(
            f"{needs}, and no smaller batch, rank or method fits; take a smaller base_model or "
            "more memory"
        )
    options = "\n".join(f"  - {alternative}" for alternative in fit.alternatives)
    raise UsageError(f"{needs}; these settings fit:\n{options}")


def _neighbours(spec: TrainingSpec) -> Iterator[tuple[dict[str, int], TrainingSpec]]:
    """Every way to give up something, as numbers of steps."""
    methods = METHODS[METHODS.index(spec.method) :]
    if isinstance(spec, PretrainSpec) and spec.scratch is not None:
        methods = ("full",)  # there is nothing to adapt
    batches, windows, ranks = _batches(spec), _windows(spec), _ranks(spec)
    again = [False, True] if not (spec.recompute or isinstance(spec, PreferSpec)) else [False]
    for (m, method), (b, batch), (w, window), (r, rank), recompute in itertools.product(
        enumerate(methods), enumerate(batches), enumerate(windows), enumerate(ranks), again
    ):
        if m + b + w + r + recompute == 0 or (method == "full" and r):
            continue
        update: dict[str, Any] = {"method": method, **batch, **window, **rank}
        if recompute:
            update["recompute"] = True
        if method != "qlora" or not spec.dora:
            yield (
                {"method": m, "batch": b, "window": w, "rank": r, "recompute": int(recompute)},
                spec.model_copy(update=update),
            )


def _batches(spec: TrainingSpec) -> list[dict[str, int]]:
    """Half the batch, twice as many of them in a step."""
    found: list[dict[str, int]] = [{}]
    size, accumulate = spec.batch_tokens, spec.accumulate
    while size // 2 >= LEAST_BATCH and accumulate * 2 <= 1024:
        size, accumulate = size // 2, accumulate * 2
        found.append({"batch_tokens": size, "accumulate": accumulate})
    return found


def _windows(spec: TrainingSpec) -> list[dict[str, int]]:
    found: list[dict[str, int]] = [{}]
    if isinstance(spec, PretrainSpec):
        window = spec.window_tokens
        while window // 2 >= LEAST_WINDOW:
            window //= 2
            found.append({"window_tokens": window})
    return found


def _ranks(spec: TrainingSpec) -> list[dict[str, int]]:
    found: list[dict[str, int]] = [{}]
    rank = spec.rank
    while spec.method != "full" and rank // 2 >= LEAST_RANK:
        rank //= 2
        found.append({"rank": rank})
    return found


def _longest(spec: TrainingSpec, changed: TrainingSpec, longest: int) -> int:
    """Shorter windows make shorter lessons; examples stay as long as they are."""
    if isinstance(spec, PretrainSpec) and isinstance(changed, PretrainSpec):
        return longest if changed.window_tokens == spec.window_tokens else changed.window_tokens
    return longest


def _only_less(steps: dict[str, int], other: dict[str, int]) -> bool:
    """`steps` gives up all that `other` does, and more."""
    return steps != other and all(steps[name] >= other[name] for name in steps)


def _changes(spec: TrainingSpec, changed: TrainingSpec) -> dict[str, Any]:
    before, after = spec.model_dump(), changed.model_dump()
    return {name: after[name] for name in after if after[name] != before[name]}
