"""The gate refuses for every reason at once, each with its figure, its limit and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.project_settings import Policy
from tokka.records import (
    Arm,
    ArmResult,
    Candidate,
    Comparison,
    CorpusCount,
    Exam,
    Interval,
    Results,
    Sitting,
    Timing,
    Verdict,
)
from tokka.release.gate import Check, Evidence, GateDecision, gate
from tokka.release.gate_texts import TEXTS
from tokka.release.seal import Seal, SealedSitting

ROLES: dict[str, Any] = {"domain": "domain", "retention": "retention", "safety": "safety"}
POLICY = Policy()
Changed = Callable[..., Results]


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, n=40, method="Wilson 95 %")


def sitting(arm: str, exam: str, **changed: Any) -> Sitting:
    made = Sitting(
        candidate_id=f"id-{arm}",
        arm=arm,
        exam=exam,
        exam_digest=f"digest-{exam}",
        split="test",
        settings={},
        asked=40,
        answered=40,
        errors=0,
        refused=0,
        partial=False,
        primary=interval(0.9, 0.77, 0.96),
        retrieval={
            "citation_precision": interval(0.8, 0.7, 0.9),
            "citation_recall": interval(0.6, 0.5, 0.7),
        },
    )
    return made.model_copy(update=changed)


def comparison(exam: str, **changed: Any) -> Comparison:
    gain = exam == "domain"
    made = Comparison(
        candidate_id="id-rag",
        arm="rag",
        control_id="id-base",
        exam=exam,
        exam_digest=f"digest-{exam}",
        metric="contained",
        effect=0.3 if gain else -0.02,
        low=0.15 if gain else -0.06,
        high=0.45 if gain else 0.03,
        side="gain" if gain else "loss",
        margin=0.0 if gain else 0.1,
        alpha=0.05,
        p_value=0.01,
        p_adjusted=0.01,
        n=40,
        clusters=40,
        smallest_detectable=0.2,
        draws=10_000,
        seed=0,
        method="bootstrap",
        correction="Holm over 1 arms",
        outcome="pass",
        reason=f"{exam}: it is so.",
    )
    return made.model_copy(update=changed)


def arm_result(name: str, judged: bool = True) -> ArmResult:
    candidate = Candidate(
        id=f"id-{name}", arm=Arm(name=name), base_model="model/", base_digest="base"
    )
    return ArmResult(
        arm=candidate.arm,
        candidate=candidate,
        sittings=tuple(sitting(name, exam) for exam in ROLES),
        comparisons=tuple(comparison(exam) for exam in ROLES) if judged else (),
        verdict=Verdict(arm=name, candidate_id=f"id-{name}", outcome="pass", reasons=())
        if judged
        else None,
    )


def results() -> Results:
    return Results(
        project="bank",
        language="ja",
        control="base",
        policy={},
        exams=tuple(
            Exam(
                name=name,
                role=role,
                digest=f"digest-{name}",
                scorer="contained",
                normalisation="tokens",
                questions=40,
            )
            for name, role in ROLES.items()
        ),
        arms=(arm_result("base", judged=False), arm_result("rag")),
        corpus=CorpusCount(documents=1, chunks=1, examples=0),
        winner="rag",
        summary_ja="",
        summary_en="",
    )


def seal() -> Seal:
    return Seal(
        project="bank",
        project_digest="a" * 64,
        base_digest="b" * 64,
        limit=None,
        results_sha256="c" * 64,
        timings_sha256="d" * 64,
        exams={name: f"digest-{name}" for name in ROLES},
        candidates={"base": "id-base", "rag": "id-rag"},
        sittings=tuple(
            SealedSitting(
                arm=arm,
                exam=exam,
                folder=f"sit-{arm}-{exam}",
                digest="e" * 64,
                scores_sha256="f" * 64,
            )
            for arm in ("base", "rag")
            for exam in ROLES
        ),
    )


def evidence(**changed: Any) -> Evidence:
    timing = Timing(arm="rag", build_seconds=60, exam_seconds=60, answers=120, cost_usd=0)
    made = Evidence(
        sealed=seal(), found=seal(), again=results(), timing=timing, hourly_usd=3.6, floors={}
    )
    return replace(made, **changed)


def of_arm(name: str = "rag", **changed: Any) -> Results:
    found = results()
    arms = tuple(a.model_copy(update=changed) if a.arm.name == name else a for a in found.arms)
    return found.model_copy(update={"arms": arms})


def sat(exam: str, name: str = "rag", **changed: Any) -> Results:
    own = tuple(sitting(name, e, **(changed if e == exam else {})) for e in ROLES)
    return of_arm(name, sittings=own)


def compared(exam: str, **changed: Any) -> Results:
    return of_arm(comparisons=tuple(comparison(e, **(changed if e == exam else {})) for e in ROLES))


def decide(of: Results, policy: Policy = POLICY, arm: str = "rag", **changed: Any) -> GateDecision:
    """As if these results had been sealed and computed again."""
    return gate(of, policy, evidence(**{"again": of, **changed}), arm)


def only_reason(decision: GateDecision) -> Check:
    assert not decision.passed
    (reason,) = decision.reasons
    return reason


# ---- what passes --------------------------------------------------------------------------------


def test_an_arm_that_keeps_every_limit_passes() -> None:
    policy = Policy(
        required_exams=("retention", "safety"),
        max_detectable=0.2,
        min_citation_precision=0.7,
        min_citation_recall=0.5,
        max_usd_per_thousand=0.5,
        max_seconds_per_answer=0.5,
    )
    decision = decide(results(), policy, floors={"safety": 0.77})
    assert decision.passed and decision.outcome == "pass" and decision.reasons == ()
    assert decision.candidate_id == "id-rag"
    looked_at = {check.name for check in decision.checks}
    assert looked_at == {
        "results", "sitting", "gain", "forgetting", "safety", "verdict", "required exam", "power",
        "floor", "citation precision", "citation recall", "cost", "speed",
    }  # fmt: skip


def test_what_the_policy_does_not_ask_is_not_held_against_an_arm() -> None:
    unknown = sat("domain", retrieval={})
    assert decide(unknown, timing=None).passed


# ---- figures ------------------------------------------------------------------------------------

LIMITS: dict[str, tuple[Policy, dict[str, Any], Results, str, str, tuple[str, ...]]] = {
    "power": (
        Policy(max_detectable=0.1), {}, results(), "inconclusive", "power",
        ("20.0 points", "10.0", "160 questions", "add some"),
    ),
    "precision below": (
        Policy(min_citation_precision=0.95), {}, results(), "fail", "citation precision",
        ("precision 0.800", "0.700 to 0.900", "0.950", "search"),
    ),
    "precision unsure": (
        Policy(min_citation_precision=0.75), {}, results(), "inconclusive", "citation precision",
        ("0.800", "0.750", "add questions"),
    ),
    "recall below": (
        Policy(min_citation_recall=0.8), {}, results(), "fail", "citation recall",
        ("recall 0.600", "0.800"),
    ),
    "recall unmeasured": (
        Policy(min_citation_recall=0.1), {}, sat("domain", retrieval={}), "fail",
        "citation recall", ("not measured", "document_ids"),
    ),
    "cost": (
        Policy(max_usd_per_thousand=0.4), {}, results(), "fail", "cost",
        ("0.5 USD", "0.4", "smaller model"),
    ),
    "cost paid to a service": (
        Policy(max_usd_per_thousand=0.6), {}, sat("domain", cost_usd=0.024), "fail", "cost",
        ("0.7 USD", "0.6"),
    ),
    "cost without a price": (
        Policy(max_usd_per_thousand=9), {"hourly_usd": 0.0}, results(), "fail", "cost",
        ("no price", "hourly_usd"),
    ),
    "cost unmeasured": (
        Policy(max_usd_per_thousand=9), {"timing": None}, results(), "fail", "cost",
        ("9 USD", "tokka run"),
    ),
    "speed": (
        Policy(max_seconds_per_answer=0.3), {}, results(), "fail", "speed",
        ("0.5 seconds", "0.3", "smaller model"),
    ),
    "speed of another arm": (
        Policy(max_seconds_per_answer=9),
        {"timing": Timing(arm="base", build_seconds=0, exam_seconds=1, answers=9, cost_usd=0)},
        results(), "fail", "speed", ("how long", "9 seconds"),
    ),
    "floor": (
        POLICY, {"floors": {"safety": 0.99}}, results(), "fail", "floor",
        ("safety", "0.900", "0.990"),
    ),
    "floor unsure": (
        POLICY, {"floors": {"safety": 0.8}}, results(), "inconclusive", "floor",
        ("safety", "0.900 (0.770 to 0.960", "0.800"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_a_limit_that_is_not_kept_refuses_with_figure_limit_and_action(case: str) -> None:
    policy, changed, found, outcome, name, parts = LIMITS[case]
    decision = decide(found, policy, **changed)
    assert decision.outcome == outcome
    assert {check.name for check in decision.reasons} == {name}
    for part in parts:
        assert part in decision.reasons[0].en, part
    figures = re.findall(r"\d+\.\d+", decision.reasons[0].en)
    assert all(figure in decision.reasons[0].ja for figure in figures)


def test_every_domain_exam_that_measures_citations_is_held_to_them() -> None:
    low = {"citation_precision": interval(0.2, 0.1, 0.3)}
    found = sat("retention", retrieval=low)
    assert decide(found, Policy(min_citation_precision=0.7)).passed  # no domain exam
    roles = tuple(e.model_copy(update={"role": "domain"}) for e in found.exams)
    both = found.model_copy(update={"exams": roles})
    reasons = decide(both, Policy(min_citation_precision=0.7)).reasons
    assert [r.about for r in reasons if r.name == "citation precision"] == ["retention"]


@pytest.mark.parametrize(
    ("exam", "changed", "name", "outcome", "parts"),
    [
        ("domain", {"outcome": "fail"}, "gain", "fail", ("30.0 points", "more than 0.0")),
        (
            "domain", {"outcome": "inconclusive", "questions_needed": 310}, "gain", "inconclusive",
            ("about 310 questions", "add some"),
        ),
        (
            "domain", {"outcome": "inconclusive"}, "gain", "inconclusive",
            ("no practical number", "better arm"),
        ),
        ("retention", {"outcome": "fail"}, "forgetting", "fail", ("-2.0 points", "10.0")),
        (
            "retention", {"outcome": "inconclusive", "questions_needed": 99}, "forgetting",
            "inconclusive", ("about 99 questions", "10.0"),
        ),
        ("safety", {"outcome": "fail"}, "safety", "fail", ("-2.0 points", "10.0")),
        (
            "safety", {"outcome": "inconclusive", "questions_needed": 7}, "safety", "inconclusive",
            ("about 7 questions",),
        ),
        (
            "safety",
            {"outcome": "inconclusive", "method": "not tested", "reason": "they disagree"},
            "safety", "inconclusive", ("they disagree", "tokka run"),
        ),
    ],
)  # fmt: skip
def test_gain_forgetting_and_safety_must_each_be_shown(
    exam: str, changed: dict[str, Any], name: str, outcome: str, parts: tuple[str, ...]
) -> None:
    """Also where the verdict still says pass, as one written by hand would."""
    decision = decide(compared(exam, **changed))
    assert decision.outcome == outcome
    assert [r.name for r in decision.reasons] == [name, "verdict"]
    assert decision.reasons[0].about == exam
    for part in parts:
        assert part in decision.reasons[0].en


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_a_verdict_that_is_not_pass_refuses(outcome: Any) -> None:
    verdict = Verdict(arm="rag", candidate_id="id-rag", outcome=outcome, reasons=())
    decision = decide(of_arm(verdict=verdict))
    assert decision.outcome == outcome
    assert only_reason(decision).name == "verdict"


@pytest.mark.parametrize(
    "verdict",
    [None, Verdict(arm="rag", candidate_id="id-other", outcome="pass", reasons=())],
)
def test_a_verdict_must_be_there_and_of_this_candidate(verdict: Verdict | None) -> None:
    assert only_reason(decide(of_arm(verdict=verdict))).name == "verdict"


@pytest.mark.parametrize(("role", "name"), [("domain", "gain"), ("retention", "forgetting")])
def test_a_claim_needs_an_exam_of_its_role(role: str, name: str) -> None:
    found = results()
    without = found.model_copy(update={"exams": tuple(e for e in found.exams if e.role != role)})
    reason = only_reason(decide(without))
    assert (reason.name, reason.outcome) == (name, "inconclusive")
    assert f"role: {role}" in reason.en and f"role: {role}" in reason.ja


# ---- sittings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["rag", "base"])
@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"errors": 3, "answered": 37, "primary": None}, "3 of 40"),
        ({"waiting": 2}, "2 of 40"),
        ({"partial": True}, "without --limit"),
        ({"answered": 39}, "39 of 40"),
        ({"primary": None}, "40 of 40"),
        ({"asked": 0, "answered": 0}, "0 of 0"),
        ({"exam_digest": "another"}, "another exam"),
        ({"candidate_id": "another"}, "another exam or candidate"),
    ],
)
def test_a_sitting_that_is_not_whole_refuses_of_the_control_too(
    arm: str, changed: dict[str, Any], part: str
) -> None:
    reason = only_reason(decide(sat("safety", arm, **changed)))
    assert (reason.name, reason.about) == ("sitting", "safety")
    assert part in reason.en and arm in reason.en and arm in reason.ja


def test_an_exam_that_was_not_sat_refuses() -> None:
    own = tuple(sitting("rag", exam) for exam in ("domain", "retention"))
    assert "didn't sit" in only_reason(decide(of_arm(sittings=own))).en


def test_refused_and_silent_answers_are_shown_and_count_as_wrong() -> None:
    decision = decide(sat("domain", refused=5))
    assert decision.passed
    assert any("5 refused or silent" in check.en for check in decision.checks)


def test_a_required_exam_must_be_there_and_compared() -> None:
    policy = Policy(required_exams=("safety", "fairness"))
    reason = only_reason(decide(results(), policy))
    assert reason.about == "fairness" and "under exams:" in reason.en
    few = of_arm(comparisons=(comparison("domain"), comparison("retention")))
    names = {(r.name, r.about) for r in decide(few, policy).reasons}
    assert names >= {("required exam", "safety"), ("required exam", "fairness")}


def test_the_control_and_an_unknown_arm_are_refused() -> None:
    assert "control" in only_reason(decide(results(), arm="base")).en
    assert "'lora'" in only_reason(decide(results(), arm="lora")).en


def test_the_control_must_have_been_examined() -> None:
    alone = results().model_copy(update={"arms": results().arms[1:]})
    assert only_reason(decide(alone)).name == "control"
    other = results().model_copy(update={"control": "few-shot"})
    assert "few-shot" in only_reason(decide(other)).en


# ---- the results themselves ---------------------------------------------------------------------

FOUND: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "another project": ({"project": "insurer", "project_digest": "9" * 64}, ("'insurer'",)),
    "the project file": ({"project_digest": "9" * 64}, ("aaaaaaaaaaaa", "999999999999")),
    "the base model": ({"base_digest": "9" * 64}, ("base model", "999999999999")),
    "results.json": ({"results_sha256": "9" * 64}, ("results.json", "999999999999")),
    "timings.json": ({"timings_sha256": ""}, ("timings.json",)),
    "an exam's file": (
        {"exams": {**seal().exams, "safety": "9" * 64}}, ("exam safety", "999999999999"),
    ),
    "an exam more": ({"exams": {**seal().exams, "new": "9" * 64}}, ("exam new",)),
    "the candidate": (
        {"candidates": {"base": "id-base", "rag": "id-new"}}, ("id-rag", "id-new"),
    ),
    "the answers": (
        {"sittings": (*seal().sittings[:-1], seal().sittings[-1].model_copy(
            update={"digest": "9" * 64}))},
        ("answers of rag", "safety"),
    ),
    "the step of the answers": (
        {"sittings": (*seal().sittings[:-1], seal().sittings[-1].model_copy(
            update={"folder": "sit-else"}))},
        ("answers of rag", "safety"),
    ),
    "the scores": (
        {"sittings": (*seal().sittings[:-1], seal().sittings[-1].model_copy(
            update={"scores_sha256": ""}))},
        ("scores of rag", "safety"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FOUND)
def test_results_of_something_else_are_refused_by_digest(what: str) -> None:
    changed, parts = FOUND[what]
    decision = decide(results(), found=seal().model_copy(update=changed))
    assert decision.outcome == "fail"
    reason = only_reason(decision)
    for part in parts:
        assert part in reason.en, reason.en


def test_a_changed_exam_or_candidate_is_named_once_and_not_with_all_its_sittings() -> None:
    moved = tuple(s.model_copy(update={"folder": "sit-new"}) for s in seal().sittings)
    exams = {name: "9" * 64 for name in ROLES}
    decision = decide(
        results(), found=seal().model_copy(update={"exams": exams, "sittings": moved})
    )
    assert [r.about for r in decision.reasons] == list(ROLES)


def test_partial_results_are_refused_however_good() -> None:
    partial = seal().model_copy(update={"limit": 3})
    assert "first 3 questions" in only_reason(decide(results(), sealed=partial)).en


def test_results_without_a_seal_are_refused() -> None:
    assert "evidence.json" in only_reason(decide(results(), sealed=None)).en


def test_what_is_damaged_is_said_in_its_own_words() -> None:
    reason = only_reason(decide(results(), broken=("answers.jsonl: missing",), again=None))
    assert "answers.jsonl: missing" in reason.en and "answers.jsonl: missing" in reason.ja


def test_results_that_were_never_computed_again_are_refused() -> None:
    assert "weren't computed again" in only_reason(decide(results(), again=None)).en


def test_results_written_by_hand_differ_from_those_computed_again() -> None:
    """The whole chain of digests was made to fit: only the answers themselves tell."""
    forged = compared("domain", effect=0.9)
    reason = only_reason(gate(forged, POLICY, evidence(again=results()), "rag"))
    assert "arms[1].comparisons[0].effect" in reason.en


# ---- all at once --------------------------------------------------------------------------------


def test_every_reason_comes_at_once_in_both_languages() -> None:
    found = sat("retention", errors=1, answered=39, primary=None)
    policy = Policy(
        required_exams=("fairness",), max_detectable=0.1, min_citation_precision=0.95,
        max_usd_per_thousand=0.1, max_seconds_per_answer=0.1,
    )  # fmt: skip
    decision = decide(found, policy, sealed=None, floors={"safety": 0.99, "absent": 0.5})
    names = [r.name for r in decision.reasons]
    assert names == [
        "results", "sitting", "required exam", "power", "power", "power", "floor", "floor",
        "citation precision", "cost", "speed",
    ]  # fmt: skip
    for language in ("en", "ja"):
        texts = decision.texts(language)
        assert len(texts) == len(names) and all(texts)
    assert all(re.search(r"[ぁ-ん]", text) for text in decision.texts("ja"))


def test_both_languages_of_every_text_hold_the_same_figures() -> None:
    for key, text in TEXTS.items():
        fields = [sorted(set(re.findall(r"{(\w+)", said))) for said in (text.en, text.ja)]
        assert fields[0] == fields[1], key
        assert re.search(r"[ぁ-んァ-ヶ一-龠]", text.ja) and not re.search(r"[ぁ-ん]", text.en), key


def test_every_text_that_refuses_says_what_to_do() -> None:
    action = re.compile(
        r"{again}|add |improve|use a |answer faster|build a|release another|train less|mend|"
        r"set hourly|judge them|name one of|say what to do|how many questions|{why}",
        re.IGNORECASE,
    )
    held = {"results hold", "sat", "required there", "power enough"}
    for key, text in TEXTS.items():
        assert key in held or key.endswith(" pass") or action.search(text.en), key


shares = st.floats(0, 1, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    low=shares, high=shares, detectable=st.floats(0.001, 1), seconds=st.floats(0, 100),
    precision=shares, limit=st.floats(0.01, 1), most=st.floats(0.01, 100),
)  # fmt: skip
def test_a_stricter_policy_never_lets_more_through(
    low: float,
    high: float,
    detectable: float,
    seconds: float,
    precision: float,
    limit: float,
    most: float,
) -> None:
    low, high = sorted((low, high))
    found = sat("domain", retrieval={"citation_precision": interval((low + high) / 2, low, high)})
    timing = Timing(arm="rag", build_seconds=0, exam_seconds=seconds, answers=10, cost_usd=0)
    policy = Policy(
        max_detectable=limit, min_citation_precision=precision, max_seconds_per_answer=most
    )
    stricter = policy.model_copy(
        update={
            "max_detectable": limit / 2,
            "min_citation_precision": (1 + precision) / 2,
            "max_seconds_per_answer": most / 2,
        }
    )
    if decide(found, stricter, timing=timing).passed:
        assert decide(found, policy, timing=timing).passed
