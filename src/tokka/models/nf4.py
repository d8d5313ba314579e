"""Four bits a weight: NF4 for training adapters in less memory (QLoRA, Dettmers et al. 2023).

Folder → module whose linear layers are kept as NF4 in blocks of 64 with doubly quantised scales
(4.13 bits a weight) and computed in bfloat16. Embedding, head, norms, routers and stacked experts
stay bfloat16. An adapter trained on these weights makes up for their rounding too, so it is folded
into the rounded weights, never into the original ones (peft#2321).

    module = load_nf4(folder)                                # to train an adapter on
    module = dequantised(load_module(folder, "bfloat16"))    # to fold that adapter into
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tokka.errors import TokkaError, UsageError
from tokka.extras import require
from tokka.models.linears import linear_targets

BLOCK = 64  # weights that share a scale: QLoRA's and bitsandbytes' own


def load_nf4(folder: Path, adapters: Sequence[Path] = ()) -> Any:
    """A frozen module to train an adapter on; `adapters` are folded in before it is quantised.

    The bfloat16 weights pass through the processor's memory (2 bytes a parameter). Raises
    MissingExtra without bitsandbytes, UsageError for layers that NF4 can't hold, TokkaError where
    bitsandbytes can't compute on this machine.
    """
    from tokka.models.torch_model import load_module

    require("bitsandbytes", extra="qlora")  # before anything is read
    # On the processor, where the fold rounds them as well: no weight may fall the other way, and a
    # GPU never holds the whole bfloat16 model.
    module = quantised(load_module(folder, "bfloat16", adapters, device="cpu"))
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def quantised(module: Any) -> Any:
    """The same module, frozen, its linear layers turned into NF4 where they are. Raises as
    `load_nf4`."""
    bnb = require("bitsandbytes", extra="qlora")
    module.requires_grad_(False)
    for name, layer in list(_layers(module)):
        parent, _, label = name.rpartition(".")
        setattr(module.get_submodule(parent), label, _four_bit(bnb, name, layer))
    module.is_loaded_in_4bit = True  # PEFT asks
    return module


def dequantised(module: Any) -> Any:
    """The same module, each weight that `quantised` would turn into NF4 replaced by what NF4 makes
    of it: the weights that an adapter was trained on. Raises as `load_nf4`."""
    bnb = require("bitsandbytes", extra="qlora")
    for name, layer in _layers(module):
        # Whatever the module's dtype, bfloat16 is what was rounded and what was computed with.
        packed, state = _pack(bnb, name, layer.weight.data.to(torch.bfloat16))
        layer.weight.data.copy_(bnb.functional.dequantize_4bit(packed, state))
    return module


def is_nf4(module: Any) -> bool:
    """Has it been through `quantised`? A PEFT model answers for the module inside."""
    return bool(getattr(module, "is_loaded_in_4bit", False))


def _layers(module: Any) -> Iterator[tuple[str, Any]]:
    for name in linear_targets(module).modules:
        layer = module.get_submodule(name)
        if not isinstance(layer, torch.nn.Linear):
            raise UsageError(
                f"qlora: NF4 can't hold {name} of architecture {module.config.model_type} (a "
                f"{type(layer).__name__}); use method lora"
            )
        yield name, layer


def _four_bit(bnb: Any, name: str, layer: Any) -> Any:
    packed, state = _pack(bnb, name, layer.weight.data)
    with torch.device("meta"):
        made = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compute_dtype=layer.weight.dtype
        )
    made.weight = bnb.nn.Params4bit(
        packed,
        quant_state=state,
        blocksize=BLOCK,
        compress_statistics=True,
        quant_type="nf4",
        module=made,
        bnb_quantized=True,
    )
    made.quant_state = state
    made.bias = layer.bias
    # In eval mode it would lay its weights out anew for a kernel without gradients, for good.
    made.support_avx512bf16_for_cpu = False
    return made


def _pack(bnb: Any, name: str, weight: Any) -> tuple[Any, Any]:
    try:
        packed, state = bnb.functional.quantize_4bit(
            weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise TokkaError(
            f"qlora: bitsandbytes can't turn {name} into NF4 on {weight.device.type} here "
            f"({first}); use method lora, or another build of bitsandbytes"
        ) from error
    return packed, state
