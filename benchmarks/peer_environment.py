"""An environment of its own for lm-evaluation-harness, made on first use and kept.

constraints.txt → a Python that has lm-eval and the torch that tokka itself is tested with. Whoever
has one already names it: TOKKA_LM_EVAL_PYTHON=/path/to/bin/python.

>>> python_of_the_peer()
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from measuring import say

from tokka.store import cache_folder, locked, write_text

VERSION = "0.4.13"
NAMED = "TOKKA_LM_EVAL_PYTHON"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_ASK = "import importlib.metadata as m; print(m.version('lm-eval'), m.version('torch'))"


def python_of_the_peer() -> str:
    """The Python to run the harness with. Ends the program where there is none."""
    if named := os.environ.get(NAMED):
        _check(named, f"{NAMED}: ")
        return named
    folder = cache_folder() / "benchmarks" / f"lm-eval-{VERSION}-python{sys.version_info.minor}"
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    finished = folder / "finished"
    with locked(folder.with_name(folder.name + ".lock")):
        if not finished.exists():
            _make(folder, python)
            write_text(finished, VERSION + "\n")
    _check(python, "")
    return python


def _make(folder: Path, python: str) -> None:
    say(f"installing lm-evaluation-harness {VERSION} in {folder} (once, some minutes)")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["--constraint", str(CONSTRAINTS), f"lm-eval[hf]=={VERSION}"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, *wanted]):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            sys.exit(
                f"{' '.join(command)} failed:\n{made.stderr[-2000:]}\n"
                f"make an environment with lm-eval[hf]=={VERSION} and name its Python: {NAMED}=…"
            )


def _check(python: str, place: str) -> None:
    try:
        said = subprocess.run([python, "-c", _ASK], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{place}{python} can't be started ({error}); correct the path")
    versions = said.stdout.split()
    if said.returncode or versions[0] != VERSION:
        sys.exit(
            f"{place}{python} has {'lm-eval ' + versions[0] if versions else 'no lm-eval'}, wanted "
            f"is {VERSION}; install it: {python} -m pip install 'lm-eval[hf]=={VERSION}'"
        )
