"""How long `tokka --help` takes in a fresh interpreter: the best, the median and the worst of n.

python benchmarks/help_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMAND = [sys.executable, "-m", "tokka", "--help"]


def seconds(runs: int) -> list[float]:
    """Wall-clock seconds of each run, start of the process included."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(COMMAND, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    taken = seconds(runs=5)
    print(
        f"tokka --help, {len(taken)} runs: best {min(taken):.3f} s, "
        f"median {statistics.median(taken):.3f} s, worst {max(taken):.3f} s"
    )
