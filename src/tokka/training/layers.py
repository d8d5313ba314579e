"""The layers of known decoders, computed in fewer passes over memory than transformers takes.

On small hardware half of a training step is not matrix products but what stands between them: norms
in eight passes, adapters in float32, activations kept three times. Here each is one autograd
function that reads and writes as little as it can and keeps only what its backward needs. The
modules and their parameters stay transformers' and PEFT's; only `forward` is replaced, instance by
instance, so checkpoints, adapters and hooks know no difference.

    replace(module)      # a causal model, with or without adapters, before training

In float32 values and gradients equal transformers' own up to the order of sums
(tests/training/test_layers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from tokka.training import gpu

# ---- functions ----------------------------------------------------------------------------------


class _Norm(torch.autograd.Function):
    """x · rsqrt(mean x² + ε) · (shift + weight), in float32, over the last dimension.

    `early` rounds to x's dtype before the weight, as Llama does and Gemma does not.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, eps: float, shift: float, early: bool) -> Any:
        width = x.shape[-1]
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = norm.square_().div_(width).add_(eps).rsqrt_()
        gain = weight.float() + shift if shift else weight.float()
        ctx.save_for_backward(x, inverse, weight)
        ctx.shift = shift
        scaled = x * inverse  # float32
        if early and x.dtype != torch.float32:
            return (scaled.to(x.dtype) * weight).to(x.dtype)
        return scaled.mul_(gain).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, inverse, weight = ctx.saved_tensors
        gain = weight.float() + ctx.shift
        unit = x * inverse  # float32
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (grads[0] * unit).flatten(0, -2).sum(dim=0).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, to_weight, None, None, None
        slope = grads[0] * gain  # float32
        inner = torch.linalg.vecdot(slope, unit, dim=-1)[..., None].div_(-x.shape[-1])
        slope.addcmul_(unit, inner).mul_(inverse)
        return slope.to(x.dtype), to_weight, None, None, None


class _Gated(torch.autograd.Function):
    """act(gate) · up. The slope of the activation is kept from the forward pass, where it costs
    little more than the activation itself, instead of gate."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any, act: str) -> Any:
        bent, slope = _bend(gate, act)
        ctx.save_for_backward(bent, slope, up)
        return bent * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        bent, slope, up = ctx.saved_tensors
        return (grads[0] * up).mul_(slope), bent * grads[0], None


def _bend(x: Any, act: str) -> tuple[Any, Any]:
    """act(x) and act'(x), computed in float32 a few rows at a time, which stay in the cache.

    silu(x) = x σ(x); gelu's tanh form is x σ(z) with z = √(8/π) (x + 0.044715 x³), since
    (1 + tanh u) / 2 = σ(2u), and σ takes a third of the time of tanh. The slope of x σ(z) is
    σ (1 + (1 − σ) x z′).
    """
    bent, slope = torch.empty_like(x), torch.empty_like(x)
    rows, bent_rows, slope_rows = (t.view(-1, t.shape[-1]) for t in (x, bent, slope))
    step = max(1, CACHED_CELLS // rows.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step].float()
        if act == "gelu":
            share = torch.special.ndtr(part)
            density = torch.exp(part.square().mul_(-0.5)).mul_(part).mul_(_GAUSS)
            slope_rows[start : start + step] = density.add_(share)
        else:
            if act == "gelu_tanh":
                square = part.square()
                lift = square.mul(3 * 0.044715 * _SLOPE).add_(_SLOPE).mul_(part)  # x z′
                share = square.mul_(0.044715 * _SLOPE).add_(_SLOPE).mul_(part).sigmoid_()
            else:
                lift, share = part, torch.sigmoid(part)
            slope_rows[start : start + step] = (1 - share).mul_(lift).add_(1).mul_(share)
        bent_rows[start : start + step] = share.mul_(part)
    return bent, slope


CACHED_CELLS = 2**17  # float32: half a megabyte, of which three stay in a core's second cache
_SLOPE = math.sqrt(8 / math.pi)
_GAUSS = 1 / math.sqrt(2 * math.pi)


class _Rotate(torch.autograd.Function):
    """(…, heads, size) turned by (…, 1, size / 2) cosines and sines, first half against second."""

    @staticmethod
    def forward(ctx: Any, x: Any, cos: Any, sin: Any) -> Any:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1.0), None, None


def _turned(x: Any, cos: Any, sin: Any, sign: float) -> Any:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    result = torch.empty_like(x)
    torch.mul(first, cos, out=result[..., :half]).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=result[..., half : 2 * half]).addcmul_(first, sin, value=sign)
    if x.shape[-1] > 2 * half:
        result[..., 2 * half :] = x[..., 2 * half :]
    return result


class _Adapted(torch.autograd.Function):
    """x Wᵀ + b + s (x Aᵀ) Bᵀ with a frozen W: products in W's dtype, no copy of x in float32."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        down, up = a.to(x.dtype), (b * scale).to(x.dtype)
        small = rows @ down.T
        result = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        result.addmm_(small, up.T)
        ctx.save_for_backward(rows, small, weight, down, up)
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (a.dtype, b.dtype)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, small, weight, down, up = ctx.saved_tensors
        slope = grads[0].reshape(-1, grads[0].shape[-1])
        inner = slope @ up
        to_a = to_b = to_x = None
        if ctx.needs_input_grad[3]:
            to_a = (inner.T @ rows).to(ctx.dtypes[0])
        if ctx.needs_input_grad[4]:
            to_b = (slope.T @ small).to(ctx.dtypes[1]).mul_(ctx.scale)
        if ctx.needs_input_grad[0]:
            to_x = (slope @ weight).addmm_(inner, down).view(ctx.shape)
        return to_x, None, None, to_a, to_b, None


class _Linear(torch.autograd.Function):
    """x Wᵀ + b for a trained float32 W, multiplied in x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        own = weight.to(x.dtype)
        result = rows @ own.T if bias is None else torch.addmm(bias.to(x.dtype), rows, own.T)
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.with_bias = x.shape, bias is not None
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, weight = ctx.saved_tensors
        slope = grads[0].reshape(-1, grads[0].shape[-1])
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = (slope @ weight.to(slope.dtype)).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            to_weight = (slope.T @ rows).to(weight.dtype)
        if ctx.with_bias and ctx.needs_input_grad[2]:
            to_bias = slope.sum(dim=0, dtype=torch.float32).to(weight.dtype)
        return to_x, to_weight, to_bias


def _apply(function: Any, *args: Any) -> Any:
    return function.apply(*args)


# ---- modules ------------------------------------------------------------------------------------


def replace(module: Any) -> bool:
    """Give a causal model's norms, linear layers, gated MLPs, attentions and layers a `forward`
    that does the same in fewer passes. What isn't recognised stays as it is. Returns whether the
    decoder's states are those at a view's picks alone."""
    for part in module.modules():
        forward = _forward_of(part)
        if forward is not None:
            part.forward = MethodType(forward, part)
    layers = getattr(module.get_decoder(), "layers", None)
    if layers is None or not len(layers) or not _is_layer(layers[-1]):
        return False
    layers[-1]._tokka_last = True
    return True


def knows_all(module: Any) -> bool:
    """Whether every trained matrix is multiplied by a layer of ours (the embedding is looked up,
    the head is the loss's)."""
    known = {id(p.weight) for p in module.modules() if type(p) is nn.Linear}
    known.add(id(module.get_input_embeddings().weight))
    return all(p.dim() < 2 or id(p) in known for p in module.parameters())


def _forward_of(part: Any) -> Callable[..., Any] | None:
    name = type(part).__name__
    if name.endswith("RMSNorm") and _is_norm(part):
        return _norm
    if type(part) is nn.Linear and part.weight.requires_grad:
        return _linear
    if _is_lora(part):
        return _adapted
    if _is_gated(part):
        return _gated
    if _is_attention(part):
        return _attention
    if _is_layer(part):
        return _layer
    return None


def _is_norm(part: Any) -> bool:
    parameters = dict(part.named_parameters(recurse=False))
    return set(parameters) == {"weight"} and (
        hasattr(part, "eps") or hasattr(part, "variance_epsilon")
    )


def _norm(self: Any, x: Any) -> Any:
    gemma = type(self).__name__.startswith("Gemma")
    eps = self.eps if hasattr(self, "eps") else self.variance_epsilon
    how = (x, self.weight, eps, 1.0 if gemma else 0.0, not gemma)
    found = gpu.norm(*how)
    return _apply(_Norm, *how) if found is None else found


def _linear(self: Any, x: Any) -> Any:
    return _apply(_Linear, x, self.weight, self.bias)


def _is_lora(part: Any) -> bool:
    """PEFT's LoRA around an ordinary frozen linear layer; DoRA, dropout and NF4 stay PEFT's."""
    if not hasattr(part, "lora_A") or not hasattr(part, "base_layer"):
        return False
    names = list(part.lora_A)
    if len(names) != 1 or not isinstance(part.base_layer, nn.Linear):
        return False
    (name,) = names
    return (
        type(part.base_layer) is nn.Linear
        and part.base_layer.weight.is_floating_point()
        and not part.lora_variant
        and isinstance(part.lora_dropout[name], nn.Identity)
        and type(part.lora_A[name]) is nn.Linear
        and part.lora_B[name].bias is None
    )


def _adapted(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    base = self.base_layer
    if self.disable_adapters or self.merged:
        return base(x)
    (name,) = self.active_adapters
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    return _apply(_Adapted, x, base.weight, base.bias, a, b, self.scaling[name])


def _is_gated(part: Any) -> bool:
    known = all(hasattr(part, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))
    return known and _act(part.act_fn) is not None


def _act(act: Any) -> str | None:
    name = type(act).__name__
    if name in ("SiLUActivation", "SiLU"):
        return "silu"
    if name in ("GELUTanh", "PytorchGELUTanh"):
        return "gelu_tanh"
    return "gelu" if name in ("GELUActivation", "GELU") else None


def _gated(self: Any, x: Any) -> Any:
    how: Any = (self.gate_proj(x), self.up_proj(x), _act(self.act_fn))
    found = gpu.gated(*how)
    return self.down_proj(_apply(_Gated, *how) if found is None else found)


def _is_attention(part: Any) -> bool:
    named = all(hasattr(part, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
    return named and hasattr(part, "layer_idx") and hasattr(part, "scaling")


def _attention(
    self: Any,
    hidden_states: Any,
    position_embeddings: Any = None,
    attention_mask: Any = None,
    past_key_values: Any = None,
    *,
    tokka_view: Any = None,
    tokka_windows: Any = (),
    tokka_picks: Any = None,
    **kwargs: Any,
) -> Any:
    if tokka_view is None or past_key_values is not None:
        plain = type(self).forward
        return plain(
            self,
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
    cos, sin = position_embeddings
    half = cos.shape[-1] // 2
    cos, sin = cos[..., None, :half], sin[..., None, :half]
    asking = hidden_states if tokka_picks is None else hidden_states[:, tokka_picks]
    query = _heads(self.q_proj(asking), self.head_dim)
    key = _heads(self.k_proj(hidden_states), self.head_dim)
    value = _heads(self.v_proj(hidden_states), self.head_dim).transpose(1, 2)
    if getattr(self, "q_norm", None) is not None:
        query, key = self.q_norm(query), self.k_norm(key)
    key = _apply(_Rotate, key, cos, sin).transpose(1, 2)
    if tokka_picks is not None:
        cos, sin = cos[:, tokka_picks], sin[:, tokka_picks]
    query = _apply(_Rotate, query, cos, sin).transpose(1, 2)
    window = tokka_windows[self.layer_idx]
    picked = tokka_picks is not None
    seen = tokka_view.attend(self.layer_idx, window, query, key, value, self.scaling, picked)
    return self.o_proj(seen.transpose(1, 2).flatten(2)), None


def _heads(x: Any, size: int) -> Any:
    return x.view(*x.shape[:-1], -1, size)


def _is_layer(part: Any) -> bool:
    return (
        all(hasattr(part, n) for n in ("self_attn", "mlp", "input_layernorm"))
        and hasattr(part, "post_attention_layernorm")
        and _is_attention(part.self_attn)
    )


def _layer(self: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
    view = kwargs.get("tokka_view")
    if view is None or args:
        return type(self).forward(self, hidden_states, *args, **kwargs)
    if self.training and getattr(self, "gradient_checkpointing", False):
        # transformers does this within the `forward` that this one stands for
        return self._gradient_checkpointing_func(
            partial(_layer_once, self, view, **kwargs), hidden_states
        )
    return _layer_once(self, view, hidden_states, **kwargs)


def _layer_once(self: Any, view: Any, hidden_states: Any, **kwargs: Any) -> Any:
    """The last layer asks only at the places whose next token is learnt: nobody reads the rest."""
    picks = view.picks if getattr(self, "_tokka_last", False) else None
    attended, _ = self.self_attn(self.input_layernorm(hidden_states), tokka_picks=picks, **kwargs)
    residual = hidden_states if picks is None else hidden_states[:, picks]
    around = getattr(self, "pre_feedforward_layernorm", None)
    if around is None:
        residual = residual + attended
        fed = self.mlp(self.post_attention_layernorm(residual))
    else:  # Gemma: norms before and after
        residual = residual + self.post_attention_layernorm(attended)
        fed = self.post_feedforward_layernorm(self.mlp(around(residual)))
    fed = fed[0] if isinstance(fed, tuple) else fed
    return residual + fed
