"""The ledger as the server sees it: where the release stands, who decides, and the request log.

registry = LedgerRegistry(ledger, "aoba-1", release.digest)
registry.standing().refusal        # "" while it may be served
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokka.errors import UsageError
from tokka.release.api_keys import session_of
from tokka.release.approval import decide
from tokka.release.registry import SERVED, standing_of
from tokka.release.rows import RequestRow
from tokka.serving.callers import Key
from tokka.serving.faults import Fault
from tokka.serving.service import Standing

if TYPE_CHECKING:
    from tokka.release.ledger import Ledger
    from tokka.release.registry import Standing as Registered


class LedgerRegistry:
    """Threads may share it, as they share the ledger."""

    def __init__(self, ledger: Ledger, name: str, digest: str) -> None:
        self._ledger, self._name, self._digest = ledger, name, digest

    def standing(self) -> Standing:
        """Raises what the ledger raises where it can't be read."""
        try:
            found = standing_of(self._ledger, self._name)
        except UsageError:
            return Standing(refusal=f"{self._name} isn't in the registry; release it first")
        said = found.as_json()
        approvals: Any = said["approvals"]
        return Standing(
            stage=found.stage,
            approvals=tuple(approvals),
            conditions=found.conditions,
            expires=found.expires,
            validation_due=found.validation_due,
            refusal=_refusal(found, self._digest),
        )

    def requests(self, since: str, key_id: str | None, limit: int) -> list[RequestRow]:
        return self._ledger.requests(since=since, key_id=key_id, limit=limit)

    def decide(self, key: Key, presented: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the actor of a key decides. Raises NotPermitted, Fault 401 for a key that has ended
        since."""
        session = session_of(self._ledger, presented)
        if session is None or session.actor != key.actor:
            raise Fault(401, "the key has ended; ask for another", code="invalid_api_key")
        done = decide(
            self._ledger,
            session,
            row["verdict"],
            f"{row['model']}-{int(row['version'])}",
            digest=row["digest"],
            comment=row.get("comment", ""),
            conditions=row.get("conditions", ()),
        )
        return {
            "entry": done.entry.number if done.entry is not None else None,
            "hash": done.entry.hash if done.entry is not None else None,
            "version": done.standing.as_json(),
        }


def _refusal(found: Registered, digest: str) -> str:
    if found.version.digest != digest:
        return "another content is registered under this name than is served here"
    if found.stage in SERVED:
        return ""
    missing = "; ".join(waiting.en for waiting in found.waiting)
    return f"it is {found.stage}" + (f": {missing}" if missing else "")
