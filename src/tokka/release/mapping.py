"""Which file of a pack answers which demand of a framework; else what is missing, and whose it is.

    mappings/*.yaml + a pack's folder → mappings/NAME.json and NAME.md

The frameworks change more often than the code, so they are data: a row is answered by files (`has`:
a value in the file that must be there and not empty) or it says plainly what is missing.

>>> [row["status"] for row in mapped(read_framework("fsa-mrm"), folder)["rows"]]
['partly', 'answered', …]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).parent / "mappings"
FIRST = ("fsa-mrm", "eu-ai-act-annex-iv")
LATER = ("MANIFEST.json",)  # written last, so it is there when somebody reads the pack


class Data(BaseModel):
    """A part of a framework's file; a key that it doesn't know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Text(Data):
    ja: str = Field(min_length=1)
    en: str = Field(min_length=1)


class Evidence(Data):
    file: str
    has: str = ""
    shows: Text
    otherwise: Text | None = Field(default=None, alias="else")


class Gap(Data):
    what: Text
    who: Text


class Row(Data):
    id: str
    title: Text
    asks: Text
    evidence: tuple[Evidence, ...]
    gaps: tuple[Gap, ...]


class Framework(Data):
    id: str
    title: Text
    note: Text
    rows: tuple[Row, ...] = Field(min_length=1)


def framework_names() -> list[str]:
    """All that there are, those that a bank in Japan asks for first."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(names, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))


@lru_cache
def read_framework(name: str) -> Framework:
    return Framework.model_validate(
        yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    )


def mapped(framework: Framework, folder: Path) -> dict[str, Any]:
    """The framework's rows with what the pack in `folder` holds. A row's status is `answered`,
    `partly` (some of it is missing) or `missing`."""
    cache: dict[str, Any] = {}
    rows = [_row(row, folder, cache) for row in framework.rows]
    return {
        "framework": framework.id,
        "title": framework.title.model_dump(),
        "note": framework.note.model_dump(),
        "rows": rows,
        "counts": {
            status: sum(row["status"] == status for row in rows)
            for status in ("answered", "partly", "missing")
        },
    }


def _row(row: Row, folder: Path, cache: dict[str, Any]) -> dict[str, Any]:
    evidence: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = [
        {"what": gap.what.model_dump(), "who": gap.who.model_dump()} for gap in row.gaps
    ]
    for one in row.evidence:
        if _there(one, folder, cache):
            evidence.append({"file": one.file, "shows": one.shows.model_dump()})
        else:
            said = one.otherwise or one.shows
            missing.append({"what": said.model_dump(), "who": None, "file": one.file})
    status = "answered" if not missing else "partly" if evidence else "missing"
    return {
        "id": row.id,
        "title": row.title.model_dump(),
        "asks": row.asks.model_dump(),
        "status": status,
        "evidence": evidence,
        "missing": missing,
    }


def _there(one: Evidence, folder: Path, cache: dict[str, Any]) -> bool:
    if one.file in LATER:
        return True
    path = folder / one.file
    if not path.is_file():
        return False
    if not one.has:
        return True
    if one.file not in cache:
        cache[one.file] = json.loads(path.read_bytes())
    value = cache[one.file]
    for key in one.has.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return bool(value)
