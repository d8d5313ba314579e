"""What `tokka release` shows: the gate's checks, the second exam, what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tokka.records import Comparison
    from tokka.release.gate import GateDecision
    from tokka.releasing import Plan, Released


def show_gate(out: Console, decision: GateDecision, language: str) -> None:
    """A row for each thing that was looked at; what doesn't hold says why and what to do."""
    table = Table(title=f"{decision.arm} · {decision.candidate_id}", show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("")
    for check in decision.checks:
        mark = Text("✓", style="green") if check.holds else Text("✗", style="bold red")
        table.add_row(mark, Text(check.text(language), style="" if check.holds else "red"))
    out.print(table)


def _points(c: Comparison) -> str:
    return f"{100 * c.effect:+.1f} ({100 * c.low:+.1f} to {100 * c.high:+.1f})"


def show_released(out: Console, made: Released) -> None:
    """The version, how each exported file did when it was examined again, and what comes next."""
    release = made.release
    table = Table(title=f"{release.name} · {release.digest[:16]}")
    for name in ("format", "MB", "exam", "difference in points", "same answers"):
        table.add_column(name, justify="left" if name in ("format", "exam") else "right")
    for artefact in release.artefacts:
        for exam, same in artefact.reexam.same.items():
            compared = (c for c in artefact.reexam.comparisons if c.exam == exam)
            found = next(compared, None)
            table.add_row(
                artefact.format + (" (served)" if artefact.format == release.serves else ""),
                f"{artefact.total_bytes / 1e6:.1f}",
                escape(exam),
                "-" if found is None else _points(found),
                f"{same:.1%}",
            )
    out.print(table)
    for terms in release.terms:
        out.print(Text(f"terms: {terms}", style="dim"))
    state = "released" if made.is_new else "was released before"
    out.print(Text(f"{release.name} {state}: {made.folder}"))
    for waiting in made.waiting:
        text = waiting.ja if release.language == "ja" else waiting.en
        out.print(Text(f"{made.stage}, waits for {text}"))
    if made.stage == "draft" and len(made.waiting) > 1:  # a validation, and approvals
        out.print(Text(f"next: tokka approve {release.name} --validate"))
    elif made.stage in ("draft", "validated"):
        out.print(Text(f"next: tokka approve {release.name}"))
    elif made.stage in ("approved", "serving"):
        out.print(Text(f"{made.stage}; next: tokka serve {release.name}"))


def show_release_plan(out: Console, plan: Plan) -> None:
    name = f"{plan.model}-{plan.version}"
    if plan.released is not None:
        out.print(Text(f"{name} holds this candidate already; nothing would be done"))
        return
    if plan.is_new_model:
        out.print(Text(f"would register the model {plan.model}"))
    for form in (plan.serves, *plan.also):
        out.print(Text(f"would export {form} and examine it again"))
    out.print(Text(f"would release {name}, signed by {plan.actor}"))
