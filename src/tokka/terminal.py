"""What people see in a terminal: bars with an estimate, tables, tokens in colour. Prints, decides
nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tokka.checking import Checked, LastReport
    from tokka.examining import Sat
    from tokka.pipeline import Outcome
    from tokka.planning import TrainingPlan
    from tokka.records import Answer, Results, Score, Sitting
    from tokka.sittings import RescoredAll

CHANGES_SHOWN = 20
LEARNT, READ, SPECIAL = "bold green", "default", "magenta"


def console() -> Console:
    """Standard output; colours where it is a terminal or FORCE_COLOR is set."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


class Bars:
    """The pipeline's observer: a bar per task on standard error, plain lines where that is no
    terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._plain = not self._console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=self._plain or quiet,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    @contextmanager
    def task(self, label: str, total: float | None) -> Iterator[Bar]:
        identity = self._progress.add_task(escape(label), total=total, note="")
        bar = Bar(self._progress, identity, self._console if self._plain else None, label, total)
        yield bar
        bar.finish()

    def notice(self, text: str) -> None:
        self._console.print(escape(text))


class Bar:
    """One task. Without a terminal it prints a line about every ten seconds, with its estimate."""

    EVERY_SECONDS = 10.0

    def __init__(
        self,
        progress: Progress,
        identity: TaskID,
        plain: Console | None,
        label: str,
        total: float | None,
    ) -> None:
        import time

        self._progress, self._identity, self._plain = progress, identity, plain
        self._label, self._total, self._done = label, total, 0.0
        self._clock = time.monotonic
        self._started = self._said = self._clock()

    def advance(self, n: float = 1, note: str = "") -> None:
        self._done += n
        self._progress.update(self._identity, advance=n, note=note)
        now = self._clock()
        if self._plain is not None and now - self._said >= self.EVERY_SECONDS:
            self._said = now
            left = ""
            if self._total and self._done:
                share = self._done / self._total
                seconds = (now - self._started) * (1 - share) / share
                left = f" {share:.0%}, about {seconds:.0f} s left"
            self._plain.print(escape(f"{self._label}:{left} {note}".rstrip()))

    def finish(self) -> None:
        if self._total is None:
            self._progress.update(self._identity, total=1, completed=1)
        else:
            self._progress.update(self._identity, completed=self._total)
        if self._plain is not None:
            self._plain.print(
                escape(f"{self._label}: done in {self._clock() - self._started:.1f} s")
            )


def show_outcome(out: Console, results: Results, outcome: Outcome) -> None:
    show_results(out, results, str(outcome.report), _timings(outcome.results.parent))
    out.print(f"finished in {outcome.seconds:.1f} s")


def show_results(out: Console, results: Results, report: str, timings: Any) -> None:
    from tokka.report.leaderboard import leaderboard

    out.print()
    out.print(leaderboard(results, timings, results.language))
    summary = results.summary_ja if results.language == "ja" else results.summary_en
    out.print(Text(summary))
    dropped = results.corpus.dropped
    if dropped:
        out.print(f"left out: {len(dropped)} (listed with reasons in the report)")
        for item in dropped[:5]:
            out.print(Text(f"  {item.item}: {item.reason}"))
    label = "報告書" if results.language == "ja" else "report"
    out.print(Text(f"{label}: {report}"))


def _timings(folder: Any) -> Any:
    from tokka.records import Timing
    from tokka.store import read_json

    path = folder / "timings.json"
    if not path.exists():
        return {}
    return {arm: Timing.model_validate(value) for arm, value in read_json(path).items()}


def show_report(out: Console, found: LastReport) -> None:
    show_results(out, found.results, str(found.path), _timings(found.path.parent))


def show_answer(out: Console, answer: Answer) -> None:
    out.print(Text(answer.text or "(no answer)"))
    if answer.error:
        out.print(Text(answer.error, style="red"))
    for citation in answer.citations:
        page = f" p.{citation.page}" if citation.page is not None else ""
        out.print(
            Text(
                f"  [{citation.passage}] {citation.document_id}{page} "
                f"{citation.start}–{citation.end} (support {citation.support:.2f})",
                style="cyan",
            )
        )
    out.print(Text(f"prompt {answer.prompt_sha256[:16]} · {answer.seconds:.1f} s", style="dim"))


def show_rescored(out: Console, found: RescoredAll, written: list[Path]) -> None:
    """Old and new score of each sitting, then the questions whose score changed."""
    table = Table()
    for name in ("arm", "exam", "asked", "old", "new", "changed"):
        table.add_column(name, justify="left" if name in ("arm", "exam") else "right")
    for one in found.sittings:
        table.add_row(
            escape(one.new.arm),
            escape(one.new.exam.name),
            str(len(one.new.answers)),
            _score_of(one.old.sitting),
            _score_of(one.new.sitting),
            str(len(one.changes())) if one.old.scores else "-",
        )
    out.print(table)
    changed = [(one, change) for one in found.sittings for change in one.changes()]
    for one, change in changed[:CHANGES_SHOWN]:
        old = _value(change.old) if change.old else "-"
        place = f"{one.new.arm} · {one.new.exam.name} · {change.new.question_id}"
        reason = change.new.explanation
        out.print(Text(f"  {place}: {old} → {_value(change.new)} ({reason})"))
    if len(changed) > CHANGES_SHOWN:
        out.print(f"  and {len(changed) - CHANGES_SHOWN} more; --json names all")
    for text in found.missing:
        out.print(Text(text, style="yellow"))
    for folder in written:
        out.print(Text(f"wrote {folder}"))


def show_sat(out: Console, sat: Sat, folder: Path | None) -> None:
    """The score with its interval, then lm-evaluation-harness's metrics of the same answers."""
    stored, sitting = sat.stored, sat.stored.sitting
    table = Table()
    for name in ("exam", "asked", "score", "scoring"):
        table.add_column(name, justify="right" if name == "asked" else "left")
    scoring = sitting.settings["scoring"] if sitting else ""
    chosen = f", by {stored.exam.normalisation}" if "loglikelihood" in scoring else ""
    table.add_row(
        escape(stored.exam.name), str(len(stored.answers)), _score_of(sitting), scoring + chosen
    )
    out.print(table)
    for task, found in sat.results.results["results"].items():
        named = [name for name in found if "," in name and "_stderr" not in name]
        means = ", ".join(f"{name} {_mean_of(found[name])}" for name in named)
        out.print(Text(f"{task} as lm_eval reports it: {means}"))
    if sitting and sitting.truncated:
        out.print(Text(f"{sitting.truncated} prompts were cut to the context", style="yellow"))
    failed = [answer for answer in stored.answers if answer.status == "error"]
    for answer in failed[:CHANGES_SHOWN]:
        out.print(Text(f"failed: {answer.question_id}: {answer.error}", style="red"))
    if failed:
        out.print(f"{len(failed)} questions failed: no score; run again to ask only these")
    if folder is not None:
        out.print(Text(f"wrote {folder}"))


def _mean_of(value: float | None) -> str:
    return "incomplete" if value is None else f"{value:.4f}"


def _score_of(sitting: Sitting | None) -> str:
    from tokka.report.numbers import bounds, percent

    if sitting is None:
        return "-"
    if sitting.primary is None:
        return "incomplete"
    return escape(f"{percent(sitting.primary.estimate)} {bounds(sitting.primary)}")


def _value(score: Score) -> str:
    return score.status if score.value is None else f"{score.value:g}"


def show_status(out: Console, found: dict[str, Any]) -> None:
    table = Table(title=f"{found['project']} · {found['workspace']}")
    for name in ("step", "arm or exam", "state", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    styles = {"done": "green", "unfinished": "yellow", "to do": "dim"}
    for step in found["steps"]:
        table.add_row(
            step["step"],
            step["of"],
            Text(step["state"], style=styles.get(step["state"], "")),
            "" if step["seconds"] is None else f"{step['seconds']:.1f}",
        )
    out.print(table)
    if found["steps_of_earlier_candidates"]:
        out.print(f"and {found['steps_of_earlier_candidates']} sittings of earlier candidates")
    if found["running"]:
        out.print("a run is at work now")
    out.print(Text(found["verdict"] or "no report yet: tokka run"))


def show_plan(out: Console, plan: TrainingPlan) -> None:
    """A row for each training, then what its memory holds and what the machine is."""
    from tokka.planning import duration, energy
    from tokka.training.energy import ABSENT
    from tokka.training.fitting import GB, gigabytes

    if not plan.stages:
        out.print("no arm of this project trains anything")
        return
    table = Table()
    for name in ("arm", "stage", "tokens", "steps", "memory", "time", "energy", "USD"):
        table.add_column(name, justify="left" if name in ("arm", "stage") else "right")
    for stage in plan.stages:
        amount, fit = stage.amount, stage.fit
        table.add_row(
            escape(stage.arm),
            f"{stage.number} {stage.kind} {stage.method}",
            f"{amount.tokens:,}" if amount else "-",
            f"{amount.steps:,}" if amount else "-",
            Text(gigabytes(fit.memory.total), style="" if fit.fits else "bold red"),
            duration(stage.seconds) or "-",
            energy(stage.joules) or "-",
            "-" if stage.cost_usd is None else f"{stage.cost_usd:.2f}",
        )
    out.print(table)
    for stage in plan.stages:
        parts = stage.fit.memory.as_json()
        del parts["total"]
        held = ", ".join(f"{name} {size / GB:.2f}" for name, size in parts.items())
        out.print(Text(f"{stage.place}: GB of {held}", style="dim"))
    room = plan.stages[0].fit.room
    out.print("free memory: " + ("not known" if room is None else gigabytes(room)))
    if plan.machine is not None:
        machine = plan.machine
        rates = f"{machine.flops / 1e9:,.0f} GFLOP/s in {machine.dtype}"
        rates += f", {machine.copied_bytes / 1e9:.0f} GB/s copied, {machine.threads} threads"
        out.print(Text(f"{machine.name}: {rates}", style="dim"))
    if all(stage.watts is None for stage in plan.stages):
        out.print(Text(f"energy: {ABSENT}", style="dim"))


def show_check(out: Console, found: Checked) -> None:
    """Tokens with the loss mask: green is learnt, underlined is the prefix that all three share."""
    from tokka.planning import line_of

    out.print(Text(found.summary))
    for dropped in found.dropped[:20]:
        out.print(Text(f"  left out: {dropped.item}: {dropped.reason}", style="yellow"))
    for view in found.views:
        out.print()
        out.print(Text(f"{view.title} · {len(view.pieces)} tokens", style="bold"))
        line = Text()
        for position, piece in enumerate(view.pieces):
            shown = piece.replace("\n", "⏎\n") if piece.strip(" ") else piece.replace(" ", "␣")
            style = LEARNT if position >= view.learnt_from else READ
            if position in view.special:
                style = SPECIAL if position < view.learnt_from else f"{LEARNT} reverse"
            if position < found.shared:
                style += " underline"
            line.append(shown, style=style)
            line.append("·", style="dim")
        out.print(line)
    out.print()
    out.print(Text("underlined: prefix shared by all; green: learnt (loss mask 1)", style="dim"))
    for plan in found.plans:
        out.print(Text(line_of(plan), style="" if plan.fit.fits else "bold red"))
    for proof in found.proofs:
        mark = "✓" if proof.holds else "✗"
        out.print(Text(f"{mark} {proof.text}", style="green" if proof.holds else "bold red"))
