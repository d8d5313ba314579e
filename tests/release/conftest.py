"""Ledgers to test with: one suite runs over SQLite and over a real PostgreSQL.

PostgreSQL is `$TOKKA_TEST_POSTGRESQL` (a URL whose user may create databases), else a private
cluster in a temporary folder, made and stopped here; without either the tests are skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import Place

PASSWORD = "geheim/4711@ß"  # every character of it must be written as %… in a URL


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A URL of a server, without a database's name at its end."""
    given = os.environ.get("TOKKA_TEST_POSTGRESQL")
    if given:
        yield given.rsplit("/", 1)[0]
        return
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL: neither pg_ctl nor /usr/lib/postgresql; apt install postgresql")
    pytest.importorskip("psycopg")
    # Not in pytest's folder, which only its owner may enter: as root the server is another user.
    with tempfile.TemporaryDirectory(prefix="tokka-pg-", ignore_cleanup_errors=True) as name:
        yield from _cluster(programs, Path(name))


def _programs() -> Path | None:
    found = shutil.which("pg_ctl")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return Path(found).resolve().parent if found else places[-1].parent if places else None


def _account() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _cluster(programs: Path, folder: Path) -> Iterator[str]:
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = _account()
        other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        shutil.chown(folder, account.pw_uid)
    password, data, log = folder / "password", folder / "data", folder / "log"
    password.write_text(PASSWORD, encoding="utf-8")
    if other:
        shutil.chown(password, other["user"])
    made = subprocess.run(
        [
            programs / "initdb", "--pgdata", data, "--username", "tokka", "--pwfile", password,
            "--auth", "scram-sha-256", "--no-locale", "--encoding", "UTF8", "--no-sync",
        ],
        cwd=folder, capture_output=True, text=True, **other,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with log.open("w") as file:
        server = subprocess.Popen(
            [
                programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=",
                "-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=16MB",
            ],
            cwd=folder, stdout=file, stderr=file, **other,
        )  # fmt: skip
    try:
        for _ in range(300):
            if (folder / ".s.PGSQL.5432").exists() and "ready to accept" in log.read_text():
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
        yield f"postgresql+psycopg://tokka:geheim%2F4711%40%C3%9F@:5432?host={folder}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture
def postgresql(postgresql_server: str, tmp_path: Path) -> Iterator[Place]:
    """A ledger's place in a database of its own, not yet made."""
    import psycopg
    from sqlalchemy import make_url

    server, name = make_url(postgresql_server), f"tokka_{uuid.uuid4().hex[:12]}"

    def url(database: str) -> str:
        return server.set(database=database).render_as_string(hide_password=False)

    admin = url(server.database or "postgres").replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        place = Place(url(name), tmp_path)
        yield place
        place.close()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Place]:
    place = Place(".tokka/ledger.sqlite", tmp_path)
    yield place
    place.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """Both databases, one after the other."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def made_release(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A release from records alone, approved; see packs.py."""
    from packs import make

    return make(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def finished_pack(made_release: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its evidence pack. Tests that change it change a copy."""
    pytest.importorskip("cyclonedx")
    pytest.importorskip("model_signing")
    from tokka.release.packing import write_pack

    folder = tmp_path_factory.mktemp("pack") / "aoba-1"
    write_pack(made_release.gathered, folder)
    return folder
