"""What the ledger keeps outside its database: the key that signs heads, and the last head seen.

Whoever can write the database but not these files can neither sign a chain of his own nor put back
an old copy unseen.

>>> key = LedgerKey.at(path, create=True)
>>> head = sign_head(key.private, ledger_id, number, hash)
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tokka.errors import IntegrityError, UsageError
from tokka.records import canonical_json
from tokka.release.chain import public_pem
from tokka.release.records import Head
from tokka.store import write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VARIABLE = "TOKKA_LEDGER_KEY"


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """An Ed25519 key in a file of its owner alone (0600). It prints no secret."""

    path: Path
    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> str:
        return public_pem(self.private)


def key_path(beside: Path) -> Path:
    """`$TOKKA_LEDGER_KEY`, else the file given."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else beside


def make_key(path: Path) -> LedgerKey:
    """Make a key, or take the one that is there: of two processes at once both get the first's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename, it never replaces a key
    finally:
        temporary.unlink(missing_ok=True)
    return load_key(path)


def load_key(path: Path) -> LedgerKey:
    """Raises UsageError where the key is missing, readable by others, or no Ed25519 key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read()
    except OSError as error:
        raise UsageError(
            f"ledger: its key isn't at {path} ({error.strerror}); without it nothing can be "
            f"written to the trail. Copy it back, or say where it is in {VARIABLE}"
        ) from error
    if os.name == "posix" and mode & 0o077:
        raise UsageError(
            f"ledger: its key {path} is readable by others (mode {mode:04o}); run: chmod 600 {path}"
        )
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"ledger: {path} is no private key in PEM; copy the key back") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"ledger: {path} is no Ed25519 key; copy the ledger's own key back")
    return LedgerKey(path, private)


# ---- the last head that was seen ----------------------------------------------------------------


def seen_path(key: Path, ledger: str) -> Path:
    """Beside the key, named by the ledger: one key may sign several."""
    return key.with_name(f"{key.stem}-{ledger[:8]}.head.json")


def remember(path: Path, head: Head) -> None:
    """Two processes may write theirs in either order: an older head is still one to hold against
    the trail. Where the folder can't be written, the trail goes on without."""
    with contextlib.suppress(OSError):
        write_text(path, canonical_json(head) + "\n")


def remembered(path: Path) -> Head | None:
    """None where nothing was seen yet. Raises IntegrityError for a file that holds no head."""
    try:
        return Head.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise IntegrityError(
            f"ledger: {path} holds no head; was it edited? Verify the trail against a head that "
            f"was recorded in a release or an evidence pack, then delete the file"
        ) from error
