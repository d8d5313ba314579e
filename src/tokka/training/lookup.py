"""The gradient of a lookup in an embedding that is also the head, added where the head's lies.

A lookup's own gradient is a matrix of zeros but for the words of the batch: at 262,144 words of
640 float32 numbers, making it and adding it to the head's cost as much as a quarter of a step of
pretraining. Here the rows of the batch's words are looked up once each, and what comes back for
them is added to `weight.grad`, which the head has filled by then: the loss is computed from the
hidden states, so its way back comes first.

    add_in_place(model.get_input_embeddings())      # whose weight the head shares

For one process that computes its gradients by itself: what sums gradients over processes must see
them whole.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.func import functional_call


def add_in_place(embedding: Any) -> None:
    """Replace the forward of an `nn.Embedding`. A padding word learns like any other: nothing that
    is learnt depends on it."""
    embedding.padding_idx = None
    bare = copy.copy(embedding)  # the class's own forward, without hooks
    bare.__dict__["_parameters"] = dict(embedding._parameters)
    bare.__dict__["_forward_hooks"] = OrderedDict()
    plain = embedding.forward
    apply: Any = _Rows.apply

    def forward(ids: Any) -> Any:
        weight = embedding.weight
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return plain(ids)
        words, places = ids.unique(return_inverse=True)
        rows = apply(torch.zeros((), requires_grad=True), weight.detach(), words, weight)
        return functional_call(bare, {"weight": rows}, (places,))

    embedding.forward = forward


class _Rows(torch.autograd.Function):
    """`anchor` only makes the rows part of the graph: `weight` itself as an input would keep the
    head's gradient from reaching `weight.grad` before this one's turn."""

    @staticmethod
    def forward(ctx: Any, anchor: Any, values: Any, words: Any, weight: Any) -> Any:
        ctx.words, ctx.weight = words, weight
        return values[words]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        weight = ctx.weight
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, ctx.words, grads[0].to(weight.grad.dtype))
        return None, None, None, None
