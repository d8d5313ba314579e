"""The ledger's tables, for SQLAlchemy Core. Texts, numbers and JSON as text: the same in SQLite and
PostgreSQL. A column of type `Json` takes and gives plain data (lists come back as tuples).

    entries, head, ledger      the trail: append-only, chained, its end signed
    models, versions,
    approvals, actors          what the acts add up to; rebuilt from the trail at any time
    api_keys, requests,
    observations, usage        written by services, without a chain

The migrations create them; a test holds both together. A change here needs a new revision.
"""

from __future__ import annotations

import json
from typing import Any

from tokka.extras import require
from tokka.records import canonical_json

require("sqlalchemy", extra="release")

from sqlalchemy import (  # noqa: E402  (after the message of what to install)
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect  # noqa: E402
from sqlalchemy.types import TypeDecorator  # noqa: E402


class Json(TypeDecorator[Any]):
    """Canonical JSON as text: the databases' own JSON types store other bytes than were given."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return canonical_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        read = json.loads(value)
        return tuple(read) if isinstance(read, list) else read


metadata = MetaData()

ledger = Table(
    "ledger",
    metadata,
    Column("id", Text, primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("created", Text, nullable=False),
)
# `signed` is the canonical JSON that the hash was made over; the columns after it only serve
# queries, and the verification holds them against it.
entries = Table(
    "entries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("previous", Text, nullable=False),
    Column("signed", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer),
    Index("entries_by_version", "model", "version"),
)
head = Table(
    "head",
    metadata,
    Column("ledger", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("signature", Text, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("use", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("tier_reason", Text, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("base_digest", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("validation_due", Text),
    Column("entry", Integer, nullable=False),
)
versions = Table(
    "versions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("built_by", Text, nullable=False),
    Column("built_at", Text, nullable=False),
    Column("entry", Integer, nullable=False),
    Column("candidate_id", Text, nullable=False),
    Column("released_by", Text, nullable=False),
    Column("conditions", Json, nullable=False),
    Column("validated_at", Text),
    Column("validation_due", Text),
    Column("approved_at", Text),
    Column("expires", Text),
    Column("served_at", Text),
    Column("ended_at", Text),
    Column("details", Json, nullable=False),
)
approvals = Table(
    "approvals",
    metadata,
    Column("entry", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("conditions", Json, nullable=False),
    Column("expires", Text),
    Index("approvals_by_version", "model", "version"),
)
# By entry, not by name: somebody who left may come back with another key.
actors = Table(
    "actors",
    metadata,
    Column("entry", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, index=True),
    Column("public_key", Text, nullable=False),
    Column("duties", Json, nullable=False),
    Column("since", Text, nullable=False),
    Column("until", Text),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("roles", Json, nullable=False),
    Column("groups", Json, nullable=False),
    Column("created", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("actor", Text),
    Column("expires", Text),
    Column("requests_per_minute", Integer),
    Column("tokens_per_day", BigInteger),
    Column("revoked", Text),
    Column("revoked_by", Text, nullable=False),
)
requests = Table(
    "requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("time", Text, nullable=False, index=True),
    Column("key_id", Text, nullable=False, index=True),
    Column("route", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer),
    Column("release", Text, nullable=False),
    Column("prompt_sha256", Text, nullable=False),
    Column("hash_kind", Text, nullable=False),
    Column("question_hash", Text, nullable=False),
    Column("answer_hash", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("finish_reason", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("ttft_seconds", Float),
    Column("queue_seconds", Float),
    Column("streamed", Boolean, nullable=False),
    Column("unapproved", Boolean, nullable=False),
    Column("error", Text, nullable=False),
    Column("question", Text),
    Column("answer", Text),
    Column("details", Json, nullable=False),
)
observations = Table(
    "observations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("time", Text, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer),
    Column("release", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("data", Json, nullable=False),
)
usage = Table(
    "usage",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
)
