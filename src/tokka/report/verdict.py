"""The verdict in words: which arm and why, or that none is proven better and what would settle it.

Results → one or two sentences with numbers, in Japanese or English.

>>> verdict_text(results, "en")
"No arm is proven better; you'd need 412 questions in domain to settle it for rag. …"
"""

from __future__ import annotations

from tokka.records import Comparison, Exam, Results
from tokka.report.numbers import (
    confidence,
    count,
    p_text,
    percent,
    points,
    points_bounds,
    size,
)
from tokka.report.standing import Standing, first_exam, standings
from tokka.report.texts import join, text


def verdict_text(results: Results, language: str) -> str:
    rows = standings(results, {})
    winner = next((row for row in rows if row.is_winner), None)
    sentences = (
        _winner(results, winner, rows, language) if winner else _none(rows, results, language)
    )
    return join(sentences, language)


def reading(comparison: Comparison, language: str) -> str:
    """One comparison in words, with what was needed and what came out."""
    sentence = text(
        f"reading_{comparison.side}",
        language,
        exam=comparison.exam,
        margin=size(comparison.margin),
        outcome=text(f"outcome_{comparison.outcome}", language),
        **_effect(comparison),
    )
    if comparison.outcome != "inconclusive" or comparison.questions_needed is None:
        return sentence
    need = text("reading_need", language, n=count(comparison.questions_needed))
    return join([sentence, need], language)


def _effect(comparison: Comparison) -> dict[str, str]:
    return {
        "effect": points(comparison.effect),
        "interval": points_bounds(comparison.low, comparison.high),
        "level": confidence(comparison.alpha),
    }


def _winner(
    results: Results, winner: Standing, rows: tuple[Standing, ...], language: str
) -> list[str]:
    domain = first_exam(results, "domain")
    gain, score = winner.comparison(domain), winner.primary(domain)
    if gain and score and domain:
        sentences = [
            text(
                "verdict_winner",
                language,
                arm=winner.arm,
                exam=domain.name,
                score=percent(score.estimate),
                control=results.control,
                n=count(gain.n),
                p=p_text(gain.p_adjusted),
                **_effect(gain),
            )
        ]
    else:
        sentences = [text("verdict_winner_bare", language, arm=winner.arm)]
    for loss in winner.comparisons.values():
        if loss.side == "loss":
            key = "verdict_kept" if loss.low < 0 else "verdict_not_lost"
            sentences.append(
                text(
                    key,
                    language,
                    exam=loss.exam,
                    bound=size(-loss.low),
                    low=points(loss.low),
                    margin=size(loss.margin),
                )
            )
    also = [row.arm for row in rows if row.outcome == "pass" and not row.is_winner]
    if also:
        sentences.append(text("verdict_also", language, arms=text("and", language).join(also)))
    return sentences


def _none(rows: tuple[Standing, ...], results: Results, language: str) -> list[str]:
    incomplete = _incomplete(rows, language)
    if incomplete:
        arms = text("and", language).join(incomplete)
        return [text("verdict_none", language), text("verdict_incomplete", language, arms=arms)]
    compared = [row for row in rows if row.comparisons]
    if not compared:
        return [text("verdict_none", language), text("no_comparisons", language)]
    domain = first_exam(results, "domain")
    unsettled = [row for row in compared if row.outcome == "inconclusive"]
    best = max(unsettled or compared, key=lambda row: _effect_size(row, domain))
    if not unsettled:
        first = [text("verdict_none", language), text("verdict_all_fail", language)]
    else:
        first = _need(best, language)
    return [*first, *_closest(best, domain, results.control, language)]


def _effect_size(row: Standing, domain: Exam | None) -> float:
    comparison = row.comparison(domain)
    return comparison.effect if comparison else float("-inf")


def _need(row: Standing, language: str) -> list[str]:
    open_tests = [c for c in row.comparisons.values() if c.outcome == "inconclusive"]
    needs = [(c.questions_needed, c.exam) for c in open_tests if c.questions_needed is not None]
    if not needs:
        return [text("verdict_none", language), text("verdict_unknown_need", language)]
    n, exam = max(needs)
    return [text("verdict_none_need", language, n=count(n), exam=exam, arm=row.arm)]


def _closest(row: Standing, domain: Exam | None, control: str, language: str) -> list[str]:
    gain = row.comparison(domain)
    if gain is None:
        return []
    losses = [c for c in row.comparisons.values() if c.side == "loss" and c.outcome != "pass"]
    if gain.outcome == "pass" and losses:
        loss = min(losses, key=lambda c: c.low)
        return [
            text(
                "verdict_best_loss",
                language,
                arm=row.arm,
                exam=gain.exam,
                loss_exam=loss.exam,
                loss=points(loss.effect),
                loss_interval=points_bounds(loss.low, loss.high),
                margin=size(loss.margin),
                **_effect(gain),
            )
        ]
    return [
        text(
            "verdict_best",
            language,
            arm=row.arm,
            exam=gain.exam,
            control=control,
            n=count(gain.n),
            **_effect(gain),
        )
    ]


def _incomplete(rows: tuple[Standing, ...], language: str) -> list[str]:
    found: list[str] = []
    for row in rows:
        for sitting in row.sittings.values():
            if sitting.complete:
                continue
            key = "incomplete_partial" if sitting.partial else "incomplete_arm"
            if sitting.waiting and not (sitting.partial or sitting.errors):
                key = "incomplete_waiting"
            found.append(
                text(
                    key,
                    language,
                    arm=f"{row.arm} ({sitting.exam})",
                    asked=count(sitting.asked),
                    answered=count(sitting.answered),
                    errors=count(sitting.errors),
                    waiting=count(sitting.waiting),
                )
            )
    return found
