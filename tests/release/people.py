"""People who act on a trail that lies in memory or in a ledger, for tests.

>>> trail = Trail()                       # boss, aoi (developer), val, sato, suzuki, audit
>>> trail.do("register", "aoi"); trail.do("release", "aoi", version=1)
>>> trail.stage(1)
'draft'
"""

from __future__ import annotations

import functools
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tokka.records import Arm, Candidate, Verdict, fingerprint
from tokka.release.chain import chained, genesis
from tokka.release.duties import follow, permit
from tokka.release.keys import ActorKey, Session, sign, sign_session
from tokka.release.ledger import Ledger
from tokka.release.records import Act, ActKind, Duty, Entry, ModelEntry, Release, Signed, Stage
from tokka.release.registry import books_of
from tokka.release.standing import Books, days_later

START = "2026-01-05T09:00:00Z"
MODEL = "aoba"
TEAM: dict[str, tuple[Duty, ...]] = {
    "boss": ("owner",),
    "aoi": ("developer",),
    "val": ("validator",),
    "sato": ("approver",),
    "suzuki": ("approver",),
    "audit": ("auditor",),
}
INVENTORY = {
    "owner": "融資部", "use": "規程の照会", "tier": "medium", "tier_reason": "社内利用",
    "base_model": "embedded:", "base_digest": "0" * 64, "licence": "Apache-2.0",
}  # fmt: skip

ENTRY = ModelEntry(
    name=MODEL, owner="融資部", use="規程の照会", tier="high", tier_reason="顧客に影響",
    base_model="embedded:", base_digest="0" * 64, licence="Apache-2.0",
)  # fmt: skip


@functools.cache
def key_of(name: str, which: int = 0) -> ActorKey:
    """The same key each time; `which` tells a person's keys apart."""
    seed = bytes.fromhex(fingerprint(["key", name, which]))
    return ActorKey(name, Ed25519PrivateKey.from_private_bytes(seed))


def digest_of(version: int, model: str = MODEL) -> str:
    return fingerprint([model, version])


def release_of(version: int) -> Release:
    candidate = Candidate(
        id="c" * 16, arm=Arm(name="rag"), base_model="embedded:", base_digest="0" * 64, artifacts={}
    )  # fmt: skip
    verdict = Verdict(arm="rag", candidate_id=candidate.id, outcome="pass", reasons=("+12点",))
    return Release(
        model=MODEL, version=version, candidate=candidate, served=candidate, serves="q8_0",
        artefacts=(), project_digest="", results_digest="", exams={}, verdict=verdict,
        base_licence="Apache-2.0", built_by="aoi", built_at="2026-01-05T09:00:00Z", language="ja",
    )  # fmt: skip


class Trail:
    """Acts, in memory or appended to a ledger. `at` is the time of the next act."""

    def __init__(
        self, tier: str = "medium", *, team: bool = True, ledger: Ledger | None = None
    ) -> None:
        self.tier, self.at, self.ledger = tier, START, ledger
        self.entries: list[Entry] = []
        self.books = Books()
        if team:
            for name in TEAM:
                self.enrol(name)
            self.do("register", "boss")

    def enrol(self, name: str, *duties: Duty, by: str = "boss", which: int = 0) -> None:
        details = {
            "name": name, "duties": duties or TEAM[name],
            "public_key": key_of(name, which).public_key,
        }  # fmt: skip
        self.do("enrol", by, details=details)

    def signed(
        self, kind: ActKind, who: str | Session, *, key: ActorKey | None = None, **said: Any
    ) -> Signed:
        about = kind not in ("enrol", "dismiss")
        said.setdefault("model", MODEL if about else "")
        if "version" in said:
            said.setdefault("digest", digest_of(said["version"], said["model"]))
        if kind == "register":
            said["details"] = INVENTORY | {"tier": self.tier} | said.get("details", {})
        if kind in ("reject", "withdraw"):
            said.setdefault("comment", "理由")
        said.setdefault("at", self.at)
        said.setdefault("head", self.books.hash)
        name = who if isinstance(who, str) else who.actor
        act = Act(kind=kind, actor=name, **said)
        if isinstance(who, Session):
            return sign_session(who, act)
        return sign(key or key_of(who), act)

    def do(self, kind: ActKind, who: str | Session, **said: Any) -> Entry:
        """Raises NotPermitted."""
        signed = self.signed(kind, who, **said)
        permit(signed, self.books, signed.act.at)
        return self.append(signed)

    def append(self, signed: Signed) -> Entry:
        """Whether it is allowed or not; a ledger refuses what isn't."""
        if self.ledger is not None:
            self.entries.append(self.ledger.append(signed))
            self.books = books_of(self.ledger)
            return self.entries[-1]
        number = len(self.entries) + 1
        previous = self.books.hash or genesis("memory", "")
        entry = chained(number, previous, signed)
        self.entries.append(entry)
        follow(self.books, entry)
        return entry

    def released(self, version: int = 1, **details: Any) -> None:
        self.do("release", "aoi", version=version, details=details)

    def days(self, days: int) -> None:
        self.at = days_later(self.at, days)

    def stage(self, version: int = 1) -> Stage:
        return self.books.versions[MODEL, version].stage(self.at)
