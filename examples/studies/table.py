"""What the studies found, as Markdown, from what `tokka run` left behind.

results.json and the scores beside it → a table an exam, then the study's own tests: the trend over
ordered arms, the difference of two arms, the rank correlation of learning and forgetting. All
resampling is over whole clusters of questions.

    python examples/studies/table.py knowledge
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tokka.project import load_project
from tokka.records import Comparison, Results, Sitting
from tokka.stats.paired import paired_bootstrap
from tokka.stats.resample import Bootstrap, gather, resample

HERE = Path(__file__).parent
DRAWS = 10_000
SEED = 0
_TAIL = 0.025  # of either side of an interval

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """`arms` in the order in which the score should rise; `xs` is what the slope is taken over."""

    title: str
    exam: str
    arms: tuple[str, ...]
    xs: tuple[float, ...]
    step: str


@dataclass(frozen=True, slots=True)
class Study:
    trends: tuple[Trend, ...] = ()
    differences: tuple[tuple[str, str, str], ...] = ()  # exam, arm, and the arm taken from it
    correlated: tuple[str, ...] = ()  # domain exam and retention exam, over all arms


@dataclass(frozen=True, slots=True)
class Report:
    """`scores[exam][arm]` lie in the order of `clusters[exam]`, both one entry a question."""

    results: Results
    scores: Mapping[str, Mapping[str, list[float]]]
    clusters: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Correlation:
    """`undefined`: draws in which all arms tied in one exam; they are left out."""

    rho: float
    low: float
    high: float
    arms: int
    undefined: int


def _both(title: str, arms: tuple[str, ...], xs: tuple[float, ...], step: str) -> Iterator[Trend]:
    for exam in ("facts", "retention"):
        yield Trend(title, exam, arms, xs, step)


_LOG_WORDINGS = tuple(float(np.log2(n)) for n in (1, 2, 5, 10))
STUDIES = {
    "knowledge": Study(
        trends=(
            Trend(
                "wordings, equal tokens",
                "facts",
                ("words-1", "words-2", "words-5", "words-10"),
                _LOG_WORDINGS,
                "doubling",
            ),
            Trend(
                "wordings, equal passes",
                "facts",
                ("passes-1", "passes-2", "passes-5", "words-10"),
                _LOG_WORDINGS,
                "doubling",
            ),
        ),
        differences=(
            ("facts", "words-10", "swapped"),
            ("facts", "words-1", "swapped"),
            ("facts", "words-10", "raw"),
            ("facts", "words-10", "words-1"),
            ("facts", "rag", "words-10"),
            ("facts", "words-10-rag", "rag"),
            ("facts", "raw-rag", "rag"),
        ),
    ),
    "replay": Study(
        trends=tuple(
            _both(
                "replay of 0, 1, 5, 25 %",
                ("replay-0", "replay-1", "replay-5", "replay-25"),
                (0.0, 1.0, 2.0, 3.0),
                "step",
            )
        ),
        differences=(
            ("retention", "replay-5", "replay-0"),
            ("retention", "replay-25", "replay-5"),
            ("facts", "replay-25", "replay-0"),
        ),
    ),
    "learning": Study(
        trends=(
            *_both("rank", ("rank-4", "rank-16", "rank-64"), (0.0, 1.0, 2.0), "fourfold rank"),
            *_both("data", ("data-25", "data-50", "rank-16"), (0.0, 1.0, 2.0), "doubling"),
            *_both("passes", ("passes-1", "rank-16", "passes-8"), (0.0, 2.0, 3.0), "doubling"),
        ),
        differences=(("facts", "full", "rank-16"), ("retention", "full", "rank-16")),
        correlated=("facts", "retention"),
    ),
    "raft": Study(
        differences=tuple(
            (exam, arm, other)
            for exam in ("facts", "written")
            for arm, other in (
                ("tuned-rag", "rag"),
                ("tuned-rag", "tuned"),
                ("raft", "tuned-rag"),
                ("raft", "rag"),
            )
        ),
    ),
}


def slope(
    rows: Sequence[Sequence[float]], xs: Sequence[float], clusters: Sequence[str]
) -> Bootstrap:
    """Least-squares slope of the score over `xs`, a score a unit, with its clustered bootstrap.

    `rows[j]` are the scores of arm j, one a question, in [0, 1]; every question gives its own slope
    and the mean of these is the slope of the means.
    """
    away = np.asarray(xs) - np.mean(xs)
    weights = away / np.sum(away**2)
    values = np.asarray(rows, dtype=np.float64).T @ weights
    return resample(
        [float(value) for value in values],
        clusters,
        minimum=float(weights[weights < 0].sum()),
        maximum=float(weights[weights > 0].sum()),
        draws=DRAWS,
        seed=SEED,
    )


def trend_p(rows: Sequence[Sequence[float]], clusters: Sequence[str]) -> float:
    """One-sided p-value of "no order": do the scores rise from the first arm to the last?

    Page's trend test (Page 1963, J. Am. Stat. Assoc. 58) for arms that answer the same questions,
    which Jonckheere's is for arms that don't: L = Σ_j j · (score of arm j), here with sums of
    scores in place of ranks. Its distribution is that of 10,000 random orders of the arms within
    each cluster of questions.
    """
    sums = np.stack([gather(row, clusters).sums for row in rows], axis=1)
    places = np.arange(1, len(rows) + 1)
    seen = float(sums.sum(axis=0) @ places)
    rng = np.random.default_rng(SEED)
    as_high = sum(
        float(rng.permuted(sums, axis=1).sum(axis=0) @ places) >= seen - 1e-9 for _ in range(DRAWS)
    )
    return (1 + as_high) / (1 + DRAWS)


def correlation(
    learning: Mapping[str, Sequence[float]],
    learning_clusters: Sequence[str],
    keeping: Mapping[str, Sequence[float]],
    keeping_clusters: Sequence[str],
) -> Correlation:
    """Spearman's ρ of gain and loss over the arms of `learning`; scores by arm, one a question.

    The score of the control moves all arms alike and so no rank. 95 % percentile interval from
    redrawing the clusters of both exams: arms answer the same questions, so a test that took them
    for independent would be wrong. Positive: the arms that learnt more forgot more.
    """
    arms = sorted(learning)
    rng = np.random.default_rng(SEED)
    gained = _drawn([learning[arm] for arm in arms], learning_clusters, rng)
    lost = -_drawn([keeping[arm] for arm in arms], keeping_clusters, rng)
    rhos = _spearman(gained, lost)
    drawn = rhos[1:][~np.isnan(rhos[1:])]
    low, high = np.quantile(drawn, (_TAIL, 1 - _TAIL)) if drawn.size else (np.nan, np.nan)
    undefined = DRAWS - int(drawn.size)
    return Correlation(float(rhos[0]), float(low), float(high), len(arms), undefined)


def _drawn(
    rows: Sequence[Sequence[float]], clusters: Sequence[str], rng: np.random.Generator
) -> Scores:
    """Mean scores of shape (1 + draws, arms); the first row is of the exam as it was."""
    grouped = [gather(row, clusters) for row in rows]
    sums, sizes = np.stack([g.sums for g in grouped], axis=1), grouped[0].sizes
    count = len(sizes)
    counts = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    counts = np.vstack([np.ones((1, count)), counts])
    means: Scores = (counts @ sums) / (counts @ sizes)[:, None]
    return means.round(10)


def _spearman(a: Scores, b: Scores) -> Scores:
    """Row by row; NaN where all of a row tie."""
    x, y = rankdata(a, axis=1), rankdata(b, axis=1)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: Scores = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return rho


def read(study: Path) -> Report:
    """`study` holds tokka.yaml and its .tokka. Raises SystemExit for what isn't there or whole."""
    project = load_project(study / "tokka.yaml")
    folder = study / ".tokka" / "reports" / "tokka"  # by the project file's name
    if not (folder / "results.json").is_file():
        raise SystemExit(f"{folder} holds no results.json; run: tokka run {study}/tokka.yaml")
    results = Results.model_validate_json((folder / "results.json").read_text(encoding="utf-8"))
    scores: dict[str, dict[str, list[float]]] = {}
    clusters: dict[str, list[str]] = {}
    for name, exam in project.exams.items():
        cluster_of = {row["id"]: row.get("cluster_id", "") for row in _rows(study / exam.path)}
        order: list[str] = []
        for found in sorted((folder / "scores" / name).glob("*.jsonl")):
            values = {row["question_id"]: row["value"] for row in _rows(found)}
            if None in values.values():
                raise SystemExit(f"{found}: some questions have no score; run the study again")
            order = order or sorted(values)
            scores.setdefault(name, {})[found.stem] = [values[question] for question in order]
        clusters[name] = [cluster_of[question] for question in order]
    return Report(results, scores, clusters)


def exam_table(results: Results, exam: str) -> Iterator[str]:
    yield "| arm | n | score, % | change from base, points | smallest detectable, points |"
    yield "|---|---|---|---|---|"
    for arm in results.arms:
        sitting = next(s for s in arm.sittings if s.exam == exam)
        compared = next((c for c in arm.comparisons if c.exam == exam), None)
        detectable = "" if compared is None else f"{100 * compared.smallest_detectable:.1f}"
        yield (
            f"| {arm.arm.name} | {sitting.answered} | {_score(sitting)} | {_change(compared)} "
            f"| {detectable} |"
        )


def lines(name: str, report: Report) -> Iterator[str]:
    """The whole section of one study."""
    study = STUDIES[name]
    for sat in report.results.exams:
        yield from ("", f"**{sat.name}**", "")
        yield from exam_table(report.results, sat.name)
    if study.trends:
        yield from (
            "",
            "| trend | exam | arms | slope, points | p, rising |",
            "|---|---|---|---|---|",
        )
    for trend in study.trends:
        rows = [report.scores[trend.exam][arm] for arm in trend.arms]
        found = slope(rows, trend.xs, report.clusters[trend.exam])
        p = trend_p(rows, report.clusters[trend.exam])
        means = " → ".join(f"{100 * np.mean(row):.1f}" for row in rows)
        yield (
            f"| {trend.title} | {trend.exam} | {means} | {_interval(found)} a {trend.step} "
            f"| {p:.4f} |"
        )
    if study.differences:
        yield from ("", "| difference | exam | points |", "|---|---|---|")
    for exam, arm, other in study.differences:
        scores = report.scores[exam]
        found = paired_bootstrap(
            scores[arm], scores[other], report.clusters[exam], draws=DRAWS, seed=SEED
        )
        yield f"| {arm} − {other} | {exam} | {_interval(found)} |"
    if study.correlated:
        domain, kept = study.correlated
        control = report.results.control
        found_rho = correlation(
            {a: v for a, v in report.scores[domain].items() if a != control},
            report.clusters[domain],
            report.scores[kept],
            report.clusters[kept],
        )
        yield ""
        yield (
            f"Gain and loss over {found_rho.arms} arms: Spearman's ρ = {found_rho.rho:+.2f} "
            f"[{found_rho.low:+.2f}, {found_rho.high:+.2f}]; {found_rho.undefined} of {DRAWS:,} "
            "draws undefined."
        )


def _score(sitting: Sitting) -> str:
    if sitting.primary is None:
        return "incomplete"
    found = sitting.primary
    return f"{100 * found.estimate:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _change(compared: Comparison | None) -> str:
    if compared is None:
        return "control"
    return (
        f"{100 * compared.effect:+.1f} [{100 * compared.low:+.1f}, {100 * compared.high:+.1f}], "
        f"p = {compared.p_adjusted:.3f}, {compared.outcome}"
    ).replace("-", "−")


def _interval(found: Bootstrap) -> str:
    return (
        f"{100 * found.estimate:+.1f} [{100 * found.low(_TAIL):+.1f}, "
        f"{100 * found.high(_TAIL):+.1f}]"
    ).replace("-", "−")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="print the tables of a study that was run")
    parser.add_argument("study", choices=sorted(STUDIES))
    chosen = parser.parse_args().study
    sys.stdout.write("\n".join(lines(chosen, read(HERE / chosen))).lstrip("\n") + "\n")
