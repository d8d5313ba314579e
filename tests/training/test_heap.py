"""Freed memory stays while a training runs, and goes back afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from tokka.training import heap

# Tensors above the size that glibc hands back at once, as a step makes and frees them.
ROUNDS = """
import json, resource, torch
from contextlib import nullcontext
from tokka.training.heap import memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(size * 2**18) for size in (64, 48, 40)]
    kept[1] = None
    later = torch.ones(44 * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

usual = [faults() for _ in range(3)]
first = resident()
with memory_kept():
    inside = [faults() for _ in range(16)]
    held = resident() - first
print(json.dumps({"usual": usual, "inside": inside, "held": held, "left": resident() - first}))
"""


@pytest.mark.skipif(
    heap._glibc() is None or not os.path.exists("/proc/self/statm"),
    reason="no glibc on Linux here: memory is the system's own affair",
)
def test_memory_is_used_again_inside_and_given_back_after() -> None:
    told = subprocess.run(
        [sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True
    )
    seen = json.loads(told.stdout)
    pages = min(seen["usual"])  # a round's tensors, brought in page by page
    assert pages > 10_000
    assert sum(seen["inside"][-4:]) < pages / 4
    assert seen["held"] > pages / 2
    assert seen["left"] < seen["held"] / 4


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    entered = False
    with heap.memory_kept():
        entered = True
    assert entered


def test_the_settings_go_back_also_when_training_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def __init__(self) -> None:
            self.set: dict[int, int] = {}
            self.trimmed = False

        def mallopt(self, name: int, value: int) -> None:
            self.set[name] = value

        def malloc_trim(self, pad: int) -> None:
            self.trimmed = True

    libc = Libc()
    monkeypatch.setattr(heap, "_glibc", lambda: libc)
    with pytest.raises(ValueError), heap.memory_kept():
        assert libc.set[heap._MMAP_MAX] == 0
        raise ValueError
    assert libc.set == heap._DEFAULTS
    assert libc.trimmed
