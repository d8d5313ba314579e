"""`tokka serve` answers with a release over HTTP, `tokka key` says who may ask.

tokka key new chat --group loans --tokens-per-day 100000
tokka serve aoba-1 --port 8000
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tokka.release.api_keys import Key

serve_app = typer.Typer(pretty_exceptions_enable=False)
key_app = typer.Typer(
    name="key", help="API keys of the server: who may ask it, and how much.", no_args_is_help=True
)
serve_app.add_typer(key_app)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ProjectFile = Annotated[Path, typer.Option("--project", help="The project file or folder.")]
As = Annotated[str | None, typer.Option("--as", help="The actor whose key signs; else the only.")]
Place = Annotated[
    str | None, typer.Option("--ledger", help="The ledger's file or URL, without a project.")
]
HERE = Path()


@serve_app.command()
def serve(
    name: Annotated[str, typer.Argument(help="MODEL-VERSION, or a model's newest version.")],
    file: ProjectFile = HERE,
    unapproved: Annotated[
        bool, typer.Option("--unapproved", help="Also what isn't approved; every answer says so.")
    ] = False,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Others may reach it without TLS.")
    ] = False,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Ask for no API key: trials on this machine only.")
    ] = False,
    actor: As = None,
    as_json: Json = False,
) -> None:
    """Answer with a release over HTTP, in OpenAI's protocol.

    Only an approved release is served, unless --unapproved says otherwise. SIGTERM ends running
    texts first; a second one ends at once.
    """
    from tokka.errors import UsageError
    from tokka.project import load_project
    from tokka.serve import check_address, open_service
    from tokka.serve import serve as run
    from tokka.serving.listening import Listening
    from tokka.terminal import Bars

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("serve: --tls-cert and --tls-key belong together; give both")
    check_address(host, tls_cert is not None, insecure, not no_keys)
    where = Listening(host, port, tls_cert, tls_key)
    project = load_project(file)
    bars = Bars(quiet=as_json)
    with open_service(
        project, name, unapproved=unapproved, keys=not no_keys, actor=actor, notice=bars.notice
    ) as opened:
        release = opened.release

        def told(url: str) -> None:
            facts = {
                "url": url, "release": release.name, "digest": release.digest,
                "unapproved": unapproved, "keys": not no_keys,
            }  # fmt: skip
            if as_json:
                typer.echo(json.dumps(facts, ensure_ascii=False))
                return
            typer.echo(f"{release.name} ({release.digest[:12]}) answers at {url}")
            if unapproved:
                typer.echo("it is not approved, and every answer says so", err=True)
            if no_keys:
                typer.echo("no key is asked for: every program on this machine may ask", err=True)

        run(opened, where, told)


@key_app.command("new")
def new_key(
    name: Annotated[str, typer.Argument(help="What you know the key by, such as an application.")],
    file: ProjectFile = HERE,
    role: Annotated[
        list[str] | None, typer.Option(help="user, operator or auditor; may be given again.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="An access label whose documents it may see; may be given again."),
    ] = None,
    bound_to: Annotated[
        str | None, typer.Option("--actor", help="Instead of a role: the actor who signs in by it.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="UTC, as 2027-03-31T00:00:00Z.")] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Tokens a day.")] = None,
    actor: As = None,
    place: Place = None,
    as_json: Json = False,
) -> None:
    """Make an API key and show it, this one time. Without a group it sees unlabelled documents."""
    from tokka.cli_registry import opened
    from tokka.release.api_keys import issue_key
    from tokka.release.keys import load_key

    with opened(file, place) as (ledger, _):
        issued = issue_key(
            ledger, load_key(actor), name, roles=tuple(role or ("user",)),
            groups=tuple(group or ()), actor=bound_to, expires=expires,
            requests_per_minute=per_minute, tokens_per_day=tokens_per_day,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"key": issued.shown, **_shown(issued.key)}, ensure_ascii=False))
        return
    typer.echo(issued.shown)
    typer.echo("keep it now: it is stored nowhere and can't be shown again", err=True)


@key_app.command("list")
def list_keys(file: ProjectFile = HERE, place: Place = None, as_json: Json = False) -> None:
    """Show all keys, without what they are used with."""
    from rich.table import Table

    from tokka.cli_registry import opened
    from tokka.release.api_keys import keys
    from tokka.terminal import console

    with opened(file, place) as (ledger, _):
        found = keys(ledger)
    if as_json:
        typer.echo(json.dumps([_shown(key) for key in found], ensure_ascii=False, indent=1))
        return
    table = Table("id", "name", "roles", "groups", "limits", "expires", "state")
    for key in found:
        limits = [
            f"{count} {what}"
            for count, what in (
                (key.requests_per_minute, "requests/min"), (key.tokens_per_day, "tokens/day")
            )
            if count is not None
        ]  # fmt: skip
        who = f"signs in {key.actor}" if key.actor else ", ".join(key.roles)
        state = f"revoked {key.revoked}" if key.revoked else "valid"
        table.add_row(
            key.id, key.name, who, ", ".join(key.groups), ", ".join(limits), key.expires or "",
            state,
        )  # fmt: skip
    console().print(table)


@key_app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `tokka key list` shows it.")],
    file: ProjectFile = HERE,
    actor: As = None,
    place: Place = None,
    as_json: Json = False,
) -> None:
    """End a key. A running server knows it within seconds."""
    from tokka.cli_registry import opened
    from tokka.release.api_keys import revoke_key
    from tokka.release.keys import load_key

    with opened(file, place) as (ledger, _):
        key = revoke_key(ledger, load_key(actor), key_id)
    if as_json:
        typer.echo(json.dumps(_shown(key), ensure_ascii=False))
    else:
        typer.echo(f"revoked {key.id} ({key.name})")


def _shown(key: Key) -> dict[str, Any]:
    """Everything but the hash."""
    names = ("id", "name", "roles", "groups", "actor", "created", "created_by", "expires",
             "requests_per_minute", "tokens_per_day", "revoked", "revoked_by")  # fmt: skip
    return {name: getattr(key, name) for name in names}
