"""An exported trail: a folder that says everything and needs no database.

    trail.jsonl     one entry a line, canonical JSON: what counts
    head.json       the signed end of the chain
    ledger.pem      the ledger's public key
    trail.txt       the same entries for people; verified against trail.jsonl

>>> write_trail(ledger.trail(), Path("trail"))
>>> audit.verify_trail(Path("trail"), public_key)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import IntegrityError
from tokka.records import canonical_json
from tokka.store import write_text

ENTRIES, HEAD, PUBLIC_KEY, READABLE = "trail.jsonl", "head.json", "ledger.pem", "trail.txt"
FILES = (ENTRIES, HEAD, PUBLIC_KEY, READABLE)


@dataclass(frozen=True, slots=True)
class Trail:
    """A trail as it is stored: the canonical JSON of each entry and of the head, the ledger's
    public key (PEM)."""

    lines: tuple[str, ...]
    head: str
    public_key: str


def write_trail(trail: Trail, folder: Path) -> None:
    """Write the folder; what is there under the same names is replaced."""
    write_text(folder / ENTRIES, "".join(f"{line}\n" for line in trail.lines))
    write_text(folder / HEAD, trail.head + "\n")
    write_text(folder / PUBLIC_KEY, trail.public_key + "\n")
    write_text(folder / READABLE, readable(trail))


def read_trail(folder: Path) -> Trail:
    """Raises IntegrityError for a missing file, one that isn't UTF-8, or a last line cut short."""
    texts = {}
    for name in (ENTRIES, HEAD, PUBLIC_KEY):
        try:
            texts[name] = (folder / name).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = (
                "is missing" if isinstance(error, FileNotFoundError) else f"can't be read: {error}"
            )
            raise IntegrityError(
                f"trail: {folder / name} {why}; export the trail again: tokka audit export FOLDER"
            ) from error
    for name, text in texts.items():
        if text and not text.endswith("\n"):
            raise IntegrityError(f"trail: {folder / name} doesn't end with a newline: cut short")
    # Not splitlines: it would also part an entry at a character such as U+2028.
    lines = texts[ENTRIES].split("\n")[:-1]
    return Trail(tuple(lines), texts[HEAD][:-1], texts[PUBLIC_KEY][:-1])


def readable(trail: Trail) -> str:
    """The trail for people. Every export is verified against this text: another form of it needs
    another name of the file."""
    head = _plain(trail.head)
    parts = [
        f"Trail of the ledger {_shown(head.get('ledger'))}, {len(trail.lines)} entries.\n"
        f"{ENTRIES} is what counts; this file shows the same and is verified against it.\n"
    ]
    for line in trail.lines:
        entry = _plain(line)
        signed = entry.get("signed")
        signed = signed if isinstance(signed, dict) else {}
        act = signed.get("act")
        act = dict(act) if isinstance(act, dict) else {}
        title = [entry.get("number"), *(act.pop(name, "") for name in ("at", "kind", "actor"))]
        parts.append("\n" + "  ".join(_shown(value) for value in title) + "\n")
        act.pop("schema_version", None)
        facts = {**act, "method": signed.get("method"), "session": signed.get("session")}
        parts += [
            f"    {name}: {_shown(value)}\n"
            for name, value in {**facts, "hash": entry.get("hash")}.items()
            if value not in ("", None, [], {})
        ]
    return "".join(parts)


def _plain(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    """On one line, and nothing that a terminal would obey or turn around."""
    text = value if isinstance(value, str) else canonical_json(value)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
