"""`tokka approve`, `tokka registry`: who decided what.

tokka approve aoba-1 --condition "社内利用に限る" --as sato
tokka registry show aoba-1 --json
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tokka.release.ledger import Ledger
    from tokka.release.records import Release
    from tokka.release.registry import Standing

registry_app = typer.Typer(pretty_exceptions_enable=False)
shelf = typer.Typer(
    name="registry", help="Show which models there are and where each version stands.",
    no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip
registry_app.add_typer(shelf)

HERE = Path()
ProjectFile = Annotated[Path, typer.Option("--project", help="The project file or folder.")]
LedgerPlace = Annotated[
    str | None, typer.Option("--ledger", help="The ledger's file or URL, without a project.")
]
As = Annotated[
    str | None, typer.Option("--as", help="Whose key signs; needed if you hold several.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
NAME = "MODEL or MODEL-VERSION; without a version the newest."
DONE = {
    "validate": "validated", "approve": "approved", "reject": "rejected", "withdraw": "withdrew",
    "retire": "retired",
}  # fmt: skip


@registry_app.command()
def approve(
    name: Annotated[str, typer.Argument(help=NAME)],
    validate: Annotated[bool, typer.Option("--validate", help="Validate it instead.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it instead; final.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Withdraw the approval: it is served no more.")
    ] = False,
    retire: Annotated[bool, typer.Option("--retire", help="Retire it; final.")] = False,
    comment: Annotated[str, typer.Option(help="What you looked at, or why.")] = "",
    condition: Annotated[
        list[str] | None, typer.Option(help="What the approval demands; may be given again.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="How long the approval holds; else the project says.")
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(help="Only if the release has this digest (or its first digits)."),
    ] = None,
    who: As = None,
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Approve a release with your key; the digest, the verdict and the trail's head come first.

    Ends with 4 while others must still approve, and says who; with 0 once it is approved.
    """
    from tokka.release import approval
    from tokka.release.keys import load_key, utc_now
    from tokka.release.registry import standing_of
    from tokka.release.standing import days_later
    from tokka.terminal import console
    from tokka.terminal_registry import show_release

    kind = _kind(validate=validate, reject=reject, withdraw=withdraw, retire=retire)
    with opened(file, place) as (ledger, folder):
        before = standing_of(ledger, name)
        released = _released(folder, before)
        head = ledger.head()
        _same_digest(before, digest)
        if not as_json:
            show_release(console(), before, released, head.number, head.hash)
        key = load_key(who)
        if not (dry_run or yes or as_json) and sys.stdin.isatty():
            typer.confirm(f"{kind} {before.version.name} as {key.name}?", abort=True)
        done = approval.decide(
            ledger, key, kind, before.version.name, digest=before.version.digest, comment=comment,
            conditions=condition or (), dry_run=dry_run, head=head.hash,
            expires=days_later(utc_now(), days) if days and kind == "approve" else None,
        )  # fmt: skip
    now = done.standing
    waits = kind == "approve" and not dry_run and now.stage not in ("approved", "serving")
    if as_json:
        verdict = released.verdict.model_dump(mode="json") if released else None
        entry = {"number": done.entry.number, "hash": done.entry.hash} if done.entry else None
        print_json(
            {"act": kind, "actor": key.name, "dry_run": dry_run, "entry": entry,
             "verdict": verdict, "head_seen": head.hash, **now.as_json()}
        )  # fmt: skip
        raise typer.Exit(4 if waits else 0)
    if done.entry is None:
        typer.echo(f"{key.name} may {kind} {now.version.name}; nothing was written")
        return
    typer.echo(f"{key.name} {DONE[kind]} {now.version.name}, entry {done.entry.number}")
    _say_what_next(now)
    if waits:
        raise typer.Exit(4)


def _kind(**said: bool) -> Any:
    from tokka.errors import UsageError

    chosen = [name for name, is_so in said.items() if is_so]
    if len(chosen) > 1:
        raise UsageError(f"approve: one decision at a time, got --{' and --'.join(chosen)}")
    return chosen[0] if chosen else "approve"


def _same_digest(standing: Standing, digest: str | None) -> None:
    from tokka.errors import IntegrityError

    version = standing.version
    if digest is not None and (len(digest) < 12 or not version.digest.startswith(digest.lower())):
        raise IntegrityError(
            f"approve: {version.name} has the digest {version.digest}, not {digest!r} (give at "
            "least 12 digits); you have seen another release"
        )


def _say_what_next(now: Standing) -> None:
    if now.stage in ("approved", "serving"):
        until = f" until {now.expires}" if now.expires else ""
        typer.echo(f"{now.stage}{until}; next: tokka serve {now.version.name}")
    elif not now.version.ended:
        typer.echo(f"{now.stage}; waiting for " + "; and ".join(w.en for w in now.waiting))


# ---- the registry -------------------------------------------------------------------------------


@shelf.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only versions at this stage.")] = None,
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    as_json: Json = False,
) -> None:
    """List the models, and every version with its stage, approvals and dates."""
    from tokka.release.keys import utc_now
    from tokka.release.registry import all_standings, books_of, find, inventory
    from tokka.terminal import console
    from tokka.terminal_registry import show_list

    with opened(file, place) as (ledger, _):
        books = books_of(ledger)
    if model is not None and model not in books.models:
        find(books, model)  # says which there are
    models = [entry for entry in inventory(books) if model in (None, entry.name)]
    found = [s for s in all_standings(books, utc_now(), model) if stage in (None, s.stage)]
    if as_json:
        plain = [entry.model_dump(mode="json", exclude={"schema_version"}) for entry in models]
        print_json({"models": plain, "versions": [s.as_json() for s in found]})
        return
    show_list(console(), models, found)


@shelf.command("update")
def update(project: ProjectFile = HERE, actor: As = None, as_json: Json = False) -> None:
    """Enter the model again as the project says it now: owner, use, tier, base model, licence."""
    from tokka.project import load_project
    from tokka.releasing import update_model
    from tokka.terminal import Bars

    with Bars(quiet=as_json) as bars:
        entry = update_model(load_project(project), observer=bars, actor=actor)
    if as_json:
        print_json(entry.model_dump(mode="json"))
    else:
        typer.echo(f"{entry.name}: owner {entry.owner}, tier {entry.tier}, base {entry.base_model}")


@shelf.command("show")
def show(
    name: Annotated[str, typer.Argument(help=NAME)],
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    as_json: Json = False,
) -> None:
    """Show one version: what it is, who decided what, and what it waits for."""
    from tokka.release.registry import books_of, standing_of
    from tokka.terminal import console
    from tokka.terminal_registry import show_release

    with opened(file, place) as (ledger, folder):
        found = standing_of(ledger, name)
        entry = books_of(ledger).models[found.version.model]
        head = ledger.head()
        released = _released(folder, found)
    if as_json:
        inventory = entry.model_dump(mode="json", exclude={"schema_version", "validation_due"})
        print_json({"inventory": inventory, **found.as_json()})
        return
    show_release(console(), found, released, head.number, head.hash)
    typer.echo(f"use: {entry.use} (owner {entry.owner}; tier {entry.tier}: {entry.tier_reason})")
    typer.echo(f"base model: {entry.base_model} {entry.base_digest[:12]}, {entry.licence}")
    _say_what_next(found)


@shelf.command("history")
def history(
    name: Annotated[str | None, typer.Argument(help="MODEL or MODEL-VERSION; else all.")] = None,
    file: ProjectFile = HERE,
    place: LedgerPlace = None,
    as_json: Json = False,
) -> None:
    """Show the acts, oldest first: of a version, a model, or the whole ledger."""
    from tokka.release.registry import books_of, find
    from tokka.terminal import console
    from tokka.terminal_registry import show_history

    model = version = None
    with opened(file, place) as (ledger, _):
        books = books_of(ledger)
        if name is not None:
            model = name if name in books.models else find(books, name).model
            version = None if name == model else find(books, name).version
        entries = list(ledger.entries(model, version))
    refused = dict(books.refused)
    if as_json:
        print_json(
            [
                {
                    "number": e.number, "hash": e.hash, "method": e.signed.method,
                    "session": e.signed.session, "refused": refused.get(e.number),
                    **e.signed.act.model_dump(mode="json", exclude={"schema_version"}),
                }
                for e in entries
            ]
        )  # fmt: skip
        return
    show_history(console(), entries, refused)


# ---- places -------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(
    file: Path, ledger: str | None, *, create: bool = False
) -> Iterator[tuple[Ledger, Path | None]]:
    """The ledger and the folder of the project's releases, None without a project."""
    from tokka.project import load_project
    from tokka.release.ledger import open_ledger

    project = None if ledger is not None else load_project(file)
    place = project.ledger if project else str(ledger)
    with open_ledger(place, project.root if project else Path.cwd(), create=create) as found:
        yield found, project.root / ".tokka" / "releases" if project else None


def _released(folder: Path | None, standing: Standing) -> Release | None:
    """What lies in the release's folder, if it is here. Raises IntegrityError for another one."""
    from tokka.release.approval import check_same
    from tokka.release.records import Release
    from tokka.store import read_record

    path = folder / standing.version.name / "release.json" if folder else None
    if path is None or not path.exists():
        return None
    released = read_record(path, Release)
    check_same(standing, released)
    return released


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
