"""Where a training began, and what it costs to go away from it: against forgetting.

    origin = Origin(model, start, spec, dtype)
    hidden, head = origin.read(batch)      # the weights that the stage began with, same batch
    loss = loss + origin.distance()        # ½ λ ‖θ − θ₀‖²

An adapter's origin is the model with the adapter switched off, and its distance ‖s B A‖² = s² tr(A
Aᵀ Bᵀ B), so neither takes memory. A full training keeps a second, frozen model (2 bytes a
parameter).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tokka.errors import UsageError
from tokka.models.head import Head, head_of
from tokka.records import TrainingSpec
from tokka.training.start import Start


class Origin:
    """Of a model that isn't trained yet. `reader` reads a batch with the model's own layers."""

    reader: Callable[[dict[str, Any]], Any]

    def __init__(self, model: Any, start: Start, spec: TrainingSpec, dtype: str) -> None:
        self._model, self._l2 = model, spec.pull.l2
        self._frozen: tuple[Callable[[dict[str, Any]], Any], Head] | None = None
        self._first: list[Any] = []
        if spec.pull.l2 and spec.dora:
            raise UsageError("pull: l2 doesn't know dora's lengths; use kl, or leave dora out")
        if spec.method != "full":
            return
        if spec.pull.l2:
            kind = getattr(torch, dtype)
            self._first = [p.detach().to(kind, copy=True) for p in model.parameters()]
        if spec.pull.kl:
            from tokka.models.torch_model import load_module
            from tokka.training.step import teach

            module = load_module(start.base, dtype, start.adapters).requires_grad_(False)
            module.config.use_cache = False
            self._frozen = (teach(module), head_of(module))

    def read(self, batch: dict[str, Any]) -> tuple[Any, Head]:
        """Hidden states (learnt tokens, width) of the untrained model, and its head."""
        if self._frozen is not None:
            reader, head = self._frozen
            return reader(batch), head
        with self._model.disable_adapter():
            return self.reader(batch), head_of(self._model.get_base_model())

    def distance(self) -> Any:
        """½ λ ‖θ − θ₀‖² with its gradient, a float32 scalar."""
        if self._first:
            apply: Any = _Distance.apply
            return self._l2 * apply(self._first, *self._model.parameters())
        total = 0.0
        for part in self._model.modules():
            if hasattr(part, "lora_A") and len(part.lora_A):
                total = total + _squared(part)
        return 0.5 * self._l2 * total


def _squared(part: Any) -> Any:
    """‖s B A‖² of one adapted layer; of stacked experts, the sum over them."""
    (name,) = part.lora_A
    a, b = part.lora_A[name].weight, part.lora_B[name].weight
    experts = int(getattr(part, "num_experts", 1))
    a = a.reshape(experts, -1, a.shape[-1])
    b = b.reshape(b.shape[0], -1, experts).permute(2, 0, 1)
    return part.scaling[name] ** 2 * ((a @ a.mT) * (b.mT @ b)).sum()


class _Distance(torch.autograd.Function):
    """½ Σ (θ − θ₀)²: the difference is formed one weight at a time, there and back."""

    @staticmethod
    def forward(ctx: Any, first: list[Any], *now: Any) -> Any:
        ctx.first = first
        ctx.save_for_backward(*now)
        total = torch.zeros((), device=now[0].device)
        for before, after in zip(first, now, strict=True):
            total += (after - before).square_().sum()
        return 0.5 * total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        now = ctx.saved_tensors
        return None, *((a - b).mul_(grads[0]) for a, b in zip(now, ctx.first, strict=True))
