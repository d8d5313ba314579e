"""What people do with a release: validate, approve, reject, withdraw, retire; and who they are.

A key or a session, and an act → Entry in the trail, or NotPermitted with the reason.

>>> with open_ledger(project.ledger, project.root) as ledger:
...     decide(ledger, load_key("sato"), "approve", "aoba-1", conditions=("社内利用に限る",))

Every function takes the ledger and `by`, the key of an actor or a session that an API key opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tokka.errors import IntegrityError
from tokka.release.duties import permit
from tokka.release.keys import (
    ActorKey,
    Session,
    normal_public_key,
    sign,
    sign_session,
    utc_now,
)
from tokka.release.records import DUTIES, Act, ActKind, Duty, Entry, ModelEntry, Release, Signed
from tokka.release.registry import Standing, books_of, find, permit_in, standing_of

if TYPE_CHECKING:
    from tokka.release.ledger import Ledger

Decision = Literal["validate", "approve", "reject", "withdraw", "retire", "serve"]
By = ActorKey | Session


@dataclass(frozen=True, slots=True)
class Decided:
    """`entry` is None where nothing was written (a dry run)."""

    entry: Entry | None
    standing: Standing


def perform(
    ledger: Ledger,
    by: By,
    kind: ActKind,
    *,
    model: str = "",
    version: int | None = None,
    digest: str = "",
    comment: str = "",
    conditions: Sequence[str] = (),
    expires: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """Sign an act and append it, if its actor may. Raises NotPermitted."""
    signed = vouched(
        ledger, by, kind, model=model, version=version, digest=digest, comment=comment,
        conditions=conditions, expires=expires, details=details,
    )  # fmt: skip
    return ledger.append(signed, permit=permit_in(ledger, signed))


def vouched(
    ledger: Ledger,
    by: By,
    kind: ActKind,
    *,
    model: str = "",
    version: int | None = None,
    digest: str = "",
    comment: str = "",
    conditions: Sequence[str] = (),
    expires: str | None = None,
    details: Mapping[str, Any] | None = None,
    head: str | None = None,
) -> Signed:
    """The act of now, signed over the head that its actor saw; left out, the trail's present one.
    Nothing is written."""
    said = dict(details or {})
    if isinstance(by, Session):
        said["authenticated_at"] = by.authenticated_at
    act = Act(
        kind=kind, actor=by.name if isinstance(by, ActorKey) else by.actor, at=utc_now(),
        model=model, version=version, digest=digest, comment=comment,
        conditions=tuple(conditions), expires=expires, details=said,
        head=books_of(ledger).hash if head is None else head,
    )  # fmt: skip
    return sign(by, act) if isinstance(by, ActorKey) else sign_session(by, act)


def decide(
    ledger: Ledger,
    by: By,
    kind: Decision,
    name: str,
    *,
    digest: str | None = None,
    comment: str = "",
    conditions: Sequence[str] = (),
    expires: str | None = None,
    details: Mapping[str, Any] | None = None,
    head: str | None = None,
    dry_run: bool = False,
) -> Decided:
    """Decide about MODEL-VERSION, or a model's newest version. `digest` and `head` are what the
    actor has seen; left out, those of now. Raises NotPermitted; UsageError for an unknown name."""
    version = find(books_of(ledger), name)
    signed = vouched(
        ledger, by, kind, model=version.model, version=version.version,
        digest=version.digest if digest is None else digest, comment=comment,
        conditions=conditions, expires=expires, details=details, head=head,
    )  # fmt: skip
    if dry_run:
        permit(signed, books_of(ledger), utc_now())
        return Decided(None, standing_of(ledger, version.name))
    entry = ledger.append(signed, permit=permit_in(ledger, signed))
    return Decided(entry, standing_of(ledger, version.name))


# ---- people -------------------------------------------------------------------------------------


def enrol(
    ledger: Ledger,
    by: ActorKey,
    name: str,
    duties: Sequence[Duty],
    public_key: str,
    *,
    dry_run: bool = False,
) -> Entry | None:
    """Enrol somebody; the first of a ledger is an owner and enrols himself. `public_key`: PEM. With
    `dry_run` it is only asked whether that is allowed."""
    details = {
        "name": name, "duties": [d for d in DUTIES if d in duties],
        "public_key": normal_public_key(public_key),
    }  # fmt: skip
    if dry_run:
        permit(vouched(ledger, by, "enrol", details=details), books_of(ledger), utc_now())
        return None
    return perform(ledger, by, "enrol", details=details)


def dismiss(ledger: Ledger, by: ActorKey, name: str, comment: str = "") -> Entry:
    """From now on his acts are refused; what he did before stands."""
    return perform(ledger, by, "dismiss", comment=comment, details={"name": name})


# ---- models and releases ------------------------------------------------------------------------


def register(ledger: Ledger, by: ActorKey, entry: ModelEntry) -> Entry:
    """Put a model into the inventory; an owner may do it again to change the row."""
    details = entry.model_dump(exclude={"schema_version", "name", "validation_due"})
    return perform(ledger, by, "register", model=entry.name, details=details)


def release(
    ledger: Ledger,
    by: ActorKey,
    released: Release,
    *,
    approvals: int | None,
    valid_days: int,
    validate_days: int,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """Enter a version, a draft. `approvals`, `valid_days` and `validate_days` are ReleaseSpec's.
    Raises NotPermitted where another version took its number meanwhile."""
    said: dict[str, Any] = {
        **(details or {}), "built_by": [released.built_by], "candidate_id": released.candidate.id,
        "served_id": released.served.id, "verdict": released.verdict.outcome,
        "results_digest": released.results_digest, "approvals": approvals,
        "valid_days": valid_days, "validate_days": validate_days,
    }  # fmt: skip
    return perform(
        ledger, by, "release", model=released.model, version=released.version,
        digest=released.digest, details=said,
    )  # fmt: skip


def check_same(standing: Standing, released: Release) -> None:
    """Raises IntegrityError where the folder holds something else than was released."""
    if released.digest != standing.version.digest:
        raise IntegrityError(
            f"approve: {standing.version.name} was released with the digest "
            f"{standing.version.digest[:12]}, the folder holds {released.digest[:12]}; "
            "get the folder that was released"
        )
