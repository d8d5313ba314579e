"""A model's layers as llama.cpp knows them: names, shapes and settings of a GGUF.

Config and tensors in Hugging Face's layout → metadata and tensors of a GGUF, for the families in
`FAMILIES`. The names come from the package `gguf`; what a family's weights need besides (norms that
count from 1, heads whose halves are interleaved) and what llama.cpp takes for granted about it
stands here, after llama.cpp's own converter and model files.

    family = family_of(config)
    write_settings(writer, family, config)
    name = name_of(family, config, "model.layers.0.self_attn.q_proj.weight")
    rows = prepare(family, config, name, tensor)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tokka.errors import UsageError


@dataclass(frozen=True, slots=True)
class Family:
    """`interleaved`: llama.cpp turns neighbouring numbers of a head together, not its halves.
    `norm_offset` is what the model's code adds to the weights of its norms."""

    architecture: str
    interleaved: bool = False
    norm_offset: float = 0.0


FAMILIES = {
    "gemma3_text": Family("gemma3", norm_offset=1.0),
    "llama": Family("llama", interleaved=True),
    "mistral": Family("llama", interleaved=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
}
GEMMA_WINDOW_THETA = 10_000.0
GEMMA_PERIOD = 6  # every sixth layer sees everything
GEMMA_27B_LAYERS = 62


def family_of(config: Any) -> Family:
    """Raises UsageError for a family, or a setting of one, that a GGUF of ours can't hold."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UsageError(
            f"quantise: tokka can't write models of the family {config.model_type} as GGUF; it "
            f"knows {', '.join(FAMILIES)}; leave the stage out, or convert the folder with "
            "llama.cpp's convert_hf_to_gguf.py"
        )
    problem = _gemma_problem(config) if family.architecture == "gemma3" else _problem(config)
    if problem:
        raise UsageError(
            f"quantise: llama.cpp would compute this {config.model_type} otherwise than it was "
            f"trained: {problem}; leave the stage out and serve the safetensors"
        )
    return family


def write_settings(writer: Any, family: Family, config: Any) -> None:
    rope = _rope(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(_head_dim(config))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)
    if rope["rope_type"] == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if family.architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)


def name_of(family: Family, config: Any, name: str) -> str | None:
    """A tensor's name in the GGUF; None where it isn't written (a head tied to the embedding)."""
    import gguf

    if name == "lm_head.weight" and config.tie_word_embeddings:
        return None
    architecture = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == family.architecture)
    known = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    found = known.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UsageError(
            f"quantise: llama.cpp's {family.architecture} has no place for the tensor {name}; "
            "leave the stage out and serve the safetensors"
        )
    return str(found)


def prepare(family: Family, config: Any, name: str, tensor: Any) -> Any:
    """A tensor of the GGUF named `name` as llama.cpp computes with it; its shape stays."""
    if name.endswith("norm.weight") and family.norm_offset:
        return tensor.float() + family.norm_offset
    if family.interleaved and ".attn_q." in name:
        return _interleave(tensor, config.num_attention_heads)
    if family.interleaved and ".attn_k." in name:
        return _interleave(tensor, config.num_key_value_heads)
    return tensor


def rope_factors(config: Any) -> list[float] | None:
    """By what each frequency of Llama 3.1's rope is divided (Llama 3 herd of models, 2024;
    transformers' `_compute_llama3_parameters`); None for other ropes."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    width = _head_dim(config)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context = float(rope["original_max_position_embeddings"])
    factors = []
    for place in range(0, width, 2):
        wavelength = 2 * math.pi * float(rope["rope_theta"]) ** (place / width)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(float(rope["factor"]))
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / float(rope["factor"]) + smooth))
    return factors


def _interleave(tensor: Any, heads: int) -> Any:
    """Rows (heads, 2 halves, half a head) → (heads, half a head, 2)."""
    half = tensor.shape[0] // heads // 2
    rest = tensor.shape[1:]
    return tensor.reshape(heads, 2, half, *rest).swapaxes(1, 2).reshape(tensor.shape)


def _head_dim(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _rope(config: Any) -> dict[str, Any]:
    """Of Gemma's two ropes that of the layers that see everything."""
    rope: dict[str, Any] = config.rope_parameters
    return dict(rope.get("full_attention", rope))


def _problem(config: Any) -> str:
    rope = _rope(config)
    layers = getattr(config, "layer_types", None) or ()
    window = getattr(config, "sliding_window", None)
    everywhere = config.model_type == "mistral"  # has no layer types; a window is for all layers
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        return f"its rope is of the type {rope['rope_type']}"
    if float(rope.get("partial_rotary_factor") or 1.0) != 1.0:
        return "only a part of each head is turned by its rope"
    if "sliding_attention" in layers or (everywhere and window is not None):
        return f"some layers see only the last {window} tokens"
    return ""


def _gemma_problem(config: Any) -> str:
    wanted = [
        "sliding_attention" if (layer + 1) % GEMMA_PERIOD else "full_attention"
        for layer in range(config.num_hidden_layers)
    ]
    local, rope = config.rope_parameters["sliding_attention"], _rope(config)
    scale = config.query_pre_attn_scalar
    natural = _head_dim(config)
    if config.num_hidden_layers == GEMMA_27B_LAYERS:
        natural = config.hidden_size // config.num_attention_heads
    if list(config.layer_types) != wanted:
        return f"not every {GEMMA_PERIOD}th layer, and only it, sees everything"
    if local["rope_type"] != "default" or float(local["rope_theta"]) != GEMMA_WINDOW_THETA:
        return f"the rope of its windows is {local}"
    if rope["rope_type"] not in ("default", "linear"):
        return f"its rope is of the type {rope['rope_type']}"
    if scale != natural:
        return f"query_pre_attn_scalar is {scale}, not {natural}"
    if config.hidden_activation != "gelu_pytorch_tanh":
        return f"its activation is {config.hidden_activation}"
    if config.final_logit_softcapping or config.attn_logit_softcapping:
        return "its logits are capped"
    if getattr(config, "use_bidirectional_attention", False):
        return "it reads in both directions"
    return ""
