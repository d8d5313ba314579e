"""`tokka plan …`: what something will take, before it starts. One short function per command.

tokka plan train
tokka plan train project/ --arm tuned --memory-gb 8
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

plan_app = typer.Typer(
    name="plan",
    help="Estimate memory, time and energy before anything starts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@plan_app.callback()
def plan() -> None:
    """Estimate memory, time and energy before anything starts."""


@plan_app.command()
def train(
    file: Annotated[
        Path, typer.Argument(help="A project file, or a folder that holds tokka.yaml.")
    ] = Path(),
    arm: Annotated[str | None, typer.Option(help="Only this arm.")] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(min=0.1, help="Plan for this much free memory (GB), not for what is free."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure this machine anew; it is measured once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what each training will take on this machine: memory, time, energy, money.

    The first time, about ten seconds are spent on measuring. Ends with 2 where a training doesn't
    fit, and names the nearest settings that do.
    """
    from tokka.planning import plan_training, refuse_unfit
    from tokka.project import load_project
    from tokka.terminal import Bars, console, show_plan

    with Bars(quiet=as_json) as bars:
        found = plan_training(load_project(file), bars, arm, memory_gb=memory_gb, again=again)
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=1))
    else:
        show_plan(console(), found)
    refuse_unfit(found.stages)
