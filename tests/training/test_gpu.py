"""Kernels for a GPU are asked for what the CPU's own layers compute; stand-ins, no GPU needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tokka.training import gpu  # noqa: E402
from tokka.training.view import PackedView  # noqa: E402


class OnGpu:
    """A tensor that says it is on a GPU."""

    def __init__(self, value: Any) -> None:
        self.value, self.is_cuda = value, True
        self.dtype, self.shape = value.dtype, value.shape

    def __getitem__(self, place: Any) -> Any:
        return self.value[place]


def stand_in(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> list[str]:
    asked: list[str] = []

    def module(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(**functions)

    monkeypatch.setattr(gpu, "_module", module)
    return asked


def test_on_a_cpu_nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch)
    x = torch.ones(2, 4)
    assert gpu.norm(x, x[0], 1e-6, 0.0, True) is None
    assert gpu.gated(x, x, "silu") is None
    assert gpu.attend(x, x, x, 1.0, None, torch.tensor([0, 2])) is None
    assert asked == []


@pytest.mark.parametrize(("early", "mode"), [(True, "llama"), (False, "gemma")])
def test_liger_norms_as_the_family_does(
    monkeypatch: pytest.MonkeyPatch, early: bool, mode: str
) -> None:
    seen: list[Any] = []
    function = SimpleNamespace(apply=lambda *how: seen.append(how) or "done")
    stand_in(monkeypatch, LigerRMSNormFunction=function)
    x = OnGpu(torch.ones(2, 4))
    assert gpu.norm(x, "weight", 1e-6, 1.0, early) == "done"
    assert seen == [(x, "weight", 1e-6, 1.0, mode, False)]


def test_liger_gates_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    function = SimpleNamespace(apply=lambda gate, up: (gate, up))
    asked = stand_in(monkeypatch, LigerSiLUMulFunction=function, LigerGELUMulFunction=function)
    gate = OnGpu(torch.ones(2, 4))
    assert gpu.gated(gate, "up", "silu") == (gate, "up")
    assert gpu.gated(gate, "up", "gelu_tanh") == (gate, "up")
    assert gpu.gated(gate, "up", "gelu") is None
    assert asked == ["liger_kernel.ops.swiglu", "liger_kernel.ops.geglu"]


def test_flash_attention_gets_the_texts_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    def varlen(q: Any, k: Any, v: Any, a: Any, b: Any, m: int, n: int, **how: Any) -> Any:
        assert a.tolist() == b.tolist() == [0, 3, 5] and (m, n) == (3, 3)
        assert how == {"softmax_scale": 0.5, "causal": True, "window_size": (1, 0)}
        assert q.shape == (5, 4, 8) and k.shape == v.shape == (5, 2, 8)
        return q

    stand_in(monkeypatch, flash_attn_varlen_func=varlen)
    view = PackedView(
        torch.tensor([0, 1, 2, 0, 1]), torch.tensor([3, 3, 3, 5, 5]), torch.tensor([2, 4])
    )
    query = torch.randn(1, 4, 5, 8, dtype=torch.bfloat16)
    keys = OnGpu(torch.randn(1, 2, 5, 8, dtype=torch.bfloat16))
    found = gpu.attend(OnGpu(query), keys, keys, 0.5, 2, view.bounds)
    assert torch.equal(found, query)


def test_a_lane_that_shares_tokens_is_not_for_flash_attention() -> None:
    places, ends = torch.tensor([0, 1, 2, 2]), torch.tensor([4, 4, 3, 4])
    assert PackedView(places, ends, torch.tensor([2])).bounds is None
