"""The training step: packed lessons in, the summed loss of their learnt tokens out.

`teach` gives a causal model a `forward` that computes the loss itself, so a wrapper around the
model (DDP, FSDP, DeepSpeed, PEFT) is called as `Trainer` calls any model and its hooks run. `Steps`
is transformers' `Trainer` with this loss and these batches, and nothing else of it is replaced.

    teach(model)
    trainer = Steps(model=model, args=arguments, train_dataset=Batches(lessons, plan),
                    data_collator=collator(packed=True))

The loss is a mean over the learnt tokens of a whole step, whatever the number of batches and
machines (transformers#34191).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import SequentialSampler
from transformers import Trainer

from tokka.errors import TokkaError
from tokka.models.attention import Decoder, depends_on_length, knows
from tokka.models.head import Head, head_of
from tokka.store import write_text
from tokka.training import layers
from tokka.training.lessons import Lesson
from tokka.training.loss import Pull, answer_loss
from tokka.training.packing import pack
from tokka.training.view import PackedView

# Lanes and picks come in few lengths: oneDNN keeps code and buffers for every shape of a product,
# and a training whose batches differ grew by 45 MB a step (docs/log.md). Products of whole tiles
# are also a tenth faster.
LANE_TOKENS, PICKS = 64, 32

Reference = Callable[[dict[str, Any]], tuple[Any, Head]]  # a batch → hidden states at picks, head


def causal_of(model: Any) -> Any:
    """The causal language model within PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def packs(model: Any) -> bool:
    """Whether this architecture's batches are packed; others are padded rows."""
    return not knows(causal_of(model).config.get_text_config())


def teach(
    model: Any,
    *,
    kl: float = 0.0,
    reference: Reference | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Callable[[dict[str, Any]], Any]:
    """Replace the causal model's `forward` by one that returns {"loss": …}. Returns what reads a
    batch without learning: hidden states (learnt tokens, width)."""
    causal = causal_of(model)
    read = _packed_reader(causal) if packs(model) else _row_reader(causal)

    def forward(
        self: Any,
        input_ids: Any,
        labels: Any = None,
        num_items_in_batch: Any = None,
        lessons: Any = None,
        **batch: Any,
    ) -> dict[str, Any]:
        given = {"input_ids": input_ids, **batch}
        with precision or nullcontext():
            hidden = read(given)
            pull = None
            if reference is not None:
                with torch.no_grad():
                    theirs, head = reference(given)
                pull = Pull(theirs, head, kl)
            loss = answer_loss(hidden, labels, head_of(self), pull)
            loss = loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        return {"loss": loss}

    causal.forward = MethodType(forward, causal)
    return read


def _packed_reader(causal: Any) -> Callable[[dict[str, Any]], Any]:
    decoder = Decoder(causal)
    picked = layers.replace(causal)

    def read(batch: dict[str, Any]) -> Any:
        ids, picks = batch["input_ids"], batch["picks"]
        more, count = -len(ids) % LANE_TOKENS, len(picks)
        alone = torch.arange(len(ids) + 1, len(ids) + more + 1, device=ids.device)
        view = PackedView(
            functional.pad(batch["places"], (0, more)),
            torch.cat([batch["ends"], alone]),
            torch.cat([picks, picks[-1:].expand(-count % PICKS)]),
        )
        hidden = decoder.run(functional.pad(ids, (0, more))[None], view)[0]
        return hidden[:count] if picked else hidden[picks]

    return read


def _row_reader(causal: Any) -> Callable[[dict[str, Any]], Any]:
    body = causal.get_decoder()
    apart = depends_on_length(causal.config.get_text_config())

    def read(batch: dict[str, Any]) -> Any:
        ids, widths = batch["input_ids"], batch["widths"]
        if apart:  # a longer neighbour would turn all positions otherwise
            rows = [
                functional.pad(
                    body(input_ids=row[None, :width], use_cache=False).last_hidden_state[0],
                    (0, 0, 0, len(row) - width),
                )
                for row, width in zip(ids, widths.tolist(), strict=True)
            ]
            return torch.cat(rows)[batch["picks"]]
        order = torch.arange(ids.shape[1], device=ids.device)
        mask = (order < widths[:, None]).long()
        hidden = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return hidden.flatten(0, 1)[batch["picks"]]

    return read


# ---- batches ------------------------------------------------------------------------------------


class Batches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Item i is the i-th batch: the places of its lessons, and these."""

    def __init__(self, lessons: Sequence[Lesson], plan: Sequence[Sequence[int]]) -> None:
        self.lessons, self.plan = lessons, plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> list[tuple[int, Lesson]]:
        return [(place, self.lessons[place]) for place in self.plan[step]]


def collator(packed: bool) -> Callable[[list[Any]], dict[str, Any]]:
    return _packed if packed else _rows


def _packed(batches: list[list[tuple[int, Lesson]]]) -> dict[str, Any]:
    """`input_ids`, `places`, `ends`: (tokens,); `picks`, `labels`: (learnt tokens,); `lessons`: who
    they are."""
    (batch,) = batches
    laid = pack([item for _, item in batch])
    return {
        "input_ids": torch.tensor(laid.ids),
        "places": torch.tensor(laid.places),
        "ends": torch.tensor(laid.ends),
        "picks": torch.tensor(laid.picks),
        "labels": torch.tensor(laid.targets),
        "lessons": torch.tensor([place for place, _ in batch]),
    }


def _rows(batches: list[list[tuple[int, Lesson]]]) -> dict[str, Any]:
    """`input_ids` (rows, width), padded on the right, where no causal position can see it;
    `widths` (rows,); `picks` are places in the flattened rows."""
    (batch,) = batches
    width = max(len(item.ids) for _, item in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    picks: list[int] = []
    targets: list[int] = []
    for row, (_, item) in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        for start, stop in item.learnt:
            picks += range(row * width + start - 1, row * width + stop - 1)
            targets += item.ids[start:stop]
    return {
        "input_ids": ids,
        "widths": torch.tensor([len(item.ids) for _, item in batch]),
        "picks": torch.tensor(picks),
        "labels": torch.tensor(targets),
        "lessons": torch.tensor([place for place, _ in batch]),
    }


# ---- trainer ------------------------------------------------------------------------------------


class Steps(Trainer):
    """`Trainer` with our loss over planned batches, in their order."""

    trouble: Path  # where a batch is saved whose loss is no number
    l2: Callable[[], Any] | None = None  # the same on every machine and for every batch

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = model(**inputs, num_items_in_batch=num_items_in_batch)["loss"]
        if not torch.isfinite(loss):
            self._stop([inputs], f"the loss is {float(loss.detach())}")
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        if self.l2 is not None:
            loss = loss + self.l2() / self.current_gradient_accumulation_steps
        return (loss, {"loss": loss}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """Learnt tokens of all batches of a step, on all machines."""
        self._step = batch_samples
        count = torch.tensor(sum(len(batch["labels"]) for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Clipping has divided all gradients by this norm: one that is no number spoils them."""
        norm: Any = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            self._stop(self._step, f"the gradient's norm is {float(norm)}")
        return norm

    def _stop(self, suspects: Sequence[Any], what: str) -> None:
        """Save the batches, say which lessons they hold, and stop before the weights are spoilt."""
        batches: Any = self.train_dataset
        places = [place for batch in suspects for place in batch["lessons"].tolist()]
        held = [batches.lessons[place] for place in places]
        step = self.state.global_step + 1
        told = {"step": step, "what": what, "lessons": [asdict(item) for item in held]}
        write_text(self.trouble, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        names = ", ".join(item.example_id for item in held[:3])
        raise TokkaError(
            f"training: {what} at step {step} (examples {names}"
            f"{' …' if len(held) > 3 else ''}; saved in {self.trouble}); lower learning_rate (it "
            f"is {self.args.learning_rate:g}) or take these examples out"
        )
