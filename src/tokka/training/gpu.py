"""Kernels of others for a GPU, where they are installed: Liger for norms and gated activations,
FlashAttention for packed lanes. Without them, `layers` and `view` compute the same with torch.

    norm(x, weight, eps, shift, early)     # None where Liger isn't there or x isn't on a GPU

Never run here for want of a GPU: that they are called rightly is tested with stand-ins of the
published signatures (Liger-Kernel 0.8, flash-attn 2).
"""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def _module(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def norm(x: Any, weight: Any, eps: float, shift: float, early: bool) -> Any | None:
    """As `layers._Norm`; Liger calls rounding before the weight "llama", after it "gemma"."""
    liger = _module("liger_kernel.ops.rms_norm") if x.is_cuda else None
    if liger is None:
        return None
    mode = "llama" if early else "gemma"
    return liger.LigerRMSNormFunction.apply(x, weight, eps, shift, mode, False)


def gated(gate: Any, up: Any, act: str) -> Any | None:
    """act(gate) · up."""
    names = {
        "silu": ("liger_kernel.ops.swiglu", "LigerSiLUMulFunction"),
        "gelu_tanh": ("liger_kernel.ops.geglu", "LigerGELUMulFunction"),
    }
    if not gate.is_cuda or act not in names:
        return None
    where, name = names[act]
    liger = _module(where)
    return None if liger is None else getattr(liger, name).apply(gate, up)


def attend(
    query: Any, key: Any, value: Any, scale: float, window: int | None, bounds: Any
) -> Any | None:
    """Causal attention within each text of a lane: (1, heads, tokens, size). `bounds` (texts + 1,)
    int32: where texts begin and the last one ends; None where texts share tokens."""
    flash = _module("flash_attn") if query.is_cuda and bounds is not None else None
    if flash is None or query.dtype.itemsize != 2 or query.shape[2] != key.shape[2]:
        return None
    longest = int((bounds[1:] - bounds[:-1]).max())
    lanes = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    found = flash.flash_attn_varlen_func(
        *lanes,
        bounds,
        bounds,
        longest,
        longest,
        softmax_scale=scale,
        causal=True,
        window_size=(-1 if window is None else window - 1, 0),
    )
    return found.transpose(0, 1)[None]
