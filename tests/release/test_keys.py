import os
import stat

import pytest
from people import key_of

from tokka.errors import UsageError
from tokka.release.keys import (
    ActorKey,
    Session,
    fresh_key,
    holds,
    key_names,
    key_path,
    load_key,
    normal_public_key,
    session_private,
    sign,
    sign_session,
    write_key,
)
from tokka.release.records import Act


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKKA_KEYS", str(tmp_path / "keys"))
    monkeypatch.delenv("TOKKA_KEY_PASSPHRASE", raising=False)
    monkeypatch.delenv("TOKKA_ACTOR", raising=False)
    return tmp_path / "keys"


def act(**said) -> Act:
    return Act(kind="note", actor="佐藤", at="2026-01-05T09:00:00Z", comment="確認した", **said)


def test_a_key_is_written_for_its_owner_alone_and_read_back(folder):
    key = fresh_key("佐藤")
    path = write_key(key)
    assert path == folder / "佐藤.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key("佐藤").public_key == key.public_key
    assert (folder / "佐藤.pub").read_text(encoding="utf-8").strip() == key.public_key
    assert key_names() == ["佐藤"]


def test_a_key_is_never_replaced(folder):
    before = write_key(fresh_key("sato")).read_bytes()
    with pytest.raises(UsageError, match="is there already and isn't replaced"):
        write_key(fresh_key("sato"))
    assert (folder / "sato.pem").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(folder, mode):
    path = write_key(fresh_key("sato"))
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"readable by others .mode {mode:04o}.*chmod 600"):
        load_key("sato")


def test_a_passphrase_locks_a_key_and_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("TOKKA_KEY_PASSPHRASE", "秘密の合言葉")
    key = fresh_key("sato")
    path = write_key(key)
    assert b"ENCRYPTED" in path.read_bytes()
    assert load_key("sato").public_key == key.public_key
    for wrong, why in (("geheim-falsch", "doesn't open it"), ("", "is encrypted; set")):
        monkeypatch.setenv("TOKKA_KEY_PASSPHRASE", wrong)
        with pytest.raises(UsageError, match=why) as refused:
            load_key("sato")
        assert "geheim" not in str(refused.value)


def test_a_missing_or_broken_key_says_what_to_do(folder):
    with pytest.raises(UsageError, match=r"no key of sato at .*tokka actor new sato"):
        load_key("sato")
    path = write_key(fresh_key("sato"))
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nR2VoZWlt\n-----END PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="it is no PEM private key") as refused:
        load_key("sato")
    assert "R2Vo" not in str(refused.value)


def test_another_kind_of_key_is_refused(folder):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = write_key(fresh_key("sato"))
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UsageError, match="is no Ed25519 key"):
        load_key("sato")


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a b", "x" * 65, "a\n", "../keys/sato"])
def test_a_name_that_could_leave_the_folder_is_none(name):
    with pytest.raises(UsageError, match="is no name"):
        key_path(name)


def test_who_acts_is_named_or_the_only_one_here(monkeypatch):
    with pytest.raises(UsageError, match=r"Keys in .*: none; .*tokka actor new"):
        load_key()
    write_key(fresh_key("sato"))
    assert load_key().name == "sato"
    write_key(fresh_key("suzuki"))
    with pytest.raises(UsageError, match="sato, suzuki; say --as NAME"):
        load_key()
    monkeypatch.setenv("TOKKA_ACTOR", "suzuki")
    assert load_key().name == "suzuki"
    assert load_key("sato").name == "sato"


def test_a_signature_holds_for_its_act_and_its_key_alone():
    key = ActorKey("佐藤", key_of("佐藤").private)
    signed = sign(key, act())
    assert holds(signed, key.public_key)
    assert not holds(signed, key_of("x").public_key)
    assert not holds(signed.model_copy(update={"act": act(model="b")}), key.public_key)
    for broken in ("", "???", signed.signature[:-4], signed.signature + "AAAA"):
        assert not holds(signed.model_copy(update={"signature": broken}), key.public_key)
    assert not holds(signed, "no key")


def test_nobody_signs_for_another():
    with pytest.raises(UsageError, match="suzuki can't sign what 佐藤 does"):
        sign(key_of("suzuki"), act())
    session = Session("suzuki", "k", "", session_private(b"s" * 32))
    with pytest.raises(UsageError, match="suzuki can't sign what 佐藤 does"):
        sign_session(session, act())


def test_a_sessions_key_follows_from_the_secret_alone():
    def public(secret: bytes) -> str:
        return Session("佐藤", "k", "", session_private(secret)).public_key

    assert public(b"s" * 32) == public(b"s" * 32) != public(b"t" * 32)
    session = Session("佐藤", "k", "", session_private(b"s" * 32))
    signed = sign_session(session, act())
    assert (signed.method, signed.session) == ("session", "k")
    assert holds(signed, session.public_key)


def test_a_key_prints_no_secret():
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = key_of("sato")
    raw = key.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    session = Session("sato", "k", "", key.private)
    for shown in (repr(key), repr(session), str(key)):
        assert raw.hex() not in shown and "private" not in shown.lower()


def test_one_spelling_of_a_public_key_and_no_private_one():
    pem = key_of("sato").public_key
    assert normal_public_key("\n" + pem.replace("\n", "\r\n") + "\n") == pem
    with pytest.raises(UsageError, match="no Ed25519 public key"):
        normal_public_key(pem.replace("PUBLIC", "PRIVATE"))


def test_only_the_owner_may_enter_the_folder(folder):
    write_key(fresh_key("sato"))
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
