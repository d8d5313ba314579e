"""`tokka release`, `tokka export`: one short function per command.

tokka release lora --as aoi
tokka release lora --format q4_k_m --dry-run
tokka export lora --format q8_0 --out lora-gguf
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tokka.errors import GateRefused, UsageError

if TYPE_CHECKING:
    from tokka.release.gate import GateDecision
    from tokka.release.records import Format
    from tokka.releasing import Plan, Released

release_app = typer.Typer(pretty_exceptions_enable=False)

ArmName = Annotated[str, typer.Argument(help="An examined arm.")]
ProjectFile = Annotated[Path, typer.Option("--project", help="The project file or folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
HERE = Path()


@release_app.command()
def release(
    arm: ArmName,
    file: ProjectFile = HERE,
    actor: Annotated[
        str | None, typer.Option("--as", help="Who releases; signs with a key.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="What is served: safetensors, f16, q8_0, q4_k_m, gguf or endpoint."),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Another format to ship and examine; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hold an arm against the policy, export it, examine the export, and enter it as a draft.

    Ends with 3 where the gate refuses, with every reason. Run again, it goes on where it was.
    """
    from tokka.project import load_project
    from tokka.releasing import Refused, plan
    from tokka.releasing import release as release_arm
    from tokka.terminal import Bars, console
    from tokka.terminal_release import show_gate

    project = load_project(file)

    def told(decision: GateDecision) -> None:
        if not as_json:
            show_gate(console(), decision, project.language)

    wanted = {
        "actor": actor,
        "format": None if format is None else _format(format),
        "also": [_format(one) for one in also] if also else None,
        "told": told,
    }
    with Bars(quiet=as_json) as bars:
        try:
            made: Plan | Released = (plan if dry_run else release_arm)(
                project, arm, observer=bars, **cast(Any, wanted)
            )
        except Refused as refused:
            if as_json:
                _print({"gate": _gate(refused.decision), "faults": refused.faults, "release": None})
                raise
            raise _short(refused, arm, project.language) from refused
    if as_json:
        _print(_as_json(made))
    else:
        _show(made)


@release_app.command()
def export(
    arm: Annotated[str, typer.Argument(help="A built arm.")],
    format: Annotated[
        str,
        typer.Option(help="safetensors, f16, q8_0, q4_k_m, or gguf as it is."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    file: ProjectFile = HERE,
    as_json: Json = False,
) -> None:
    """Write an arm's weights for other programs; a GGUF gets an Ollama Modelfile beside it.

    Nothing is judged, examined or released: `tokka release` does that.
    """
    from tokka.project import load_project
    from tokka.releasing import export_arm
    from tokka.terminal import Bars

    with Bars(quiet=as_json) as bars:
        written = export_arm(load_project(file), arm, _format(format), out, bars)
    if as_json:
        _print({"arm": arm, "format": format, "files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(f"wrote {path}")


def _format(name: str) -> Format:
    from tokka.release.records import FORMATS

    for known in FORMATS:
        if name.lower() == known:
            return known
    raise UsageError(f"--format: no format {name!r}; there are: {', '.join(FORMATS)}")


def _short(refused: Any, arm: str, language: str) -> GateRefused:
    """The table has shown the gate's reasons; what an export did wrong is in none."""
    if not refused.faults:
        count = len(refused.decision.reasons)
        return GateRefused(f"release: {arm} is refused; {count} checks don't hold, see ✗ above")
    return cast(GateRefused, refused)


def _show(made: Plan | Released) -> None:
    from tokka.releasing import Released
    from tokka.terminal import console
    from tokka.terminal_release import show_release_plan, show_released

    if isinstance(made, Released):
        show_released(console(), made)
    else:
        show_release_plan(console(), made)


def _as_json(made: Plan | Released) -> dict[str, Any]:
    from tokka.releasing import Released

    gate = _gate(made.decision)
    if isinstance(made, Released):
        return {"gate": gate, "release": made.as_json()}
    return {"gate": gate, "dry_run": True, "plan": made.as_json()}


def _gate(decision: GateDecision) -> dict[str, Any]:
    return decision.model_dump(mode="json", exclude={"schema_version"})


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
