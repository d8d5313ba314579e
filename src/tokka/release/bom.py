"""The bill of materials: a CycloneDX 1.6 ML-BOM of the model, its base, data and software.

    release, cards → bom.cdx.json, checked against CycloneDX's own schema before it is written

cyclonedx-python-lib writes components, licences, hashes and dependencies; it has no `modelCard` and
no `data` yet, so these are put into the JSON that it made, and the whole is validated.

>>> json.loads(bom(release, card, claims, environment, model, made_at))["specVersion"]
'1.6'
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import tokka
from tokka.errors import IntegrityError
from tokka.extras import require
from tokka.release.pack import as_json
from tokka.release.records import ModelEntry, Release

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

NAMESPACE = uuid.UUID("5f0a7a5e-6ad2-5f0d-9a53-7d1f7d3b1a55")  # of serial numbers, fixed once
# SPDX ids are wanted where one is meant; anything else is a licence by name.
SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
TASK = "text-generation"


def bom(
    release: Release,
    card: Mapping[str, Any],
    claims: Mapping[str, Any],
    environment: Mapping[str, Any],
    model: ModelEntry | None,
    made_at: str,
) -> bytes:
    """The file's bytes. Raises IntegrityError where CycloneDX's schema doesn't hold."""
    require("cyclonedx", extra="release")
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    root = _component(
        ComponentType.MACHINE_LEARNING_MODEL, release.model, str(release.version), "model",
        licence=(model.licence if model else "") or release.base_licence,
        description=model.use if model else "",
    )  # fmt: skip
    root.properties.update(_properties({
        "tokka:release-digest": release.digest,
        "tokka:candidate": release.candidate.id,
        "tokka:served": release.served.id,
        "tokka:serves": release.serves,
        **{f"tokka:exam:{name}": digest for name, digest in release.exams.items()},
    }))  # fmt: skip
    base = _component(
        ComponentType.MACHINE_LEARNING_MODEL, release.candidate.base_model, "", "base-model",
        licence=release.base_licence, description=" ".join(release.terms),
    )  # fmt: skip
    base.properties.update(_properties({"tokka:digest": release.candidate.base_digest}))
    files = [_file(name, digest) for name, digest in sorted(release.files.items())]
    data = [
        _component(ComponentType.DATA, name, "", ref) for name, ref, _ in _datasets(release, card)
    ]
    software = [
        _component(ComponentType.LIBRARY, name, version, f"pkg:pypi/{name.lower()}@{version}",
                   purl=True)
        for name, version in sorted(_packages(environment).items())
    ]  # fmt: skip
    made = Bom(
        serial_number=uuid.uuid5(NAMESPACE, release.digest),
        metadata=BomMetaData(component=root, timestamp=datetime.fromisoformat(made_at)),
        components=[base, *data, *files, *software],
    )
    tool = Component(
        name="tokka", version=tokka.__version__, type=ComponentType.APPLICATION, bom_ref="tokka"
    )
    made.metadata.tools.components.add(tool)
    made.register_dependency(root, [base, *data, *files, *software])
    for one in (base, *data, *files, *software):
        made.register_dependency(one)
    value = json.loads(JsonV1Dot6(made).output_as_string())
    _complete(value, release, card, claims, environment, model)
    text = as_json(value)
    check(text)
    return text


def check(text: bytes) -> None:
    """Raises IntegrityError where it isn't a CycloneDX 1.6 document."""
    require("cyclonedx", extra="release")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode())
    if error is not None:
        raise IntegrityError(
            f"bom.cdx.json: not CycloneDX 1.6 ({str(error.data)[:300]}); report this as a defect"
        )


def _component(
    kind: Any, name: str, version: str, ref: str, licence: str = "", description: str = "",
    *, purl: bool = False,
) -> Component:  # fmt: skip
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    return Component(
        name=name,
        version=version or None,
        type=kind,
        bom_ref=ref,
        licenses=[_licence(licence)] if licence else None,
        description=description or None,
        purl=PackageURL("pypi", None, name.lower(), version) if purl else None,
    )


def _licence(text: str) -> Any:
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.spdx import is_supported_id

    if SPDX.fullmatch(text) and is_supported_id(text):
        return DisjunctiveLicense(id=text)
    return DisjunctiveLicense(name=text)


def _file(name: str, digest: str) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=name,
        type=ComponentType.FILE,
        bom_ref=f"file:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def _properties(values: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=name, value=value) for name, value in values.items() if value]


def _datasets(release: Release, card: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, reference, and the dataset as CycloneDX describes one."""
    rows: list[tuple[str, str, dict[str, Any]]] = []
    if card["documents"]["kept"]:
        count = card["documents"]["kept"]
        rows.append(("documents", "data:documents", {
            "type": "dataset", "name": "documents",
            "description": f"{count:,} documents that are searched or learnt from",
            "classification": "internal",
            "governance": _governance(release),
        }))  # fmt: skip
    if card["examples"]["kept"]:
        rows.append(("examples", "data:examples", {
            "type": "dataset", "name": "examples",
            "description": f"{card['examples']['kept']:,} training conversations",
            "classification": "internal",
        }))  # fmt: skip
    for exam in card["exams"]:
        rows.append((f"exam {exam['name']}", f"data:exam:{exam['name']}", {
            "type": "dataset", "name": f"exam {exam['name']}",
            "description": f"{exam['questions']:,} questions ({exam['role']}), digest "
                           f"{exam['digest']}",
            "classification": "internal",
        }))  # fmt: skip
    return rows


def _governance(release: Release) -> dict[str, Any]:
    return {"stewards": [{"contact": {"name": release.built_by}}]} if release.built_by else {}


def _packages(environment: Mapping[str, Any]) -> dict[str, str]:
    examined = environment.get("examined") or {}
    return dict(examined.get("packages") or environment["packed"]["packages"])


# ---- what the library doesn't write yet -------------------------------------------------------


def _complete(
    value: dict[str, Any], release: Release, card: Mapping[str, Any], claims: Mapping[str, Any],
    environment: Mapping[str, Any], model: ModelEntry | None,
) -> None:  # fmt: skip
    datasets = _datasets(release, card)
    described = {ref: data for _, ref, data in datasets}
    for component in value["components"]:
        data = described.get(component.get("bom-ref", ""))
        if data is not None:
            component["data"] = [{k: v for k, v in data.items() if v}]
    value["metadata"]["component"]["modelCard"] = _model_card(
        release, claims, environment, model, [ref for _, ref, _ in datasets]
    )


def _model_card(
    release: Release, claims: Mapping[str, Any], environment: Mapping[str, Any],
    model: ModelEntry | None, datasets: list[str],
) -> dict[str, Any]:  # fmt: skip
    trained = bool(release.candidate.arm.weights)
    considerations: dict[str, Any] = {
        "technicalLimitations": [row["en"] for row in claims["not_shown"]] or ["none recorded"],
        "users": [model.use] if model and model.use else [],
        "ethicalConsiderations": [
            {"name": f"risk tier {model.tier}", "mitigationStrategy": model.tier_reason}
        ] if model and model.tier_reason else [],
    }  # fmt: skip
    energy = environment.get("energy") or {}
    if energy.get("kilowatt_hours"):
        considerations["environmentalConsiderations"] = {"energyConsumptions": [{
            "activity": "training",
            "energyProviders": [{
                "organization": {"name": "unknown"}, "energySource": "unknown",
                "energyProvided": {"value": energy["kilowatt_hours"], "unit": "kWh"},
            }],
            "activityEnergyCost": {"value": energy["kilowatt_hours"], "unit": "kWh"},
        }]}  # fmt: skip
    return {
        "bom-ref": "model-card",
        "modelParameters": {
            "task": TASK,
            **({"approach": {"type": "supervised"}} if trained else {}),
            "datasets": [{"ref": ref} for ref in datasets],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [_metric(row) for row in claims["measured"]]
        },
        "considerations": {k: v for k, v in considerations.items() if v},
    }


def _metric(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": row["what"],
        "value": f"{row['estimate']:.6g}",
        "slice": f"exam {row['exam']}, n = {row['n']}, {row['method']}",
        "confidenceInterval": {
            "lowerBound": f"{row['low']:.6g}",
            "upperBound": f"{row['high']:.6g}",
        },
    }
