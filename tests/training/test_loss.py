"""The loss without logits equals cross-entropy with them, gradients too, in less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tokka.models.head import Head  # noqa: E402
from tokka.training import loss  # noqa: E402
from tokka.training.loss import Pull, answer_loss  # noqa: E402

WIDTH, VOCABULARY = 24, 2500  # three blocks of words, the last one shorter
BENT: list[dict[str, Any]] = [
    {},
    {"cap": 5.0},
    {"scale": 0.125},
    {"biased": True},
    {"biased": True, "scale": 3.0, "cap": 4.0},
]


def made(positions: int, seed: int = 0, spread: float = 1.0, **bent: Any) -> tuple[Any, Any, Head]:
    random = torch.Generator().manual_seed(positions + 1000 * seed)
    hidden = torch.randn(positions, WIDTH, generator=random) * spread
    targets = torch.randint(VOCABULARY, (positions,), generator=random)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random)
    bias = torch.randn(VOCABULARY, generator=random) if bent.pop("biased", False) else None
    return hidden, targets, Head(weight, bias, **{"scale": 1.0, "cap": None, **bent})


def logits(hidden: Any, head: Head) -> Any:
    return head.bend(torch.nn.functional.linear(hidden, head.weight, head.bias))


def naive(hidden: Any, targets: Any, head: Head, pull: Pull | None = None) -> Any:
    own = torch.log_softmax(logits(hidden, head).float(), dim=1)
    total = torch.nn.functional.nll_loss(own, targets, reduction="sum")
    if pull is None:
        return total
    base = torch.log_softmax(logits(pull.hidden, pull.head).float(), dim=1)
    return total + pull.strength * (base.exp() * (base - own)).sum()


def of(function: Callable[..., Any], given: tuple[Any, Any, Head], pull: Pull | None = None) -> Any:
    """Loss a token and the gradients of the states and of the head."""
    hidden, targets, head = given
    states, weight = hidden.clone().requires_grad_(), head.weight.clone().requires_grad_()
    total = function(states, targets, Head(weight, head.bias, head.scale, head.cap), pull)
    mean = total / len(hidden)
    mean.backward()  # what stands above the loss reaches the gradients
    return mean.detach(), states.grad, weight.grad


def assert_alike(mine: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    for value, wanted in zip(mine, theirs, strict=True):
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(value, wanted, atol=tolerance, rtol=tolerance)


@pytest.fixture(params=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions in chunks of 16, or of 5 where the head is trained; words in blocks of 1024."""
    if request.param == "in pieces":
        monkeypatch.setattr(loss, "CHUNK_POSITIONS", 16)
        monkeypatch.setattr(loss, "CHUNK_CELLS", 5 * VOCABULARY)
        monkeypatch.setattr(loss, "BLOCK_CELLS", 1)


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("pulled", [False, True], ids=["alone", "pulled"])
@pytest.mark.parametrize("bent", BENT, ids=str)
@pytest.mark.parametrize("positions", [1, 16, 41])
def test_loss_and_gradients_equal_naive_cross_entropy(
    positions: int, bent: dict[str, Any], pulled: bool
) -> None:
    """Also with a pull: + strength × KL(base ‖ model), whose base has states and a head of its
    own."""
    given = made(positions, **bent)
    pull = None
    if pulled:
        hidden, _, head = made(positions, seed=1, **bent)
        pull = Pull(hidden, head, 0.7)
    assert_alike(of(answer_loss, given, pull), of(naive, given, pull))


@pytest.mark.usefixtures("pieces")
def test_a_frozen_head_gets_no_gradient_and_the_states_get_the_same() -> None:
    hidden, targets, head = made(41)
    states = hidden.clone().requires_grad_()
    (answer_loss(states, targets, head) / 41).backward()
    assert head.weight.grad is None
    _, wanted, _ = of(naive, (hidden, targets, head))
    torch.testing.assert_close(states.grad, wanted, atol=1e-5, rtol=1e-5)


def test_a_pull_to_itself_costs_nothing() -> None:
    given = made(9)
    hidden, _, head = given
    assert_alike(of(answer_loss, given, Pull(hidden, head, 5.0)), of(answer_loss, given))


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("pulled", [False, True])
def test_large_logits_neither_overflow_nor_vanish(pulled: bool) -> None:
    hidden, targets, head = made(40, spread=100.0)
    others, _, _ = made(40, seed=1, spread=100.0)
    value = answer_loss(hidden, targets, head, Pull(others, head, 1.0) if pulled else None)
    own, base = (
        torch.log_softmax(h.double() @ head.weight.double().T, 1) for h in (hidden, others)
    )
    wanted = -own[range(40), targets].sum()
    if pulled:
        wanted += (base.exp() * (base - own)).sum()
    assert logits(hidden, head).max() > 1000
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("pulled", [False, True])
@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_in_bfloat16_it_is_as_close_to_the_truth_as_naive_cross_entropy(
    kept: Any, pulled: bool
) -> None:
    """A head trained in full is kept in float32 and multiplied in the states' dtype."""
    (hidden, targets, head), (theirs, _, other) = made(41), made(41, seed=1)

    def run(function: Callable[..., Any], dtype: Any, weights: Any) -> Any:
        def head_of(found: Head, dtype: Any) -> Head:
            return Head(found.weight.bfloat16().to(dtype), None, 1.0, None)

        pull = Pull(theirs.bfloat16().to(dtype), head_of(other, dtype), 0.5) if pulled else None
        states = hidden.bfloat16().to(dtype)
        return of(function, (states, targets, head_of(head, weights)), pull)

    truth = run(naive, torch.float32, torch.float32)
    plain = run(naive, torch.bfloat16, torch.bfloat16)
    mine = run(answer_loss, torch.bfloat16, kept)
    assert mine[0].dtype == torch.float32 and mine[2].dtype == kept
    assert mine[0].item() == pytest.approx(truth[0].item(), rel=1e-3)
    for value, other_value, wanted in zip(mine, plain, truth, strict=True):
        error, usual = ((v.float() - wanted).norm() / wanted.norm() for v in (value, other_value))
        assert error < 1.2 * usual + 2e-4


def test_a_step_of_any_number_of_tokens_scales_gradients_exactly() -> None:
    """1 / 37 is a sixth of a percent away in bfloat16: every gradient of the step would be."""
    hidden, targets, head = made(12)
    short = Head(head.weight.bfloat16(), None, 1.0, None)
    found = []
    for parts in (1, 37):
        states = hidden.bfloat16().requires_grad_()
        weight = short.weight.clone().requires_grad_()
        (answer_loss(states, targets, Head(weight, None, 1.0, None)) / parts).backward()
        found.append((states.grad, weight.grad))
    for whole, part in zip(*found, strict=True):
        assert torch.equal(part, (whole.double() / 37).bfloat16())


def test_a_batch_that_teaches_nothing_is_an_error() -> None:
    """A mean over nothing would be NaN, or a silent zero (pitfall 7: an all-zero mask)."""
    hidden, targets, head = made(1)
    with pytest.raises(ValueError, match="without a supervised position"):
        answer_loss(hidden[:0], targets[:0], head)


# ---- memory -------------------------------------------------------------------------------------


def peak(function: Callable[[], Any]) -> int:
    """The most bytes of tensors that the call held at once beyond what was there before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        function()
    now = most = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_the_loss_takes_a_tenth_of_naive_memory_at_a_vocabulary_of_262144(trained: bool) -> None:
    positions, width, words = 512, 16, 262_144
    hidden = torch.randn(positions, width).bfloat16().requires_grad_()
    weight = torch.randn(words, width).bfloat16().requires_grad_(trained)
    head = Head(weight, None, 1.0, None)
    targets = torch.randint(words, (positions,))
    logit_bytes = 4 * positions * words
    theirs = peak(lambda: naive(hidden, targets, head).backward())
    mine = peak(lambda: answer_loss(hidden, targets, head).backward())
    assert theirs > 2 * logit_bytes  # it was the logits that were measured
    assert 10 * mine < theirs, (mine, theirs)
