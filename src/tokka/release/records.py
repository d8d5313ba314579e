"""READ FIRST in this folder: what is released, by whom it was decided, and the trail of it.

    Release ─ Artefact, Reexam           what is shipped, and that it was examined
    Act → Signed → Entry → Head          what somebody did, signed, chained, and the chain's end

An act is the only way in which anything changes: the registry's tables are what the acts add up to.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tokka.records import Candidate, Comparison, Record, Verdict, fingerprint

Duty = Literal["owner", "developer", "validator", "approver", "auditor"]
Tier = Literal["low", "medium", "high"]
Stage = Literal["draft", "validated", "approved", "serving", "retired", "rejected", "withdrawn"]
# "gguf": a base model that is a GGUF, as it is.
Format = Literal["safetensors", "f16", "q8_0", "q4_k_m", "gguf", "endpoint"]
ActKind = Literal[
    "enrol", "dismiss", "register", "release", "validate", "approve", "reject", "withdraw",
    "serve", "retire", "note", "evidence",
]  # fmt: skip
DUTIES: tuple[Duty, ...] = ("owner", "developer", "validator", "approver", "auditor")
FORMATS: tuple[Format, ...] = ("safetensors", "f16", "q8_0", "q4_k_m", "gguf", "endpoint")


class Actor(Record):
    """Somebody who may act. `public_key` is an Ed25519 key in PEM."""

    name: str = Field(pattern=r"^[\w.@+-]{1,64}$")
    duties: tuple[Duty, ...]
    public_key: str
    since: str
    until: str | None = None


class ModelEntry(Record):
    """A row of the inventory. Dates are ISO 8601, UTC."""

    name: str
    owner: str
    use: str
    tier: Tier
    tier_reason: str
    base_model: str
    base_digest: str
    licence: str
    validation_due: str | None = None


class Reexam(Record):
    """How an exported file did where the examined candidate had been examined. `comparisons` are of
    the file with that candidate, exam by exam; `same` is the share of questions with the same
    score. `faults` are the reasons for which it doesn't pass, `notes` what it can't show."""

    candidate_id: str
    comparisons: tuple[Comparison, ...] = ()
    same: dict[str, float] = Field(default_factory=dict)
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Artefact(Record):
    """One exported form. `files`: path below the release's folder → SHA-256."""

    format: Format
    files: dict[str, str]
    total_bytes: int
    engine: str
    reexam: Reexam


class Release(Record):
    """What was examined, what is shipped, and where both are written down. `files`: every file of
    the release's folder but release.json → SHA-256. `digest` is what is approved and signed."""

    model: str
    version: int = Field(ge=1)
    candidate: Candidate
    served: Candidate  # with the exported weights in place of the examined ones
    serves: Format
    artefacts: tuple[Artefact, ...]
    project_digest: str
    results_digest: str
    exams: dict[str, str]  # name → digest
    verdict: Verdict
    base_licence: str
    terms: tuple[str, ...] = ()
    built_by: str
    built_at: str
    language: str
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.model}-{self.version}"

    @property
    def digest(self) -> str:
        return fingerprint(self)


class Act(Record):
    """What somebody did. `digest` is the release's, where it is about one. `head` is the chain's
    end as the actor saw it."""

    kind: ActKind
    actor: str
    at: str
    model: str = ""
    version: int | None = None
    digest: str = ""
    comment: str = ""
    conditions: tuple[str, ...] = ()
    expires: str | None = None
    head: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class Signed(Record):
    """An act and who vouches for it: a signature by the actor's key over the act's canonical JSON
    (base64), or the session (an API key's id) that the actor had signed in with."""

    act: Act
    method: Literal["key", "session"]
    signature: str = ""
    session: str = ""


class Entry(Record):
    """`hash` is SHA-256 over the canonical JSON of number, previous and signed."""

    number: int = Field(ge=1)
    previous: str
    signed: Signed
    hash: str


class Head(Record):
    """The end of the chain, signed by the ledger's own key (base64 over the canonical JSON of
    ledger, number and hash). Recorded outside the database, it shows a trail that was cut short."""

    ledger: str
    number: int
    hash: str
    signature: str
    public_key: str
