"""Side-by-side measurements in processes of their own: how they are started and what they measure.

A contestant is a program that reads a job and writes what it found, both JSON. It imports nothing
of tokka, so that a peer with an environment of its own can use this file too.

    found = run([python, "exam_peer.py"], {"model": "…"}, environment())     # the parent
    if __name__ == "__main__": contestant(work)                              # the program
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
_MARK = "progress: "


@dataclass(frozen=True)
class Timed:
    """`peak_bytes` is the most that was held while it ran, weights included: the process's resident
    memory, or on a GPU what torch had allocated there."""

    value: Any
    seconds: float
    peak_bytes: int


def timed(work: Callable[[], Any]) -> Timed:
    """Run `work` by the clock; a GPU is waited for on both ends."""
    _finish()
    _forget_peak()
    started = time.perf_counter()
    value = work()
    _finish()
    return Timed(value, time.perf_counter() - started, peak_bytes())


def peak_bytes() -> int:
    if cuda := _cuda():
        return int(cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _forget_peak() -> None:
    """Loading a model may hold more than using it does, and is no part of an exam."""
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak then includes the load, on both sides


def _finish() -> None:
    if cuda := _cuda():
        cuda.synchronize()


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


# ---- parent and contestant ----------------------------------------------------------------------


def contestant(work: Callable[[Facts], Facts]) -> None:
    """The whole of a contestant's `main`: job file in, result file out."""
    job = json.loads(Path(sys.argv[-2]).read_text(encoding="utf-8"))
    found = {**work(job), **_process_facts()}
    Path(sys.argv[-1]).write_text(json.dumps(found), encoding="utf-8")


def tell(text: str) -> None:
    """A line that a contestant's parent shows while it waits."""
    print(_MARK + text, flush=True)


def run(command: Sequence[str], job: Facts, environment: Mapping[str, str]) -> Facts:
    """Start a contestant, show its progress, return what it found.

    Ends the whole benchmark with the contestant's last words if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="tokka-benchmark-") as folder:
        asked, told = Path(folder, "job.json"), Path(folder, "found.json")
        asked.write_text(json.dumps(job), encoding="utf-8")
        with Path(folder, "log").open("w+", encoding="utf-8", errors="replace") as log:
            process = subprocess.Popen(
                [*command, str(asked), str(told)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Compilers' caches are new for each process: compilation counts every time.
                env={
                    **environment,
                    "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
                    "TRITON_CACHE_DIR": f"{folder}/triton",
                },
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith(_MARK):
                        say("    " + line.removeprefix(_MARK).rstrip())
                    else:
                        log.write(line)
                status = process.wait()
            finally:
                process.kill()
            if status:
                log.flush()
                words = Path(folder, "log").read_text(encoding="utf-8", errors="replace")
                sys.exit(f"{' '.join(command)} ended with {status}:\n{words[-3000:]}")
        found: Facts = json.loads(told.read_text(encoding="utf-8"))
        return found


def environment(**more: str) -> dict[str, str]:
    """The same for every contestant: this process's own, without hubs."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def say(text: str) -> None:
    """Progress goes to standard error: standard output holds the table and the last line."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# ---- what was measured on -----------------------------------------------------------------------


def machine() -> Facts:
    """Processor, cores that may be used, memory, and how busy it is already."""
    cores = getattr(os, "sched_getaffinity", None)
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(cores(0)) if cores else os.cpu_count(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }


def _process_facts() -> Facts:
    from importlib import metadata

    torch = sys.modules.get("torch")
    facts: Facts = {"versions": {}}
    for name in ("torch", "transformers", "peft", "trl", "lm_eval", "xllamacpp", "tokka"):
        try:
            facts["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch is not None:
        cuda = torch.cuda.is_available()
        facts["threads"] = torch.get_num_threads()
        facts["device"] = torch.cuda.get_device_name() if cuda else "cpu"
    return facts


def _first(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


# ---- showing it ---------------------------------------------------------------------------------


def table(rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest entry; the first one to the left, the others to the right."""
    cells = [[_shown(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        first, *rest = row
        numbers = (value.rjust(width) for value, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)


def _shown(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
