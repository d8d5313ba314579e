"""Cross-entropy without logits: the head runs at supervised positions only, in chunks.

With a vocabulary of 262,144, float32 logits take 1 MiB a token; here a chunk of positions is held
at a time, forward and backward at once, and the head's weights are frozen (its gradient is not
formed). The loss is the mean over all supervised tokens of the batch, in nats.

    loss = answer_loss(hidden[rows, columns], targets, head_of(module))
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tokka.models.head import Head

CHUNK_POSITIONS = 128


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, targets: Any, head: Head) -> Any:
        """hidden (positions, width), targets (positions,) → scalar."""
        weight, cap = head.weight, head.cap
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), CHUNK_POSITIONS):
            states = hidden[start : start + CHUNK_POSITIONS]
            goal = targets[start : start + CHUNK_POSITIONS]
            logits = (states @ weight.T).float()
            if head.bias is not None:
                logits += head.bias.float()
            logits *= head.scale
            slope = None
            if cap is not None:
                capped = torch.tanh(logits / cap)
                slope = 1 - capped**2
                logits = cap * capped
            picked = logits.gather(1, goal[:, None])[:, 0]
            peak = logits.amax(dim=1, keepdim=True)
            logits.sub_(peak).exp_()
            norm = logits.sum(dim=1, keepdim=True)
            total += (norm.log() + peak)[:, 0].sum() - picked.sum()
            logits.div_(norm)
            logits.scatter_add_(
                1, goal[:, None], torch.full_like(goal[:, None], -1, dtype=logits.dtype)
            )
            if slope is not None:
                logits.mul_(slope)
            logits.mul_(head.scale)
            gradient[start : start + CHUNK_POSITIONS] = logits.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        ctx.positions = max(1, len(hidden))
        return total / ctx.positions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * (grads[0] / ctx.positions).to(gradient.dtype), None, None


def answer_loss(hidden: Any, targets: Any, head: Head) -> Any:
    """Mean cross-entropy in nats over positions. `cap` is the model's final logit soft cap, if
    any."""
    if len(hidden) == 0:
        raise ValueError("a batch without a supervised position")
    apply: Any = _AnswerLoss.apply
    return apply(hidden, targets, head)
