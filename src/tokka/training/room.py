"""How much memory a training may take here: the smallest of what the machine and its limits leave.

    room_bytes()      # MemAvailable, less what a control group allows; on CUDA the GPU's free bytes

A container shows the whole machine in /proc/meminfo but is killed at its own limit, so control
groups of both versions are read, from the process's group up to the root.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, the same under WSL, AMD


def room_bytes() -> int | None:
    """None where the platform doesn't say. What this process holds already is its own to use."""
    free = gpu_room()
    if free is not None:
        return free
    room = memory_room()
    return None if room is None else room + _held()


def memory_room(root: Path = Path("/")) -> int | None:
    """The machine's memory, in bytes; `root` stands before /proc and /sys."""
    found = [*_available(root), *_groups(root)]
    return min(found) if found else None


def _held() -> int:
    """Resident bytes of this process that aren't files."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _available(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _groups(root: Path) -> Iterator[int]:
    """What each control group above this process leaves: its limit, less what it uses and can't
    give back (files that are only cached can be)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        folder = top / path.strip("/")
        while folder == top or top in folder.parents:
            left = _left(folder, *names)
            if left is not None:
                yield left
            folder = folder.parent


def _left(folder: Path, limit_name: str, usage_name: str, cached_name: str) -> int | None:
    try:
        limit = (folder / limit_name).read_text().strip()
        usage = int((folder / usage_name).read_text())
    except (OSError, ValueError):
        return None
    if limit == "max":  # version 1 writes its largest number instead
        return None
    cached = 0
    try:
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == cached_name:
                cached = int(value)
    except (OSError, ValueError):
        cached = 0
    return max(0, int(limit) - max(0, usage - cached))


def gpu_room() -> int | None:
    """Free bytes of the GPU that a training would use; None where there is none."""
    if not has_gpu():
        return None
    import torch

    free: Any = torch.cuda.mem_get_info()[0]
    return int(free)


@functools.cache
def has_gpu() -> bool:
    """torch takes a second to import: only where it is installed and Linux shows a driver."""
    driverless = sys.platform == "linux" and not any(Path(name).exists() for name in DRIVERS)
    if driverless or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())
