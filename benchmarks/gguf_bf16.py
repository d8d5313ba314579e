"""A quantised GGUF written out again with bf16 weights, so that llama.cpp can be asked in the dtype
that torch is asked in.

>>> bf16_of(Path("gemma-3-270m-q4_k_m.gguf"))       # made once, kept in the user's cache folder
"""

from __future__ import annotations

import os
from pathlib import Path

from measuring import say

from tokka.store import cache_folder, locked

_BF16_FILE = 32  # llama.cpp's LLAMA_FTYPE_MOSTLY_BF16


def bf16_of(source: Path) -> Path:
    """The same model with bf16 matrices; vectors (norms) stay float32, as llama.cpp's own converter
    leaves them."""
    target = cache_folder() / "benchmarks" / f"{source.stem}-bf16.gguf"
    with locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            say(f"writing {target} (once)")
            unfinished = target.with_suffix(".tmp")
            _write(source, unfinished)
            os.replace(unfinished, target)
    return target


def _write(source: Path, target: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(str(source))
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(target), architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue  # the writer writes these itself
        value = _BF16_FILE if name == "general.file_type" else field.contents()
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, value, field.types[0], sub_type=inner)
    kind = gguf.GGMLQuantizationType.BF16
    for tensor in reader.tensors:
        plain = gguf.dequantize(tensor.data, tensor.tensor_type)
        plain = plain.reshape(tensor.shape.tolist()[::-1])
        if plain.ndim == 1:
            writer.add_tensor(tensor.name, plain)
        else:
            writer.add_tensor(tensor.name, gguf.quantize(plain, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
