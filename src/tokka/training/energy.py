"""Joules from the platform's own counters: the CPU's (RAPL) and the GPUs' (NVML). Never a guess.

    with Meter() as meter:
        train(...)
    meter.reading()      # Energy(joules=412.5, counters=("package-0",), reason="")

Intel's and AMD's processors count under /sys/class/powercap/intel-rapl (the kernel keeps Intel's
name for both); newer kernels let only root read it. NVIDIA's counters need the package
nvidia-ml-py. Where nothing can be read, `joules` is None and `reason` says why.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
ABSENT = "not measured: this platform has no readable counter"
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Energy:
    """`joules` over a span, all `counters` together; None where there is none, for `reason`."""

    joules: float | None
    counters: tuple[str, ...] = ()
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"joules": self.joules, "counters": list(self.counters), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class _Counter:
    """`read` gives joules so far; they begin again at 0 after `wraps` joules (0: never)."""

    name: str
    read: Callable[[], float]
    wraps: float = 0.0


class Meter:
    """Counts from its making on. `sample()` in between (at least once a minute) catches a counter
    that begins again: a RAPL counter of 262,144 J does so after 22 minutes at 200 W."""

    def __init__(self, powercap: Path = POWERCAP, *, gpus: bool = True) -> None:
        found, hidden = _packages(powercap)
        self._counters = [*found, *(_gpus() if gpus else ())]
        self._hidden = hidden
        self._last = [counter.read() for counter in self._counters]
        self._joules = 0.0

    def sample(self) -> None:
        for place, counter in enumerate(self._counters):
            now = counter.read()
            gained = now - self._last[place]
            if gained < 0:
                gained += counter.wraps
            self._joules += max(0.0, gained)
            self._last[place] = now

    def reading(self) -> Energy:
        if not self._counters:
            return Energy(None, reason=self._hidden or ABSENT)
        self.sample()
        return Energy(self._joules, tuple(counter.name for counter in self._counters))

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to close: the counters run anyway."""


def _packages(powercap: Path) -> tuple[list[_Counter], str]:
    """The processors' packages (their cores and memory are parts of them), and why none where some
    are hidden."""
    counters: list[_Counter] = []
    hidden = ""
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            wraps = _joules(zone / "max_energy_range_uj")
            _joules(zone / "energy_uj")
        except PermissionError:
            hidden = (
                f"not measured: {zone / 'energy_uj'} may only be read by root; "
                "make it readable, or run as root"
            )
            continue
        except (OSError, ValueError):
            continue
        counters.append(_Counter(name, _reader(zone / "energy_uj"), wraps))
    packages = [counter for counter in counters if counter.name.startswith("package")]
    return packages or counters[:1], hidden  # cores are parts of them, "psys" is their sum


def _reader(path: Path) -> Callable[[], float]:
    return lambda: _joules(path)


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6


def _gpus() -> Iterator[_Counter]:
    """Every GPU that torch may use, by NVML's own millijoules (Volta and later)."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except Exception:  # no package, no driver, no right: then there is no counter
        return
    for number, handle in enumerate(handles):
        with contextlib.suppress(Exception):
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            yield _Counter(f"gpu-{number}", _gpu_reader(nvml, handle))


def _gpu_reader(nvml: Any, handle: Any) -> Callable[[], float]:
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
