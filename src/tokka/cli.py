"""ENTRY: one short function per command. Heavy modules are imported inside the commands.

Exit codes: 0 done, 1 unexpected, 2 usage or project file, 3 gate refused, 4 waiting for approval,
5 an item or a service failed, 6 integrity.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import tokka
from tokka.cli_actors import actors_app
from tokka.cli_evidence import evidence_app
from tokka.cli_exam import exam_app
from tokka.cli_plan import plan_app
from tokka.cli_registry import registry_app
from tokka.cli_release import release_app
from tokka.cli_search import search_app
from tokka.cli_serve import serve_app
from tokka.errors import GateRefused, IntegrityError, Mistakes, TokkaError

if TYPE_CHECKING:
    from tokka.project import Project

app = typer.Typer(
    name="tokka",
    help="Turn an open-weight language model into a specialist, and prove which way works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(search_app)
app.add_typer(exam_app)
app.add_typer(plan_app)
app.add_typer(registry_app)
app.add_typer(actors_app)
app.add_typer(serve_app)
app.add_typer(release_app)
app.add_typer(evidence_app)

File = Annotated[Path, typer.Argument(help="A project file, or a folder that holds tokka.yaml.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
HERE = Path()


def _version(show: bool) -> None:
    if show:
        typer.echo(f"tokka {tokka.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn an open-weight language model into a specialist, and prove which way works."""


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="The project's folder, with its documents.")
    ] = HERE,
    language: Annotated[
        str | None, typer.Option(help="ja or en; guessed from the documents.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base model's reference.")] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Write a commented project file from a folder of documents. Nothing is overwritten."""
    from tokka.initialising import plan_init, write_init

    asks = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    plan = plan_init(folder, language, model, _ask if asks else None)
    written = [] if dry_run else write_init(plan)
    files = [str(plan.folder / name) for name in plan.files]
    if as_json:
        _print_json({"files": files, "written": [str(p) for p in written], "dry_run": dry_run})
        return
    for name in files:
        made = name in {str(p) for p in written}
        typer.echo(f"{'wrote' if made else 'would write' if dry_run else 'left as it is:'} {name}")
    for name in plan.kept:
        typer.echo(f"kept {plan.folder / name}")
    for suffix, count in sorted(plan.counts.items()):
        typer.echo(f"{count} {suffix} documents")
    for suffix, count in sorted(plan.unread.items()):
        typer.echo(f"{count} {suffix} files can't be read and are left out")
    typer.echo(f"next: tokka check {plan.folder}")


def _ask(question: str, choices: tuple[str, ...], default: str) -> str:
    return str(typer.prompt(f"{question} ({', '.join(choices)})", default=default))


@app.command()
def check(
    file: File = HERE,
    arm: Annotated[str | None, typer.Option(help="The arm whose prompts are shown.")] = None,
    as_json: Json = False,
) -> None:
    """Report every mistake with its line, then show what the model will see, token by token."""
    from tokka.checking import check_project
    from tokka.planning import refuse_unfit
    from tokka.terminal import console, show_check

    found = check_project(_project(file), arm)
    if as_json:
        _print_json(found.as_json())
    else:
        show_check(console(), found)
    broken = [proof.text for proof in found.proofs if not proof.holds]
    if broken:
        raise IntegrityError(
            f"check: it doesn't hold that {broken[0]}; training would teach another prompt than is "
            "asked, so correct the tokenizer or the chat template of base_model"
        )
    refuse_unfit(found.plans)


@app.command()
def run(
    file: File = HERE,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask only the first N questions: partial, not judged.")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 3 unless an arm passes.")] = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Build every arm, examine it, compare it with the control, and write the report."""
    from tokka.terminal import Bars, console, show_outcome

    project = _project(file)
    if dry_run:
        _print_steps(project, as_json)
        return
    from tokka.pipeline import run as run_project
    from tokka.records import Results
    from tokka.store import read_record

    command = f"tokka run {shlex.quote(str(file))}" + (f" --limit {limit}" if limit else "")
    with Bars(quiet=as_json) as bars:
        outcome = run_project(project, bars, limit, command)
    results = read_record(outcome.results, Results)
    if as_json:
        _print_json(
            {
                "winner": results.winner,
                "summary": results.summary_en,
                "results": str(outcome.results),
                "report": str(outcome.report),
                "verdicts": {r.arm.name: r.verdict.outcome for r in results.arms if r.verdict},
                "seconds": round(outcome.seconds, 3),
            }
        )
    else:
        show_outcome(console(), results, outcome)
    failed = [s for r in results.arms for s in r.sittings if s.errors]
    if failed:
        raise typer.Exit(5)
    if gate and results.winner is None:
        raise GateRefused("no arm passed the policy; the report says why")


@app.command()
def status(file: File = HERE, as_json: Json = False) -> None:
    """Show which steps are done, unfinished or running, and the last verdict."""
    from tokka.checking import status_of
    from tokka.terminal import console, show_status

    found = status_of(_project(file))
    if as_json:
        _print_json(found)
    else:
        show_status(console(), found)


@app.command()
def report(file: File = HERE, as_json: Json = False) -> None:
    """Print the leaderboard of the last run and the path of its HTML report."""
    from tokka.checking import last_report
    from tokka.terminal import console, show_report

    found = last_report(_project(file))
    if as_json:
        _print_json({"report": str(found.path), **found.results.model_dump(mode="json")})
    else:
        show_report(console(), found)


@app.command()
def ask(
    arm: Annotated[str, typer.Argument(help="A built arm.")],
    question: Annotated[str, typer.Argument(help="What to ask; '-' reads it from standard input.")],
    file: Annotated[Path, typer.Option("--project", help="The project file or folder.")] = HERE,
    as_json: Json = False,
) -> None:
    """Ask a built candidate, through the same path as the exam."""
    from tokka.asking import ask_arm
    from tokka.terminal import Bars, console, show_answer

    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise Mistakes("ask: the question is empty", ['give a text, as in: tokka ask rag "…"'])
    with Bars(quiet=as_json) as bars:
        answer = ask_arm(_project(file), arm, text.strip(), bars)
    if as_json:
        _print_json(answer.model_dump(mode="json"))
    else:
        show_answer(console(), answer)


def _project(file: Path) -> Project:
    from tokka.project import load_project

    return load_project(file)


def _print_steps(project: Project, as_json: bool) -> None:
    from tokka.checking import planned_steps

    steps = planned_steps(project)
    if as_json:
        _print_json({"dry_run": True, "steps": steps})
    else:
        for line in steps:
            typer.echo(line)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def main() -> NoReturn:
    """The console script: a TokkaError becomes its message and its exit code, without a traceback.

    Worker threads that spin while they wait made training ten times slower where another program
    wanted a core (12 against 120 tokens a second on 2 cores); threads that sleep at once made
    writing texts a quarter slower on an idle machine. So they spin for some microseconds.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        code = app(standalone_mode=False)  # what a command's typer.Exit said, else None
    except TokkaError as error:
        typer.echo(f"tokka: {error}", err=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        typer.echo("tokka: stopped; run the same command again to go on", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("tokka: stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"tokka: {place}{error.strerror or error}; check permissions and free space, then "
            f"run the "
            "same command again",
            err=True,
        )
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            typer.echo(f"tokka: {error.format_message()}", err=True)
            sys.exit(2)
        raise
    sys.exit(code)
