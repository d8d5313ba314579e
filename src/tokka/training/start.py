"""Where a weights stage begins: a model's folder, its digest, and adapters to be folded into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Start:
    """`base` is a folder in Hugging Face's layout (safetensors), `digest` names its files;
    `adapters` are folded into it in this order, each one trained on all before it."""

    base: Path
    digest: str
    adapters: tuple[Path, ...] = ()
