"""LoRA fine-tuning: lessons in, an adapter folder out.

transformers' `Trainer` owns the optimiser, the schedule and the checkpoints; ours are the batches
(laid down beforehand, see `lessons`), the loss (see `loss`) and the evidence (`training.json`,
`curve.jsonl`). A killed run finds its checkpoint in the same folder and goes on to the same
weights.

    finetune(folder, base, base_digest, lessons, spec, progress)
    → adapter_model.safetensors, adapter_config.json, training.json, curve.jsonl

Defaults: all linear layers and α = 2r after Biderman et al. 2024 (LoRA Learns Less and Forgets
Less); AdamW, linear warm-up and cosine decay after Hu et al. 2021 (LoRA).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tokka.errors import TokkaError
from tokka.models.head import head_of
from tokka.records import FinetuneSpec
from tokka.store import write_json, write_text
from tokka.training.lessons import Lesson, plan_batches
from tokka.training.loss import answer_loss

Progress = Callable[[int, float], None]  # tokens just trained on, loss
CHECKPOINTS = 5


def finetune(
    folder: Path,
    base: Path,
    base_digest: str,
    lessons: Sequence[Lesson],
    spec: FinetuneSpec,
    progress: Progress | None = None,
    dtype: str = "bfloat16",
) -> None:
    """Train an adapter into `folder`. Raises TokkaError when the loss is not a number."""
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, TrainingArguments, set_seed

    from tokka.models.torch_model import load_module

    plan = plan_batches(lessons, spec)
    set_seed(spec.seed)
    module = load_module(base, dtype)
    module.config.use_cache = False
    module.name_or_path = ""  # PEFT would write this machine's path into the adapter
    alpha = spec.alpha if spec.alpha is not None else 2.0 * spec.rank
    model = get_peft_model(
        module,
        LoraConfig(
            r=spec.rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # a float is accepted
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    checkpoints = folder / "checkpoints"
    trainer = _trainer_class()(
        model=model,
        args=_one_device(
            TrainingArguments(
                output_dir=str(checkpoints),
                per_device_train_batch_size=1,  # one planned batch
                num_train_epochs=1,  # the plan holds all epochs
                learning_rate=spec.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=max(1, round(spec.warmup_ratio * len(plan))),
                weight_decay=spec.weight_decay,
                max_grad_norm=spec.max_grad_norm,
                optim="adamw_torch",
                save_strategy="steps",
                save_steps=max(5, len(plan) // CHECKPOINTS),
                save_total_limit=1,
                logging_strategy="steps",
                logging_steps=1,
                seed=spec.seed,
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
                use_cpu=not torch.cuda.is_available(),
            )
        ),
        train_dataset=_Planned(lessons, plan),
        data_collator=_collate,
        callbacks=[_watch(lessons, plan, progress)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_checkpoint(checkpoints))
    saved: Any = model.peft_config["default"]
    saved.base_model_name_or_path = None
    saved.target_modules = sorted(saved.target_modules)  # a set's order differs between processes
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template with nothing filled in
    history = [h for h in trainer.state.log_history if "loss" in h]
    write_text(
        folder / "curve.jsonl",
        "".join(
            json.dumps({"step": h["step"], "loss": h["loss"], "learning_rate": h["learning_rate"]})
            + "\n"
            for h in history
        ),
    )
    used = [lessons[i] for batch in plan for i in batch]
    write_json(
        folder / "training.json",
        {
            "base_digest": base_digest,
            "spec": spec.model_dump(mode="json"),
            "alpha": alpha,
            "steps": len(plan),
            "lessons": len(used),
            "examples": len({item.example_id for item in used}),
            "tokens": sum(len(item.ids) for item in used),
            "supervised_tokens": sum(item.supervised for item in used),
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "dtype": dtype,
        },
    )
    shutil.rmtree(checkpoints, ignore_errors=True)


def _one_device(arguments: Any) -> Any:
    """A planned batch is one batch: `Trainer` would otherwise join as many as there are GPUs."""
    _ = arguments.device  # counts the GPUs
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments


class _Planned(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Item i is the i-th step's batch."""

    def __init__(self, lessons: Sequence[Lesson], plan: list[list[int]]) -> None:
        self._lessons, self._plan = lessons, plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, step: int) -> list[Lesson]:
        return [self._lessons[i] for i in self._plan[step]]


def _collate(steps: list[list[Lesson]]) -> dict[str, Any]:
    """ids (rows, width), padded on the right, where no causal position can see it; and where to
    learn:
    `rows`/`columns` are the positions whose next token, `targets`, is supervised."""
    (batch,) = steps
    width = max(len(item.ids) for item in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    places = []
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        places += [(row, at - 1, item.ids[at]) for at in range(item.start, len(item.ids))]
    rows, columns, targets = torch.tensor(places).T
    return {"input_ids": ids, "rows": rows, "columns": columns, "targets": targets}


def _trainer_class() -> Any:
    from torch.utils.data import SequentialSampler
    from transformers import Trainer

    class AnswerTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            causal = model.get_base_model()
            hidden = causal.get_decoder()(
                input_ids=inputs["input_ids"], use_cache=False
            ).last_hidden_state
            loss = answer_loss(
                hidden[inputs["rows"], inputs["columns"]],
                inputs["targets"],
                head_of(causal),
            )
            if not torch.isfinite(loss):
                raise TokkaError(
                    f"finetune: the loss is {loss.item()} at step {self.state.global_step + 1}; "
                    f"lower "
                    f"learning_rate (it is {self.args.learning_rate})"
                )
            return loss

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    return AnswerTrainer


def _watch(lessons: Sequence[Lesson], plan: list[list[int]], progress: Progress | None) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        done = 0

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if progress is None or not logs or "loss" not in logs:
                return
            steps = plan[self.done : state.global_step]
            self.done = state.global_step
            progress(sum(len(lessons[i].ids) for batch in steps for i in batch), logs["loss"])

    return Watch()


def _checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    if not folder.is_dir():
        return None
    for written in folder.glob("checkpoint-*"):
        try:
            json.loads((written / "trainer_state.json").read_bytes())  # written last
        except (OSError, ValueError):
            shutil.rmtree(written)
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    return str(found[-1]) if found else None
