"""Learning from preferences through TRL: an adapter or whole weights out.

Preferences → rows and batches (see `preference_rows`) → TRL's DPO, KTO or ORPO trainer. TRL owns
the loss; ours are the ids (the exam's own, so none of TRL's templates, BOS or truncation), the
order of the batches and the evidence. A killed run finds its checkpoint in the same folder and goes
on to the same weights.

    prefer(folder, start, preferences, spec, renderer, progress)
    → adapter_model.safetensors, adapter_config.json, training.json, curve.jsonl
      (method full: a whole model's folder in place of the adapter)

DPO: Rafailov et al. 2023, eq. 7. KTO: Ethayarajh et al. 2024, section 4. ORPO: Hong et al. 2024,
eq. 6. The reference of DPO and KTO is what the stage begins with: an adapter is switched off for
it, `full` keeps a second copy of the weights.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.extras import require
from tokka.learning_rates import chosen_learning_rate
from tokka.models.protocol import Renderer
from tokka.records import Preference, PreferSpec
from tokka.store import replace_folder, write_json, write_text
from tokka.training.heap import memory_kept
from tokka.training.preference_rows import plan_batches, rows_of
from tokka.training.preference_trainer import Job, answers_only, trainer_of
from tokka.training.start import Start
from tokka.training.training import newest_checkpoint

Progress = Callable[[int, str], None]  # tokens just trained on, note to show
CURVE = (
    "loss", "learning_rate", "grad_norm", "rewards/chosen", "rewards/rejected",
    "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected", "kl", "nll_loss",
)  # fmt: skip


def prefer(
    folder: Path,
    start: Start,
    preferences: Sequence[Preference],
    spec: PreferSpec,
    renderer: Renderer,
    progress: Progress | None = None,
    dtype: str = "bfloat16",
) -> None:
    """Train into `folder`. Raises Mistakes where preferences don't fit the model or the objective,
    MissingExtra without TRL, TokkaError when the loss is not a number."""
    require("trl", extra="prefer")
    from transformers import PrinterCallback, set_seed

    _refuse_unused(spec)
    rows = rows_of(preferences, spec, renderer, _context_tokens(start.base))
    plan = plan_batches(rows, spec)
    set_seed(spec.seed)
    model, reference = _models(start, spec, dtype)
    checkpoints = folder / "checkpoints"
    job = Job(folder, start, spec, dtype, rows, plan)
    trainer = trainer_of(model, reference, job, checkpoints)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_watch(job, trainer, progress))
    with answers_only(), memory_kept():
        trainer.train(resume_from_checkpoint=newest_checkpoint(checkpoints))
    _save(trainer.model, folder, job)
    write_text(folder / "curve.jsonl", "".join(_curve(trainer.state.log_history, job)))
    used = [rows[i] for batch in plan for i in batch]
    write_json(
        folder / "training.json",
        {
            "base_digest": start.digest,
            "place": "prefer",
            "spec": spec.model_dump(mode="json"),
            "learning_rate": chosen_learning_rate(spec),
            "alpha": _alpha(spec),
            "steps": job.steps,
            "lessons": len(used),
            "examples": len({row.preference_id for row in used}),
            "tokens": sum(row.tokens for row in used),
            "supervised_tokens": sum(row.supervised for row in used),
            "parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            "dtype": dtype,
            **_rounding(spec),
        },
    )
    shutil.rmtree(checkpoints, ignore_errors=True)


# ---- models -------------------------------------------------------------------------------------


def _models(start: Start, spec: PreferSpec, dtype: str) -> tuple[Any, Any]:
    """What trains, and the reference where it can't be had by switching an adapter off."""
    from tokka.models.torch_model import load_module

    reference = None
    if spec.method == "full":
        # float32: a step of 1e-6 is lost on bfloat16 weights, whose neighbours are 1e-4 apart.
        model = load_module(start.base, "float32", start.adapters)
        if spec.objective != "orpo":
            reference = load_module(start.base, "float32", start.adapters)
            reference.requires_grad_(False)
    else:
        from tokka.training.adapters import with_adapter

        if spec.method == "qlora":
            from tokka.models.nf4 import load_nf4

            module = load_nf4(start.base, start.adapters)
        else:
            module = load_module(start.base, dtype, start.adapters)
        model = with_adapter(module, spec)
    return model, reference


def _alpha(spec: PreferSpec) -> float | None:
    from tokka.training.adapters import alpha_of

    return None if spec.method == "full" else alpha_of(spec)


def _context_tokens(base: Path) -> int:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        for place in (config, config.get("text_config") or {}):
            if place.get(name):
                return int(place[name])
    raise UsageError(f"prefer: {base / 'config.json'} lacks max_position_embeddings; add it")


def _refuse_unused(spec: PreferSpec) -> None:
    """Settings that TRL's losses have no place for: ignored, they would look as if they worked."""
    if spec.replay is not None:
        raise UsageError(
            "prefer: replay has no preferences to learn; remove it, or put a finetune stage with "
            "replay after this one"
        )
    if spec.pull.kl or spec.pull.l2:
        raise UsageError(
            f"prefer: pull is not for preferences; remove it and raise beta (it is {spec.beta})"
        )


def _rounding(spec: PreferSpec) -> dict[str, Any]:
    """Whoever folds the adapter rounds the weights as they were when it was trained."""
    return {"quantisation": "nf4"} if spec.method == "qlora" else {}


def _save(model: Any, folder: Path, job: Job) -> None:
    if job.spec.method != "full":
        from tokka.training.adapters import save_adapter

        save_adapter(model, folder)
        return
    from tokka.training.weights_files import write_trained

    write_trained(folder, model, job.start.base)


# ---- along the way ------------------------------------------------------------------------------


def _watch(job: Job, trainer: Any, progress: Progress | None) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        done = 0

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            if not math.isfinite(logs.get("grad_norm", 0.0)):
                job.stop(state.global_step, f"the gradient's norm is {logs['grad_norm']}")
            if progress is None:
                return
            steps = range(self.done + 1, state.global_step + 1)
            self.done = state.global_step
            tokens = sum(row.tokens for step in steps for row in job.of_step(step))
            progress(tokens, f"loss {logs['loss']:.3f}")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            number = job.kept.get(state.global_step)
            if number is None:
                return
            target = job.folder / "states" / str(number)
            partial = target.with_name(f".{number}.partial")
            for folder in (partial, target):
                shutil.rmtree(folder, ignore_errors=True)
            partial.mkdir(parents=True)
            _save(trainer.model, partial, job)
            evidence = {"base_digest": job.start.digest, "step": state.global_step}
            write_json(partial / "training.json", evidence | _rounding(job.spec))
            replace_folder(partial, target)

    return Watch()


def _curve(history: Sequence[Mapping[str, Any]], job: Job) -> Iterator[str]:
    tokens = 0
    for row in history:
        if "loss" in row:
            tokens += sum(one.tokens for one in job.of_step(row["step"]))
            told = {name: row[name] for name in CURVE if name in row}
            yield json.dumps({"step": row["step"], "tokens": tokens, **told}) + "\n"
