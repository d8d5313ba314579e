"""Keys of actors: who signs an act, and whether a signature holds.

Act + private key → Signed → holds, or not. A private key is a PEM file of its owner alone,
`$TOKKA_KEYS/NAME.pem` (else `~/.config/tokka/keys/NAME.pem`), Ed25519 (RFC 8032). What is signed is
the act's canonical JSON.

>>> signed = sign(load_key("suzuki"), act)
>>> holds(signed, actor.public_key)
True

A session signs too: with a key that is derived from the secret of the API key that the actor had
signed in with. The server holds it while it answers, the ledger knows only its public half; so
nobody who may write to the database can invent what somebody decided in a session.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tokka.errors import UsageError
from tokka.extras import require
from tokka.records import canonical_json
from tokka.release import chain
from tokka.release.records import Act, Signed
from tokka.store import write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME = re.compile(r"[\w.@+-]{1,64}")
FOLDER, PASSPHRASE, ACTOR = "TOKKA_KEYS", "TOKKA_KEY_PASSPHRASE", "TOKKA_ACTOR"
CURVE_BYTES = 32


@dataclass(frozen=True, slots=True)
class ActorKey:
    """An actor's private key, in memory. It prints no secret."""

    name: str
    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> str:
        """PEM."""
        return chain.public_pem(self.private)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who signed in with an API key that is bound to an actor. Made by
    `api_keys.session_of`; `authenticated_at` is UTC."""

    actor: str
    key_id: str
    authenticated_at: str
    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> str:
        """PEM."""
        return chain.public_pem(self.private)


def utc_now() -> str:
    """The time in UTC, ISO 8601 with seconds: `2026-11-23T01:02:03Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_folder() -> Path:
    """Where private keys lie: `$TOKKA_KEYS`, else `~/.config/tokka/keys`."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser() if named else Path.home() / ".config" / "tokka" / "keys"


def fresh_key(name: str) -> ActorKey:
    """A new key, in memory only. Raises UsageError for a name that can't be one."""
    require("cryptography", extra="release")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key_path(name)
    return ActorKey(name, Ed25519PrivateKey.generate())


def write_key(key: ActorKey) -> Path:
    """Write NAME.pem, readable by its owner alone and encrypted if `$TOKKA_KEY_PASSPHRASE` is set,
    and its public half, NAME.pub. Raises UsageError where the key is there: it is never replaced.
    """
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path, phrase = key_path(key.name), _passphrase()
    locked = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError(
            f"actor: {path} is there already and isn't replaced; move it away to make a new key"
        ) from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    write_text(path.with_name(f"{key.name}.pub"), key.public_key + "\n")
    return path


def key_path(name: str) -> Path:
    """The file of an actor's private key. Raises UsageError for a name that can't be one."""
    if not NAME.fullmatch(name) or set(name) == {"."}:
        raise UsageError(
            f"actor: {name!r} is no name; use 1 to 64 letters, digits, '_', '.', '@', '+' or '-'"
        )
    return key_folder() / f"{name}.pem"


def load_key(name: str | None = None) -> ActorKey:
    """The private key of `name`; else of `$TOKKA_ACTOR`; else the only one in the folder.

    Raises UsageError where it is missing, readable by others, encrypted with another passphrase, or
    no Ed25519 key.
    """
    require("cryptography", extra="release")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    name = name or _only_name()
    path = key_path(name)
    phrase = _passphrase()
    pem = _private_bytes(path, name)
    locked = b"ENCRYPTED" in pem
    if locked and not phrase:
        raise UsageError(f"actor: {path} is encrypted; set {PASSPHRASE}")
    try:
        private = load_pem_private_key(pem, phrase if locked else None)
    except (ValueError, TypeError) as error:
        why = f"{PASSPHRASE} doesn't open it" if locked else "it is no PEM private key"
        raise UsageError(f"actor: {path}: {why}; check both") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"actor: {path} is no Ed25519 key; make one with: tokka actor new {name}")
    return ActorKey(name, private)


def _private_bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise UsageError(
                    f"actor: {path} is readable by others (mode {mode:04o}); anybody may have "
                    f"copied it. If nobody did: chmod 600 {path}; else have the actor dismissed "
                    "and make a new key"
                )
            return file.read()
    except FileNotFoundError as error:
        raise UsageError(
            f"actor: no key of {name} at {path}; make one with: tokka actor new {name} --duty …, "
            f"or set {FOLDER}"
        ) from error


def key_names() -> list[str]:
    """Whose private keys lie in the folder."""
    return sorted(path.stem for path in key_folder().glob("*.pem"))


def _only_name() -> str:
    named = os.environ.get(ACTOR)
    if named:
        return named
    names = key_names()
    if len(names) == 1:
        return names[0]
    there = ", ".join(names) if names else "none"
    raise UsageError(
        f"actor: who acts? Keys in {key_folder()}: {there}; say --as NAME or set {ACTOR}"
        + ("" if names else ", or make a key with: tokka actor new NAME --duty owner")
    )


def _passphrase() -> bytes | None:
    text = os.environ.get(PASSPHRASE, "")
    return text.encode() or None


# ---- signing ------------------------------------------------------------------------------------


def sign(key: ActorKey, act: Act) -> Signed:
    """The act, signed by its actor's key. Raises UsageError where it is another's act."""
    if act.actor != key.name:
        raise UsageError(f"actor: {key.name} can't sign what {act.actor} does; use that key")
    return Signed(act=act, method="key", signature=_signature(key.private, act))


def sign_session(session: Session, act: Act) -> Signed:
    """The act, vouched for by a session."""
    if act.actor != session.actor:
        raise UsageError(f"session: {session.actor} can't sign what {act.actor} does")
    signature = _signature(session.private, act)
    return Signed(act=act, method="session", signature=signature, session=session.key_id)


def _signature(private: Ed25519PrivateKey, act: Act) -> str:
    return base64.b64encode(private.sign(canonical_json(act).encode())).decode()


def holds(signed: Signed, public_key: str) -> bool:
    """Whether the signature is of this act, by the key whose public half is given in PEM."""
    return chain.holds(public_key, canonical_json(signed.act).encode(), signed.signature)


def normal_public_key(pem: str) -> str:
    """The same key in one spelling of PEM. Raises UsageError for anything but an Ed25519 public
    key; what was given isn't shown, since it may be a private one."""
    try:
        return chain.normal_pem(pem)
    except ValueError as error:
        raise UsageError(
            "actor: that is no Ed25519 public key in PEM; give the file NAME.pub"
        ) from error


def session_private(secret: bytes) -> Ed25519PrivateKey:
    """The signing key of a session, derived from an API key's random secret (HKDF-SHA256, RFC
    5869): the stored hash of the secret says nothing about it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(SHA256(), length=CURVE_BYTES, salt=None, info=b"tokka session").derive(secret)
    return Ed25519PrivateKey.from_private_bytes(derived)
