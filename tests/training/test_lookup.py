"""A shared embedding's gradient arrives whole, wherever it is added up."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tokka.training.lookup import add_in_place

IDS = torch.tensor([[3, 1, 3, 0, 5, 1]])


class Scaled(nn.Embedding):
    """As Gemma's: the forward is its own."""

    def forward(self, input: Any) -> Any:
        return super().forward(input) * 2.5


class Tied(nn.Module):
    def __init__(self, kind: type[nn.Embedding], padding: int | None = None) -> None:
        super().__init__()
        self.embedding = kind(8, 4, padding_idx=padding)
        self.middle = nn.Linear(4, 4)

    def forward(self, ids: Any) -> Any:
        logits = torch.tanh(self.middle(self.embedding(ids))) @ self.embedding.weight.T
        return torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])


@pytest.mark.parametrize("kind", [nn.Embedding, Scaled])
def test_the_gradient_is_that_of_a_plain_lookup(kind: type[nn.Embedding]) -> None:
    torch.manual_seed(0)
    plain = Tied(kind)
    ours = copy.deepcopy(plain)
    add_in_place(ours.embedding)
    for ids in (IDS, IDS.flip(1)):  # the second one is added to the first
        losses = [model(ids) for model in (plain, ours)]
        assert torch.equal(*losses)
        for loss in losses:
            loss.backward()
    for theirs, mine in zip(plain.parameters(), ours.parameters(), strict=True):
        assert theirs.grad is not None and mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_hooks_run_once_and_the_weights_stay_the_same_object() -> None:
    model = Tied(nn.Embedding)
    weight, calls = model.embedding.weight, []
    add_in_place(model.embedding)
    model.embedding.register_forward_hook(lambda *_: calls.append(1))
    model(IDS).backward()
    assert len(calls) == 1
    assert model.embedding.weight is weight and weight.grad is not None
    assert list(model.state_dict()) == list(Tied(nn.Embedding).state_dict())


def test_what_isn_t_learnt_is_looked_up_plainly() -> None:
    model = Tied(nn.Embedding)
    add_in_place(model.embedding)
    with torch.no_grad():
        assert torch.equal(model.embedding(IDS), model.embedding.weight[IDS])
    model.embedding.weight.requires_grad_(False)
    model(IDS).backward()
    assert model.embedding.weight.grad is None


def test_a_padding_word_is_one_like_any_other() -> None:
    """A lookup of few rows would take the first of them for the padding."""
    torch.manual_seed(0)
    plain, ours = Tied(nn.Embedding), Tied(nn.Embedding, padding=0)
    ours.load_state_dict(plain.state_dict())
    add_in_place(ours.embedding)
    ids = torch.tensor([[3, 1, 4, 5]])  # no padding, and 1 is the first of its rows
    for model in (plain, ours):
        model(ids).backward()
    torch.testing.assert_close(ours.embedding.weight.grad, plain.embedding.weight.grad)
