"""A stage that trains: lessons in, an adapter or whole weights out.

transformers' `Trainer` owns the optimiser, the schedule and the checkpoints; ours are the batches
(laid down beforehand, see `lessons` and `packing`), the loss and the layers (see `step`) and the
evidence. A killed run finds its checkpoint in the same folder and goes on to the same bits.

    train(folder, Start(base, digest), lessons, FinetuneSpec(data="examples.jsonl"))
    → adapter_model.safetensors, adapter_config.json   (lora, qlora)
      or model.safetensors, config.json, tokenizer     (full)
      training.json, curve.jsonl, states/1 … (with `checkpoints`)

Frozen weights stay in bfloat16; weights that are trained in full are float32 and multiplied in
bfloat16 (Micikevicius et al. 2018, Mixed Precision Training). AdamW (Loshchilov and Hutter 2019)
with linear warm-up and cosine decay (Hu et al. 2021).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from tokka.learning_rates import chosen_learning_rate
from tokka.models.opening import quiet
from tokka.records import TrainingSpec
from tokka.store import replace_folder, write_json, write_text
from tokka.training.adapters import alpha_of, save_adapter, with_adapter
from tokka.training.heap import memory_kept
from tokka.training.lessons import Lesson, plan_batches
from tokka.training.lookup import add_in_place
from tokka.training.packing import pack
from tokka.training.pulling import Origin
from tokka.training.start import Start
from tokka.training.weights_files import write_trained

Progress = Callable[[int, str], None]  # tokens just trained on, what to show beside the bar
CHECKPOINTS = 5  # of the trainer, over the whole training; the last one is kept


def train(
    folder: Path,
    start: Start,
    lessons: Sequence[Lesson],
    spec: TrainingSpec,
    *,
    replay: Sequence[Lesson] = (),
    progress: Progress | None = None,
    dtype: str = "bfloat16",
    place: str = "finetune",
) -> None:
    """Train into `folder`. Raises TokkaError when the loss or its gradient is not a number, with
    the batch that caused it saved in `folder`."""
    quiet()
    from transformers import PrinterCallback, set_seed

    from tokka.training.step import Batches, Steps, collator, packs, teach
    from tokka.training.watching import Watch, trackers

    set_seed(spec.seed)
    model = _model(start, spec, dtype)
    packed = packs(model)
    every = [*lessons, *replay]
    plan = plan_batches(lessons, spec, replay, packed=packed)
    rank, processes = _place_among_processes()
    steps = -(-len(plan) // (spec.accumulate * processes))
    origin = Origin(model, start, spec, dtype)
    read = teach(
        model,
        kl=spec.pull.kl,
        reference=origin.read if spec.pull.kl else None,
        precision=_precision(model, spec, dtype, packed),
    )
    origin.reader = read
    if spec.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpoints = folder / "checkpoints"
    keep = _states(folder, model, start, spec, steps)
    told = None if rank else progress
    read_tokens = sum(_read_tokens([every[i] for i in batch], packed) for batch in plan)
    watch = Watch(every, plan, spec, start.base, dtype, told, keep, processes, read_tokens)
    trainer = Steps(
        model=model,
        args=_arguments(checkpoints, spec, steps),
        train_dataset=Batches(every, plan),
        data_collator=collator(packed),
        callbacks=[watch, *([] if rank else trackers(folder))],
    )
    trainer.trouble = folder / "trouble.json"
    trainer.l2 = origin.distance if spec.pull.l2 else None
    trainer.model_accepts_loss_kwargs = True
    trainer.remove_callback(PrinterCallback)
    with memory_kept():
        trainer.train(resume_from_checkpoint=newest_checkpoint(checkpoints))
    if rank:
        return
    _keep(model, folder, start, spec)
    write_text(folder / "curve.jsonl", watch.curve(trainer.state.log_history))
    write_json(folder / "speed.json", watch.speed())
    used = [every[i] for batch in plan for i in batch]
    evidence = {
        "base_digest": start.digest,
        "place": place,
        "spec": spec.model_dump(mode="json"),
        "learning_rate": chosen_learning_rate(spec),
        "alpha": None if spec.method == "full" else alpha_of(spec),
        "steps": steps,
        "lessons": len(used),
        "examples": len({item.example_id for item in used}),
        "tokens": sum(len(item.ids) for item in used),
        "read_tokens": read_tokens,
        "replay_tokens": sum(len(item.ids) for item in used if item.origin == "replay"),
        "supervised_tokens": sum(item.supervised for item in used),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "packed": packed,
        "dtype": dtype,
    }
    if spec.method == "qlora":
        evidence["quantisation"] = "nf4"
    write_json(folder / "training.json", evidence)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _read_tokens(batch: Sequence[Lesson], packed: bool) -> int:
    """Of a batch, without what its lessons share."""
    return len(pack(batch).ids) if packed else sum(len(item.ids) for item in batch)


def _place_among_processes() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun tells them: each takes its share of
    a step's batches, the first one writes."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _among_others() -> bool:
    """Gradients that are summed over processes, or kept elsewhere, must come whole."""
    kept = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP")
    return _place_among_processes()[1] > 1 or any(os.environ.get(n) == "true" for n in kept)


def _model(start: Start, spec: TrainingSpec, dtype: str) -> Any:
    """What is trained: an adapter on frozen weights, or all weights in float32."""
    from tokka.models.nf4 import load_nf4
    from tokka.models.torch_model import load_module

    if spec.method == "qlora":
        module = load_nf4(start.base, start.adapters)
    else:
        module = load_module(start.base, dtype, start.adapters)
    module.config.use_cache = False
    if spec.method != "full":
        return with_adapter(module, spec)
    module = module.float().train()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    if head is not None and head.weight is embedding.weight and not _among_others():
        add_in_place(embedding)
    if dtype != "float32":
        wanted = getattr(torch, dtype)
        embedding.register_forward_hook(lambda _, __, embedded: embedded.to(wanted))
    return module


def _precision(
    model: Any, spec: TrainingSpec, dtype: str, packed: bool
) -> AbstractContextManager[Any] | None:
    """Our own layers multiply float32 weights in bfloat16; other architectures' leave it to
    autocast."""
    if spec.method != "full" or dtype == "float32":
        return None
    from tokka.training.layers import knows_all

    if packed and knows_all(model):
        return None
    return torch.autocast(model.device.type, getattr(torch, dtype))


def _arguments(checkpoints: Path, spec: TrainingSpec, steps: int) -> Any:
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=1,  # one planned batch
        gradient_accumulation_steps=spec.accumulate,
        num_train_epochs=1,  # the plan holds all epochs
        learning_rate=chosen_learning_rate(spec),
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(spec.warmup_ratio * steps)),
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch_fused",
        save_strategy="steps",
        save_steps=max(5, steps // CHECKPOINTS),
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=spec.seed,
        report_to=[],
        run_name=checkpoints.parent.name.removesuffix(".partial"),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    _ = arguments.device  # counts the GPUs
    # A planned batch is one batch: `Trainer` would otherwise join as many as there are GPUs.
    arguments._n_gpu = min(1, arguments._n_gpu)
    return arguments


def newest_checkpoint(folder: Path) -> str | None:
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


# ---- what stays ---------------------------------------------------------------------------------


def _keep(model: Any, folder: Path, start: Start, spec: TrainingSpec) -> None:
    """The adapter, or a whole model in bfloat16 with the tokenizer it came with."""
    if spec.method != "full":
        save_adapter(model, folder)
        return
    write_trained(folder, model, start.base)


def _states(
    folder: Path, model: Any, start: Start, spec: TrainingSpec, steps: int
) -> Callable[[int], None]:
    """Keeps the weights after the steps that cut the training into `checkpoints` + 1 parts, as
    `states/1`, `states/2`, …"""
    parts = spec.checkpoints + 1
    places = {round(steps * n / parts) for n in range(1, parts)} - {0, steps}
    marks = {step: number for number, step in enumerate(sorted(places), 1)}

    def keep(step: int) -> None:
        number = marks.get(step)
        if number is None:
            return
        target = folder / "states" / str(number)
        shutil.rmtree(target, ignore_errors=True)
        partial = target.with_name(f".{number}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _keep(model, partial, start, spec)
        write_json(partial / "training.json", _state_evidence(start, spec, step))
        replace_folder(partial, target)

    return keep


def _state_evidence(start: Start, spec: TrainingSpec, step: int) -> dict[str, Any]:
    told: dict[str, Any] = {"base_digest": start.digest, "step": step}
    return {**told, "quantisation": "nf4"} if spec.method == "qlora" else told
