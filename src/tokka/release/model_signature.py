"""The model's signature in OpenSSF's format: over every file of a release, checked offline.

    release folder + P-256 key → model.sig (a Sigstore bundle: DSSE over an in-toto statement)
    model.sig + public key → {path: SHA-256} that was signed

Written with `model-signing`, which anybody can check it with:

    model_signing verify key FOLDER --signature model.sig --public_key model-signing.pub.pem \\
        --no-ignore-git-paths

Reading it needs `cryptography` alone, so that a pack can be verified where little is installed.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError, UsageError
from tokka.extras import require

SIGNATURE, PUBLIC_KEY = "model.sig", "model-signing.pub.pem"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://model_signing/signature/v1.0"


def ensure_key(path: Path) -> Path:
    """A P-256 private key at `path`, made where there is none, readable by its owner alone."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if path.exists():
        return path
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # never replaces a key that another process made meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path


def public_pem(key: Path) -> str:
    """The public half of a private key's file, as PEM. Raises UsageError for anything but P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"model signature: {key} can't be read as an unencrypted private key in PEM; make one "
            "with: openssl ecparam -name prime256v1 -genkey -noout"
        ) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise UsageError(f"model signature: {key} is no P-256 key; it must be of curve prime256v1")
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def sign_model(folder: Path, signature: Path, key: Path) -> None:
    """Sign all files of `folder` into `signature`, which must lie elsewhere."""
    signing: Any = require("model_signing.signing", extra="release")
    require("OpenSSL", extra="release")  # which model-signing needs and doesn't declare
    hashing: Any = require("model_signing.hashing", extra="release")
    # By itself it leaves out .gitattributes, which many a model's folder holds.
    every = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    config = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(every)
    config.sign(folder, signature)


def signed_files(signature: Path, public_key: str) -> dict[str, str]:
    """Path → SHA-256 of what was signed by this key.

    Raises IntegrityError where the signature isn't by it, or signs something else than files.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        raw = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind = str(envelope["payloadType"])
        key = load_pem_public_key(public_key.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("no elliptic-curve key")
        key.verify(raw, _encoding(kind, payload), ec.ECDSA(SHA256()))
        statement = json.loads(payload)
        if kind != PAYLOAD_TYPE or statement["predicateType"] != PREDICATE:
            raise ValueError("no model signature")
        return {str(r["name"]): _sha256(r) for r in statement["predicate"]["resources"]}
    except InvalidSignature as error:
        raise IntegrityError(
            f"{signature.name}: not signed by this key; ask who signed the model for the right one"
        ) from error
    except (OSError, binascii.Error, ValueError, KeyError, IndexError, TypeError) as error:
        raise IntegrityError(
            f"{signature.name}: no model signature ({type(error).__name__}); get the pack again"
        ) from error


def _encoding(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (secure-systems-lab/dsse, protocol.md)."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _sha256(resource: dict[str, Any]) -> str:
    if resource["algorithm"] != "sha256":
        raise ValueError(f"hashed with {resource['algorithm']}")
    return str(resource["digest"])
