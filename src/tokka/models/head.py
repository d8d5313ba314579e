"""The language-model head of any causal model, as what decides its logits: weights, bias, scale,
cap.

logits = cap · tanh(scale · (hidden @ weightᵀ + bias) / cap), without the cap where there is none.
Granite divides its logits by `logits_scaling`, Cohere multiplies them by `logit_scale`, Gemma 2
caps them. Whoever computes logits without the model's own forward uses this.

>>> head = head_of(module)
>>> logits = head.logits(hidden, slice(0, 1024))
>>> log_probabilities(head, states, rows, targets)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

POSITIONS_BLOCK = 256
LEADERS_BLOCK = 512
VOCABULARY_BLOCK = 32_768  # a block of logits is 16 MB in bfloat16, 32 MB in float32


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

    def exact(self, states: Any, words: Any) -> Any:
        """float32 logits of chosen words: states (positions, width), words (positions, n) ids."""
        import torch

        raw = torch.einsum("pw,pnw->pn", states.float(), self.weight[words].float())
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


def log_probabilities(head: Head, states: Any, rows: Any, targets: Any) -> Any:
    """log p(targets[i]) at `states[rows[i]]`, float32; `states` (positions, width) in any dtype.

    The normaliser runs over blocks of the vocabulary in the weights' dtype, summed in float32; the
    target's own logit and the leaders of each block are computed again in float32, since a rounded
    leader shifts the whole sum. Positions × vocabulary is never held.
    """
    import torch

    totals = torch.cat([_normaliser(head, part) for part in states.split(POSITIONS_BLOCK)])
    own = [
        head.exact(states[r], t[:, None])[:, 0]
        for r, t in zip(rows.split(4096), targets.split(4096), strict=True)
    ]
    return torch.cat(own) - totals[rows]


def leaders(logits: Any, count: int) -> Any:
    """Places of the `count` largest of each row, largest first: (rows, words) → (rows, count).

    Two levels, since a maximum is vectorised on the CPU where its place is not (20 times as fast).
    """
    rows, words = logits.shape
    if words < 4 * LEADERS_BLOCK or words % LEADERS_BLOCK:
        return logits.topk(min(count, words), dim=1).indices
    blocks = logits.view(rows, -1, LEADERS_BLOCK)
    most = min(count, blocks.shape[1])
    best = blocks.amax(dim=2).topk(most, dim=1).indices
    inside = blocks.gather(1, best[:, :, None].expand(-1, -1, LEADERS_BLOCK)).flatten(1)
    found = inside.topk(count, dim=1).indices
    return best.gather(1, found // LEADERS_BLOCK) * LEADERS_BLOCK + found % LEADERS_BLOCK


def _normaliser(head: Head, states: Any) -> Any:
    """log Σ exp(logit) over the vocabulary, (positions,) float32."""
    import torch

    count, size = len(states), head.weight.shape[0]
    device, dtype = states.device, head.weight.dtype
    exact = dtype == torch.float32
    raw = torch.empty((count, VOCABULARY_BLOCK), dtype=dtype, device=device)
    wide = raw if exact else torch.empty_like(raw, dtype=torch.float32)
    total = torch.full((count,), -torch.inf, device=device)
    for start in range(0, size, VOCABULARY_BLOCK):
        stop = min(start + VOCABULARY_BLOCK, size)
        block = raw if stop - start == VOCABULARY_BLOCK else raw[:, : stop - start].contiguous()
        torch.mm(states, head.weight[start:stop].T, out=block)
        logits = block if exact else wide[:, : stop - start].copy_(block)
        if head.bias is not None:
            logits += head.bias[start:stop].float()
        if head.scale != 1.0 or head.cap is not None:
            logits.copy_(head.bend(logits))
        if not exact:
            leader = leaders(block, 1)
            logits.scatter_(1, leader, head.exact(states, leader + start))
        top = logits.amax(dim=1)
        rest = logits.sub_(top[:, None]).exp_().sum(dim=1).log_() + top
        total = torch.logaddexp(total, rest)
    return total
