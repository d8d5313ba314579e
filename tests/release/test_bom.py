"""The bill of materials, against CycloneDX's own schema."""

import json
from pathlib import Path

import pytest

from tokka.errors import IntegrityError
from tokka.release.bom import check
from tokka.release.pack import as_json
from tokka.release.packing import write_pack


@pytest.fixture
def bom(finished_pack: Path):
    return json.loads((finished_pack / "bom.cdx.json").read_bytes())


def test_it_holds_against_the_schema_of_1_6(finished_pack: Path, bom):
    check((finished_pack / "bom.cdx.json").read_bytes())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    bom["metadata"]["component"]["modelCard"]["colour"] = "blue"
    with pytest.raises(IntegrityError, match=r"not CycloneDX 1\.6"):
        check(as_json(bom))


def test_the_model_has_a_card_with_figures_and_limits(bom):
    model = bom["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model", "aoba", "1",
    )  # fmt: skip
    card = model["modelCard"]
    metric = card["quantitativeAnalysis"]["performanceMetrics"][0]
    assert metric["value"] == "0.6"
    assert metric["confidenceInterval"] == {"lowerBound": "0.5", "upperBound": "0.7"}
    assert card["modelParameters"]["task"] == "text-generation"
    assert any("Safety" in text for text in card["considerations"]["technicalLimitations"])
    energy = card["considerations"]["environmentalConsiderations"]["energyConsumptions"][0]
    assert energy["activityEnergyCost"] == {"value": 0.002, "unit": "kWh"}


def test_datasets_are_components_that_the_card_refers_to(bom):
    data = {c["bom-ref"]: c["data"][0] for c in bom["components"] if c["type"] == "data"}
    assert set(data) == {"data:documents", "data:examples", "data:exam:domain",
                         "data:exam:retention"}  # fmt: skip
    refs = {
        row["ref"]
        for row in bom["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    }
    assert refs == set(data)


def test_every_file_of_the_release_has_its_hash(bom, made_release):
    files = {c["name"]: c["hashes"] for c in bom["components"] if c["type"] == "file"}
    assert files == {
        name: [{"alg": "SHA-256", "content": digest}]
        for name, digest in made_release.release.files.items()
    }


def test_software_is_what_it_was_examined_with(bom):
    libraries = {c["name"]: c for c in bom["components"] if c["type"] == "library"}
    assert libraries["torch"]["version"] == "2.13.0"
    assert libraries["torch"]["purl"] == "pkg:pypi/torch@2.13.0"
    assert set(libraries) == {"torch", "numpy"}


def test_licences_and_dependencies(bom):
    base = next(c for c in bom["components"] if c["bom-ref"] == "base-model")
    assert base["licenses"] == [{"license": {"name": "Gemma Terms of Use"}}]
    depends = {d["ref"]: d.get("dependsOn", []) for d in bom["dependencies"]}
    assert set(depends["model"]) == {c["bom-ref"] for c in bom["components"]}


def test_the_same_release_has_the_same_bill(bom, made_release, tmp_path: Path):
    write_pack(made_release.gathered, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "bom.cdx.json").read_bytes()) == bom


def test_a_bill_that_the_schema_refuses_isnt_written(made_release, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tokka.release.bom.TASK", 7)
    with pytest.raises(IntegrityError, match="not CycloneDX"):
        write_pack(made_release.gathered, tmp_path / "pack")
    assert not (tmp_path / "pack" / "bom.cdx.json").exists()
