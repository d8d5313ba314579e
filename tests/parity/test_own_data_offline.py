"""Pitfall 6: own data is hard to examine. Local files, a local model, and no network at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

# Runs before everything else in the process: every attempt to reach anybody is written down.
GUARD = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["REACHED"], "a") as log:
            log.write(f"{event} {arguments!r}\\n")
        raise OSError("no network here")
sys.addaudithook(watch)
"""


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing can be reached, and nobody said so beforehand."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    source = Path(__file__).parents[2] / "src"
    return {
        "PYTHONPATH": f"{tmp_path / 'guard'}{os.pathsep}{source}",
        "REACHED": str(tmp_path / "reached"),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
    }


def test_the_guard_sees_a_connection(guarded: dict[str, str]) -> None:
    import subprocess
    import sys

    reach = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    done = subprocess.run([sys.executable, "-c", reach], env={**os.environ, **guarded}, check=False)
    assert done.returncode != 0
    assert Path(guarded["REACHED"]).exists()


def test_a_project_of_local_files_is_examined_without_a_single_connection(
    fresh: Path, processes: Any, only_arms: Any, guarded: dict[str, str]
) -> None:
    only_arms(fresh, "base")
    said = processes.run("run", "--json", cwd=fresh, **guarded)
    assert said.code == 0, said.err
    reached = Path(guarded["REACHED"])
    assert not reached.exists(), reached.read_text()
    report = fresh / ".tokka" / "reports" / "tokka" / "results.json"
    (arm,) = json.loads(report.read_bytes())["arms"]
    assert [s["exam"] for s in arm["sittings"]] == ["domain", "retention"]
    assert all(s["primary"] for s in arm["sittings"])
