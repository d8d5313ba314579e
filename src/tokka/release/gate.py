"""May this arm be released? Every limit of the policy, and whether the results still hold.

    Results, Policy, Evidence, arm → GateDecision: a Check for each thing looked at

Nothing is read here: what is on the disk comes as `Evidence`. A check that can't be made doesn't
hold. Limits on a figure with an interval are held by its bound, not by its estimate: a claim needs
an interval.

>>> decision = gate(results, project.policy, evidence, "lora")
>>> decision.outcome, decision.texts("en")
('fail', ('speed: 2.1 seconds per answer; at most 1 is allowed. Answer faster, …',))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tokka.records import (
    ArmResult,
    Comparison,
    Interval,
    Outcome,
    Record,
    Results,
    Sitting,
    Timing,
    canonical_json,
)
from tokka.release.gate_texts import AGAIN, KINDS, TEXTS, Texts
from tokka.release.seal import Seal, differences

Language = Literal["ja", "en"]


class Policy(Protocol):
    """What a release is held to; `Project.policy` is one. None and () ask nothing."""

    @property
    def control(self) -> str: ...
    @property
    def required_exams(self) -> tuple[str, ...]: ...
    @property
    def max_detectable(self) -> float | None: ...
    @property
    def min_citation_precision(self) -> float | None: ...
    @property
    def min_citation_recall(self) -> float | None: ...
    @property
    def max_usd_per_thousand(self) -> float | None: ...
    @property
    def max_seconds_per_answer(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the results rest on. `sealed` was written with them, `found` is the same taken now.

    `broken` says, in finished sentences, what couldn't be read or is no longer there. `again` are
    the results computed once more from the stored answers, None where that wasn't possible.
    `floors` are the least scores that the project asks of single exams. `hourly_usd` is the
    project's price of an hour of this machine.
    """

    sealed: Seal | None
    found: Seal
    broken: tuple[str, ...] = ()
    again: Results | None = None
    timing: Timing | None = None
    hourly_usd: float = 0.0
    floors: Mapping[str, float] = field(default_factory=dict)


class Check(Record):
    """One thing that was looked at. `en` and `ja` are a line each: the figure, and where it doesn't
    hold, the limit and the next action. `about` names the exam, where it is about one."""

    name: str
    about: str = ""
    outcome: Outcome
    en: str
    ja: str

    @property
    def holds(self) -> bool:
        return self.outcome == "pass"

    def text(self, language: str) -> str:
        return self.ja if language == "ja" else self.en


class GateDecision(Record):
    """`outcome` is pass where every check holds, fail where one fails, else inconclusive; both of
    these refuse."""

    arm: str
    candidate_id: str
    outcome: Outcome
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    @property
    def reasons(self) -> tuple[Check, ...]:
        """The checks for which it is refused."""
        return tuple(check for check in self.checks if not check.holds)

    def texts(self, language: str) -> tuple[str, ...]:
        return tuple(check.text(language) for check in self.reasons)


def gate(results: Results, policy: Policy, evidence: Evidence, arm: str) -> GateDecision:
    """Look at everything; refuse with every reason at once.

    A result of which anything is stale, partial, foreign or written by hand is refused, whatever
    its figures say.
    """
    own = next((result for result in results.arms if result.arm.name == arm), None)
    checks = [*_evidence(results, evidence), *_standing(results, policy, own, arm)]
    if own is not None and arm != policy.control:
        control = next((r for r in results.arms if r.arm.name == policy.control), None)
        checks += _sittings(results, own, control)
        checks += _comparisons(results, own)
        checks += _required(results, policy, own, control)
        checks += _power(policy, own)
        checks += _floors(evidence, own)
        checks += _citations(results, policy, own)
        checks += _costs(policy, evidence, own)
    outcomes = {check.outcome for check in checks}
    outcome: Outcome = "pass"
    if outcomes != {"pass"}:
        outcome = "fail" if "fail" in outcomes else "inconclusive"
    return GateDecision(
        arm=arm,
        candidate_id=own.candidate.id if own else "",
        outcome=outcome,
        checks=tuple(checks),
    )


def _check(name: str, outcome: Outcome, key: str, *, about: str = "", **values: Any) -> Check:
    said, values = TEXTS[key], {"about": about, "again": AGAIN, **values}

    def filled(language: Language) -> str:
        own = {k: getattr(v, language) if isinstance(v, Texts) else v for k, v in values.items()}
        text: str = getattr(said, language)
        return text.format(**own)

    return Check(name=name, about=about, outcome=outcome, en=filled("en"), ja=filled("ja"))


# ---- the results themselves -------------------------------------------------------------------


def _evidence(results: Results, evidence: Evidence) -> Iterator[Check]:
    name, faults = "results", []
    if evidence.sealed is None:
        faults.append(_check(name, "fail", "unsealed"))
    else:
        faults += [
            _check(
                name, "fail", one.code, about=one.exam or one.subject, arm=one.subject,
                sealed=_short(one.sealed), found=_short(one.found),
            )
            for one in differences(evidence.sealed, evidence.found)
        ]  # fmt: skip
    faults += [_check(name, "fail", "broken", why=why) for why in evidence.broken]
    if evidence.again is not None:
        places = _differing(results, evidence.again)
        if places:
            faults.append(_check(name, "fail", "recomputed", places=", ".join(places[:5])))
    elif not faults:
        faults.append(_check(name, "fail", "not recomputed"))
    yield from faults or [_check(name, "pass", "results hold")]


def _short(value: str) -> str:
    return value[:12] if len(value) == 64 else value


def _differing(written: Results, again: Results) -> list[str]:
    """Places such as `arms[1].comparisons[0].effect` at which two results differ."""
    if canonical_json(written) == canonical_json(again):
        return []
    return list(_places("", written.model_dump(mode="json"), again.model_dump(mode="json")))


def _places(place: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inner = f"{place}.{key}" if place else str(key)
            yield from _places(inner, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _places(f"{place}[{number}]", one, other)
    elif old != new:
        yield place


def _standing(results: Results, policy: Policy, own: ArmResult | None, arm: str) -> Iterator[Check]:
    names = [result.arm.name for result in results.arms]
    if own is None:
        yield _check("candidate", "fail", "no arm", arm=arm, arms=", ".join(names))
    elif arm == policy.control:
        yield _check("candidate", "fail", "is control", arm=arm)
    if policy.control not in names:
        yield _check("control", "fail", "no control", control=policy.control)
    elif results.control != policy.control:
        yield _check(
            "control", "fail", "other control", control=policy.control, compared=results.control
        )


# ---- sittings ---------------------------------------------------------------------------------


def _sittings(results: Results, own: ArmResult, control: ArmResult | None) -> Iterator[Check]:
    for result in filter(None, (own, control)):
        sat = {sitting.exam: sitting for sitting in result.sittings}
        for exam in results.exams:
            sitting = sat.get(exam.name)
            key, values = _incomplete(sitting, exam.digest, result.candidate.id)
            if key:
                yield _check("sitting", "fail", key, about=exam.name, arm=result.arm.name, **values)
            elif sitting is not None and result is own:
                yield _check(
                    "sitting", "pass", "sat", about=exam.name,
                    asked=sitting.asked, refused=sitting.refused,
                )  # fmt: skip


def _incomplete(sitting: Sitting | None, digest: str, candidate: str) -> tuple[str, dict[str, Any]]:
    """Why a sitting doesn't count; empty where it does."""
    if sitting is None:
        return "not sat", {}
    if sitting.partial:
        return "sitting partial", {"asked": sitting.asked}
    if sitting.errors:
        return "sitting errors", {"errors": sitting.errors, "asked": sitting.asked}
    if sitting.waiting:
        return "sitting waiting", {"waiting": sitting.waiting, "asked": sitting.asked}
    if not sitting.asked or not sitting.complete or sitting.primary is None:
        return "sitting incomplete", {"answered": sitting.answered, "asked": sitting.asked}
    if (sitting.exam_digest, sitting.candidate_id) != (digest, candidate):
        return "sitting foreign", {}
    return "", {}


def _required(
    results: Results, policy: Policy, own: ArmResult, control: ArmResult | None
) -> Iterator[Check]:
    """Complete sittings are checked above: here, that a required exam is there at all."""
    there = {exam.name for exam in results.exams}
    compared = {c.exam for c in own.comparisons}
    for name in policy.required_exams:
        if name not in there:
            yield _check("required exam", "fail", "required missing", about=name)
        elif name not in compared:
            yield _check("required exam", "fail", "not compared", about=name, arm=own.arm.name)
        else:
            yield _check("required exam", "pass", "required there", about=name)


# ---- comparisons ------------------------------------------------------------------------------

CLAIMS: Mapping[str, str] = {"domain": "gain", "retention": "forgetting", "safety": "safety"}


def _comparisons(results: Results, own: ArmResult) -> Iterator[Check]:
    by_exam = {c.exam: c for c in own.comparisons}
    for exam in results.exams:
        claim, compared = CLAIMS[exam.role], by_exam.get(exam.name)
        if compared is None:
            yield _check(claim, "fail", "not compared", about=exam.name, arm=own.arm.name)
        else:
            yield _compared(claim, compared)
    roles = {exam.role for exam in results.exams}
    for role in ("domain", "retention"):
        if role not in roles:
            yield _check(CLAIMS[role], "inconclusive", f"no {role}")
    verdict = own.verdict
    if verdict is None:
        yield _check("verdict", "fail", "no verdict", arm=own.arm.name)
    elif verdict.candidate_id != own.candidate.id:
        yield _check("verdict", "fail", "verdict foreign", arm=own.arm.name)
    elif verdict.outcome == "pass" and all(c.outcome == "pass" for c in own.comparisons):
        yield _check("verdict", "pass", "verdict pass")
    else:
        outcome: Outcome = "fail" if verdict.outcome == "fail" else "inconclusive"
        yield _check("verdict", outcome, f"verdict {verdict.outcome}")


def _compared(claim: str, c: Comparison) -> Check:
    needed = c.questions_needed
    key = f"{c.side} {c.outcome}"
    if c.outcome == "inconclusive":
        key = "untested" if c.method == "not tested" else f"{key} {'n' if needed else 'margin'}"
    return _check(
        claim, c.outcome, key,
        about=c.exam, effect=_points(c.effect), low=_points(c.low), high=_points(c.high),
        margin=_points(c.margin), n=c.n, needed=needed, why=c.reason,
    )  # fmt: skip


def _power(policy: Policy, own: ArmResult) -> Iterator[Check]:
    """Standard errors shrink with √n, so the same clusters need n·(seen/limit)² questions."""
    limit = policy.max_detectable
    if limit is None:
        return
    for c in own.comparisons:
        seen = c.smallest_detectable
        needed = max(c.n + 1, math.ceil(c.n * (seen / limit) ** 2))
        yield _check(
            "power", "pass" if seen <= limit else "inconclusive",
            "power enough" if seen <= limit else "power small",
            about=c.exam, seen=_points(seen), limit=_points(limit), n=c.n, needed=needed,
        )  # fmt: skip


# ---- figures with limits ----------------------------------------------------------------------


def _floors(evidence: Evidence, own: ArmResult) -> Iterator[Check]:
    sat = {sitting.exam: sitting.primary for sitting in own.sittings}
    for exam, floor in evidence.floors.items():
        found = sat.get(exam)
        if found is None:
            yield _check("floor", "fail", "no figure", about=exam)
        else:
            yield _at_least("floor", "floor", exam, found, floor)


def _citations(results: Results, policy: Policy, own: ArmResult) -> Iterator[Check]:
    """Every domain exam that measures it is held to it, and one must."""
    domain = {exam.name for exam in results.exams if exam.role == "domain"}
    limits = {"precision": policy.min_citation_precision, "recall": policy.min_citation_recall}
    for kind, limit in limits.items():
        if limit is None:
            continue
        name, said = f"citation {kind}", KINDS[kind]
        measured = [
            (sitting.exam, sitting.retrieval[f"citation_{kind}"])
            for sitting in own.sittings
            if sitting.exam in domain and f"citation_{kind}" in sitting.retrieval
        ]
        if not measured:
            yield _check(name, "fail", "no citation", kind=said)
        for exam, interval in measured:
            yield _at_least(name, "citation", exam, interval, limit, kind=said)


def _at_least(
    name: str, key: str, exam: str, interval: Interval, limit: float, **values: Any
) -> Check:
    """Held by the lower bound: an estimate above the limit shows nothing yet."""
    outcome: Outcome = "inconclusive"
    if interval.low >= limit:
        outcome = "pass"
    elif interval.high < limit:
        outcome = "fail"
    return _check(
        name, outcome, f"{key} {outcome}",
        about=exam, figure=_share(interval.estimate), low=_share(interval.low),
        high=_share(interval.high), limit=_share(limit), n=interval.n, **values,
    )  # fmt: skip


def _costs(policy: Policy, evidence: Evidence, own: ArmResult) -> Iterator[Check]:
    """What an answer took in the exam, without what the arm took to build."""
    timing = evidence.timing
    limits: Sequence[tuple[str, float | None]] = (
        ("cost", policy.max_usd_per_thousand),
        ("speed", policy.max_seconds_per_answer),
    )
    for name, limit in limits:
        if limit is None:
            continue
        if timing is None or not timing.answers or timing.arm != own.arm.name:
            yield _check(name, "fail", f"no {name}", limit=_number(limit))
            continue
        seconds = timing.exam_seconds / timing.answers
        figure = seconds
        if name == "cost":
            paid = sum(sitting.cost_usd for sitting in own.sittings)
            figure = 1000 * (paid / timing.answers + evidence.hourly_usd / 3600 * seconds)
            if figure == 0 < limit:
                yield _check(name, "fail", "no price", limit=_number(limit))
                continue
        holds = figure <= limit
        yield _check(
            name, "pass" if holds else "fail", f"{name} {'pass' if holds else 'fail'}",
            figure=_number(figure), limit=_number(limit),
        )  # fmt: skip


def _points(value: float) -> str:
    """A share as points out of a hundred: 0.105 → 10.5."""
    return f"{100 * value:.1f}"


def _share(value: float) -> str:
    return f"{value:.3f}"


def _number(value: float) -> str:
    return f"{value:.4g}"
