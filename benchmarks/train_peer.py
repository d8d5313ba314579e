"""The peers train: a contestant that runs in an environment of its own and knows nothing of tokka.

Job: `method` "lora" (TRL's `SFTTrainer` with PEFT) or "pretrain" (transformers' `Trainer`, all
weights), `model` (folder), `lessons` ([ids, first learnt place] each), the training's own numbers,
`setup` (see `train_setups`), `folder` (where the adapter or the weights go), `profile`.

    found = run([python, "train_peer.py"], job, environment())
    found["ends"]  # seconds after each step's end; found["tokens"], found["learnt"]: of each step

Real tokens are counted where a batch is made: padding is not. `seen` are digests of what was in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from measuring import Facts, contestant, peak_bytes, tell

IGNORED = -100  # transformers' label of a place that is only read


@dataclass
class Watch:
    """What each step was made of, and when it ended."""

    ends: list[float] = field(default_factory=list)
    cpu_ends: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    learnt: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    seen: list[list[str]] = field(default_factory=list)

    def collate(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The peer's own batches, counted; `seq_lengths` tell apart what is packed in a row."""

        def counted(rows: list[Any]) -> Any:
            batch = collate(rows)
            parts = [part for row in rows for part in _parts(row)]
            self.tokens.append(sum(len(ids) for ids, _ in parts))
            # A text's first token is never predicted.
            self.learnt.append(sum(label != IGNORED for _, labels in parts for label in labels[1:]))
            self.read.append(batch["input_ids"].numel())
            self.seen.append([digest(ids) for ids, _ in parts])
            return batch

        return counted


def work(job: Facts) -> Facts:
    import torch

    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    watch = Watch()
    trainer = (_pretrainer if job["method"] == "pretrain" else _sft)(job)
    trainer.data_collator = watch.collate(trainer.data_collator)
    trainer.add_callback(_clock(watch, job["setup"]["name"]))
    with _profiled(job.get("profile", False)) as profile:
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    peak = peak_bytes()
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trainer.save_model(job["folder"])
    steps = len(watch.ends)  # a batch may have been fetched ahead
    seen = [text for texts in watch.seen[:steps] for text in texts]
    return {
        "ends": [end - started for end in watch.ends],
        "cpu_ends": watch.cpu_ends,
        "tokens": watch.tokens[:steps],
        "learnt": watch.learnt[:steps],
        "read": watch.read[:steps],
        "seen": seen,
        "tokens_in_all": sum(watch.tokens[:steps]),
        "learnt_in_all": sum(watch.learnt[:steps]),
        "seconds": seconds,
        "peak_bytes": peak,
        "parameters": parameters,
        "profile": profile(),
    }


def digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]


def _parts(row: Any) -> Iterator[tuple[list[int], list[int]]]:
    at = 0
    for length in row.get("seq_lengths") or [len(row["input_ids"])]:
        yield row["input_ids"][at : at + length], row["labels"][at : at + length]
        at += length


# ---- TRL ----------------------------------------------------------------------------------------


def _sft(job: Facts) -> Any:
    """`SFTTrainer` as its documentation has it: a folder, a data set, a PeftConfig. What `setup`
    names differs from its defaults; the rest are the numbers that both sides share."""
    import trl.trainer.utils
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    setup = job["setup"]
    if setup["compact"]:
        # The trainer's own way on a GPU; on a CPU it computes the head at every position.
        trl.trainer.utils._use_triton = lambda device: True
    model, peft = job["model"], _lora(job, LoraConfig)
    load = {"dtype": job["dtype"], **setup["load"]}
    if setup["loader"] == "unsloth":
        model, peft, load = _unsloth(job), None, None
    packed = {"max_length": job["batch_tokens"]} if setup["arguments"].get("packing") else {}
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            **_shared(job),
            **packed,
            **setup["arguments"],
            completion_only_loss=True,
            model_init_kwargs=load,
        ),
        train_dataset=_dataset(job),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=peft,
    )


def _lora(job: Facts, config: Any) -> Any:
    return config(
        r=job["rank"],
        lora_alpha=job["alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _unsloth(job: Facts) -> Any:
    from unsloth import FastLanguageModel  # patches what is imported after it

    longest = max(len(ids) for ids, _ in job["lessons"])
    model, _ = FastLanguageModel.from_pretrained(
        model_name=job["model"], max_seq_length=longest, load_in_4bit=False, dtype=None
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=job["rank"],
        lora_alpha=job["alpha"],
        lora_dropout=0,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
    )


def _dataset(job: Facts) -> Any:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    return Dataset.from_list(
        [
            {"input_ids": ids, "labels": [IGNORED] * start + ids[start:]}
            for ids, start in job["lessons"]
        ]
    )


# ---- transformers -------------------------------------------------------------------------------


def _pretrainer(job: Facts) -> Any:
    """`Trainer` as in transformers' example of causal language modelling: float32 weights, bfloat16
    autocast, blocks of one length."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator

    setup = job["setup"]
    return Trainer(
        model=AutoModelForCausalLM.from_pretrained(
            job["model"], dtype=torch.float32, **setup["load"]
        ),
        args=TrainingArguments(**_shared(job), **setup["arguments"]),
        train_dataset=_dataset(job),
        data_collator=default_data_collator,
    )


def _shared(job: Facts) -> Facts:
    import torch

    return {
        "output_dir": job["folder"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": job["warmup_ratio"],  # below 1 it is a share
        "num_train_epochs": 1,
        "max_steps": job.get("max_steps", -1),
        "per_device_train_batch_size": job["batch"],
        "weight_decay": 0.0,
        "seed": job["seed"],
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


# ---- watching -----------------------------------------------------------------------------------


def _clock(watch: Watch, name: str) -> Any:
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            watch.ends.append(time.perf_counter())
            watch.cpu_ends.append(time.process_time())
            done = sum(watch.tokens[: len(watch.ends)])
            if len(watch.ends) % 4 == 1:
                tell(f"{name}: step {len(watch.ends)} of {state.max_steps}, {done:,} tokens")

    return Clock()


@contextlib.contextmanager
def _profiled(wanted: bool) -> Iterator[Callable[[], str]]:
    """Yields the table of operators by their own time; an empty text where none is wanted."""
    if not wanted:
        yield lambda: ""
        return
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as measured:
        yield lambda: str(
            measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=20)
        )


if __name__ == "__main__":
    contestant(work)
