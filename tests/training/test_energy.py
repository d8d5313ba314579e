"""Joules come from counters, through their wrapping, or not at all."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from tokka.training.energy import ABSENT, Meter


def zone(
    folder: Path, name: str, label: str, microjoules: int, wraps: int = 262_143_328_850
) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{label}\n")
    (path / "max_energy_range_uj").write_text(f"{wraps}\n")
    count(path, microjoules)
    return path


def count(path: Path, microjoules: int) -> None:
    (path / "energy_uj").write_text(f"{microjoules}\n")


def test_the_processors_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    platform = zone(tmp_path, "intel-rapl:2", "psys", 0)  # holds the packages once more
    meter = Meter(tmp_path, gpus=False)
    count(first, 8_000_000)
    count(second, 500_000)
    count(core, 99_000_000)
    count(platform, 99_000_000)
    found = meter.reading()
    assert found.joules == pytest.approx(3.5)
    assert found.counters == ("package-0", "package-1")


def test_a_counter_that_begins_again_loses_nothing(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 90_000_000, wraps=100_000_000)
    meter = Meter(tmp_path, gpus=False)
    for now in (95_000_000, 3_000_000, 60_000_000, 2_000_000):
        count(path, now)
        meter.sample()
    assert meter.reading().joules == pytest.approx(5 + 8 + 57 + 42)


def test_without_a_counter_nothing_is_guessed(tmp_path: Path) -> None:
    found = Meter(tmp_path, gpus=False).reading()
    assert found.joules is None
    assert found.reason == ABSENT == "not measured: this platform has no readable counter"


def test_a_counter_for_root_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read = Path.read_text

    def refused(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_text", refused)
    found = Meter(tmp_path, gpus=False).reading()
    assert found.joules is None
    assert str(path / "energy_uj") in found.reason and "root" in found.reason


def test_gpus_count_in_millijoules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = {"mj": 1000}
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetCount = lambda: 1  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByIndex = lambda number: number  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: total["mj"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = Meter(tmp_path)
    total["mj"] = 8500
    found = meter.reading()
    assert (found.joules, found.counters) == (7.5, ("gpu-0",))
