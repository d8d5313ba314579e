"""Environments of their own for the peers, made on first use and kept.

constraints.txt → a Python that has the peer and the torch that tokka itself is tested with. Whoever
has one already names it: TOKKA_LM_EVAL_PYTHON=/path/to/bin/python, TOKKA_TRL_PYTHON, ….

>>> python_of_the_peer(TRL)
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measuring import say

from tokka.store import cache_folder, locked, write_text

VERSION = "0.4.13"
NAMED = "TOKKA_LM_EVAL_PYTHON"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


@dataclass(frozen=True)
class Peer:
    """`package` and `version` as pip knows them, `wanted` what is installed; `named` is the
    variable that names a Python, `with_torch` whether it has to have that too."""

    title: str
    package: str
    version: str
    wanted: tuple[str, ...]
    named: str
    with_torch: bool = True


LM_EVAL = Peer("lm-evaluation-harness", "lm-eval", VERSION, (f"lm-eval[hf]=={VERSION}",), NAMED)
TRL = Peer(
    "TRL", "trl", "1.16.0", ("trl==1.16.0", "peft", "torch", "transformers"), "TOKKA_TRL_PYTHON"
)
DATASKETCH = Peer(
    "datasketch",
    "datasketch",
    "2.0.0",
    ("datasketch==2.0.0", "xxhash"),
    "TOKKA_DATASKETCH_PYTHON",
    with_torch=False,
)
BM25S = Peer(
    "bm25s and rank-bm25",
    "bm25s",
    "0.3.16",
    ("bm25s==0.3.16", "rank-bm25==0.2.2", "numba"),
    "TOKKA_BM25S_PYTHON",
    with_torch=False,
)


def python_of_the_peer(peer: Peer = LM_EVAL) -> str:
    """The Python to run the peer with. Ends the program where there is none."""
    if named := os.environ.get(peer.named):
        _check(peer, named, f"{peer.named}: ")
        return named
    name = f"{peer.package}-{peer.version}-python{sys.version_info.minor}"
    folder = cache_folder() / "benchmarks" / name
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    finished = folder / "finished"
    with locked(folder.with_name(folder.name + ".lock")):
        if not finished.exists():
            _make(peer, folder, python)
            write_text(finished, peer.version + "\n")
    _check(peer, python, "")
    return python


def _make(peer: Peer, folder: Path, python: str) -> None:
    say(f"installing {peer.title} {peer.version} in {folder} (once, some minutes)")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["--constraint", str(CONSTRAINTS), *peer.wanted]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, *wanted]):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            sys.exit(
                f"{' '.join(command)} failed:\n{made.stderr[-2000:]}\n"
                f"make an environment with {' '.join(peer.wanted)} and name its Python: "
                f"{peer.named}=…"
            )


def _check(peer: Peer, python: str, place: str) -> None:
    names = [peer.package, *(["torch"] if peer.with_torch else [])]
    ask = f"import importlib.metadata as m; print(*map(m.version, {names!r}))"
    try:
        said = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{place}{python} can't be started ({error}); correct the path")
    versions = said.stdout.split()
    if said.returncode or versions[0] != peer.version:
        has = f"{peer.package} {versions[0]}" if versions else f"no {peer.package}"
        wanted = " ".join(f"'{one}'" for one in peer.wanted)
        sys.exit(
            f"{place}{python} has {has}, wanted is {peer.version}; install it: {python} -m pip "
            f"install {wanted}"
        )
