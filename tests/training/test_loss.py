"""The loss without logits equals cross-entropy with them, gradients too."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tokka.training import loss  # noqa: E402
from tokka.training.loss import CHUNK_POSITIONS, answer_loss  # noqa: E402

WIDTH, VOCABULARY = 24, 97


def made(positions: int, scale: float = 1.0) -> tuple[Any, Any, Any]:
    random = torch.Generator().manual_seed(positions)
    hidden = torch.randn(positions, WIDTH, generator=random) * scale
    targets = torch.randint(VOCABULARY, (positions,), generator=random)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random)
    return hidden, targets, weight


def naive(hidden: Any, targets: Any, weight: Any, cap: float | None) -> Any:
    logits = hidden @ weight.T
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return torch.nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize(
    "positions", [1, CHUNK_POSITIONS - 1, CHUNK_POSITIONS, CHUNK_POSITIONS + 1, 300]
)
def test_loss_and_gradient_equal_naive_cross_entropy(positions: int, cap: float | None) -> None:
    """Pitfall 9 as well: the mean is over the batch's supervised tokens, whatever the chunks."""
    hidden, targets, weight = made(positions)
    results = []
    for function in (answer_loss, naive):
        states = hidden.clone().requires_grad_()
        value = function(states, targets, weight, cap)
        (3.0 * value).backward()  # what stands above the loss reaches the gradient
        results.append((value.detach(), states.grad))
    (mine, my_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(my_gradient, their_gradient, atol=1e-5, rtol=1e-5)
    assert my_gradient.abs().max() > 1e-4


def test_large_logits_neither_overflow_nor_vanish() -> None:
    hidden, targets, weight = made(40, scale=100.0)
    expected = naive(hidden.double(), targets, weight.double(), None)
    value = answer_loss(hidden, targets, weight)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_more_than_a_chunk_of_positions_meets_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden, targets, weight = made(30)
    whole = answer_loss(hidden, targets, weight)
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
        weight,
        None,
    )
    rows = [shape[0] for shape in Watched.shapes if shape[1] == VOCABULARY]
    assert set(rows) == {8, 6}  # 30 = 3 × 8 + 6
    assert float(chunked) == pytest.approx(float(whole), rel=1e-6)


def test_the_heads_weights_get_no_gradient() -> None:
    hidden, targets, weight = made(10)
    weight.requires_grad_()
    answer_loss(hidden.requires_grad_(), targets, weight).backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_a_batch_that_teaches_nothing_is_an_error() -> None:
    """A mean over nothing would be NaN, or a silent zero (pitfall 7: an all-zero mask)."""
    hidden, targets, weight = made(1)
    with pytest.raises(ValueError, match="without a supervised position"):
        answer_loss(hidden[:0], targets[:0], weight)
