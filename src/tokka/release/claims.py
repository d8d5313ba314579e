"""What the evidence shows, claim by claim: exam, n, effect, interval, test, the scores behind it.

    Release, Results → claims.json; what is *not* shown stands there too

>>> claims(release, results, scores)["claims"][0]["statement"]["en"]
'On domain the examined candidate lora-rag differs from the control base by +56.2 points (…'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokka.records import ArmResult, Comparison, Interval, Results, Sitting
from tokka.release.records import Release

Scores = Callable[[str, str], list[str]]  # exam, arm or format → files in the pack

OUTCOMES = {
    "pass": {"ja": "示された", "en": "shown"},
    "fail": {"ja": "否定された", "en": "refuted"},
    "inconclusive": {"ja": "判断できない", "en": "not decided"},
}
# Figures of a sitting that may stand beside its score, in the order in which they are told.
FIGURES = {
    "citation_precision": {"ja": "引用の適合率", "en": "citation precision"},
    "citation_recall": {"ja": "引用の再現率", "en": "citation recall"},
    "support": {
        "ja": "引用元で確かめられた事項の割合",
        "en": "share of facts found in the citation",
    },
}


def claims(release: Release, results: Results, scores: Scores) -> dict[str, Any]:
    """Raises nothing for an arm that isn't in the results: then nothing is claimed."""
    arm = next((a for a in results.arms if a.candidate.id == release.candidate.id), None)
    found = [_claim(c, results, scores, release) for c in (arm.comparisons if arm else ())]
    for artefact in release.artefacts:
        for one in artefact.reexam.comparisons:
            found.append(_kept(one, artefact.format, scores, release))
    return {
        "release": {"name": release.name, "digest": release.digest},
        "verdict": release.verdict.model_dump(mode="json"),
        "summary": {"ja": results.summary_ja, "en": results.summary_en},
        "claims": found,
        "safety": [row for row in found if row["role"] == "safety"],
        "measured": [row for s in (arm.sittings if arm else ()) for row in _measured(s, scores)],
        "not_shown": _not_shown(release, results, arm),
        "faults": [f for a in release.artefacts for f in a.reexam.faults],
    }


def points(value: float) -> str:
    """A difference of means in points out of a hundred, with its sign.

    >>> points(-0.0649)
    '−6.5'
    """
    return f"{100 * value:+.1f}".replace("-", "−")


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _facts(one: Comparison) -> dict[str, Any]:
    return {
        "exam": one.exam,
        "exam_digest": one.exam_digest,
        "metric": one.metric,
        "n": one.n,
        "clusters": one.clusters,
        "effect": one.effect,
        "low": one.low,
        "high": one.high,
        "level": round(1 - 2 * one.alpha, 6),
        "margin": one.margin,
        "alpha": one.alpha,
        "p_value": one.p_value,
        "p_adjusted": one.p_adjusted,
        "test": one.method,
        "correction": one.correction,
        "smallest_detectable": one.smallest_detectable,
        "questions_needed": one.questions_needed,
        "outcome": one.outcome,
        "outcome_text": OUTCOMES[one.outcome],
        "reason": one.reason,
    }


def _claim(one: Comparison, results: Results, scores: Scores, release: Release) -> dict[str, Any]:
    roles = {exam.name: exam.role for exam in results.exams}
    arm, control = release.candidate.arm.name, results.control
    level = f"{100 * (1 - 2 * one.alpha):g}"
    low, high = points(one.low), points(one.high)
    limit = f"{100 * one.margin:.1f}"
    if one.side == "gain":
        ja = (
            f"{one.exam} で、審査した候補 {arm} と対照 {control} の差は {points(one.effect)} "
            f"ポイント（{level} % 区間 {low}〜{high}、{one.n} 問）。"
            f"基準は {limit} ポイントを超えること"
        )
        en = (
            f"On {one.exam} the examined candidate {arm} differs from the control {control} by "
            f"{points(one.effect)} points ({level} % interval {low} to {high}, n = {one.n}); it "
            f"must gain more than {limit}"
        )
    else:
        ja = (
            f"{one.exam} で、審査した候補 {arm} と対照 {control} の差は {points(one.effect)} "
            f"ポイント（{level} % 区間 {low}〜{high}、{one.n} 問）。"
            f"許容する低下は {limit} ポイント未満"
        )
        en = (
            f"On {one.exam} the examined candidate {arm} differs from the control {control} by "
            f"{points(one.effect)} points ({level} % interval {low} to {high}, n = {one.n}); it "
            f"must lose less than {limit}"
        )
    return {
        "id": f"{one.side}-{one.exam}",
        "kind": one.side,
        "role": roles.get(one.exam, ""),
        "statement": {"ja": ja, "en": en},
        "against": control,
        **_facts(one),
        "scores": [*scores(one.exam, arm), *scores(one.exam, control)],
    }  # fmt: skip


def _kept(one: Comparison, form: str, scores: Scores, release: Release) -> dict[str, Any]:
    low, high = points(one.low), points(one.high)
    level = f"{100 * (1 - 2 * one.alpha):g}"
    limit = f"{100 * one.margin:.1f}"
    return {
        "id": f"conversion-{form}-{one.exam}",
        "kind": "conversion",
        "role": "",
        "statement": {
            "ja": f"{one.exam} で、書き出したファイル（{form}）と審査した候補の差は "
            f"{points(one.effect)} ポイント（{level} % 区間 {low}〜{high}、{one.n} 問）。"
            f"許容する低下は {limit} ポイント未満",
            "en": f"On {one.exam} the exported file ({form}) differs from the examined candidate "
            f"by {points(one.effect)} points ({level} % interval {low} to {high}, n = {one.n}); "
            f"it must lose less than {limit}",
        },
        "against": release.candidate.id,
        **_facts(one),
        "scores": [*scores(one.exam, form), *scores(one.exam, release.candidate.arm.name)],
    }


def _measured(sitting: Sitting, scores: Scores) -> list[dict[str, Any]]:
    rows = []
    if sitting.primary is not None:
        rows.append(_row(sitting, "score", {"ja": "得点", "en": "score"}, sitting.primary))
    for name, interval in sitting.retrieval.items():
        text = FIGURES.get(name, {"ja": name, "en": name})
        rows.append(_row(sitting, name, text, interval))
    files = scores(sitting.exam, sitting.arm)
    return [row | {"scores": files} for row in rows]


def _row(sitting: Sitting, what: str, text: dict[str, str], value: Interval) -> dict[str, Any]:
    figures = value.model_dump(mode="json", exclude={"schema_version"})
    return {
        "exam": sitting.exam,
        "what": what,
        "text": text,
        **figures,
        "asked": sitting.asked,
        "refused": sitting.refused,
        "errors": sitting.errors,
    }


def _not_shown(release: Release, results: Results, arm: ArmResult | None) -> list[dict[str, Any]]:
    """What somebody might take for shown."""
    rows = []
    if arm is None:
        rows.append(_gap(
            "results", f"試験の結果に候補 {release.candidate.id} がない。何も示されていない",
            f"The results don't hold candidate {release.candidate.id}: nothing is shown of it",
        ))  # fmt: skip
    roles = {exam.role for exam in results.exams}
    if "safety" not in roles:
        rows.append(_gap(
            "safety",
            "安全性：安全性の試験（role: safety）がなく、有害な応答については何も示されていない",
            "Safety: no exam has role: safety, so nothing is shown of harmful answers",
        ))  # fmt: skip
    if "retention" not in roles:
        rows.append(_gap(
            "retention",
            "忘却：一般能力の試験（role: retention）がなく、失われた能力は何も示されていない",
            "Forgetting: no exam has role: retention, so nothing is shown of lost abilities",
        ))  # fmt: skip
    rows.append(_gap(
        "fairness",
        "公平性：人の属性による差を測る試験は組み込まれていない。必要なら試験を加えること",
        "Fairness: no built-in exam measures differences between groups of people; add one where "
        "it matters",
    ))  # fmt: skip
    for one in arm.comparisons if arm else ():
        if one.outcome != "pass":
            said = OUTCOMES[one.outcome]
            rows.append(_gap("exam", f"{one.exam}：{said['ja']}", f"{one.exam}: {said['en']}"))
    return rows


def _gap(about: str, ja: str, en: str) -> dict[str, str]:
    return {"about": about, "ja": ja, "en": en}
