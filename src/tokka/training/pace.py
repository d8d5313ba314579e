"""How fast a training will go: a few steps of a real one, on a model of few layers.

    pace = measure_pace(folder, shape, spec, machine)      # five seconds, kept for the next time
    training_seconds(shape, spec, amount, machine, pace)   # seconds

What share of the roofline (see `calibration`) a training reaches is measured with our own training
on the same architecture, cut to a few layers with random weights, so that it takes as long for a
large model as for a small one.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import TokkaError
from tokka.records import FinetuneSpec, PretrainSpec, Record, ScratchSpec, TrainingSpec
from tokka.store import write_json
from tokka.training.calibration import (
    Machine,
    Tell,
    finish,
    flops_per_token,
    identity_of,
    kept,
    kept_file,
    silent,
)
from tokka.training.energy import Meter
from tokka.training.lessons import Lesson
from tokka.training.memory import FLOAT32, batch_tokens, trained_parameters
from tokka.training.shape import Shape, scratch_config, shape_of
from tokka.training.start import Start

# AdamW reads weight, gradient and both moments and writes all but the gradient; making the
# gradient, its norm and its clipping pass over it four times more: float32 each.
OPTIMISER_BYTES = 11 * FLOAT32
CUT_LAYERS, CUT_VOCABULARY = 2, 4096
CUT_PARAMETERS = 400_000_000  # above it, even one layer takes too long to make
PACE_STEPS = 4  # the first of them warms up
PACE_SECONDS = 4.0  # what the steps may take at half the roofline's rate


class Pace(Record):
    """`efficiency`: share of the roofline that a real training reached, the optimiser's own time
    left out; `watts` over it where the platform counts energy."""

    efficiency: float
    tokens_per_second: float
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class Amount:
    """What is trained on: `tokens` over all epochs, `supervised` of them learnt, in `steps` steps
    of the optimiser; `mean` tokens in a lesson, `longest` in the longest."""

    tokens: int
    supervised: int
    steps: int
    mean: float
    longest: int

    @property
    def supervised_share(self) -> float:
        return self.supervised / self.tokens if self.tokens else 0.0


def training_seconds(
    shape: Shape, spec: TrainingSpec, amount: Amount, machine: Machine, pace: Pace
) -> float:
    """Arithmetic at the measured share of the roofline, and the optimiser's passes over memory."""
    needed = flops_per_token(shape, spec, amount.supervised_share, amount.mean)
    stepping = amount.steps * _optimiser_seconds(trained_parameters(shape, spec), machine)
    return amount.tokens * needed / (machine.flops * pace.efficiency) + stepping


def _optimiser_seconds(trained: int, machine: Machine) -> float:
    return trained * OPTIMISER_BYTES / machine.copied_bytes


def kept_pace(shape: Shape, spec: TrainingSpec, dtype: str = "bfloat16") -> Pace | None:
    return kept(_pace_file(shape, spec, dtype), Pace)


def measure_pace(
    base: Path | ScratchSpec,
    shape: Shape,
    spec: TrainingSpec,
    machine: Machine,
    *,
    again: bool = False,
    tell: Tell | None = None,
) -> Pace | None:
    """Train a few layers of `base`'s kind for four steps; the tokens are as many as a batch has.

    None where one layer is too large for that, or the library that trains it isn't there: then no
    time can be told.
    """
    file = _pace_file(shape, spec, machine.dtype)
    found = None if again else kept(file, Pace)
    if found is None:
        layers = min(CUT_LAYERS, shape.layers)
        while layers > 1 and shape.linear / shape.layers * layers > CUT_PARAMETERS:
            layers -= 1
        if shape.linear / shape.layers * layers > CUT_PARAMETERS:
            return None
        with tempfile.TemporaryDirectory(prefix="tokka-pace-") as folder:
            found = _train_cut(base, Path(folder), shape, spec, machine, layers, tell or silent)
        if found is not None:
            write_json(file, found)
    elif tell is not None:
        tell(1.0)
    return found


def _train_cut(
    base: Path | ScratchSpec,
    folder: Path,
    shape: Shape,
    spec: TrainingSpec,
    machine: Machine,
    layers: int,
    tell: Tell,
) -> Pace | None:
    from tokka.training.training import train

    cut = folder / "model"
    words = _write_cut(base, cut, layers)
    small = shape_of(cut)
    each = _pace_lessons(small, spec, machine, words)
    steps: list[tuple[float, int]] = []
    meter = Meter()

    def timed(tokens: int, note: str) -> None:
        finish()
        meter.sample()
        steps.append((time.perf_counter(), tokens))
        tell(1 / PACE_STEPS)

    out = folder / "trained"
    out.mkdir()
    started = time.perf_counter()
    trial = _trial(spec, each)
    train(out, Start(cut, "calibration"), each, trial, progress=timed, dtype=machine.dtype)
    if len(steps) < 2:
        raise TokkaError(
            f"calibration: {len(steps)} steps were reported where {PACE_STEPS} were expected; "
            "report this with the version of transformers"
        )
    seconds = steps[-1][0] - steps[0][0]
    tokens = sum(count for _, count in steps[1:])
    joules = meter.reading().joules
    watts = joules / (steps[-1][0] - started) if joules is not None else None
    share = sum(one.supervised for one in each) / sum(len(one.ids) for one in each)
    length = sum(len(one.ids) for one in each) / len(each)
    needed = tokens * flops_per_token(small, trial, share, length) / machine.flops
    stepping = (len(steps) - 1) * _optimiser_seconds(trained_parameters(small, trial), machine)
    # Where the optimiser's share was overestimated, at least half of the time was arithmetic.
    working = max(seconds - stepping, seconds / 2)
    return Pace(efficiency=needed / working, tokens_per_second=tokens / seconds, watts=watts)


def _write_cut(base: Path | ScratchSpec, folder: Path, layers: int) -> int:
    """The same architecture with few layers, few words and random weights; returns the number of
    words."""
    from tokka.extras import require

    torch = require("torch", extra="train")
    transformers = require("transformers", extra="train")
    config: Any
    if isinstance(base, ScratchSpec):
        config = transformers.LlamaConfig(**scratch_config(base))
    else:
        config = transformers.AutoConfig.from_pretrained(str(base), local_files_only=True)
        config = config.get_text_config()
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    words = min(config.vocab_size, CUT_VOCABULARY)
    config.vocab_size = words
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, min(getattr(config, name), words - 1))
    state = torch.random.get_rng_state()
    with torch.device("cpu"):
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    torch.random.set_rng_state(state)
    module.save_pretrained(str(folder))
    return int(words)


def _pace_lessons(small: Shape, spec: TrainingSpec, machine: Machine, words: int) -> list[Lesson]:
    """`PACE_STEPS` batches of random tokens: as many as a real batch has, or fewer where the
    machine is too slow for that."""
    needed = flops_per_token(small, spec, 1.0)
    afford = PACE_SECONDS * machine.flops / 2 / needed / PACE_STEPS
    tokens = max(64, min(batch_tokens(spec), 2048, int(afford)))
    draw = random.Random(0)
    length = min(tokens, 128)
    learnt_from = 1 if isinstance(spec, PretrainSpec) else length - max(1, length // 8)
    return [
        Lesson(
            f"calibration-{number}",
            tuple(draw.randrange(words) for _ in range(length)),
            ((learnt_from, length),),
        )
        for number in range(PACE_STEPS * max(1, tokens // length))
    ]


def _trial(spec: TrainingSpec, each: list[Lesson]) -> TrainingSpec:
    """The stage's method and rank in `PACE_STEPS` batches."""
    length = len(each[0].ids)
    settings: dict[str, Any] = {
        "method": spec.method,
        "rank": spec.rank,
        "rslora": spec.rslora,
        "dora": spec.dora,
        "pull": spec.pull,
        "recompute": spec.recompute,
        "learning_rate": 1e-6,  # random weights must not run away
        "epochs": 1.0,
        "batch_tokens": max(16, length * (len(each) // PACE_STEPS)),
    }
    if isinstance(spec, PretrainSpec):
        return PretrainSpec(window_tokens=length, **settings)
    return FinetuneSpec(data="calibration", batch_examples=len(each), **settings)


def _pace_file(shape: Shape, spec: TrainingSpec, dtype: str) -> Path:
    layer = [shape.layers, shape.width, shape.feedforward, shape.queries, shape.keys, shape.active]
    kind = "pretrain" if isinstance(spec, PretrainSpec) else "finetune"
    how = [
        kind,
        spec.method,
        spec.rank,
        spec.dora,
        spec.recompute,
        spec.pull.model_dump(mode="json"),
    ]
    return kept_file("pace", [identity_of(dtype), layer, how, min(batch_tokens(spec), 2048)])
