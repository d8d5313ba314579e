"""Results → the values that the page's template prints: rows, sentences, figures, groups.

Nothing is formatted as HTML here; texts come in both languages, the template shows one.

>>> template.render(**page_values(results, timings, reproduction, "ja"))
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from tokka.records import (
    OPTION_ORDER,
    ROTATED,
    Arm,
    Dropped,
    Exam,
    Form,
    MergeSpec,
    PositionBias,
    PreferSpec,
    PretrainSpec,
    QuantiseSpec,
    Reproduction,
    Results,
    StageSpec,
    Timing,
    TrainingSpec,
)
from tokka.report import numbers
from tokka.report.coverage import coverage_figures
from tokka.report.figures import cell, choice_notes, effect_figures, tradeoff_figures
from tokka.report.standing import Standing, first_exam, standings
from tokka.report.texts import CATALOGUE, LANGUAGES, both, exam_label, same, shown_language, text
from tokka.report.verdict import reading, verdict_text

MAX_ITEMS = 50  # of one reason; the records hold the others


def page_values(
    results: Results,
    timings: Mapping[str, Timing],
    reproduction: Reproduction,
    language: str,
) -> dict[str, Any]:
    rows = standings(results, timings)
    comparisons = [c for row in rows for c in row.comparisons.values()]
    gains = [c for c in comparisons if c.side == "gain"]
    losses = [c for c in comparisons if c.side == "loss"]
    sittings = [sitting for row in rows for sitting in row.sittings.values()]

    def sat(exam: Exam) -> list[Any]:
        return [sitting for sitting in sittings if sitting.exam == exam.name]

    return {
        "language": shown_language(language),
        "languages": LANGUAGES,
        "results": results,
        "rows": rows,
        "reproduction": reproduction,
        "reproduction_text": reproduction_text(reproduction),
        "answer": {each: verdict_text(results, each) for each in LANGUAGES},
        "recorded": _recorded(results),
        "tested": {sitting.exam: sitting.asked for sitting in sittings},
        "domain": first_exam(results, "domain"),
        "alpha": f"{comparisons[0].alpha:g}" if comparisons else "",
        "level": numbers.confidence(comparisons[0].alpha) if comparisons else "",
        "gain_margin": numbers.points(gains[0].margin) if gains else "",
        "loss_margin": numbers.size(losses[0].margin) if losses else "",
        "methods": _methods(rows),
        "comparisons": comparisons,
        "detectable": _detectable(results, rows),
        "reading": lambda c: {each: reading(c, each) for each in LANGUAGES},
        "made_of": lambda arm: {each: made_of(arm, each) for each in LANGUAGES},
        "cell": cell,
        "exam_label": exam_label,
        "metric": _metric,
        "form_name": _form_name,
        "retrieval_metrics": _in_order(name for s in sittings for name in s.retrieval),
        "effects_on": lambda exam: any(row.comparison(exam) for row in rows),
        "forms_of": lambda exam: _forms(form for s in sat(exam) for form in s.by_form),
        "topics_of": lambda exam: _in_order(topic for s in sat(exam) for topic in s.by_topic),
        "topic_size": lambda exam, topic: max(
            s.by_topic[topic].n for s in sat(exam) if topic in s.by_topic
        ),
        "positions": _positions(results, rows),
        "order_as_given": _order_as_given(results, rows),
        "effects": effect_figures(results, rows),
        "tradeoffs": [*tradeoff_figures(results, rows), *coverage_figures(results, rows)],
        "choices": choice_notes(rows),
        "dropped": _dropped(results.corpus.dropped),
        "shade": lambda share: f"shade-{max(0, min(10, round(10 * share)))}",
    }


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _forms(found: Iterable[str]) -> list[str]:
    known = [*get_args(Form)]
    return sorted(set(found), key=lambda form: (known.index(form) if form in known else 9, form))


def _form_name(form: str) -> dict[str, str]:
    return both(f"form_{form}") if f"form_{form}" in CATALOGUE["en"] else same(form)


def _methods(rows: tuple[Standing, ...]) -> str:
    found = [s.primary.method for r in rows for s in r.sittings.values() if s.primary]
    return ", ".join(sorted(set(found))) or numbers.MISSING


def _detectable(results: Results, rows: tuple[Standing, ...]) -> dict[str, str]:
    """The range of smallest detectable effects per exam, as one sentence part a language."""
    parts: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for exam in results.exams:
        found = [c for row in rows if (c := row.comparison(exam))]
        if not found:
            continue
        low, high = (pick(c.smallest_detectable for c in found) for pick in (min, max))
        smallest = numbers.size(low) if low == high else f"{numbers.size(low)}–{numbers.size(high)}"
        said = both("explain_detectable_value", exam=exam.name, smallest=smallest, n=found[0].n)
        for language in LANGUAGES:
            parts[language].append(said[language])
    joined = {"ja": "、".join(parts["ja"]), "en": ", ".join(parts["en"])}
    return joined if any(parts.values()) else same(numbers.MISSING)


def _metric(name: str) -> dict[str, str]:
    if name.startswith("recall@"):
        return both("metric_recall", k=name.removeprefix("recall@"))
    if f"metric_{name}" in CATALOGUE["en"]:
        return both(f"metric_{name}")
    return same(name)


def _recorded(results: Results) -> dict[str, str] | None:
    """The summary of `results.json`, where it says something else than the page's own sentence."""
    recorded = {"ja": results.summary_ja, "en": results.summary_en}
    said = {language: verdict_text(results, language) for language in LANGUAGES}
    return None if recorded == said or not all(recorded.values()) else recorded


def made_of(arm: Arm, language: str) -> str:
    """The three slots of an arm in words: weights, prompt, retrieval."""
    parts: list[str] = []
    parts += [_stage(stage.spec, language) for stage in arm.weights]
    if arm.choose:
        parts.append(text("configuration_choose", language))
    if arm.prompt.system:
        parts.append(text("configuration_system", language))
    if arm.prompt.shots:
        parts.append(text("configuration_prompt", language, shots=arm.prompt.shots))
    if arm.retrieval:
        used = [way for way in ("lexical", "dense") if getattr(arm.retrieval, way)]
        ways = " + ".join(text(way, language) for way in used)
        parts.append(text("configuration_retrieval", language, k=arm.retrieval.top_k, ways=ways))
        silence = arm.retrieval.silence
        if silence is not None:
            key = "configuration_silence_tuned" if silence == "tuned" else "configuration_silence"
            parts.append(text(key, language, threshold=silence))
    return " · ".join(parts) or text("configuration_none", language)


def _stage(spec: StageSpec, language: str) -> str:
    if isinstance(spec, QuantiseSpec):
        return text("configuration_quantise", language, type=spec.type.upper())
    if isinstance(spec, MergeSpec):
        if spec.arms:
            joined = " + ".join(spec.arms)
            return text("configuration_join", language, method=spec.method.upper(), arms=joined)
        return text(f"configuration_{spec.method}", language, alpha=f"{spec.alpha:g}")
    method = _method(spec, language)
    if isinstance(spec, PretrainSpec):
        data = ", ".join(spec.data) or text("configuration_corpus", language)
        key = "configuration_scratch" if spec.scratch else "configuration_pretrain"
        return text(key, language, method=method, data=data)
    if isinstance(spec, PreferSpec):
        objective = spec.objective.upper()
        return text(
            "configuration_prefer", language, objective=objective, method=method, data=spec.data
        )
    words = text("configuration_finetune", language, method=method, data=spec.data)
    if spec.context == "retrieved":
        words += " " + text("configuration_context", language)
    return words


def _method(spec: TrainingSpec, language: str) -> str:
    if spec.method == "full":
        return text("configuration_full", language)
    kind = {"lora": "LoRA", "qlora": "QLoRA"}[spec.method]
    return f"{kind} r{spec.rank}" + " rsLoRA" * spec.rslora + " DoRA" * spec.dora


@dataclass(frozen=True, slots=True)
class PositionTable:
    """The exams and arms whose questions have so many options: (arm, exam, bias)."""

    options: int
    lines: tuple[tuple[str, str, PositionBias], ...]


def _positions(results: Results, rows: tuple[Standing, ...]) -> list[PositionTable]:
    found: dict[int, list[tuple[str, str, PositionBias]]] = defaultdict(list)
    for exam in results.exams:
        for row in rows:
            sitting = row.sitting(exam)
            for bias in sitting.positions if sitting else ():
                found[bias.options].append((row.arm, exam.name, bias))
    return [PositionTable(options, tuple(lines)) for options, lines in sorted(found.items())]


def _order_as_given(results: Results, rows: tuple[Standing, ...]) -> list[str]:
    """Exams whose options were to be rotated, but don't stand in any prompt."""
    return [
        exam.name
        for exam in results.exams
        if (sat := [s for row in rows if (s := row.sitting(exam))])
        and all(s.settings.get(OPTION_ORDER, ROTATED) != ROTATED for s in sat)
    ]


@dataclass(frozen=True, slots=True)
class DroppedGroup:
    """Items left out by one step for one reason; at most `MAX_ITEMS` are named."""

    stage: str
    reason: str
    next_action: str
    items: tuple[str, ...]
    count: int


def _dropped(dropped: tuple[Dropped, ...]) -> list[DroppedGroup]:
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for each in dropped:
        groups[each.stage, each.reason, each.next_action].append(each.item)
    return [
        DroppedGroup(stage, reason, action, tuple(items[:MAX_ITEMS]), len(items))
        for (stage, reason, action), items in groups.items()
    ]


def reproduction_text(reproduction: Reproduction) -> str:
    """The whole block as plain text, the way the copy button gives it."""
    lines = [
        f"command: {reproduction.command}",
        f"tokka: {reproduction.version}",
        f"python: {reproduction.python}",
        f"platform: {reproduction.platform}",
        f"machine: {reproduction.machine or numbers.MISSING}",
    ]
    for title, values in (
        ("seeds", reproduction.seeds),
        ("digests", reproduction.digests),
        ("packages", reproduction.packages),
    ):
        lines.append(f"{title}:")
        lines += [f"  {name}: {value}" for name, value in sorted(values.items())]
    return "\n".join(lines)
