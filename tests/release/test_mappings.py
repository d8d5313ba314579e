"""Each row of a framework points to a file of the pack, or says what is missing and whose it is."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tokka.release.mapping import FOLDER, framework_names, mapped, read_framework
from tokka.release.mapping_text import mapping_text
from tokka.release.pack import MANIFEST, plain_files


@pytest.mark.parametrize("name", framework_names())
def test_every_file_that_a_row_points_to_is_in_the_pack(finished_pack: Path, name: str):
    found = json.loads((finished_pack / "mappings" / f"{name}.json").read_bytes())
    there = {*plain_files(finished_pack), MANIFEST}
    assert found["rows"]
    for row in found["rows"]:
        assert {one["file"] for one in row["evidence"]} <= there
        assert row["evidence"] or row["missing"], row["id"]
        for one in row["missing"]:
            assert one["what"]["ja"] and one["what"]["en"]
            assert one["who"] or "（" in one["what"]["ja"], one  # whose it is
            assert one["who"] or "(" in one["what"]["en"], one


@pytest.mark.parametrize("name", framework_names())
def test_every_file_that_a_framework_names_can_be_there(finished_pack: Path, name: str):
    # Else a row would say for ever that something is missing which no pack can hold.
    optional = {"monitoring.json"}  # once a release has been served
    there = {*plain_files(finished_pack), MANIFEST, *optional}
    for row in read_framework(name).rows:
        for one in row.evidence:
            assert one.file in there, f"{name} {row.id}: {one.file}"
            assert not one.has or one.otherwise, f"{name} {row.id}: say what is missing"


@pytest.mark.parametrize("name", framework_names())
def test_every_value_that_a_framework_asks_for_exists_as_a_key(finished_pack: Path, name: str):
    for row in read_framework(name).rows:
        for one in row.evidence:
            if not one.has or not (finished_pack / one.file).is_file():
                continue
            value = json.loads((finished_pack / one.file).read_bytes())
            for key in one.has.split("."):
                assert key in value, f"{name} {row.id}: {one.file} has no {one.has}"
                value = value[key]


def test_the_frameworks_have_as_many_rows_as_their_sources():
    rows = {name: len(read_framework(name).rows) for name in framework_names()}
    assert rows == {"fsa-mrm": 8, "eu-ai-act-annex-iv": 9, "nist-ai-600-1": 12,
                    "owasp-llm-2025": 10}  # fmt: skip
    assert list(rows)[:2] == ["fsa-mrm", "eu-ai-act-annex-iv"]


def test_a_row_loses_its_answer_with_its_file(finished_pack: Path, tmp_path: Path):
    copy = Path(shutil.copytree(finished_pack, tmp_path / "pack"))
    framework = read_framework("fsa-mrm")
    before = {row["id"]: row["status"] for row in mapped(framework, copy)["rows"]}
    assert before == {"1": "partly", "2": "answered", "3": "answered", "4": "answered",
                      "5": "partly", "6": "answered", "7": "partly", "8": "partly"}  # fmt: skip
    (copy / "approvals.json").write_text('{"approvals": 0, "validations": 1}')
    after = {row["id"]: row["status"] for row in mapped(framework, copy)["rows"]}
    assert after["4"] == "partly" and after["6"] == "answered"
    (copy / "approvals.json").unlink()
    gone = {row["id"]: row["status"] for row in mapped(framework, copy)["rows"]}
    assert (gone["4"], gone["6"]) == ("partly", "partly")


def test_counts_add_up(finished_pack: Path):
    found = mapped(read_framework("eu-ai-act-annex-iv"), finished_pack)
    assert sum(found["counts"].values()) == 9
    assert found["counts"]["missing"] >= 2  # standards and the declaration are nobody's but theirs


@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_mapping_as_markdown(finished_pack: Path, language):
    text = mapping_text(mapped(read_framework("fsa-mrm"), finished_pack), language)
    assert text.count("\n## ") == 8
    assert "[approvals.json](../approvals.json)" in text
    assert "✗" in text and "✓" in text


def test_a_key_that_a_framework_doesnt_know_is_a_mistake(monkeypatch, tmp_path: Path):
    value = yaml.safe_load((FOLDER / "fsa-mrm.yaml").read_text(encoding="utf-8"))
    value["rows"][0]["evidense"] = []
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    monkeypatch.setattr("tokka.release.mapping.FOLDER", tmp_path)
    with pytest.raises(ValueError, match="evidense"):
        read_framework("x")
