"""Weights → one GGUF file for llama.cpp, in fewer bits where that is asked for.

Model folder and adapters (folded first) → `model.gguf` with the tokenizer, template and marks that
other programs need, the tokenizer's own files beside it, and `quantise.json`. Tensors are written
one at a time. Only an exam of the file itself shows what the lost bits cost.

    quantise(folder, start, "q4_k_m")

Which tensor gets how many bits follows llama.cpp's `llama-quant.cpp`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.models.safety import refuse_unsafe
from tokka.store import read_json, sha256_file, write_json
from tokka.training.gguf_file import read_header
from tokka.training.gguf_layers import (
    Family,
    family_of,
    name_of,
    prepare,
    rope_factors,
    write_settings,
)
from tokka.training.gguf_tokens import marks_of, write_tokens
from tokka.training.merge import adapter_digest, fold
from tokka.training.start import Start
from tokka.training.weights_files import Weights, copy_papers, write_config

Type = Literal["f16", "q8_0", "q4_k_m"]
FILE = "model.gguf"
FOLDED = "folded"
ROWS = 8192  # of a matrix, in float32 at a time
LARGEST_F16 = 65504.0
_FILE_TYPES = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}
# Blocks of 256 numbers don't fit every width; these have blocks of 32.
_SMALLER_BLOCKS = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}


def quantise(
    folder: Path,
    start: Start,
    type: Type,
    notice: Callable[[str], None] | None = None,
    template: str = "",
) -> None:
    """Write `start` as `folder`/model.gguf. A finished file of a killed run is kept. `template` is
    the chat template of a model that has none, for other programs.

    Raises UsageError for a family or a tokenizer that llama.cpp computes otherwise, MissingExtra
    without the packages, IntegrityError where the file lost something on the way.
    """
    require("gguf", extra="quantise")
    if type == "q4_k_m":
        require("libgguf", extra="quantise")
    from transformers import AutoConfig, AutoTokenizer

    refuse_unsafe(start.base)
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(str(start.base), **where).get_text_config()
    family = family_of(config)
    tokenizer = AutoTokenizer.from_pretrained(str(start.base), **where)
    if template:
        tokenizer.chat_template = template
    target = folder / FILE
    inputs = {
        "type": type,
        "base": start.digest,
        "adapters": [adapter_digest(adapter) for adapter in start.adapters],
        **({"template": template} if template else {}),
    }
    if target.exists() and _is_of(folder, inputs):
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = start.base
    if start.adapters:
        source = folder / FOLDED
        shutil.rmtree(source, ignore_errors=True)
        fold(source, start)
    unfinished = folder / f"{FILE}.tmp"
    types = _write(unfinished, Weights(source), family, config, tokenizer, type)
    _check(unfinished, tokenizer, sum(types.values()))
    copy_papers(start.base, folder)
    write_config(start.base, folder, "float16")
    digest = sha256_file(unfinished)
    write_json(folder / "quantise.json", {**inputs, "tensors": types, "sha256": digest})
    os.replace(unfinished, target)
    shutil.rmtree(folder / FOLDED, ignore_errors=True)
    bits = types.get("Q4_K", 0)
    if type == "q4_k_m" and bits < types.get("Q5_0", 0) and notice is not None:
        notice(
            f"quantise: a width of {config.hidden_size} is no multiple of 256, so most tensors "
            "are in Q5_0 instead of Q4_K"
        )


def _is_of(folder: Path, inputs: dict[str, Any]) -> bool:
    path = folder / "quantise.json"
    told = read_json(path) if path.exists() else {}
    same = all(told.get(key) == value for key, value in inputs.items())
    return same and sha256_file(folder / FILE) == told["sha256"]


def _write(
    path: Path, weights: Weights, family: Family, config: Any, tokenizer: Any, type: Type
) -> dict[str, int]:
    """Write the file; type → number of tensors."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[type]])
    write_settings(writer, family, config)
    embedding = next(n for n in weights if n.endswith("embed_tokens.weight"))
    write_tokens(writer, tokenizer, weights.shape(embedding)[0])
    if type != "f16":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    named = {name: name_of(family, config, name) for name in weights}
    tied = "output.weight" not in named.values()
    layers = int(config.num_hidden_layers)
    kinds: dict[str, Any] = {}
    counts: dict[str, int] = {}
    factors, float32 = rope_factors(config), np.dtype(np.float32)
    if factors is not None:
        size = 4 * len(factors)
        writer.add_tensor_info("rope_freqs.weight", (len(factors),), float32, size)
        counts["F32"] = 1
    for name, target in named.items():
        if target is not None:
            shape = weights.shape(name)
            kind = gguf.GGMLQuantizationType[type_of(target, shape, type, layers, tied)]
            size = int(np.prod(shape[:-1])) * _row_bytes(kind, shape[-1])
            writer.add_tensor_info(target, shape, float32, size, raw_dtype=kind)
            kinds[name] = kind
            counts[kind.name] = counts.get(kind.name, 0) + 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(np.array(factors, dtype=np.float32))
    for name, kind in kinds.items():
        tensor = prepare(family, config, str(named[name]), weights[name])
        parts = [_encode(part, kind, name) for part in _blocks(tensor)]
        writer.write_tensor_data(np.concatenate(parts))
    writer.close()
    return dict(sorted(counts.items()))


def type_of(name: str, shape: tuple[int, ...], type: Type, layers: int, tied: bool) -> str:
    """A tensor's type in a file of `type`, as llama.cpp's `llama_tensor_get_type` chooses it:
    vectors stay whole; Q4_K_M gives more bits to the head, and to half of the values and the down
    projections."""
    width = shape[-1]
    if len(shape) == 1:
        return "F32"
    if type == "f16":
        return "F16"
    wanted = "Q8_0" if type == "q8_0" else "Q4_K"
    if type == "q4_k_m":
        head = name == "output.weight" or (tied and name == "token_embd.weight")
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        favoured = ".attn_v." in name or ".ffn_down." in name
        if head or (favoured and _gets_more(layer, layers)):
            wanted = "Q6_K"
        if width % 256:
            wanted = _SMALLER_BLOCKS[wanted]
    return "F16" if width % 32 else wanted


def _gets_more(layer: int, layers: int) -> bool:
    """The first and the last eighth, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _row_bytes(kind: Any, width: int) -> int:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(width // block * size)


def _blocks(tensor: Any) -> Iterator[Any]:
    for first in range(0, tensor.shape[0], ROWS):
        yield tensor[first : first + ROWS].float().numpy()


def _encode(rows: Any, kind: Any, name: str) -> Any:
    """float32 rows as the bytes of `kind`."""
    import gguf
    import numpy as np

    if kind.name == "F16" and float(np.abs(rows).max()) > LARGEST_F16:
        raise UsageError(
            f"quantise: {name} holds numbers beyond {LARGEST_F16:.0f}, which f16 can't; use q8_0"
        )
    if kind.name in ("F32", "F16", "Q8_0"):
        return gguf.quantize(rows, kind)
    import libgguf

    return libgguf.quantize_rows(rows, int(kind))


def _check(path: Path, tokenizer: Any, tensors: int) -> None:
    """Read the file back: a lost EOS or template costs every answer and shows in no loss."""
    header = read_header(path)
    found, written = header.settings, len(header.tensors)
    if written != tensors:
        raise IntegrityError(
            f"quantise: the file holds {written} tensors of {tensors}; delete {path} and run again"
        )
    for key, value in marks_of(tokenizer).items():
        if found.get(key) != value:
            raise IntegrityError(
                f"quantise: {key} is {found.get(key)!r} in the file and {value!r} in the "
                "tokenizer, so the file would answer otherwise; report this as a bug of tokka"
            )
