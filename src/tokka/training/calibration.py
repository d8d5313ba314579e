"""How fast this machine multiplies and copies: measured in three seconds, kept for the next time.

    machine = calibrate()             # matrix products, copies
    roofline_flops("bfloat16")        # floating-point operations a second, at best
    flops_per_token(shape, spec, supervised_share=0.1)

Together they are the floor below which no training can get (the roofline, Williams et al. 2009):
the arithmetic that it needs, over the rate of matrix products. Results are kept in the user's cache
folder by machine, dtype, version of torch and number of threads.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tokka.records import (
    PreferSpec,
    Record,
    TrainingSpec,
    fingerprint,
)
from tokka.store import cache_folder, read_record, write_json
from tokka.training.shape import Shape

VERSION = 1  # raise it when a kept measurement means something else
PRODUCT = (1024, 2048, 2048)  # rows, inputs, outputs: a batch through an MLP of a small model
CUDA_PRODUCT = (8192, 8192, 8192)
COPY_BYTES = 2**27
PRODUCT_SECONDS, COPY_SECONDS = 1.0, 0.5

R = TypeVar("R", bound=Record)
Tell = Callable[[float], None]  # the share just done, all of them 1


class Machine(Record):
    """`flops`: matrix products in `dtype`, floating-point operations a second. `copied_bytes`: read
    and written a second in one large copy."""

    name: str
    device: str
    dtype: str
    torch: str
    threads: int
    flops: float
    flops_float32: float
    copied_bytes: float


# ---- arithmetic -------------------------------------------------------------------------------


def flops_per_token(
    shape: Shape, spec: TrainingSpec, supervised_share: float, mean_tokens: float = 0.0
) -> float:
    """Floating-point operations that one trained token needs.

    2 for each parameter on the way there; on the way back 2 for the gradient of what went in and,
    for a trained matrix, 2 for its own: 6 N in full (Kaplan et al. 2020, section 2.1), 4 N with
    adapters and 6 for each of theirs. The head is needed at learnt places only. Attention: 4 for
    each query's width and place seen, half of `mean_tokens` on average, thrice (there, and twice
    back). `recompute` goes there twice. A preference is read once more by what it is compared with.
    """
    full = spec.method == "full"
    head = shape.vocabulary * shape.width
    factor = 6 if full else 4
    needed = factor * (shape.active + head * supervised_share)
    if not full:
        needed += 6 * shape.adapter(spec.rank)
    seen = sum(min(mean_tokens / 2, window or mean_tokens) for window in shape.windows)
    needed += 3 * 4 * shape.queries * seen
    if spec.recompute:
        needed += 2 * shape.active + 4 * shape.queries * seen
    if isinstance(spec, PreferSpec) and spec.objective != "orpo":
        needed += 2 * (shape.active + head)
    return needed


# ---- the machine ------------------------------------------------------------------------------


def roofline_flops(dtype: str = "bfloat16") -> float:
    """Matrix products in `dtype`, floating-point operations a second: kept, or measured now (three
    seconds)."""
    return calibrate(dtype).flops


def kept_machine(dtype: str = "bfloat16") -> Machine | None:
    return kept(kept_file("machine", identity_of(dtype)), Machine)


def calibrate(dtype: str = "bfloat16", *, again: bool = False, tell: Tell | None = None) -> Machine:
    """The machine's rates, measured once; `again` measures anew."""
    import torch

    identity = identity_of(dtype)
    file = kept_file("machine", identity)
    found = None if again else kept(file, Machine)
    if found is not None:
        if tell is not None:
            tell(1.0)
        return found
    tell = tell or silent
    flops = _product_rate(getattr(torch, dtype))
    tell(0.4)
    wide = flops if dtype == "float32" else _product_rate(torch.float32)
    tell(0.4)
    found = Machine(
        name=identity["machine"],
        device=identity["device"],
        dtype=dtype,
        torch=identity["torch"],
        threads=identity["threads"],
        flops=flops,
        flops_float32=wide,
        copied_bytes=_copy_rate(),
    )
    write_json(file, found)
    tell(0.2)
    return found


def _product_rate(dtype: Any) -> float:
    """The best of many, since others may use the machine."""
    import torch

    device = _device()
    rows, inputs, outputs = PRODUCT if device == "cpu" else CUDA_PRODUCT
    left = torch.randn(rows, inputs, device=device).to(dtype)
    right = torch.randn(outputs, inputs, device=device).to(dtype).T  # as a linear layer has it
    return 2 * rows * inputs * outputs / _quickest(lambda: left @ right, PRODUCT_SECONDS)


def _copy_rate() -> float:
    import torch

    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=_device())
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / _quickest(lambda: target.copy_(source), COPY_SECONDS)


def _quickest(work: Callable[[], Any], seconds: float) -> float:
    best = float("inf")
    until = time.perf_counter() + seconds
    done = 0
    while done < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        finish()
        best = min(best, time.perf_counter() - started)
        done += 1
    return best


def finish() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def identity_of(dtype: str) -> dict[str, Any]:
    import torch

    device = _device()
    return {
        "version": VERSION,
        "machine": _processor() if device == "cpu" else torch.cuda.get_device_name(),
        "device": device,
        "dtype": dtype,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name and how many of it this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware"):
            name = value.strip()
            break
    return f"{name} × {os.cpu_count()}"


# ---- what is kept -----------------------------------------------------------------------------


def kept_file(name: str, identity: Any) -> Path:
    return cache_folder() / "calibration" / f"{name}-{fingerprint(identity)[:16]}.json"


def kept(file: Path, kind: type[R]) -> R | None:
    return read_record(file, kind) if file.exists() else None


def silent(share: float) -> None:
    """Nobody is watching."""
