"""`tokka evidence`, `tokka verify`: the evidence for a release, and whether it is still whole.

tokka evidence aoba-1 --zip --as suzuki
tokka verify aoba-1-evidence.zip --public-key ledger.pem
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tokka.release.verifying import Verified

evidence_app = typer.Typer(pretty_exceptions_enable=False)

ProjectFile = Annotated[Path, typer.Option("--project", help="The project file or folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
HERE = Path()
MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "yellow")}


@evidence_app.command()
def evidence(
    name: Annotated[str, typer.Argument(help="MODEL or MODEL-VERSION; else the newest version.")],
    out: Annotated[
        Path | None, typer.Option(help="The pack's folder; else .tokka/evidence/NAME.")
    ] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="Also write it as a .zip beside.")] = False,
    who: Annotated[
        str | None, typer.Option("--as", help="Whose key signs; needed if you hold several.")
    ] = None,
    model_key: Annotated[
        Path | None,
        typer.Option(help="A P-256 private key (PEM) for the model's signature; else one is made."),
    ] = None,
    file: ProjectFile = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a release's evidence pack: cards, claims, lineage, bill of materials, approvals, trail.

    It is signed with the ledger's key and recorded in the audit trail.
    """
    from tokka.evidence import make_evidence
    from tokka.project import load_project
    from tokka.terminal import Bars

    with Bars(quiet=as_json) as bars, bars.task("gather the evidence", None):
        made = make_evidence(
            load_project(file), name, out=out, zipped=zipped, actor=who, model_key=model_key,
            dry_run=dry_run,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({**made.as_json(), "dry_run": dry_run}, ensure_ascii=False, indent=1))
        return
    if made.manifest is None or made.entry is None:
        typer.echo(f"would write {made.folder}")
        return
    typer.echo(f"wrote {made.folder} ({len(made.manifest.files):,} files)")
    if made.zip is not None:
        typer.echo(f"wrote {made.zip}")
    typer.echo(f"MANIFEST.json {made.manifest.digest}, recorded as entry {made.entry.number}")
    typer.echo(f"next: tokka verify {made.zip or made.folder}")


@evidence_app.command()
def verify(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="An evidence pack (folder or .zip), a release's folder or an exported trail; "
            "without it, all of the project."
        ),
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The ledger's public key (PEM), known from elsewhere.")
    ] = None,
    head: Annotated[
        list[Path] | None,
        typer.Option(help="A head recorded elsewhere: head.json, or a pack. May be given again."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The release's folder, to check the shipped files too.")
    ] = None,
    file: ProjectFile = HERE,
    as_json: Json = False,
) -> None:
    """Check every digest and signature again; a pack needs no project, no ledger and no network.

    Ends with 6 where anything isn't what was signed.
    """
    from tokka.errors import IntegrityError
    from tokka.evidence import heads_of, verify_path, verify_project
    from tokka.project import load_project
    from tokka.release.verifying import read_public_key
    from tokka.terminal import console

    heads = [one for place in head or () for one in heads_of(place)]
    if path is None:
        found = verify_project(load_project(file), heads)
    else:
        key = read_public_key(public_key) if public_key else None
        found = [verify_path(path, public_key=key, heads=heads, model=model)]
    whole = all(one.ok for one in found)
    if as_json:
        value = {"ok": whole, "verified": [one.as_json() for one in found]}
        typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
    else:
        show_verified(console(), found)
    for one in found:
        wrong = [check.what for check in one.checks if check.holds is False]
        if wrong:
            raise IntegrityError(
                f"verify: {one.name} isn't what was signed: {', '.join(wrong)}; trust nothing of "
                "it, and get it again from who made it"
            )


def show_verified(out: Console, found: Sequence[Verified]) -> None:
    """A line for each check; then what the machine can't decide, and how to sit the exam again."""
    from rich.text import Text

    for one in found:
        out.print(Text(f"{one.kind} {one.name}", style="bold"))
        for check in one.checks:
            mark, style = MARKS[check.holds]
            said = f": {check.detail}" if check.detail else ""
            out.print(Text.assemble(("  " + mark + " ", style), f"{check.what}{said}"))
        if one.fingerprint and not one.trusted:
            out.print(Text(
                "  – the key: the one inside was believed. Ask the ledger's owner, by another "
                f"channel, whether its fingerprint is\n    {one.fingerprint}\n    or give "
                "--public-key FILE", style="yellow",
            ))  # fmt: skip
        if one.rerun:
            out.print("  to sit the exam again, in the project's folder:")
            for line in one.rerun:
                out.print(Text(f"    {line}", style="cyan"))
            out.print("  and compare:")
            for name, digest in one.digests.items():
                out.print(Text(f"    {name}  {digest}"))
