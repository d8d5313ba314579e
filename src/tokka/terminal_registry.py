"""What people see of the registry: a release to decide about, the inventory, acts, actors.

>>> show_release(console(), standing, released, head.number, head.hash)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokka.release.records import Entry, ModelEntry, Release
from tokka.release.registry import Standing

SHOWN_DIGITS = 12


def show_release(
    out: Console, found: Standing, released: Release | None, number: int, head: str
) -> None:
    """What somebody decides about: whose it is, its digest, the verdict, and who decided before."""
    version = found.version
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    builders = ", ".join(sorted(version.builders))
    rows = [
        ("release", f"{version.name}, {found.stage}, tier {version.tier}"),
        ("digest", version.digest),
        ("built by", f"{builders}, released {version.released_at}"),
    ]
    if released is None:
        rows.append(("verdict", "unknown: the release's folder isn't here, only its digest"))
    else:
        verdict = released.verdict
        rows.append(("verdict", verdict.outcome))
        rows += [("", reason) for reason in verdict.reasons]
        served = f"{released.serves}, base model's licence {released.base_licence}"
        rows.append(("serves", served))
    rows += [("validated", f"{actor}, {at}") for actor, at in version.validations]
    counted = version.counted(found.at)
    for given in version.approvals:
        left = f"until {given.expires}" if given in counted else "doesn't count (any more)"
        rows.append(("approved", f"{given.actor}, {given.at}, {left} {given.comment}".rstrip()))
    rows += [("condition", condition) for condition in found.conditions]
    if found.validation_due:
        late = " (overdue)" if found.overdue else ""
        rows.append(("validate by", found.validation_due + late))
    rows.append(("head", f"{number} {head}"))
    for label, text in rows:
        table.add_row(label, _text(text))
    out.print(table)


def show_list(out: Console, models: Sequence[ModelEntry], found: Iterable[Standing]) -> None:
    """The inventory, then its versions."""
    if not models:
        out.print("no model is registered yet; next: tokka release ARM")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "owner", "use", "tier", "base model", "licence", "validate by"):
        table.add_column(column, overflow="fold")
    for entry in models:
        cells = (
            entry.name, entry.owner, entry.use, entry.tier, entry.base_model, entry.licence,
            entry.validation_due or "",
        )  # fmt: skip
        table.add_row(*(_text(cell) for cell in cells))
    out.print(table)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("version", "stage", "approvals", "expires", "digest", "waiting for"):
        table.add_column(column, overflow="fold")
    for one in found:
        given = f"{len(one.version.counted(one.at))}/{one.version.quorum}"
        waits = "; ".join(w.en for w in one.waiting) if not one.version.ended else ""
        row = (
            one.version.name,
            one.stage,
            given,
            one.expires or "",
            one.version.digest[:SHOWN_DIGITS],
            waits,
        )
        table.add_row(*(_text(cell) for cell in row))
    out.print(table)


def show_history(out: Console, entries: Iterable[Entry], refused: Mapping[int, str]) -> None:
    """Acts, oldest first; `refused`: number → why an entry has no effect."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "time", "who", "did", "about", "said"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        act = entry.signed.act
        about = f"{act.model}-{act.version}" if act.version is not None else act.model
        said = "; ".join(filter(None, (act.comment, *act.conditions)))
        if act.kind in ("enrol", "dismiss"):
            about = str(act.details.get("name", ""))
            said = said or ", ".join(act.details.get("duties", ()))
        who = act.actor + (" (session)" if entry.signed.method == "session" else "")
        if entry.number in refused:
            said = f"of no effect: {refused[entry.number]}"
        cells = (str(entry.number), act.at, who, act.kind, about, said)
        table.add_row(*(_text(cell) for cell in cells))
    out.print(table)


def show_actors(out: Console, rows: Iterable[Mapping[str, Any]]) -> None:
    """Everybody ever enrolled."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "duties", "since", "until", "key"):
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = (
            row["name"], ", ".join(row["duties"]), row["since"], row["until"] or "",
            row["fingerprint"][:16],
        )  # fmt: skip
        table.add_row(*(_text(cell) for cell in cells))
    out.print(table)


def _text(said: str) -> Text:
    """What somebody wrote, without the characters that move a terminal's cursor or turn a line
    round: who reads before he signs must see what is there."""
    kept = (
        c if c == "\n" or unicodedata.category(c)[0] not in "C" else "\N{REPLACEMENT CHARACTER}"
        for c in said
    )
    return Text("".join(kept))
