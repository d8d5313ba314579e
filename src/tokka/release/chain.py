"""How the trail is chained and signed: hashes, lines and Ed25519 signatures (RFC 8032).

    genesis ← entry 1 ← entry 2 ← … ← head, signed by the ledger's key

An entry's hash is SHA-256 over the canonical JSON of its number, the hash before it and the signed
act; the first one follows `genesis`, which binds the chain to one ledger and its key. Hashes are
made over the JSON as stored, never over a record read from it: a field that a later version adds
would change those.

>>> chained(1, genesis(ledger_id, public_key), signed).hash
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokka.errors import UsageError
from tokka.extras import require
from tokka.records import canonical_json, fingerprint
from tokka.release.records import Entry, Head, Signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )


def genesis(ledger: str, public_key: str) -> str:
    """What the first entry of a ledger follows: SHA-256 in hex."""
    return fingerprint({"ledger": ledger, "public_key": public_key})


def entry_hash(number: int, previous: str, signed: Mapping[str, Any] | Signed) -> str:
    return fingerprint({"number": number, "previous": previous, "signed": signed})


def chained(number: int, previous: str, signed: Signed) -> Entry:
    """The entry that follows `previous`. Raises UsageError for an act that can't be written down:
    a text with a lone surrogate or a NUL character, which no database and no file keeps."""
    text = canonical_json(signed)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "ledger: the act holds a broken character; write the text again"
        ) from error
    if "\\u0000" in text or canonical_json(json.loads(text)) != text:
        raise UsageError("ledger: the act holds a NUL or a value that isn't JSON; leave it out")
    same = Signed.model_validate_json(text)
    return Entry(
        number=number, previous=previous, signed=same, hash=entry_hash(number, previous, same)
    )


def line(number: int, previous: str, signed: str, hash: str) -> str:
    """The canonical JSON of an entry, with the signed act's text as it is stored."""
    return (
        f'{{"hash":{json.dumps(str(hash))},"number":{number},"previous":{json.dumps(str(previous))},'
        f'"schema_version":1,"signed":{signed}}}'
    )


# ---- signatures ---------------------------------------------------------------------------------


def head_bytes(ledger: str, number: int, hash: str) -> bytes:
    """What the ledger signs."""
    return canonical_json({"ledger": ledger, "number": number, "hash": hash}).encode()


def sign_head(private: Ed25519PrivateKey, ledger: str, number: int, hash: str) -> Head:
    signature = base64.b64encode(private.sign(head_bytes(ledger, number, hash))).decode()
    return Head(
        ledger=ledger, number=number, hash=hash, signature=signature, public_key=public_pem(private)
    )


def head_holds(head: Head, public_key: str) -> bool:
    """Whether the ledger whose public key is given signed this head."""
    data = head_bytes(head.ledger, head.number, head.hash)
    return head.public_key == public_key and holds(public_key, data, head.signature)


def holds(public_key: str, data: bytes, signature: str) -> bool:
    """Whether `signature` (base64) is of `data` by the key in PEM. Another spelling of the same
    signature doesn't hold: its last bits would be a place to change unseen."""
    from cryptography.exceptions import InvalidSignature

    try:
        raw = base64.b64decode(signature, validate=True)
        load_public(public_key).verify(raw, data)
    except (InvalidSignature, binascii.Error, ValueError, TypeError):
        return False
    return base64.b64encode(raw).decode() == signature


def load_public(pem: str) -> Ed25519PublicKey:
    """Raises ValueError for anything but an Ed25519 public key in PEM; what was given isn't shown,
    since it may be a private one."""
    require("cryptography", extra="release")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("no public key in PEM") from error
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("no Ed25519 key")
    return public


def normal_pem(pem: str) -> str:
    """The same public key in one spelling of PEM, without a newline at its end. Raises
    ValueError."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = load_public(pem)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().strip()


def public_pem(private: Ed25519PrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = private.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().strip()


def key_fingerprint(public_key: str) -> str:
    """SHA-256 of the raw public key, in hex: what two people compare. Raises ValueError."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = load_public(public_key).public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()
