"""The loss without logits equals cross-entropy with them, gradients too."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tokka.models.head import Head  # noqa: E402
from tokka.training import loss  # noqa: E402
from tokka.training.loss import CHUNK_POSITIONS, answer_loss  # noqa: E402

WIDTH, VOCABULARY = 24, 97


def made(positions: int, spread: float = 1.0, **bent: Any) -> tuple[Any, Any, Head]:
    random = torch.Generator().manual_seed(positions)
    hidden = torch.randn(positions, WIDTH, generator=random) * spread
    targets = torch.randint(VOCABULARY, (positions,), generator=random)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random)
    bias = torch.randn(VOCABULARY, generator=random) if bent.pop("biased", False) else None
    return hidden, targets, Head(weight, bias, **{"scale": 1.0, "cap": None, **bent})


def naive(hidden: Any, targets: Any, head: Head) -> Any:
    logits = torch.nn.functional.linear(hidden, head.weight, head.bias) * head.scale
    if head.cap is not None:
        logits = head.cap * torch.tanh(logits / head.cap)
    return torch.nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize(
    "bent",
    [{}, {"cap": 5.0}, {"scale": 0.125}, {"biased": True}, {"biased": True, "scale": 3, "cap": 4}],
    ids=str,
)
@pytest.mark.parametrize(
    "positions", [1, CHUNK_POSITIONS - 1, CHUNK_POSITIONS, CHUNK_POSITIONS + 1, 300]
)
def test_loss_and_gradient_equal_naive_cross_entropy(positions: int, bent: Any) -> None:
    """Pitfall 9 as well: the mean is over the batch's supervised tokens, whatever the chunks."""
    hidden, targets, head = made(positions, **bent)
    results = []
    for function in (answer_loss, naive):
        states = hidden.clone().requires_grad_()
        value = function(states, targets, head)
        (3.0 * value).backward()  # what stands above the loss reaches the gradient
        results.append((value.detach(), states.grad))
    (mine, my_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(my_gradient, their_gradient, atol=1e-5, rtol=1e-5)
    assert my_gradient.abs().max() > 1e-4


def test_large_logits_neither_overflow_nor_vanish() -> None:
    hidden, targets, head = made(40, spread=100.0)
    double = Head(head.weight.double(), None, 1.0, None)
    value = answer_loss(hidden, targets, head)
    assert value.item() == pytest.approx(naive(hidden.double(), targets, double).item(), rel=1e-5)


def test_no_more_than_a_chunk_of_positions_meets_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden, targets, head = made(30)
    whole = answer_loss(hidden, targets, head)
    monkeypatch.setattr(loss, "CHUNK_POSITIONS", 8)

    class Watched(torch.Tensor):  # type: ignore[misc]
        shapes: list[tuple[int, ...]] = []  # noqa: RUF012

        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            result = super().__torch_function__(function, types, args, kwargs or {})
            if isinstance(result, torch.Tensor) and result.dim() == 2:
                cls.shapes.append(tuple(result.shape))
            return result

    chunked = loss._AnswerLoss.forward(
        type("Context", (), {"save_for_backward": lambda *_: None})(),
        hidden.as_subclass(Watched),
        targets,
        head,
    )
    rows = [shape[0] for shape in Watched.shapes if shape[1] == VOCABULARY]
    assert set(rows) == {8, 6}  # 30 = 3 × 8 + 6
    assert float(chunked) == pytest.approx(float(whole), rel=1e-6)


def test_the_heads_weights_get_no_gradient() -> None:
    hidden, targets, head = made(10)
    head.weight.requires_grad_()
    answer_loss(hidden.requires_grad_(), targets, head).backward()
    assert head.weight.grad is None
    assert hidden.grad is not None


def test_a_batch_that_teaches_nothing_is_an_error() -> None:
    """A mean over nothing would be NaN, or a silent zero (pitfall 7: an all-zero mask)."""
    hidden, targets, head = made(1)
    with pytest.raises(ValueError, match="without a supervised position"):
        answer_loss(hidden[:0], targets[:0], head)
