"""Cross-entropy without logits: the head runs at supervised positions only, in chunks.

With a vocabulary of 262,144, float32 logits take 1 MiB a token. Here a block of positions × words
is held at a time, forward and backward at once. Where the head is trained, a chunk of positions
keeps its blocks in the weights' dtype until its divisors are known, and the head's gradient is
added up over the chunks; where it is frozen, nothing is kept.
All sums are in nats over the positions given, so that the caller divides by the tokens of a whole
step, however many batches or machines these came from.

    total = answer_loss(hidden, targets, head_of(module))            # a scalar with gradients
    total = answer_loss(hidden, targets, head, pull=Pull(base_hidden, base_head, 0.1))

Cross-entropy in chunks: Wijmans et al. 2024 (Cut Your Losses); here without dropping gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tokka.models.head import Head

CHUNK_POSITIONS = 2048
CHUNK_CELLS = 2**26  # positions × vocabulary of a chunk under a trained head: 128 MB in bfloat16
ROWS = 32
BLOCK_CELLS = 2**20  # in float32 at a time: 4 MB, which stay in the cache


@dataclass(frozen=True, slots=True)
class Pull:
    """`strength` × KL(base ‖ model) at each position, from the base model's hidden states
    (positions, width) and its head: Li and Hoiem 2016 (Learning without Forgetting)."""

    hidden: Any
    head: Head
    strength: float


def answer_loss(hidden: Any, targets: Any, head: Head, pull: Pull | None = None) -> Any:
    """Summed cross-entropy in nats: hidden (positions, width), targets (positions,) → float32
    scalar with gradients to `hidden` and, where it is trained, `head.weight`."""
    if len(hidden) == 0:
        raise ValueError("a batch without a supervised position")
    apply: Any = _AnswerLoss.apply
    return apply(hidden, head.weight, targets, head, pull)


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, targets: Any, head: Head, pull: Any) -> Any:
        own = weight if weight.dtype == hidden.dtype else weight.to(hidden.dtype)
        head = Head(own, head.bias, head.scale, head.cap)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.empty_like(own) if ctx.needs_input_grad[1] else None
        step = min(len(hidden), CHUNK_POSITIONS)
        if to_weight is not None:
            step = max(1, min(step, CHUNK_CELLS // own.shape[0]))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            taught = pull and Pull(pull.hidden[part], pull.head, pull.strength)
            loss, change = _chunk(hidden[part], targets[part], head, taught, to_weight, start > 0)
            total += loss
            to_hidden[part] = change
        ctx.save_for_backward(to_hidden, to_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        to_hidden, to_weight = ctx.saved_tensors
        scale = grads[0]  # a scalar: rounded to bfloat16 it would shift every gradient alike
        if to_weight is not None:
            to_weight = to_weight.mul_(scale)
        return to_hidden * scale, to_weight, None, None, None


def _chunk(
    states: Any, targets: Any, head: Head, pull: Pull | None, to_weight: Any, more: bool
) -> tuple[Any, Any]:
    """The loss of some positions and its gradient; the head's gradient is written to `to_weight`,
    or added where there is `more` than this chunk.

    The slope of a logit is softmax − 1 at the target. Softmax is only ever formed as
    e^(logit − top so far) of a block of words: a row's divisor is applied to what the block adds to
    the gradient, as in FlashAttention (Dao et al. 2022), and the target's −1 is a row of the head.
    """
    keep = to_weight is not None
    count, filled = len(states), _filled(states)
    mine = _Exponentials(filled, head, keep)
    base = None if pull is None else _Exponentials(_filled(pull.hidden), pull.head, keep)
    gap = torch.zeros_like(mine.sums)  # Σ e^(base logit − top) (base logit − logit)
    words = head.weight.shape[0]
    step = min(words, 2 ** (max(1024, BLOCK_CELLS // len(filled)).bit_length() - 1))
    for start in range(0, words, step):
        block = slice(start, min(start + step, words))
        bent = mine.logits(block)
        slope = _slope(bent, head)
        if base is not None:
            theirs = base.logits(block)
            chance, shrink = base.add(block, theirs.clone(), slope, head)
            gap = gap.mul_(shrink) + (chance * theirs.sub_(bent)).sum(dim=1)
        mine.add(block, bent, slope, head)
    norm = mine.norm()[:count]
    aimed = head.bend(_products(states, head.weight[targets], head.bias, targets))
    at_target = _slope(aimed, head)
    at_target = (torch.ones_like(aimed) if at_target is None else at_target)[:, None]
    total = norm.sum() - aimed.sum()
    strength = 0.0 if pull is None else pull.strength
    change = mine.change[:count].mul_((1 + strength) / mine.sums[:count, None])
    change -= at_target * head.weight[targets].float()
    if keep:
        mine.spread(filled, 1 + strength, to_weight, more)
        aim = (states.float() * at_target).to(to_weight.dtype)
        to_weight.index_add_(0, targets, aim, alpha=-1)
    if base is not None:
        # KL(base ‖ model) = Σ p_base (base logit − logit) − log Z_base + log Z
        total = total + strength * ((gap / base.sums - base.norm())[:count] + norm).sum()
        change -= base.change[:count].mul_(strength / base.sums[:count, None])
        if keep:
            base.spread(filled, -strength, to_weight, True)
    return total, change.to(states.dtype)


def _filled(states: Any) -> Any:
    """States with rows of zeros up to a multiple of `ROWS`, for few shapes of products."""
    return functional.pad(states, (0, 0, 0, -len(states) % ROWS))


class _Exponentials:
    """Sums over the vocabulary, a block of words after the other, for (positions, width) states.

    `sums` (positions,): Σ e^(logit − top). `change` (positions, width): Σ e^(logit − top) × slope ×
    row of the trained head. All float32; `top` is the largest logit so far.
    """

    def __init__(self, states: Any, head: Head, keep: bool) -> None:
        self.states, self.head = states, head
        self.sums = torch.zeros(len(states), device=states.device)
        self.top = torch.full_like(self.sums, -torch.inf)
        self.change: Any = 0.0
        self._kept: list[Any] | None = [] if keep else None

    def logits(self, block: slice) -> Any:
        """(positions, words of the block) float32."""
        bias = None if self.head.bias is None else self.head.bias[block]
        raw = (self.states @ self.head.weight[block].to(self.states.dtype).T).float()
        return self.head.bend(raw if bias is None else raw.add_(bias.float()))

    def add(self, block: slice, bent: Any, slope: Any, trained: Head) -> tuple[Any, Any]:
        """Take in a block's logits (overwritten). Returns e^(logit − top) and what older sums have
        shrunk by."""
        top = torch.maximum(self.top, bent.amax(dim=1))
        shrink = (self.top - top).exp_()
        chance = bent.sub_(top[:, None]).exp_()
        self.sums = self.sums.mul_(shrink).add_(chance.sum(dim=1))
        weights = (chance if slope is None else chance * slope).to(self.states.dtype)
        self.change = self.change * shrink[:, None] + weights @ trained.weight[block]
        self.top = top
        if self._kept is not None:
            self._kept.append((block, weights, top))
        return chance, shrink

    def norm(self) -> Any:
        return self.sums.log() + self.top

    def spread(self, states: Any, strength: float, to_weight: Any, more: bool) -> None:
        """Strength × softmax × slope × the trained model's states, added to the head's gradient
        where that holds something already."""
        norm = self.norm()
        assert self._kept is not None
        for block, weights, top in self._kept:
            share = (top - norm).exp_().mul_(strength)[:, None]
            aimed = (states.float() * share).to(states.dtype)
            to_weight[block].addmm_(weights.T, aimed, beta=int(more))  # 0 reads nothing


def _products(states: Any, rows: Any, bias: Any, words: Any) -> Any:
    """What `states @ weight.T` holds at one word for each position, rounded as it is there."""
    raw = torch.linalg.vecdot(states.float(), rows.to(states.dtype).float()).to(states.dtype)
    return raw.float() if bias is None else raw.float() + bias[words].float()


def _slope(bent: Any, head: Head) -> Any:
    """d logit / d product at float32 logits; None where it is 1."""
    if head.cap is not None:
        return (1 - (bent / head.cap).square_()).mul_(head.scale)
    return None if head.scale == 1.0 else torch.full_like(bent, head.scale)
