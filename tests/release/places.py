"""Where a test's ledger is, and who acts in it.

>>> ledger = place.open()
>>> boss = actor("boss"); enrol(ledger, boss, boss, "owner"); say(ledger, boss, comment="記録")
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokka.release.keys import ActorKey, sign, utc_now
from tokka.release.ledger import Ledger, open_ledger
from tokka.release.records import Act, ActKind, Entry, Signed


def actor(name: str) -> ActorKey:
    """A key that lies in no file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return ActorKey(name, Ed25519PrivateKey.generate())


BOSS = actor("boss")


def signed(ledger: Ledger, by: ActorKey, kind: ActKind = "note", **said: Any) -> Signed:
    head = ledger.head()
    seen = head.hash if head.number else ""
    return sign(by, Act(kind=kind, actor=by.name, at=utc_now(), head=seen, **said))


def say(ledger: Ledger, by: ActorKey, kind: ActKind = "note", **said: Any) -> Entry:
    return ledger.append(signed(ledger, by, kind, **said))


def enrol(ledger: Ledger, by: ActorKey, new: ActorKey, *duties: str) -> Entry:
    details = {"name": new.name, "public_key": new.public_key, "duties": list(duties)}
    return say(ledger, by, "enrol", details=details)


@dataclass
class Place:
    """Where one test's ledger is. `attack` writes to the database as somebody would who isn't
    tokka, with the triggers out of the way."""

    spec: str
    root: Path
    opened: list[Ledger] = field(default_factory=list)

    def open(self, **options: Any) -> Ledger:
        self.opened.append(open_ledger(self.spec, self.root, **options))
        return self.opened[-1]

    @property
    def is_sqlite(self) -> bool:
        return "://" not in self.spec

    @property
    def key_file(self) -> Path:
        return self.root / ".tokka" / "ledger.key"

    def run(self, *statements: str, triggers: bool = True) -> list[Any]:
        """Raw SQL in one transaction; the last statement's rows."""
        if self.is_sqlite:
            return self._sqlite(statements, triggers)
        import psycopg

        with psycopg.connect(self.spec.replace("+psycopg", "")) as connection:
            if not triggers:
                connection.execute("ALTER TABLE entries DISABLE TRIGGER ALL")
            for statement in statements:
                cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
            if not triggers:
                connection.execute("ALTER TABLE entries ENABLE TRIGGER ALL")
            return rows

    def _sqlite(self, statements: tuple[str, ...], triggers: bool) -> list[Any]:
        import sqlite3

        connection = sqlite3.connect(self.root / self.spec)
        try:
            kept = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
            for name, _ in [] if triggers else kept:
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                cursor = connection.execute(statement)
            rows = cursor.fetchall()
            for _, text in [] if triggers else kept:
                connection.execute(text)
            connection.commit()
            return rows
        finally:
            connection.close()

    def close(self) -> None:
        for ledger in self.opened:
            ledger.close()


WRITER = """
    import os, sys, signal
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from places import say
    from tokka.release import ledger as module
    from tokka.release.keys import ActorKey
    boss = ActorKey("boss", load_pem_private_key(Path("boss.pem").read_bytes(), None))
"""
OPEN = "ledger = module.open_ledger(sys.argv[1], Path.cwd())\n"


def writer(place: Place, work: str, name: str = "", before: str = "") -> subprocess.Popen[str]:
    """A process that opens the ledger as `ledger`, has BOSS's key as `boss`, and does the work;
    `name` is its sys.argv[2], `before` what it does before it opens."""
    from cryptography.hazmat.primitives import serialization as s

    pem = BOSS.private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (place.root / "boss.pem").write_bytes(pem)
    code = textwrap.dedent(WRITER) + textwrap.dedent(before) + OPEN + textwrap.dedent(work)
    here = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, place.spec, name, here],
        cwd=place.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a process printed. The limit is only there for one that hangs."""
    out, faults = process.communicate(timeout=240)
    assert process.returncode == code, faults
    return out
