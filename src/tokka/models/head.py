"""The language-model head of any causal model, as what decides its logits: weights, bias, scale,
cap.

logits = cap · tanh(scale · (hidden @ weightᵀ + bias) / cap), without the cap where there is none.
Granite divides its logits by `logits_scaling`, Cohere multiplies them by `logit_scale`, Gemma 2
caps them. Whoever computes logits without the model's own forward uses this.

>>> head = head_of(module)
>>> logits = head.logits(hidden, slice(0, 1024))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Head:
    """`weight` is (vocabulary, width); `bias` (vocabulary,) or None."""

    weight: Any
    bias: Any
    scale: float
    cap: float | None

    def bend(self, logits: Any) -> Any:
        """Scale and cap raw logits (in place where possible)."""
        import torch

        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def logits(self, states: Any, words: slice) -> Any:
        """float32 logits of a block of the vocabulary for float32 states (positions, width)."""
        raw = states @ self.weight[words].float().T
        if self.bias is not None:
            raw = raw + self.bias[words].float()
        return self.bend(raw)


def head_of(module: Any) -> Head:
    """The head of a transformers causal language model."""
    config = module.config
    layer = module.get_output_embeddings()
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)
    return Head(
        weight=layer.weight,
        bias=getattr(layer, "bias", None),
        scale=float(scale) if scale else 1.0 / float(divisor) if divisor else 1.0,
        cap=getattr(config, "final_logit_softcapping", None),
    )
