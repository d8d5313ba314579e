"""`tokka exam …`: exams by themselves, without a project. One short function per command.

tokka exam suites
tokka exam build jcommonsenseqa --source FOLDER --out exam.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

exam_app = typer.Typer(
    name="exam",
    help="Import, build, export and score exams.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@exam_app.command()
def rescore(
    path: Annotated[
        Path, typer.Argument(help="A project, or the folder of one sitting (exam sit --out).")
    ] = Path(),
    exam: Annotated[str | None, typer.Option(help="Only this exam of the project.")] = None,
    arm: Annotated[str | None, typer.Option(help="Only this arm of the project.")] = None,
    normalisation: Annotated[
        str | None, typer.Option(help="Choose by sum, tokens, characters or bytes instead.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Mark short answers by contained, exact, f1 … instead.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the new scores into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Score stored answers again, without the model: after a corrected key, or by another measure.

    Nothing is changed but in the folder that --out names.
    """
    from tokka.sittings import rescored, write_rescored
    from tokka.terminal import console, show_rescored

    found = rescored(path, exam, arm, normalisation=normalisation, scorer=scorer)
    written = write_rescored(out, found) if out is not None and not dry_run else []
    if as_json:
        shown = {
            "sittings": [one.as_json() for one in found.sittings],
            "missing": list(found.missing),
            "written": [str(folder) for folder in written],
        }
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        show_rescored(console(), found, written)


@exam_app.command()
def suites(
    name: Annotated[str | None, typer.Argument(help="One suite: all that is known of it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the public suites: what they measure, licence, language, and the files they need."""
    from tokka.exam.suites import suite
    from tokka.exam.suites import suites as all_suites
    from tokka.exam.suites.tables import about, described, list_of
    from tokka.terminal import console

    chosen = [suite(name)] if name else all_suites()
    if as_json:
        shown = {"suites": [described(one) for one in chosen]}
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    elif name:
        typer.echo("\n".join(about(chosen[0])))
    else:
        console().print(list_of(chosen))


@exam_app.command()
def build(
    suite: Annotated[str, typer.Argument(help="A suite's name; see tokka exam suites.")],
    source: Annotated[Path, typer.Option(help="The folder with the publisher's files.")],
    out: Annotated[
        Path | None, typer.Option(help="The exam file; SUITE.jsonl if not given.")
    ] = None,
    split: Annotated[str, typer.Option(help="The publisher's split or part.")] = "",
    shots_out: Annotated[
        Path | None, typer.Option(help="Also write few-shot examples, where the suite has some.")
    ] = None,
    context: Annotated[
        bool,
        typer.Option(
            "--context/--no-context", help="Whether the publisher's passages are in the question."
        ),
    ] = True,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Leave out questions that need a picture.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Make an exam from a public suite's own files."""
    from tokka.exam.suites import suite as suite_of
    from tokka.exam.suites.building import build as build_suite
    from tokka.exam.suites.building import write_all
    from tokka.exam.suites.tables import lines, summary

    shots = shots_out is not None
    built = build_suite(
        suite_of(suite), source, split, context=context, text_only=text_only, shots=shots
    )
    target = out or Path(f"{suite}.jsonl")
    write_all(built, target, shots_out, dry_run)
    if as_json:
        shown = summary(built, target, shots_out, dry_run)
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        typer.echo("\n".join(lines(built, target, shots_out, dry_run)))


@exam_app.command()
def score(
    suite: Annotated[str, typer.Option(help="A suite with rules of its own: igakuqa.")],
    source: Annotated[Path, typer.Option(help="The folder with the publisher's files.")],
    predictions: Annotated[
        Path, typer.Option(help="A folder of JSONL files with problem_id and prediction.")
    ],
    split: Annotated[str, typer.Option(help="One year; all of the source if not given.")] = "all",
    system: Annotated[
        str, typer.Option(help="Only files called NNN-X_SYSTEM.jsonl, as the publisher names them.")
    ] = "",
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Leave out questions that need a picture.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score stored predictions by a suite's own rules, without a model."""
    from tokka.exam.igakuqa import as_json as plain
    from tokka.exam.suites.medicine import mark_predictions
    from tokka.exam.suites.tables import marks_lines, marks_table
    from tokka.terminal import console

    marks = mark_predictions(suite, source, predictions, split, system, text_only)
    if as_json:
        typer.echo(json.dumps(plain(marks), ensure_ascii=False, indent=1))
        return
    console().print(marks_table(marks))
    for line in marks_lines(marks):
        typer.echo(line)


import_app = typer.Typer(
    name="import", help="Import a task of another program.", no_args_is_help=True
)
exam_app.add_typer(import_app)


def _supported(show: bool) -> None:
    if show:
        from tokka.exam.harness.task_file import SUPPORTED

        typer.echo(SUPPORTED)
        raise typer.Exit


@import_app.command("lm-eval")
def import_lm_eval(
    task: Annotated[Path, typer.Argument(help="A task file (YAML) of lm-evaluation-harness.")],
    out: Annotated[
        Path | None, typer.Option(help="The exam file; TASK.jsonl if not given.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, max=64, help="Instead of the task's num_fewshot.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N questions.")] = None,
    chain: Annotated[
        str | None, typer.Option("--filter", help="The filter that decides the score.")
    ] = None,
    root: Annotated[
        list[Path] | None, typer.Option(help="Another folder that the task may read from.")
    ] = None,
    leave_out_mistakes: Annotated[
        bool, typer.Option("--leave-out-mistakes", help="Leave out rows that can't be asked.")
    ] = False,
    supported: Annotated[
        bool,
        typer.Option(
            "--supported", callback=_supported, is_eager=True, help="List what is read and stop."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Make an exam of a task of lm-evaluation-harness, its prompts word for word.

    Nothing that the task names is run, and nothing is fetched.
    """
    from tokka.exam.harness.task_import import import_task, write_task

    found = import_task(
        task,
        shots=shots,
        limit=limit,
        chain=chain,
        roots=root or (),
        leave_out_mistakes=leave_out_mistakes,
    )
    target = out or Path(f"{found.name}.jsonl")
    written = [] if dry_run else write_task(found, target)
    if as_json:
        shown = found.as_json() | {"written": [str(path) for path in written]}
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    for line in found.lines():
        typer.echo(line)
    typer.echo(f"{'would write' if dry_run else 'wrote'} {target}")
    typer.echo(f"next: tokka exam sit {target} --model MODEL")


@exam_app.command()
def export(
    exam: Annotated[Path, typer.Argument(help="An exam file, or a project.")],
    out: Annotated[Path, typer.Option(help="The folder for task files and data.")],
    name: Annotated[
        str | None, typer.Option("--exam", help="Which exam, where a project has several.")
    ] = None,
    leave_out_mistakes: Annotated[
        bool, typer.Option("--leave-out-mistakes", help="Leave out rows that are wrong.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Write an exam as tasks of lm-evaluation-harness, with the prompts of a plain arm."""
    from tokka.exam.harness.task_export import write_tasks
    from tokka.examining import export_file

    found = export_file(exam, name, leave_out_mistakes=leave_out_mistakes)
    written = [] if dry_run else write_tasks(found.tasks, out)
    if as_json:
        shown = {
            "tasks": {task.name: len(task.rows) for task in found.tasks},
            "notices": found.notices,
            "written": [str(path) for path in written],
        }
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    for task in found.tasks:
        typer.echo(f"{task.name}: {len(task.rows)} questions, {task.config['output_type']}")
    for notice in found.notices:
        typer.echo(f"note: {notice}")
    names = ",".join(task.name for task in found.tasks)
    typer.echo(f"{'would write' if dry_run else 'wrote'} {out}")
    typer.echo(f"next: lm_eval run --model hf --tasks {names} --include_path {out}")


@exam_app.command()
def sit(
    exam: Annotated[Path, typer.Argument(help="An exam file.")],
    model: Annotated[str, typer.Option(help="A model's reference, such as embedded:NAME.")],
    out: Annotated[
        Path | None, typer.Option(help="A folder for answers, scores and results; resumes there.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N questions.")] = None,
    normalisation: Annotated[
        str | None, typer.Option(help="How options are compared: sum, tokens, characters, bytes.")
    ] = None,
    scorer: Annotated[str, typer.Option(help="How short answers are marked.")] = "contained",
    language: Annotated[str, typer.Option(help="ja or en; guessed from the questions.")] = "",
    split: Annotated[str, typer.Option(help="test or dev.")] = "test",
    leave_out_mistakes: Annotated[
        bool, typer.Option("--leave-out-mistakes", help="Leave out rows that are wrong.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions only.")] = False,
) -> None:
    """Let one untouched model sit one exam file, without a project."""
    from tokka.examining import Entry, checked_entry, read_entry, sit_alone
    from tokka.terminal import Bars, console, show_sat

    entry = checked_entry(
        Entry(
            exam,
            model,
            dtype=dtype,
            limit=limit,
            out=out,
            normalisation=normalisation,  # type: ignore[arg-type]
            scorer=scorer,
            language=language,
            split=split,  # type: ignore[arg-type]
            leave_out_mistakes=leave_out_mistakes,
        )
    )
    if dry_run:
        asked = len(read_entry(entry)[1])
        shown = json.dumps({"dry_run": True, "questions": asked})
        typer.echo(shown if as_json else f"would ask {model} {asked} questions")
        return
    with Bars(quiet=as_json) as bars:
        sat = sit_alone(entry, bars)
    if as_json:
        typer.echo(json.dumps(sat.as_json(), ensure_ascii=False, indent=1))
    else:
        show_sat(console(), sat, out)
    if sat.errors:
        raise typer.Exit(5)


@exam_app.command()
def results(
    paths: Annotated[list[Path], typer.Argument(help="Folders of exam sit, or projects.")],
    out: Annotated[Path, typer.Option(help="The folder for results and samples.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
) -> None:
    """Write stored sittings in the layout of lm-evaluation-harness, without the model."""
    from tokka.exam.harness.results import write_results
    from tokka.examining import stored_results

    found = {name: one for path in paths for name, one in stored_results(path).items()}
    for name, one in found.items():
        if not dry_run:
            write_results(one, out / name)
    if as_json:
        shown = {name: one.results["results"] for name, one in found.items()}
        typer.echo(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    for name in found:
        typer.echo(f"{'would write' if dry_run else 'wrote'} {out / name}")
