"""Sockets: slow and large senders, TLS, and the end by a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from fakes import FakeLive, make_service, serving

from tokka.errors import IntegrityError, UsageError
from tokka.serving.callers import KeyRing
from tokka.serving.listening import Listening
from tokka.serving.service import Standing

ASK = {"model": "aoba-1", "messages": [{"role": "user", "content": "質問"}]}
KEY = {"authorization": "Bearer tk-user"}
FAKES = Path(__file__).with_name("fakes.py")


def talk(url: str, *parts: bytes, wait: float = 0.0) -> bytes:
    """Send bytes as they are; what comes back until the other side closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as sock:
        sock.settimeout(5)
        got = b""
        try:
            for part in parts:
                sock.sendall(part)
                time.sleep(wait)
            while more := sock.recv(65536):
                got += more
        except ConnectionError:
            pass
        return got


def test_a_head_that_never_ends_is_hung_up_on():
    service = make_service(header_seconds=0.3)
    with serving(service) as url:
        began = time.monotonic()
        assert talk(url) == b""
        assert talk(url, b"GET /healthz HTTP/1.1\r\n", b"x: y\r\n", b"z: a\r\n", wait=0.15) == b""
        assert time.monotonic() - began < 4
        answer = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
        assert talk(url, answer, b"GET /he", wait=0.1).count(b"alive") == 1  # the second one hangs


def test_a_head_that_is_too_large_is_hung_up_on():
    with serving(make_service(max_header_bytes=4096)) as url:
        many = b"".join(b"h%d: %s\r\n" % (n, b"v" * 50) for n in range(200))
        assert talk(url, b"GET /healthz HTTP/1.1\r\nhost: a\r\n", many, b"\r\n") == b""
        assert talk(url, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n") == b""
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_head_that_is_sent_ahead_without_end_is_hung_up_on():
    """While one answer is written, the next request's head comes, and comes."""
    live = FakeLive(script=lambda r: "あ" * 400, seconds=0.05)
    service = make_service(live, max_header_bytes=4096)
    sent = json.dumps(ASK).encode()
    first = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tk-user\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent
    )
    with serving(service) as url:
        began = time.monotonic()
        assert talk(url, first, b"GET / HTTP/1.1\r\nx: ", *[b"y" * 2000] * 4, wait=0.05) == b""
        assert time.monotonic() - began < 3


def test_the_ledger_is_asked_again_and_may_be_away_for_a_while(monkeypatch):
    monkeypatch.setattr("tokka.serving.listening.LOOK_SECONDS", 0.05)
    service = make_service()
    asked, back = threading.Semaphore(0), threading.Event()

    def standing() -> Standing:
        asked.release()
        if not back.is_set():
            raise OSError("no such host: 秘密")
        return Standing(stage="withdrawn", refusal="it is withdrawn")

    service.registry.standing = standing
    with serving(service) as url:
        for _ in range(2):
            assert asked.acquire(timeout=30)
        assert httpx.get(f"{url}/readyz").status_code == 200
        back.set()
        ends = time.monotonic() + 30
        while (answer := httpx.get(f"{url}/readyz")).status_code == 200:
            assert time.monotonic() < ends
            time.sleep(0.02)
    assert answer.json()["error"]["code"] == "not_approved"


def test_a_ledger_that_doesn_t_verify_ends_service(monkeypatch):
    monkeypatch.setattr("tokka.serving.listening.LOOK_SECONDS", 0.05)
    service = make_service()

    def standing() -> Standing:
        raise IntegrityError("entry 3 was changed")

    service.registry.standing = standing
    with serving(service) as url:
        ends = time.monotonic() + 30
        while httpx.get(f"{url}/readyz").status_code == 200:
            assert time.monotonic() < ends
            time.sleep(0.02)


def test_keys_that_can_t_be_looked_up_are_503(monkeypatch):
    service = make_service()

    def away(presented: str) -> None:
        raise OSError("no such host")

    service.ring = KeyRing(away)
    with serving(service) as url:
        answer = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer tk-user"})
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert answer.json()["error"]["code"] == "ledger_away"


def test_a_body_that_drips_is_408():
    with serving(make_service(body_seconds=0.3)) as url:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer tk-user\r\n"
            b"content-type: application/json\r\ncontent-length: 100\r\n\r\n"
        )
        got = talk(url, head, b"{", b" ", wait=0.1)
        assert got.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in got


def test_a_chunked_body_without_end_is_413():
    with serving(make_service(max_body_bytes=2048)) as url:

        def endless() -> Iterator[bytes]:
            for _ in range(100_000):
                yield b"x" * 1024

        head = {**KEY, "content-type": "application/json"}
        try:
            answer = httpx.post(f"{url}/v1/chat/completions", content=endless(), headers=head)
        except httpx.TransportError:
            return  # it was hung up on before it had read the answer
        assert answer.status_code == 413


def test_a_connection_too_many_is_hung_up_on_and_the_others_go_on():
    with serving(make_service(max_connections=3)) as url:
        host, port = url.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port))) for _ in range(3)]
        time.sleep(0.1)
        assert talk(url, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n") == b""
        held.pop().close()
        time.sleep(0.1)
        assert httpx.get(f"{url}/healthz").status_code == 200
        for sock in held:
            sock.close()


def test_a_port_that_is_taken_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="choose another --port"):
            from tokka.serving.listening import _bound

            with _bound(Listening(port=taken.getsockname()[1])):
                pass


# ---- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokka test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_by_file(certificate):
    cert, key = certificate
    with serving(make_service(), Listening(port=0, tls_cert=cert, tls_key=key)) as url:
        trusted = ssl.create_default_context(cafile=str(cert))
        answer = httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=KEY, verify=trusted)
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/healthz", verify=old)


def test_a_certificate_that_isnt_one_is_said(tmp_path):
    from tokka.serving.listening import _config

    wrong = tmp_path / "cert.pem"
    wrong.write_text("no certificate")
    with pytest.raises(UsageError, match="give PEM files"):
        _config(make_service(), Listening(tls_cert=wrong, tls_key=wrong))


# ---- signals ------------------------------------------------------------------------------------


@contextmanager
def process(
    tmp_path: Path, seconds_a_piece: float, drain: float
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port_file = tmp_path / "port"
    paths = os.pathsep.join(["src", str(FAKES.parent), os.environ.get("PYTHONPATH", "")])
    running = subprocess.Popen(
        [sys.executable, str(FAKES), str(port_file), str(seconds_a_piece), str(drain)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": paths}, cwd=FAKES.parents[2],
    )  # fmt: skip
    try:
        ends = time.monotonic() + 30
        while not port_file.exists():
            assert running.poll() is None, running.communicate()[0]
            assert time.monotonic() < ends
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text()}", running
    finally:
        running.kill()
        running.wait()


class Asking(threading.Thread):
    """A stream that is read in the background."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.text, self.begun = url, "", threading.Event()
        self.start()
        assert self.begun.wait(20)

    def run(self) -> None:
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/chat/completions", json={**ASK, "stream": True},
                headers=KEY, timeout=30,
            ) as answer:  # fmt: skip
                for text in answer.iter_text():
                    self.text += text
                    self.begun.set()
        except httpx.TransportError as error:
            self.text += f"<{type(error).__name__}>"


def test_sigterm_lets_running_texts_end_and_takes_no_new_ones(tmp_path):
    with process(tmp_path, 0.03, 20) as (url, running):
        asking = Asking(url)
        running.send_signal(signal.SIGTERM)
        ends = time.monotonic() + 5
        while httpx.get(f"{url}/readyz").status_code == 200 and time.monotonic() < ends:
            time.sleep(0.01)
        ready = httpx.get(f"{url}/readyz")
        refused = httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=KEY)
        assert (ready.status_code, refused.status_code) == (503, 503)
        assert refused.json()["error"]["code"] == "draining"
        assert httpx.get(f"{url}/healthz").status_code == 200
        asking.join(20)
        output, _ = running.communicate(timeout=20)
    assert asking.text.endswith("data: [DONE]\n\n")
    assert running.returncode == 0
    assert output == "rows 1\n"  # what was answered is in the log, and nothing else was printed


def test_what_is_left_when_the_drain_is_over_is_told_so(tmp_path):
    with process(tmp_path, 0.5, 0.3) as (url, running):
        asking = Asking(url)
        running.send_signal(signal.SIGTERM)
        asking.join(20)
        running.communicate(timeout=20)
    last = json.loads(asking.text.strip().split("data: ")[-1])
    assert last["error"]["code"] == "draining"
    assert running.returncode == 0


def test_a_second_signal_ends_at_once(tmp_path):
    with process(tmp_path, 0.5, 60) as (url, running):
        asking = Asking(url)
        running.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        began = time.monotonic()
        running.communicate(timeout=20)
        asking.join(10)
    assert time.monotonic() - began < 10
    assert "[DONE]" not in asking.text
