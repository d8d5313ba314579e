"""Weights from weights: fold adapters, go part of the way, join what several arms learnt.

Starts in, a complete model folder out (or, where that says the same, a smaller adapter), with
`merge.json` beside it. Whole weights are computed one tensor at a time in float32; beyond one
folded model, memory holds a shard (see `weights_files`).

    fold(folder, start)                                      # base and adapters as one model
    interpolate(folder, start, origin, 0.5)                  # half of what was learnt (WiSE-FT)
    join(folder, origin, [start_a, start_b], "ties")         # what two arms learnt
    scaled_adapter(folder, adapter, 0.5)                     # half of what an adapter adds
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tokka.errors import IntegrityError, UsageError
from tokka.models.opening import rounding
from tokka.models.safety import refuse_unsafe
from tokka.records import fingerprint
from tokka.store import sha256_file, write_json
from tokka.training.start import Start
from tokka.training.weights_files import (
    Weights,
    copy_papers,
    tokenizer_digest,
    write_config,
    write_model,
    write_tensors,
)

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PARTS = "parts"  # folded models that a merge reads from; gone when it is done


def fold(folder: Path, start: Start, dtype: str = "bfloat16") -> None:
    """Write the model that `start` is, its adapters folded in as they are when it is examined.

    Raises UsageError where there is no adapter.
    """
    from tokka.models.torch_model import load_module

    if not start.adapters:
        raise UsageError(
            f"merge: fold found no adapter behind {start.base}; put a stage with method lora "
            "before it, or leave the fold out"
        )
    write_model(folder, load_module(start.base, dtype, start.adapters), start.base)
    _note(folder, "fold", [start], dtype, len(Weights(folder)))


def interpolate(
    folder: Path, start: Start, origin: Start, alpha: float, dtype: str = "bfloat16"
) -> None:
    """origin + α (start − origin) (WiSE-FT, Wortsman et al. 2022, eq. 1), weight by weight.

    Where `start` is `origin` and one more plain LoRA adapter, that adapter is written, scaled: the
    same weights in a folder a hundredth of the size. `folder` then holds adapter_model.safetensors,
    else model.safetensors. Raises UsageError for an α outside 0…1 and for models that don't match.
    """
    import torch

    _check_alpha(alpha)
    if _last_adapter_only(start, origin) and scales(start.adapters[-1]):
        scaled_adapter(folder, start.adapters[-1], alpha)
        return
    # Both as they are examined, so that α = 0 and α = 1 are the very models that were compared.
    with _whole(folder, origin, [start], dtype) as (before, (now,)):

        def between(name: str) -> Any:
            part: Any = torch.lerp(before[name].float(), now[name].float(), alpha)
            return part

        _write(folder, start.base, before, [now], between, dtype)
    _note(folder, "wise-ft", [origin, start], dtype, len(before), alpha=alpha)


def join(
    folder: Path,
    origin: Start,
    others: Sequence[Start],
    method: Literal["ties", "dare"],
    weights: Sequence[float] = (),
    density: float = 0.5,
    seed: int = 0,
    dtype: str = "bfloat16",
) -> None:
    """origin + what `others` learnt, joined tensor by tensor on their differences to `origin`.

    `ties` (Yadav et al. 2023, algorithm 1): of each difference the `density` of largest magnitude
    stays, the sign with the larger sum is elected, and those that agree with it are averaged.
    `dare` (Yu et al. 2023, eq. 3): each number stays with probability `density` and grows by its
    inverse; the differences are added. `weights` (one each; 1 where none is given) multiply the
    differences. Like PEFT's functions, which compute this, we trim within each tensor where the
    TIES paper trims within the whole model. Raises UsageError for models that don't match.
    """
    import torch
    from peft.utils.merge_utils import dare_linear, ties

    factors = tuple(weights) or (1.0,) * len(others)
    if len(others) < 2 or len(factors) != len(others):
        raise UsageError(
            f"merge: {method} joins two arms or more with a weight each, got {len(others)} arms "
            f"and {len(factors)} weights; correct arms and weights"
        )
    if not 0 < density <= 1:
        raise UsageError(f"merge: density must be above 0 and at most 1, got {density}")
    # Folded in float32: rounded to bfloat16, a small difference is mostly rounding.
    with _whole(folder, origin, others, "float32") as (before, after):
        scale = torch.tensor(factors, dtype=torch.float32)

        def joined(name: str) -> Any:
            start = before[name].float()
            learnt = [model[name].float() - start for model in after]
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The density")  # 1 is a fair choice
                torch.manual_seed(_seed(seed, name))
                together = (
                    ties(learnt, scale, density)
                    if method == "ties"
                    else dare_linear(learnt, scale, density)
                )
            return start + together

        _write(folder, origin.base, before, after, joined, dtype)
    how = {"density": density, "weights": list(factors)}
    if method == "dare":
        how["seed"] = seed
    _note(folder, method, [origin, *others], dtype, len(before), **how)


def scaled_adapter(folder: Path, adapter: Path, alpha: float) -> None:
    """An adapter that adds α times what `adapter` adds: its B matrices times α, in float32, so that
    every scaling (α/r, rsLoRA, patterns) holds as it is.

    `training.json` goes along: the new adapter belongs to the same base. Raises UsageError for an
    adapter that isn't linear in B (DoRA, whole layers saved along).
    """
    from safetensors.torch import load_file, save_file

    _check_alpha(alpha)
    refuse_unsafe(adapter, adapter=True)
    if not scales(adapter):
        raise UsageError(
            f"merge: the adapter {adapter} can't be scaled, it holds more than LoRA's A and B "
            "(DoRA or whole layers); use merge.interpolate, which writes whole weights"
        )
    tensors = load_file(str(adapter / ADAPTER))
    for name, tensor in tensors.items():
        if _is_b(name) and alpha != 1:
            tensors[name] = tensor.float() * alpha
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / ADAPTER), metadata={"format": "pt"})
    for name in (ADAPTER_CONFIG, "training.json"):
        if (adapter / name).exists():
            shutil.copyfile(adapter / name, folder / name)
    write_json(
        folder / "merge.json",
        {
            "method": "wise-ft",
            "alpha": alpha,
            "adapter": sha256_file(adapter / ADAPTER),
            "tensors": len(tensors),
        },
    )


def scales(adapter: Path) -> bool:
    """Whether an adapter's effect is its B matrices times something fixed."""
    from safetensors import safe_open

    if not (adapter / ADAPTER).is_file():
        raise IntegrityError(f"{adapter}: holds no {ADAPTER}; delete the folder and run again")
    with safe_open(str(adapter / ADAPTER), framework="pt") as file:
        names = list(file.keys())
    return all(_is_b(name) or ".lora_A." in name or "lora_embedding_A" in name for name in names)


def _is_b(name: str) -> bool:
    return ".lora_B." in name or "lora_embedding_B" in name


def _last_adapter_only(start: Start, origin: Start) -> bool:
    """Not so with an adapter trained on NF4: folding it moves the base too, to what NF4 keeps."""
    return (
        start.base == origin.base
        and start.adapters[:-1] == origin.adapters
        and len(start.adapters) > len(origin.adapters)
        and not rounding(start.adapters[-1])
    )


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise UsageError(f"merge: alpha must be from 0 (the origin) to 1 (all learnt), got {alpha}")


def _seed(seed: int, name: str) -> int:
    """Its own for each tensor, so that no shard's border changes what is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8])


@contextmanager
def _whole(
    folder: Path, origin: Start, others: Sequence[Start], dtype: str
) -> Iterator[tuple[Weights, list[Weights]]]:
    """Every start as files with the same tensors; those that have adapters are folded first."""
    _check_tokenizers(origin, others)
    parts = folder / PARTS
    shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed
    starts = [origin, *others]
    try:
        found = [
            _folded(parts / str(number), start, dtype) if start.adapters else Weights(start.base)
            for number, start in enumerate(starts)
        ]
        if any(list(weights) != list(found[0]) for weights in found):
            # A checkpoint may spell its tensors in an older way: all written by one hand.
            found = [
                _folded(parts / str(number), start, dtype)
                if weights.folder == start.base
                else weights
                for number, (start, weights) in enumerate(zip(starts, found, strict=True))
            ]
        for start, weights in zip(others, found[1:], strict=True):
            _check_shapes(origin, found[0], start, weights)
        yield found[0], found[1:]
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _folded(folder: Path, start: Start, dtype: str) -> Weights:
    from tokka.models.torch_model import load_module

    write_model(folder, load_module(start.base, dtype, start.adapters), start.base)
    return Weights(folder)


def _check_tokenizers(origin: Start, others: Sequence[Start]) -> None:
    own = tokenizer_digest(origin.base)
    for start in others:
        other = tokenizer_digest(start.base)
        if other != own:
            raise UsageError(
                f"merge: {start.base} (digest {start.digest}) has another tokenizer than "
                f"{origin.base} (digest {origin.digest}); merge only what began from the same base"
            )


def _check_shapes(origin: Start, before: Weights, start: Start, after: Weights) -> None:
    different = sorted(before.keys() ^ after.keys()) or [
        name for name in before if before.shape(name) != after.shape(name)
    ]
    if different:
        raise UsageError(
            f"merge: {start.base} (digest {start.digest}) and {origin.base} (digest "
            f"{origin.digest}) are different models: {different[0]} isn't the same in both "
            f"({len(different)} such tensors); merge only what began from the same base"
        )


def _write(
    folder: Path,
    base: Path,
    before: Weights,
    after: Sequence[Weights],
    compute: Callable[[str], Any],
    dtype: str,
) -> None:
    """A complete model folder of `compute(name)` in `dtype`; whole numbers stay as they are."""
    import torch

    def tensor(name: str) -> Any:
        start = before[name]
        if start.is_floating_point():
            return compute(name).to(getattr(torch, dtype))
        if any(not torch.equal(start, model[name]) for model in after):
            raise UsageError(
                f"merge: {name} holds whole numbers that differ between the models; they can't be "
                "mixed"
            )
        return start

    write_tensors(folder, after[0].shards, tensor)
    write_config(before.folder, folder, dtype)
    copy_papers(base, folder)


def _note(
    folder: Path, method: str, starts: Sequence[Start], dtype: str, tensors: int, **how: Any
) -> None:
    write_json(
        folder / "merge.json",
        {
            "method": method,
            **how,
            "dtype": dtype,
            "tensors": tensors,
            "inputs": [
                {"base": s.digest, "adapters": [adapter_digest(a) for a in s.adapters]}
                for s in starts
            ],
        },
    )


def adapter_digest(adapter: Path) -> str:
    """SHA-256 over an adapter's weights and shape."""
    return fingerprint([sha256_file(adapter / name) for name in (ADAPTER, ADAPTER_CONFIG)])
