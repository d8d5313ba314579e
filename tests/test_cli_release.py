"""What `tokka release` and `tokka export` print, and the codes that they end with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("sqlalchemy")
pytest.importorskip("cryptography")

from tokka.project_yaml import parse_yaml
from tokka.release import approval
from tokka.release.keys import fresh_key, write_key
from tokka.release.ledger import open_ledger

Tell = Callable[..., Any]


@pytest.fixture
def folder(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project with one developer in its ledger."""
    monkeypatch.setenv("TOKKA_KEYS", str(tmp_path / "keys"))
    monkeypatch.delenv("TOKKA_LEDGER", raising=False)
    key = fresh_key("aoi")
    write_key(key)
    with open_ledger(".tokka/ledger.sqlite", copied) as ledger:
        approval.enrol(ledger, key, "aoi", ("owner", "developer"), key.public_key)
    says = {"owner": "a", "use": "b", "tier_reason": "c", "licence": "MIT"}
    change(copied, release=says)
    return copied


def change(folder: Path, **changed: Any) -> None:
    path = folder / "tokka.yaml"
    project = parse_yaml(path.read_text(encoding="utf-8")).value
    path.write_text(json.dumps({**project, **changed}, ensure_ascii=False), encoding="utf-8")


def test_a_release_shows_its_checks_its_second_exam_and_what_comes_next(
    folder: Path, tokka: Tell
) -> None:
    said = tokka("release", "lora", "--project", folder, "--as", "aoi")
    assert said.code == 0, said.err
    assert said.out.count("✓") >= 6 and "✗" not in said.out
    for part in ("safetensors (served)", "100.0%", "blue-harbour-1 released", "draft, waits for"):
        assert part in said.out
    assert "next: tokka approve blue-harbour-1 --validate" in said.out
    assert "lora: export (safetensors): done" in said.err
    again = tokka("release", "lora", "--project", folder)
    assert again.code == 0 and "blue-harbour-1 was released before" in again.out


def test_json_is_the_only_thing_on_standard_output(folder: Path, tokka: Tell) -> None:
    dry = tokka("release", "lora", "--project", folder, "--dry-run", "--json")
    assert dry.code == 0 and dry.json["dry_run"] is True
    assert dry.json["plan"] == {
        "model": "blue-harbour", "version": 1, "name": "blue-harbour-1", "serves": "safetensors",
        "also": [], "actor": "aoi", "new_model": True, "released": False,
    }  # fmt: skip
    said = tokka("release", "lora", "--project", folder, "--json")
    made = said.json
    assert made["gate"]["outcome"] == "pass" and said.err == ""
    assert made["release"]["name"] == "blue-harbour-1" and made["release"]["stage"] == "draft"
    assert len(made["release"]["digest"]) == 64
    assert made["release"]["artefacts"]["safetensors"]["same"] == {
        "domain": 1.0, "retention": 1.0,
    }  # fmt: skip


def test_a_refusal_ends_with_3_and_every_reason(folder: Path, tokka: Tell) -> None:
    said = tokka("release", "rag", "--project", folder)
    assert said.code == 3
    assert said.out.count("✗") == 2
    assert "rag is refused; 2 checks don't hold, see ✗ above" in said.err
    told = tokka("release", "rag", "--project", folder, "--json")
    assert told.code == 3
    held = [check["outcome"] for check in told.json["gate"]["checks"]]
    assert held.count("inconclusive") == 2 and told.json["release"] is None
    for check in told.json["gate"]["checks"]:
        assert check["outcome"] == "pass" or check["en"] in told.err
    assert not (folder / ".tokka" / "releases").exists()


def test_a_japanese_project_gets_its_reasons_in_japanese(folder: Path, tokka: Tell) -> None:
    change(folder, language="ja")
    said = tokka("release", "lora", "--project", folder)
    assert said.code == 3
    assert "プロジェクトファイルが変わりました" in said.out.replace("\n", "")


def test_a_dry_run_names_every_step_and_takes_none(folder: Path, tokka: Tell) -> None:
    said = tokka("release", "lora", "--project", folder, "--dry-run", "--also", "Q8_0")
    assert said.code == 0
    for part in (
        "would register the model blue-harbour", "would export safetensors",
        "would export q8_0", "would release blue-harbour-1, signed by aoi",
    ):  # fmt: skip
        assert part in said.out
    assert not (folder / ".tokka" / "releases").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("release", "nobody"), 2, "no arm 'nobody'"),
        (
            ("release", "lora", "--format", "pickle"),
            2,
            "no format 'pickle'; there are: safetensors",
        ),
        (("release", "lora", "--as", "zoe"), 2, "zoe"),
        (("export", "lora", "--out", "x", "--format", "zip"), 2, "no format 'zip'"),
    ],
)
def test_a_wrong_call_says_what_is_right(
    folder: Path, tokka: Tell, arguments: tuple[str, ...], code: int, part: str
) -> None:
    said = tokka(*arguments, "--project", folder)
    assert said.code == code and part in said.err


def test_export_writes_the_weights_and_lists_them(
    folder: Path, tokka: Tell, tmp_path: Path
) -> None:
    out = tmp_path / "gguf"
    said = tokka("export", "lora", "--project", folder, "--format", "q8_0", "--out", out, "--json")
    assert said.code == 0, said.err
    files = {os.path.basename(path) for path in said.json["files"]}
    assert {"model.gguf", "Modelfile"} <= files
    assert files == {path.name for path in out.iterdir()}
    full = tokka("export", "lora", "--project", folder, "--format", "q8_0", "--out", out)
    assert full.code == 2 and "isn't an empty folder" in full.err
    shutil.rmtree(out)
    said = tokka("export", "lora", "--project", folder, "--format", "safetensors", "--out", out)
    assert said.code == 0 and f"wrote {out / 'model.safetensors'}" in said.out
