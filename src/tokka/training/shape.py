"""What a model is made of, read from its config and the headers of its weight files: no torch.

    shape = shape_of(folder)                 # config.json and *.safetensors → Shape
    shape.parameters, shape.matrices         # 268_098_176, …

Estimates of memory and time start here (see `memory` and `calibration`). Only the first bytes of
each weight file are read, so a model of any size takes milliseconds.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError, UsageError
from tokka.records import ScratchSpec
from tokka.store import read_json

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
POSITIONS = ("wpe", "embed_positions", "position_embeddings")
HEADS = ("lm_head", "embed_out")
# A router chooses experts and takes no adapter; `gate_proj` is an MLP's own matrix.
ROUTERS = ("gate", "router", "shared_expert_gate")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Matrix:
    """`count` linear layers of `inputs` → `outputs`; of experts, `share` serve each token."""

    outputs: int
    inputs: int
    count: int = 1
    share: float = 1.0

    @property
    def parameters(self) -> int:
        return self.count * self.outputs * self.inputs


@dataclass(frozen=True, slots=True)
class Shape:
    """Numbers of parameters and widths. `queries`, `keys` are the widths of a layer's queries and
    of its keys; `feedforward` is what an MLP is wide for one token (all experts that serve it).
    `embedding` and `head` are numbers of parameters; a head tied to the embedding has none.
    `windows` holds each layer's attention window in tokens, 0 where it sees everything."""

    layers: int
    width: int
    feedforward: int
    queries: int
    keys: int
    vocabulary: int
    matrices: tuple[Matrix, ...]
    embedding: int
    head: int
    other: int
    windows: tuple[int, ...]

    @property
    def linear(self) -> int:
        """Parameters of the layers' matrices: what adapters sit on and NF4 rounds."""
        return sum(matrix.parameters for matrix in self.matrices)

    @property
    def active(self) -> float:
        """Those of them that a token meets; fewer than `linear` with experts."""
        return sum(matrix.parameters * matrix.share for matrix in self.matrices)

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding + self.head + self.other

    def adapter(self, rank: int, dora: bool = False) -> int:
        """Parameters of LoRA on every matrix: r (inputs + outputs) each (Hu et al. 2021); DoRA adds
        a magnitude for each output (Liu et al. 2024)."""
        return sum(
            matrix.count * (rank * (matrix.inputs + matrix.outputs) + dora * matrix.outputs)
            for matrix in self.matrices
        )


def shape_of(folder: Path) -> Shape:
    """A folder in Hugging Face's layout. Raises UsageError where it holds no safetensors, or its
    config doesn't say how wide the model is."""
    config = read_json(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UsageError(
            f"plan: {folder} holds no .safetensors, so its size isn't known; convert the weights"
        )
    tensors = [tensor for file in files for tensor in _tensors(file)]
    return _shape(config.get("text_config") or config, tensors, folder)


def scratch_shape(spec: ScratchSpec) -> Shape:
    """The small Llama that `pretrain.scratch` begins with: feed-forward 8/3 of the width, in steps
    of 32, tied embedding."""
    hidden = _scratch_feedforward(spec)
    per_layer = (Matrix(spec.width, spec.width, 4), Matrix(hidden, spec.width, 3))
    return Shape(
        layers=spec.layers,
        width=spec.width,
        feedforward=hidden,
        queries=spec.width,
        keys=spec.width,
        vocabulary=spec.vocabulary,
        matrices=tuple(
            Matrix(one.outputs, one.inputs, one.count * spec.layers) for one in per_layer
        ),
        embedding=spec.vocabulary * spec.width,
        head=0,
        other=(2 * spec.layers + 1) * spec.width,
        windows=(0,) * spec.layers,
    )


def scratch_config(spec: ScratchSpec) -> dict[str, Any]:
    """The same as a `LlamaConfig` takes it."""
    return {
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.width,
        "intermediate_size": _scratch_feedforward(spec),
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "max_position_embeddings": spec.context_tokens,
        "tie_word_embeddings": True,
    }


def _scratch_feedforward(spec: ScratchSpec) -> int:
    return -(-8 * spec.width // 3 // 32) * 32


def _tensors(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes: a safetensors file begins with the length of its JSON header, 8 bytes
    little-endian."""
    try:
        with file.open("rb") as opened:
            (length,) = _LENGTH.unpack(opened.read(_LENGTH.size))
            header = json.loads(opened.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise IntegrityError(
            f"{file}: its header can't be read ({error}); fetch or copy the file again"
        ) from error
    for name, described in header.items():
        if name != "__metadata__":
            yield name, tuple(described["shape"])


def _shape(
    config: dict[str, Any], tensors: list[tuple[str, tuple[int, ...]]], folder: Path
) -> Shape:
    width = _number(config, folder, "hidden_size", "n_embd", "d_model")
    layers = _number(config, folder, "num_hidden_layers", "n_layer")
    heads = _number(config, folder, "num_attention_heads", "n_head")
    # JetMoE says what one expert is wide in `intermediate_size` too.
    feedforward = _first(config, "intermediate_size", "ffn_dim", "n_inner") or 4 * width
    experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts")
    used = _first(config, "num_experts_per_tok", "num_experts_per_token", "moe_top_k") or 1
    if experts:
        one = _first(config, "moe_intermediate_size") or feedforward
        feedforward = used * one + _first(config, "shared_expert_intermediate_size")
    counted: dict[tuple[int, int, float], int] = {}
    embedding = head = other = 0
    for name, sizes in tensors:
        size = math.prod(sizes)
        words = set(name.split("."))
        if words.intersection(HEADS):
            head += size
        elif words.intersection(EMBEDDINGS) or words.intersection(POSITIONS):
            embedding += size
        elif _is_matrix(name, sizes, words):
            count = sizes[0] if len(sizes) == 3 else 1
            expert = experts > 0 and (len(sizes) == 3 or "experts" in words)
            key = (sizes[-2], sizes[-1], min(1.0, used / experts) if expert else 1.0)
            counted[key] = counted.get(key, 0) + count
        else:
            other += size
    head_width = _first(config, "head_dim") or width // heads
    kv_heads = _first(config, "num_key_value_heads") or heads
    vocabulary = _first(config, "vocab_size")
    if config.get("tie_word_embeddings") and embedding:
        head = 0  # some files hold the tied head a second time
    return Shape(
        layers=layers,
        width=width,
        feedforward=feedforward,
        queries=heads * head_width,
        keys=kv_heads * head_width,
        vocabulary=vocabulary,
        matrices=tuple(Matrix(o, i, n, share) for (o, i, share), n in sorted(counted.items())),
        embedding=embedding,
        head=head,
        other=other,
        windows=_windows(config, layers),
    )


def _is_matrix(name: str, sizes: tuple[int, ...], words: set[str]) -> bool:
    if len(sizes) not in (2, 3) or name.endswith("bias"):
        return False
    parts = name.removesuffix(".weight").split(".")
    return parts[-1] not in ROUTERS and not words.intersection({"router", "norm"})


def _windows(config: dict[str, Any], layers: int) -> tuple[int, ...]:
    window = config.get("sliding_window") or 0
    kinds = config.get("layer_types")
    if not window or config.get("use_sliding_window") is False:
        return (0,) * layers
    if not kinds:
        return (int(window),) * layers
    return tuple(int(window) if kind == "sliding_attention" else 0 for kind in kinds)


def _first(config: dict[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)


def _number(config: dict[str, Any], folder: Path, *names: str) -> int:
    found = _first(config, *names)
    if not found:
        raise UsageError(f"plan: {folder / 'config.json'} doesn't say {names[0]}; add it")
    return found
