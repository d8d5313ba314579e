"""`tokka actor`, `tokka audit`: who may act, and what they did, to take elsewhere.

tokka actor new sato --duty approver --as mori
tokka audit export trail/
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokka.cli_registry import HERE, As, DryRun, Json, LedgerPlace, ProjectFile, opened, print_json

if TYPE_CHECKING:
    from tokka.release.keys import ActorKey
    from tokka.release.ledger import Ledger

actors_app = typer.Typer(pretty_exceptions_enable=False)
people = typer.Typer(
    name="actor", help="Say who may act: enrol people and their keys.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip
trail = typer.Typer(
    name="audit", help="Take the audit trail elsewhere.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip
actors_app.add_typer(people)
actors_app.add_typer(trail)


@people.command("new")
def new_actor(
    name: Annotated[str, typer.Argument(help="The person's name in the trail.")],
    duty: Annotated[
        list[str] | None,
        typer.Option(help="owner, developer, validator, approver or auditor; may be given again."),
    ] = None,
    who: As = None,
    public_key: Annotated[
        Path | None,
        typer.Option(help="Enrol this public key, made elsewhere, instead of making a key."),
    ] = None,
    key_only: Annotated[
        bool, typer.Option("--key-only", help="Only make your key; an owner enrols it later.")
    ] = False,
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a person's key and enrol it; an owner signs. The first of a ledger enrols himself.

    The private key is written to $TOKKA_KEYS, else ~/.config/tokka/keys, for its owner alone.
    """
    from tokka.errors import UsageError
    from tokka.release import keys
    from tokka.release.approval import enrol
    from tokka.release.chain import key_fingerprint
    from tokka.release.records import DUTIES

    path = keys.key_path(name)
    duties = [known for known in DUTIES if known in (duty or ())]
    unknown = sorted(set(duty or ()) - set(DUTIES))
    if unknown or not (duties or key_only):
        got = ", ".join(unknown) or "none"
        raise UsageError(f"actor: --duty takes {', '.join(DUTIES)}; got {got}")
    made: ActorKey | None = None
    if public_key is not None:
        pem = keys.normal_public_key(_pem(public_key))
    else:  # a key that is there was made by a run that ended before it was enrolled
        made = keys.load_key(name) if path.exists() else keys.fresh_key(name)
        pem = made.public_key
    found: dict[str, Any] = {
        "name": name, "duties": duties, "fingerprint": key_fingerprint(pem),
        "private_key": str(path) if made else None, "dry_run": dry_run, "entry": None,
    }  # fmt: skip
    if key_only:
        if made and not dry_run and not path.exists():
            keys.write_key(made)
    else:
        with opened(file, place, create=not dry_run) as (ledger, _):
            by = _enroller(ledger, made, who)
            enrol(ledger, by, name, duties, pem, dry_run=True)  # before a key is written
            if made and not dry_run and not path.exists():
                keys.write_key(made)
            entry = enrol(ledger, by, name, duties, pem, dry_run=dry_run)
            found["entry"] = entry.number if entry else None
    if as_json:
        print_json(found)
        return
    if made:
        typer.echo(f"{'would write' if dry_run else 'key'} {path}")
        typer.echo(f"public key {path.with_name(name + '.pub')}")
    if found["entry"]:
        typer.echo(f"enrolled {name} as {', '.join(duties)}, entry {found['entry']}")
    elif key_only:
        typer.echo(f"next: an owner runs tokka actor new {name} --duty … --public-key {name}.pub")
    if not (dry_run and made and not path.exists()):  # else a key that was made for asking only
        typer.echo(f"fingerprint {found['fingerprint']}")


@people.command("list")
def list_actors(file: ProjectFile = HERE, place: LedgerPlace = None, as_json: Json = False) -> None:
    """List everybody ever enrolled, with duties and the key's fingerprint."""
    from tokka.release.chain import key_fingerprint
    from tokka.release.registry import books_of
    from tokka.terminal import console
    from tokka.terminal_registry import show_actors

    with opened(file, place) as (ledger, _):
        actors = sorted(books_of(ledger).actors.values(), key=lambda actor: actor.since)
    rows = [
        {
            "name": actor.name, "duties": list(actor.duties), "since": actor.since,
            "until": actor.until, "fingerprint": key_fingerprint(actor.public_key),
        }
        for actor in actors
    ]  # fmt: skip
    if as_json:
        print_json(rows)
    else:
        show_actors(console(), rows)


@people.command("dismiss")
def dismiss_actor(
    name: Annotated[str, typer.Argument(help="Who acts no more.")],
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    who: As = None,
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    as_json: Json = False,
) -> None:
    """Dismiss somebody; an owner signs. What he did before stands."""
    from tokka.release.approval import dismiss
    from tokka.release.keys import load_key

    with opened(file, place) as (ledger, _):
        entry = dismiss(ledger, load_key(who), name, comment)
    if as_json:
        print_json({"name": name, "entry": entry.number})
    else:
        typer.echo(f"dismissed {name}, entry {entry.number}")


@trail.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    as_json: Json = False,
) -> None:
    """Write the trail, its signed head and the ledger's public key: all that verifying needs."""
    from tokka.errors import UsageError

    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"audit: {folder} isn't empty; name a new folder")
    with opened(file, place) as (ledger, _):
        head = ledger.head()
        ledger.export(folder)
    if as_json:
        print_json({"folder": str(folder), "entries": head.number, "head": head.hash})
    else:
        typer.echo(f"wrote {head.number} entries to {folder}; head {head.hash}")
        typer.echo(f"next: tokka verify {folder}")


def _enroller(ledger: Ledger, made: ActorKey | None, who: str | None) -> ActorKey:
    from tokka.release.keys import load_key
    from tokka.release.registry import books_of

    if made is not None and not books_of(ledger).actors and who in (None, made.name):
        return made
    return load_key(who)


def _pem(path: Path) -> str:
    from tokka.store import read_text

    return read_text(path, "actor")
