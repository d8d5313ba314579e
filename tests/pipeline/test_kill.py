"""`kill -9` of a real process, four times over, and the run still ends as if nothing had happened.

A process is stopped (SIGSTOP) the moment its workspace shows that the step is under way, looked at,
and killed; the next one is given the same command.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAIT_SECONDS = 120.0


def finished_steps(workspace: Path, kind: str) -> int:
    return sum(1 for _ in workspace.glob(f"steps/{kind}-*/manifest.json"))


def indexing(workspace: Path) -> bool:
    return finished_steps(workspace, "index") == 1 and any(
        workspace.glob("steps/index-*.partial/part-*")
    )


def training(workspace: Path) -> bool:
    """`trainer_state.json` is what a checkpoint writes last."""
    return any(workspace.glob("steps/finetune-*.partial/checkpoints/*/trainer_state.json"))


def sitting(workspace: Path) -> bool:
    """A batch of an unfinished sitting is remembered: each finished one of base has two."""
    batches = sum(1 for _ in workspace.glob("batches/*/*.json"))
    return batches % 2 == 1 and any(workspace.glob("steps/sit-*.partial"))


def reporting(workspace: Path) -> bool:
    folder = workspace / "reports" / "tokka"
    return (folder / "results.json").exists() and not (folder / "report.html").exists()


def stop_at(
    moment: Callable[[Path], bool], process: subprocess.Popen[str], workspace: Path
) -> None:
    """Stop the process inside the moment: let go where it was over before the signal arrived."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        while not moment(workspace):
            assert process.poll() is None, f"{moment.__name__} was missed: {process.communicate()}"
            assert time.monotonic() < end, f"{moment.__name__} was never seen"
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.02)  # until all of its threads stand still
        if moment(workspace):
            return
        process.send_signal(signal.SIGCONT)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX's")
def test_a_killed_run_ends_in_the_same_results(
    finished: Any, fresh: Path, processes: Any, tmp_path: Path
) -> None:
    workspace = fresh / ".tokka"
    own_cache = str(tmp_path / "cache")  # with the shared one, no chunk would be embedded again
    for moment in (indexing, training, sitting, reporting):
        process = processes.start("run", fresh, TOKKA_CACHE=own_cache)
        try:
            stop_at(moment, process, workspace)
            if moment is sitting:
                see_that_it_runs(fresh, processes, running=True)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL, moment.__name__
        assert not (workspace / "reports" / "tokka" / "report.html").exists(), moment.__name__
        if moment is training:
            assert training(workspace), "its checkpoint is what the next run goes on from"
        if moment is sitting:
            see_that_it_runs(fresh, processes, running=False)
    said = processes.run("run", fresh, TOKKA_CACHE=own_cache)
    assert said.code == 0, said.err
    killed = workspace / "reports" / "tokka" / "results.json"
    assert killed.read_bytes() == finished.results.read_bytes()
    assert killed.with_name("report.html").exists()
    assert not list((workspace / "steps").glob("*.partial"))


def see_that_it_runs(folder: Path, processes: Any, *, running: bool) -> None:
    """While one run is at work (stopped, it still holds its lock), a second one is told so."""
    found = processes.run("status", folder, "--json").json
    assert found["running"] is running
    assert "unfinished" in {step["state"] for step in found["steps"]}
    if running:
        second = processes.run("run", folder)
        assert second.code == 1
        assert "another run is at work in" in second.err and "tokka status" in second.err
        assert "Traceback" not in second.err


def test_of_two_runs_started_together_one_is_told_and_nothing_is_lost(
    copied: Path, processes: Any
) -> None:
    """Both ends are good: the second waits for no one, or it came when the first was done."""
    before = (copied / ".tokka" / "reports" / "tokka" / "results.json").read_bytes()
    both = [processes.start("run", "--json", cwd=copied) for _ in range(2)]
    said = [(p.communicate(timeout=120), p.returncode) for p in both]
    assert sorted(code for _, code in said) in ([0, 0], [0, 1]), said
    for (out, err), code in said:
        if code == 0:
            assert json.loads(out)["winner"] == "lora"
        else:
            assert "another run is at work" in err
    assert (copied / ".tokka" / "reports" / "tokka" / "results.json").read_bytes() == before
