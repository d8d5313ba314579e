"""TRL's trainers, made to take our rows in our order.

Model, rows, plan → a trainer whose `train()` runs TRL's own loss (DPO, KTO or ORPO). Overridden are
the preparation of the data, the loader, the model card and the telemetry; TRL's version is pinned
to a minor one for that (extra `prefer`).

    trainer = trainer_of(model, reference, job, checkpoints)
    with answers_only():
        trainer.train()
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokka.errors import TokkaError
from tokka.learning_rates import chosen_learning_rate
from tokka.records import PreferSpec
from tokka.store import write_text
from tokka.training.preference_rows import Plan, Row
from tokka.training.start import Start

CHECKPOINTS = 5
PAD = 0  # any id will do: padding stands on the right and is masked


@dataclass(frozen=True, slots=True)
class Job:
    """One stage: what is learnt in which order, from what, and where it is written."""

    folder: Path
    start: Start
    spec: PreferSpec
    dtype: str
    rows: Sequence[Row]
    plan: Plan

    @property
    def steps(self) -> int:
        return -(-len(self.plan) // self.spec.accumulate)

    def of_step(self, step: int) -> list[Row]:
        """The rows of the optimiser's step, 1-based."""
        size = self.spec.accumulate
        return [self.rows[i] for batch in self.plan[(step - 1) * size : step * size] for i in batch]

    def stop(self, step: int, what: str) -> None:
        """Save the step's rows, say which preferences they are, and stop."""
        held = self.of_step(step)
        told = {
            "step": step,
            "what": what,
            "rows": [{"preference": row.preference_id, **row.columns} for row in held],
        }
        trouble = self.folder / "trouble.json"
        write_text(trouble, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        raise TokkaError(
            f"prefer: {what} at step {step} (preferences "
            f"{', '.join(sorted({row.preference_id for row in held}))}; saved in {trouble}); lower "
            f"learning_rate (it is {chosen_learning_rate(self.spec)})"
        )

    @property
    def kept(self) -> dict[int, int]:
        """Step → number of the state kept after it: evenly spread, the end itself not among
        them."""
        count = self.spec.checkpoints
        places = {self.steps * n // (count + 1) for n in range(1, count + 1)} - {0, self.steps}
        return {step: number for number, step in enumerate(sorted(places), 1)}


class _Rows(list):  # type: ignore[type-arg]
    """Rows that are tokenised already: whatever TRL maps over them leaves them as they are."""

    def map(self, *args: Any, **kwargs: Any) -> _Rows:
        return self


def trainer_of(model: Any, reference: Any, job: Job, checkpoints: Path) -> Any:
    """TRL's trainer for the job's objective. `reference` None: the model without its adapter."""
    with _quiet():
        return _trainer(model, reference, job, checkpoints)


def _trainer(model: Any, reference: Any, job: Job, checkpoints: Path) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer

    spec = job.spec
    base, config_class, collate = _parts(spec)
    settings = _settings(job, checkpoints)
    if spec.objective == "orpo":
        settings |= {"padding_value": PAD, "max_length": max(row.width for row in job.rows)}
    else:
        settings |= {"max_length": None, "router_aux_loss_coef": 0.0}
    rows = _Rows(row.columns for row in job.rows)
    padding = model.config.pad_token_id, model.generation_config.pad_token_id
    trainer = _planned(base, job)(
        model=model,
        args=_one_device(config_class(**settings)),
        data_collator=collate,
        # A type that DPO and KTO insist on; `_prepare_dataset` puts the rows in its place.
        train_dataset=rows if spec.objective == "orpo" else Dataset.from_list(rows[:1]),
        processing_class=AutoTokenizer.from_pretrained(
            str(job.start.base), local_files_only=True, trust_remote_code=False
        ),
        **({} if reference is None else {"ref_model": reference}),
    )
    trainer.processing_class = None  # the tokenizer would be written into each checkpoint
    model.config.pad_token_id, model.generation_config.pad_token_id = padding
    if spec.method != "full":
        if "ref" in model.peft_config:  # TRL's copy of the untrained adapter, which changes nothing
            model.delete_adapter("ref")
        for parameter in model.parameters():
            if parameter.requires_grad:  # TRL rounds NF4's adapters to bfloat16
                parameter.data = parameter.data.float()
    return trainer


def _parts(spec: PreferSpec) -> tuple[Any, Any, Any]:
    """TRL's trainer, its settings and its collator."""
    if spec.objective == "dpo":
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

        return DPOTrainer, DPOConfig, DataCollatorForPreference(pad_token_id=PAD)
    if spec.objective == "kto":
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

        collate = DataCollatorForUnpairedPreference(pad_token_id=PAD)
        return KTOTrainer, KTOConfig, lambda rows: collate(_mismatched(rows))
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.experimental.utils import DPODataCollatorWithPadding

    return ORPOTrainer, ORPOConfig, DPODataCollatorWithPadding(pad_token_id=PAD)


def _mismatched(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each prompt with its neighbour's answer as well: KTO's KL term. TRL pairs them once, for
    batches that are the same in every epoch; ours differ."""
    answers = [row["completion_ids"] for row in rows]
    return [
        {**row, "KL_completion_ids": other}
        for row, other in zip(rows, [answers[-1], *answers[:-1]], strict=True)
    ]


def _settings(job: Job, checkpoints: Path) -> dict[str, Any]:
    spec = job.spec
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": max(2, spec.batch_examples),  # the plan decides
        "gradient_accumulation_steps": spec.accumulate,
        "num_train_epochs": 1,  # the plan holds all epochs
        "learning_rate": chosen_learning_rate(spec),
        "beta": spec.beta,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(spec.warmup_ratio * job.steps)),
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch_fused",
        "save_strategy": "steps",
        "save_steps": max(5, job.steps // CHECKPOINTS),
        "save_total_limit": 1,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": spec.seed,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": spec.recompute,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if spec.recompute else None,
        "bf16": spec.method == "full" and job.dtype == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
    }


def _one_device(arguments: Any) -> Any:
    """A planned batch is one batch: `Trainer` would otherwise join as many as there are GPUs."""
    _ = arguments.device  # counts the GPUs
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments


def _planned(base: Any, job: Job) -> Any:
    """A TRL trainer that takes our rows in our order, and sends nobody anything."""

    class Planned(base):  # type: ignore[misc]
        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            return _Rows(row.columns for row in job.rows)

        def get_train_dataloader(self) -> Any:
            loader: Any = torch.utils.data.DataLoader(
                self.train_dataset,
                batch_sampler=job.plan,
                collate_fn=self.data_collator,
            )
            return self.accelerator.prepare(loader)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            if not torch.isfinite(loss):
                job.stop(self.state.global_step + 1, f"the loss is {loss.item()}")
            return loss

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """TRL writes one beside every checkpoint."""

        def _send_telemetry(self) -> None:
            """TRL tells its makers about every training."""

    return Planned


@contextmanager
def answers_only() -> Iterator[None]:
    """Make TRL run the head where the answers stand, on a CPU too: it would run it at all of the
    prompt's positions, for devices that compile anew for each count. The same bits; 3 s in place of
    27 for a batch of 4 × 100 tokens with answers of 10 and Gemma's vocabulary."""
    utils: Any = importlib.import_module("trl.trainer.utils")
    known = utils._use_triton
    utils._use_triton = lambda device: device.type == "cpu" or known(device)
    try:
        yield
    finally:
        utils._use_triton = known


@contextmanager
def _quiet() -> Iterator[None]:
    """TRL warns of everything under `experimental`, where ORPO is kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
