"""The model's signature, by the standard's own library and read without it."""

import base64
import json
import shutil
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tokka.errors import IntegrityError, UsageError
from tokka.release.model_signature import ensure_key, public_pem, sign_model, signed_files
from tokka.store import sha256_file


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model's folder, its signature and the key."""
    root = tmp_path_factory.mktemp("signed")
    model = root / "model"
    (model / "深い").mkdir(parents=True)
    (model / "model.gguf").write_bytes(b"GGUF" * 1000)
    (model / "深い" / "設定.json").write_text("{}")
    (model / ".gitattributes").write_text("*.gguf filter=lfs")
    key = ensure_key(root / "key.pem")
    sign_model(model, root / "model.sig", key)
    return model, root / "model.sig", key


def test_the_standards_own_library_agrees(signed, tmp_path: Path):
    verifying = pytest.importorskip("model_signing.verifying")
    hashing = pytest.importorskip("model_signing.hashing")
    model, signature, key = signed
    (tmp_path / "key.pub").write_text(public_pem(key))
    # As `model_signing verify key --no-ignore-git-paths`.
    every = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    config = verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "key.pub")
    config.set_hashing_config(every)
    config.verify(model, signature)
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    (copy / "model.gguf").write_bytes(b"GGUF" * 999 + b"GGUX")
    with pytest.raises(ValueError):
        config.verify(copy, signature)


def test_signed_files_are_read_without_the_library(signed):
    model, signature, key = signed
    names = ("model.gguf", "深い/設定.json", ".gitattributes")
    found = signed_files(signature, public_pem(key))
    assert found == {name: sha256_file(model / name) for name in names}


def test_another_key_isnt_believed(signed, tmp_path: Path):
    _, signature, _ = signed
    with pytest.raises(IntegrityError, match="not signed by this key"):
        signed_files(signature, public_pem(ensure_key(tmp_path / "other.pem")))


def test_a_changed_payload_isnt_believed(signed, tmp_path: Path):
    _, signature, key = signed
    bundle = json.loads(signature.read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(
        b"model.gguf", b"mobel.gguf"
    )
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (tmp_path / "s").write_text(json.dumps(bundle))
    with pytest.raises(IntegrityError, match="not signed by this key"):
        signed_files(tmp_path / "s", public_pem(key))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"dsseEnvelope": {}}', '{"dsseEnvelope": 1}'])
def test_rubbish_is_no_signature(signed, tmp_path: Path, text: str):
    (tmp_path / "s").write_text(text)
    with pytest.raises(IntegrityError, match="no model signature"):
        signed_files(tmp_path / "s", public_pem(signed[2]))


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path):
    path = ensure_key(tmp_path / "deep" / "key.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert ensure_key(path).read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_only_a_p256_key_signs(tmp_path: Path):
    other = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "k").write_bytes(
        other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(UsageError, match="no P-256 key"):
        public_pem(tmp_path / "k")
    (tmp_path / "k").write_text("secret")
    with pytest.raises(UsageError) as error:
        public_pem(tmp_path / "k")
    assert "secret" not in str(error.value)
