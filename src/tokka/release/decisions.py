"""Who decided what about a release, and where it stands, read off the trail.

    Entry, Entry, … → approvals.json; computed again from the trail when a pack is verified

>>> found = decisions(release, entries, at="2026-11-23T01:02:03Z")
>>> found["stage"], [act["kind"] for act in found["acts"]]
('approved', ['release', 'validate', 'approve'])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokka.release.duties import replay
from tokka.release.records import Entry, ModelEntry, Release
from tokka.release.registry import inventory, standing

DECIDING = ("release", "validate", "approve", "reject", "withdraw", "serve", "retire")
KEPT = ("kind", "actor", "at", "comment", "conditions", "expires", "digest", "head")


def decisions(release: Release, entries: Sequence[Entry], at: str) -> dict[str, Any]:
    """The acts about this version in order and what they add up to at a moment (UTC).

    An act on another digest is none of this release's and is left out; it stands in the trail. So
    does an act that wasn't allowed, which a ledger never takes in.
    """
    books = replay(entries)
    version = books.versions.get((release.model, release.version))
    mine = version is not None and version.digest == release.digest
    now: dict[str, Any] = {}
    if version is not None and mine:
        now = standing(books, version, at).as_json()
    refused = dict(books.refused)
    acts = []
    for entry in entries:
        act = entry.signed.act
        if act.kind not in DECIDING or (act.model, act.version) != (release.model, release.version):
            continue
        if act.digest == release.digest and entry.number not in refused:
            shown = act.model_dump(mode="json", include=set(KEPT))
            acts.append(
                shown | {"entry": entry.number, "hash": entry.hash, "method": entry.signed.method}
            )
    return {
        "release": release.name,
        "digest": release.digest,
        "at": at,
        "stage": now.get("stage", ""),
        "standing": now,
        "acts": acts,
        "validations": len(now.get("validated_by", ())),
        "approvals": sum(bool(one["counted"]) for one in now.get("approvals", ())),
        "refused": [f"entry {number}: {why}" for number, why in sorted(refused.items())],
    }


def registered(release: Release, entries: Sequence[Entry]) -> ModelEntry | None:
    """The inventory's row of the release's model."""
    rows = inventory(replay(entries))
    return next((row for row in rows if row.name == release.model), None)
