"""API keys of the server: who may ask it, as what, and how much.

32 random bytes → `tk-<id>-<secret>`, shown once; the ledger keeps SHA-256 of the secret. A slow
hash (bcrypt, argon2) protects what people invent: it makes each guess dear. A random secret of 256
bits can't be guessed however cheap a guess is, so a fast hash protects it as well, and a server
that checks one at each request isn't slowed down or, by wrong keys, brought to a stand.

>>> issued = issue_key(ledger, load_key("aoi"), "chat", roles=("user",), groups=("loans",))
>>> verify(ledger, issued.shown).groups
('loans',)

A key with `actor` only signs in: it has the role "actor", sees no labelled document, and is issued
by that actor, since whoever issues a key sees its secret. Its sessions sign acts with a key that is
derived from the secret (`keys.session_private`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tokka.errors import UsageError
from tokka.release.approval import perform, vouched
from tokka.release.duties import permit
from tokka.release.keys import ActorKey, Session, session_private, utc_now
from tokka.release.registry import books_of
from tokka.release.rows import KeyRow
from tokka.release.standing import API_KEY, moment

if TYPE_CHECKING:
    from tokka.release.ledger import Ledger

Key = KeyRow
ROLES = ("user", "operator", "auditor")
ACTOR = "actor"  # the role of keys that are bound to an actor, and only theirs
SECRET_BYTES, ID_BYTES = 32, 6
SHOWN = re.compile(r"tk-(?P<id>[0-9a-f]{12})-(?P<secret>[0-9a-f]{64})")
NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key, and the one time that its text is known."""

    key: Key
    shown: str = field(repr=False)


def issue_key(
    ledger: Ledger,
    by: ActorKey,
    name: str,
    *,
    roles: Sequence[str] = ("user",),
    groups: Sequence[str] = (),
    actor: str | None = None,
    expires: str | None = None,
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
) -> Issued:
    """Make a key. `groups` are access labels; without any, only unlabelled documents are seen.
    `expires` is UTC; limits None mean no limit of its own.

    An owner issues keys; one with `actor` that actor himself, and its roles and groups are left
    out. Raises UsageError for a wrong value, NotPermitted. The trail says who issued it, before the
    key works.
    """
    if actor is None and ACTOR in roles:
        raise UsageError(f"key: the role {ACTOR!r} needs an actor whom the key is bound to")
    if actor is not None:
        roles, groups = (ACTOR,), ()
    _check(name, roles, groups, expires, requests_per_minute, tokens_per_day)
    secret, key_id = secrets.token_bytes(SECRET_BYTES), secrets.token_hex(ID_BYTES)
    key = Key(
        id=key_id, name=name, hash=_hashed(secret), roles=tuple(dict.fromkeys(roles)),
        groups=tuple(dict.fromkeys(groups)), created=utc_now(), created_by=by.name, actor=actor,
        expires=expires, requests_per_minute=requests_per_minute, tokens_per_day=tokens_per_day,
    )  # fmt: skip
    session = Session(actor, key_id, key.created, session_private(secret)) if actor else None
    said = {
        "does": "issue", "id": key_id, "name": name, "roles": list(key.roles),
        "groups": list(key.groups), "actor": actor, "expires": expires,
        "requests_per_minute": requests_per_minute, "tokens_per_day": tokens_per_day,
        "public_key": session.public_key if session else None,
    }  # fmt: skip
    perform(ledger, by, "note", comment=f"issued API key {key_id}", details={API_KEY: said})
    ledger.write_key(key)
    return Issued(key, f"tk-{key_id}-{secret.hex()}")


def revoke_key(ledger: Ledger, by: ActorKey, key_id: str) -> Key:
    """End a key at once. An owner may, and the actor whom it is bound to. Raises UsageError for an
    unknown one, NotPermitted; a key that is revoked already stays as it is."""
    key = ledger.key(key_id)
    if key is None:
        raise UsageError(f"key: no API key {key_id!r}; see: tokka key list")
    if key.revoked is not None:
        return key
    details = {API_KEY: {"does": "revoke", "id": key_id}}
    comment = f"revoked API key {key_id}"
    permit(vouched(ledger, by, "note", comment=comment, details=details), books_of(ledger))
    revoked = replace(key, revoked=utc_now(), revoked_by=by.name)
    ledger.write_key(revoked)  # first: killed before the note is written, the key has ended still
    perform(ledger, by, "note", comment=comment, details=details)
    return revoked


def keys(ledger: Ledger) -> list[Key]:
    """All keys, revoked ones too, oldest first."""
    return sorted(ledger.keys(), key=lambda key: (key.created, key.id))


def verify(ledger: Ledger, presented: str, now: str | None = None) -> Key | None:
    """The key that somebody presents, or None: unknown, wrong, revoked or expired. An unknown id
    costs the same work as a wrong secret, and hashes are compared in constant time."""
    shown = SHOWN.fullmatch(presented)
    key = ledger.key(shown["id"] if shown else "")
    hashed = _hashed(bytes.fromhex(shown["secret"]) if shown else b"\0" * SECRET_BYTES)
    same = hmac.compare_digest(hashed, key.hash if key is not None else NOBODY)
    if key is None or not same or key.revoked is not None:
        return None
    return None if key.expires is not None and key.expires <= (now or utc_now()) else key


def session_of(ledger: Ledger, presented: str, now: str | None = None) -> Session | None:
    """The session that a key opens which is bound to an actor; None for every other key."""
    at = now or utc_now()
    key = verify(ledger, presented, at)
    if key is None or key.actor is None:
        return None
    secret = bytes.fromhex(presented.rpartition("-")[2])
    return Session(key.actor, key.id, at, session_private(secret))


def _hashed(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _check(
    name: str,
    roles: Sequence[str],
    groups: Sequence[str],
    expires: str | None,
    *limits: int | None,
) -> None:
    if not name.strip():
        raise UsageError("key: needs a name, by which you know it again")
    unknown = tuple(roles) != (ACTOR,) and [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise UsageError(f"key: roles are {', '.join(ROLES)}; got {', '.join(roles) or 'none'}")
    if any(not group.strip() for group in groups):
        raise UsageError("key: a group is an access label of documents, got an empty one")
    if any(limit is not None and limit < 1 for limit in limits):
        raise UsageError("key: limits are at least 1; leave one out for no limit of its own")
    if expires is None:
        return
    try:
        ended = moment(expires) <= moment(utc_now())
    except ValueError as error:
        raise UsageError(f"key: expires is UTC as 2026-11-23T00:00:00Z, got {expires!r}") from error
    if ended:
        raise UsageError(f"key: expires is past already: {expires}")
