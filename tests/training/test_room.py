"""Free memory is what the tightest limit leaves, in containers too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokka.training.room import memory_room, room_bytes

GIB = 2**30


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """16 GiB available, and no limit."""
    write(tmp_path / "proc/meminfo", f"MemTotal: 99 kB\nMemAvailable: {16 * GIB // 1024} kB")
    write(tmp_path / "proc/self/cgroup", "0::/work/job")
    return tmp_path


def test_without_a_limit_it_is_what_the_machine_has(machine: Path) -> None:
    write(machine / "sys/fs/cgroup/work/memory.max", "max")
    write(machine / "sys/fs/cgroup/work/memory.current", GIB)
    assert memory_room(machine) == 16 * GIB


@pytest.mark.parametrize("group", ["work/job", "work", "."])
def test_a_limit_counts_wherever_above_it_stands(machine: Path, group: str) -> None:
    folder = machine / "sys/fs/cgroup" / group
    write(folder / "memory.max", 4 * GIB)
    write(folder / "memory.current", 3 * GIB)
    assert memory_room(machine) == GIB


def test_cached_files_can_be_given_back(machine: Path) -> None:
    folder = machine / "sys/fs/cgroup/work"
    write(folder / "memory.max", 4 * GIB)
    write(folder / "memory.current", 3 * GIB)
    write(folder / "memory.stat", f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 5")
    assert memory_room(machine) == 3 * GIB


def test_the_older_control_groups_are_read_too(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "7:cpuset:/x\n4:cpu,memory:/job\n0::/")
    folder = machine / "sys/fs/cgroup/memory/job"
    write(folder / "memory.limit_in_bytes", 2 * GIB)
    write(folder / "memory.usage_in_bytes", GIB)
    write(folder / "memory.stat", f"inactive_file 9\ntotal_inactive_file {GIB // 2}")
    top = machine / "sys/fs/cgroup/memory"
    write(top / "memory.limit_in_bytes", 9223372036854771712)  # none
    write(top / "memory.usage_in_bytes", GIB)
    assert memory_room(machine) == GIB + GIB // 2


def test_inside_a_container_the_root_is_the_own_group(machine: Path) -> None:
    """Docker shows the group's path on the host, which isn't there."""
    write(machine / "proc/self/cgroup", "0::/docker/abc")
    write(machine / "sys/fs/cgroup/memory.max", 3 * GIB)
    write(machine / "sys/fs/cgroup/memory.current", 2 * GIB)
    assert memory_room(machine) == GIB


def test_a_full_group_leaves_nothing(machine: Path) -> None:
    write(machine / "sys/fs/cgroup/memory.max", GIB)
    write(machine / "sys/fs/cgroup/memory.current", 2 * GIB)
    assert memory_room(machine) == 0


def test_where_nothing_says_nothing_is_known(tmp_path: Path) -> None:
    assert memory_room(tmp_path) is None


def test_this_machine_has_room() -> None:
    found = room_bytes()
    assert found is None or found > 0
