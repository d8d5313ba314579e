"""Models from packages: checked, unpacked once, the licence shown; here with a package of bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, MissingExtra, UsageError
from tokka.models import embedded
from tokka.models.embedded import EMBEDDED, Embedded

SOURCE = Path(__file__).parents[2] / "src"
PARTS = (b"first half ", b"second half")
SHA256 = hashlib.sha256(b"".join(PARTS)).hexdigest()


def entry(**changes: object) -> Embedded:
    fields = {
        "name": "toy",
        "package": "tokka_toy",
        "install": "pip install tokka-toy",
        "parts": (("tokka_toy", "a.gguf"), ("tokka_toy_more", "data/b.gguf")),
        "sha256": SHA256,
        "licence": "Toy licence: play fair.",
        "terms": ("tokka_toy", "TERMS.html"),
    }
    return Embedded(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two installed packages, of which importing one is a mistake; and an empty cache."""
    site = tmp_path / "site"
    for name in ("tokka_toy", "tokka_toy_more"):
        (site / name / "data").mkdir(parents=True)
        (site / name / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "tokka_toy" / "a.gguf").write_bytes(PARTS[0])
    (site / "tokka_toy" / "TERMS.html").write_text("<p>play fair</p>")
    (site / "tokka_toy_more" / "data" / "b.gguf").write_bytes(PARTS[1])
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("TOKKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(EMBEDDED, "toy", entry())
    return site


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was converted, in place of a minute's work."""
    seen: list[bytes] = []

    def convert(source: Path, target: Path, step: Any) -> None:
        seen.append(source.read_bytes())
        (target / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(embedded, "_convert", convert)
    return seen


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_model_is_joined_checked_and_unpacked_with_its_licence(
    packages: Path, converted: list[bytes]
) -> None:
    folder = embedded.folder("toy")
    assert converted == [b"first half second half"]
    assert left(folder) == ["LICENCE.html", "NOTICE", "model.safetensors", "tokka.json"]
    assert (folder / "NOTICE").read_text() == "Toy licence: play fair.\n"
    assert json.loads((folder / "tokka.json").read_text())["gguf_sha256"] == SHA256


def test_the_second_use_takes_the_cache_and_says_nothing(
    packages: Path, converted: list[bytes]
) -> None:
    said: list[str] = []
    first = embedded.folder("toy", said.append)
    assert said[0] == "Toy licence: play fair." and "once" in said[1]
    assert embedded.folder("toy", said.append) == first
    assert len(said) == 2
    assert len(converted) == 1


def test_an_unfinished_folder_isnt_taken_for_a_model(
    packages: Path, monkeypatch: pytest.MonkeyPatch, converted: list[bytes]
) -> None:
    convert = embedded._convert

    def killed(source: Path, target: Path, step: Any) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", killed)
    with pytest.raises(KeyboardInterrupt):
        embedded.folder("toy")
    monkeypatch.setattr(embedded, "_convert", convert)
    assert (embedded.folder("toy") / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("parts", [1, 2])
def test_other_bytes_than_the_tested_ones_are_refused(
    packages: Path, monkeypatch: pytest.MonkeyPatch, converted: list[bytes], parts: int
) -> None:
    monkeypatch.setitem(EMBEDDED, "toy", entry(parts=entry().parts[:parts], sha256="0" * 64))
    found = hashlib.sha256(b"".join(PARTS[:parts])).hexdigest()
    with pytest.raises(IntegrityError, match=f"{found}.*expected 0000.*pip install tokka-toy") as e:
        embedded.folder("toy")
    assert "--force-reinstall" in str(e.value)
    assert converted == []
    assert left(Path(os.environ["TOKKA_CACHE"])) == []


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'gemma-9'.*gemma-3-270m.*smollm2-135m-instruct"):
        embedded.folder("gemma-9")


@pytest.mark.parametrize("missing", ["tokka_toy", "tokka_toy_more", "the terms' own package"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    packages: Path, monkeypatch: pytest.MonkeyPatch, converted: list[bytes], missing: str
) -> None:
    parts = tuple((m.replace(missing, "tokka_gone"), p) for m, p in entry().parts)
    terms = ("tokka_gone", "TERMS.html") if "terms" in missing else None
    monkeypatch.setitem(EMBEDDED, "toy", entry(package="tokka_gone", parts=parts, terms=terms))
    with pytest.raises(MissingExtra, match=r"tokka_gone is not installed.*pip install tokka-toy"):
        embedded.folder("toy")


RACER = """
import sys, time
from pathlib import Path
from typing import Any
from tokka.models import embedded
from tokka.models.embedded import EMBEDDED, Embedded

log, sha256 = Path(sys.argv[1]), sys.argv[2]
EMBEDDED["toy"] = Embedded(
    name="toy", package="tokka_toy", install="", sha256=sha256, licence="Toy licence.", terms=None,
    parts=(("tokka_toy", "a.gguf"), ("tokka_toy_more", "data/b.gguf")),
)

def convert(source, target, step):
    with log.open("a") as file:
        file.write("converted\\n")
    time.sleep(0.5)
    (target / "model.safetensors").write_bytes(b"weights")

embedded._convert = convert
print("ready", flush=True)
sys.stdin.readline()
folder = embedded.folder("toy", lambda text: print(text, flush=True))
print((folder / "model.safetensors").read_text(), flush=True)
"""


def test_two_processes_that_start_together_unpack_once(packages: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{packages}"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RACER, str(log), SHA256],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    racers = [start(), start()]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert log.read_text() == "converted\n"
    assert all(text.endswith("weights\n") for text in said)
    assert "".join(said).count("Toy licence.") == 1


def test_the_gguf_is_parsed_once_and_the_reader_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = pytest.importorskip("gguf")
    read: list[str] = []

    def reader(path: str, *rest: object) -> object:
        read.append(path)
        return object()

    monkeypatch.setattr(gguf, "GGUFReader", reader)
    with embedded._read_once():
        assert gguf.GGUFReader("a") is gguf.GGUFReader("a")
    assert gguf.GGUFReader is reader
    assert read == ["a"]
