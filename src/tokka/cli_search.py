"""`tokka search` and `tokka search-eval`: what the documents say, and how well that is found.

tokka search "融資の限度額" --top-k 3 --explain
tokka search-eval my-rules --split dev
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tokka.records import Interval
    from tokka.search_eval import Evaluation, Measured
    from tokka.searching import Found, Hit

search_app = typer.Typer(pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
HERE = Path()
SHOWN_CHARACTERS = 240
MARK, PLACE, WHY = "bold yellow", "cyan", "dim"


@search_app.command()
def search(
    query: Annotated[
        str, typer.Argument(help="What to search for; '-' reads it from standard input.")
    ],
    file: Annotated[Path, typer.Option("--project", help="The project file or folder.")] = HERE,
    arm: Annotated[
        str | None, typer.Option(help="Search as this arm does; else as the first that searches.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, max=1000, help="How many passages to show.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--as", help="Search as somebody with these access labels: LABEL,LABEL."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only documents with this fact, as KEY=VALUE; may be given again."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how each score came about.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search the project's documents, as an arm would before it answers.

    What is missing of the index is built first. Without --as every document is seen.
    """
    from tokka.errors import Mistakes
    from tokka.project import load_project
    from tokka.searching import search as search_project
    from tokka.terminal import Bars, console

    text = (sys.stdin.read() if query == "-" else query).strip()
    if not text:
        raise Mistakes("search: the query is empty", ['give some words, as in: tokka search "…"'])
    wanted = facts(where or [])
    with Bars(quiet=as_json) as bars:
        found = search_project(
            load_project(file), text, bars, arm=arm, top_k=top_k,
            labels=None if labels is None else [n.strip() for n in labels.split(",") if n.strip()],
            where=wanted, explain=explain,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=1))
    else:
        show_found(console(), found)


@search_app.command("search-eval")
def search_eval(
    file: Annotated[
        Path, typer.Argument(help="A project file, or a folder that holds tokka.yaml.")
    ] = HERE,
    split: Annotated[
        Literal["dev", "test"],
        typer.Option(help="Whose questions: dev while you choose settings, test at the end."),
    ] = "dev",
    as_json: Json = False,
) -> None:
    """Measure how well the documents with the answers are found: recall, MRR, nDCG.

    Lexical, dense and hybrid search side by side, and every arm's own setting, over the questions
    that name their documents. What is missing of the index is built first; nothing is answered.
    """
    from tokka.project import load_project
    from tokka.search_eval import evaluate
    from tokka.terminal import Bars, console

    with Bars(quiet=as_json) as bars:
        found = evaluate(load_project(file), bars, split=split)
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=1))
    else:
        show_evaluation(console(), found)


def facts(pairs: list[str]) -> dict[str, str]:
    """KEY=VALUE, each. Raises Mistakes naming all that aren't."""
    from tokka.errors import Mistakes

    wrong = [pair for pair in pairs if not pair.partition("=")[0].strip() or "=" not in pair]
    if wrong:
        raise Mistakes(
            "search: --where takes KEY=VALUE", [f"got {one!r}; as in language=ja" for one in wrong]
        )
    return {key.strip(): value.strip() for key, _, value in (pair.partition("=") for pair in pairs)}


# ---- what search shows --------------------------------------------------------------------------


def show_found(out: Console, found: Found) -> None:
    """Each hit with its place, its score and the part of its text that holds most of the query."""
    from rich.text import Text

    if not found.hits:
        out.print("nothing found; try other words, or synonyms (retrieval.synonyms)")
    for hit in found.hits:
        out.print(_place(hit))
        out.print(_shown(hit))
        for line in _why(hit):
            out.print(Text(line, style=WHY))
    how = f"as {found.arm}" if found.arm else "hybrid search, since no arm searches"
    out.print(Text(f"{len(found.hits)} passages, {how}", style="dim"))


def _place(hit: Hit) -> Text:
    from rich.text import Text

    passage = hit.passage
    names = list(dict.fromkeys(name for name in (passage.title, *hit.headings) if name))
    page = "" if passage.page is None else f" p. {passage.page}"
    return Text.assemble(
        f"{passage.number}. ",
        (" > ".join(names) or passage.document_id, "bold"),
        (f"  {passage.document_id}{page}", PLACE),
        (f"  {passage.score:.4f}", "dim"),
    )


def _shown(hit: Hit) -> Text:
    from rich.text import Text

    from tokka.retrieval.highlighting import window

    begin, end = window(hit.passage.text, hit.marks, SHOWN_CHARACTERS)
    line = Text("   ")
    line.append("…" if begin else "")
    start = len(line)
    line.append(hit.passage.text[begin:end].replace("\n", " "))
    for first, last in hit.marks:
        if last > begin and first < end:
            line.stylize(MARK, start + max(first, begin) - begin, start + min(last, end) - begin)
    line.append("…" if end < len(hit.passage.text) else "")
    return line


def _why(hit: Hit) -> list[str]:
    """The parts of a fused score, then what each word adds to BM25."""
    if hit.why is None:
        return []
    lines = []
    for part in hit.why.parts:
        score = f"BM25 {part.score:.2f}" if part.kind == "lexical" else f"cosine {part.score:.3f}"
        score = "by its title" if part.kind == "named" else score
        query = f" for query {part.query + 1}" if part.query else ""
        lines.append(
            f"   {part.kind} rank {part.rank or '–'}{query} ({score}), weight {part.weight:g}: "
            f"{part.share:.4f}"
        )
    for term in hit.why.terms:
        weight = "" if term.weight == 1 else f", weight {term.weight:g}"
        lines.append(
            f"     {' '.join(term.words)}: {term.score:.2f} (× {term.times}, idf "
            f"{term.rarity:.2f}{weight})"
        )
    if hit.passage.rerank is not None:
        lines.append(f"   reranked by {hit.passage.rerank:.3f}")
    return lines


# ---- what search-eval shows ---------------------------------------------------------------------


def show_evaluation(out: Console, found: Evaluation) -> None:
    """All questions with intervals, the difference from hybrid search, then MRR by topic, whose
    intervals would say little and fill the screen."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from tokka.retrieval.metrics import METRICS

    beside = next(system.name for system in found.systems if not system.difference)
    title = f"{len(found.questions)} {found.split} questions, 95 % intervals"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("search", overflow="fold", min_width=12)
    for metric in METRICS:
        table.add_column(metric, justify="right", no_wrap=True)
    for system in found.systems:
        table.add_row(Text(system.name), *(_mean(system.overall[metric]) for metric in METRICS))
        if system.difference:
            table.add_row(
                Text(f"− {beside}", style="dim"),
                *(_difference(system.difference[metric]) for metric in METRICS),
            )
    out.print(table)
    topics = list(found.systems[0].topics)
    if len(topics) > 1:
        out.print(_topics(found.systems, topics))
    if found.without_gold:
        out.print(f"left out: {found.without_gold} questions without document_ids")
    if found.absent:
        shown = ", ".join(found.absent[:5]) + (" …" if len(found.absent) > 5 else "")
        text = f"{len(found.absent)} gold documents aren't in the corpus: {shown}"
        out.print(Text(text, style="yellow"))
    for reason in found.unmeasured:
        out.print(Text(f"not measured: {reason}", style="yellow"))


def _topics(systems: tuple[Measured, ...], topics: list[str]) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = "MRR by topic (with intervals: --json)"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("topic", overflow="fold", min_width=12)
    table.add_column("questions", justify="right")
    for system in systems:
        table.add_column(Text(system.name.removeprefix("arm ")), justify="right", overflow="fold")
    for topic in topics:
        own = [system.topics[topic]["MRR"] for system in systems]
        means = (f"{interval.estimate:.3f}" for interval in own)
        table.add_row(Text(topic or "(none)"), str(own[0].n), *means)
    return table


def _mean(interval: Interval) -> Text:
    from rich.text import Text

    bounds = f"\n{interval.low:.2f}~{interval.high:.2f}"
    return Text.assemble(f"{interval.estimate:.3f}", (bounds, "dim"))


def _difference(interval: Interval) -> Text:
    from rich.text import Text

    sure = interval.low > 0 or interval.high < 0
    style = ("green" if interval.estimate > 0 else "red") if sure else "dim"
    bounds = f"\n{interval.low:+.2f}~{interval.high:+.2f}"
    return Text.assemble((f"{interval.estimate:+.3f}", style), (bounds, "dim"))
