"""Scorers that suites brought: sets of letters, several spans, several numbers, and the judge."""

from __future__ import annotations

from typing import Any

import pytest

from tokka.exam.scorers import score
from tokka.exam.sitting import summarise
from tokka.records import Answer, Decoding, Exam, Form, Key, Message, Question, Score, Sitting


def marked(scorer: str, said: str, *targets: str, form: Form = "short", **key: Any) -> Score:
    question = Question(id="q", messages=(Message(role="user", content="?"),), form=form)
    exam = Exam(
        name="e",
        role="domain",
        digest="d",
        scorer=scorer,
        normalisation="tokens",
        questions=1,
    )
    answer = Answer(
        candidate_id="c",
        exam_digest="d",
        question_id="q",
        text=said,
        prompt_sha256="0",
        hash_kind="tokens",
        decoding=Decoding(method="text"),
    )
    return score(answer, Key(question_id="q", targets=targets, **key), question, exam)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("b,e", 1.0),
        ("E, B", 1.0),
        ("ｂとｅです。", 1.0),
        ("答えはbとeです。理由はaではないからです。", 1.0),
        ("The answer is b and e.", 1.0),
        ("**b, e**", 1.0),
        ("(b), (e)", 1.0),
        ("b,e\n理由：aは誤り", 1.0),
        ("b", 0.0),
        ("a,b,e", 0.0),
        ("be", 0.0),
        ("The answer is a nurse", 0.0),
        ("どれも正しくありません", 0.0),
    ],
)
def test_letters_are_a_set(said: str, value: float) -> None:
    assert marked("letters", said, "b,e").value == value


def test_a_small_a_before_a_word_is_no_letter() -> None:
    assert marked("letters", "The answer is a nurse", "a").value == 0.0
    assert marked("letters", "The answer is a.", "a").value == 1.0


def test_letters_accept_any_of_the_keys_sets_or_anything() -> None:
    assert [marked("letters", said, "a", "d").value for said in ("a", "d", "a,d")] == [1, 1, 0]
    assert marked("letters", "どれでもない", "*").value == 1.0


@pytest.mark.parametrize(
    ("said", "value"),
    [("1.2", 1.0), ("解答：①1.②2", 1.0), ("答えは1.2です", 1.0), ("1.3", 0.0), ("b", 0.0)],
)
def test_letters_read_digits_where_the_key_is_a_number(said: str, value: float) -> None:
    assert marked("letters", said, "1.2").value == value


def test_a_prohibited_letter_is_named() -> None:
    assert "c is prohibited" in marked("letters", "b,c", "b,e", prohibited=("c",)).explanation
    assert "prohibited" not in marked("letters", "b", "b,e", prohibited=("c",)).explanation


def test_no_letter_at_all_may_be_an_abstention() -> None:
    assert marked("letters", "わかりません", "a").status == "abstained"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("cost plus, fixed price", 1.0),
        ("They are fixed price, cost plus and time and material.", 1.0),
        ("fixed price, cost plus, time and material", 1.0),  # a list is what was asked for
        ("fixed price", 0.0),
        ("fixed price and not cost plus", 0.0),
        ("fixed price and cost plus. " + "And much more is said. " * 20, 0.0),
    ],
)
def test_every_span_must_stand_in_the_answer(said: str, value: float) -> None:
    assert marked("spans", said, "fixed price", "cost plus").value == value


def test_one_span_is_marked_as_contained() -> None:
    for said in ("fixed price", "fixed price or cost plus", "a, b, fixed price"):
        one, other = marked("spans", said, "fixed price"), marked("contained", said, "fixed price")
        assert one.value == other.value


@pytest.mark.parametrize(
    ("said", "value"),
    [("1577", 1.0), ("$1,577 million", 1.0), ("1,578", 0.0), ("1.6 billion", 0.0)],
)
def test_a_number_may_be_written_in_several_ways(said: str, value: float) -> None:
    found = marked("contained", said, "1577", "1577000000", form="number", tolerance=0.5)
    assert found.value == value


# ---- the judge ----------------------------------------------------------------------------------


def test_an_answer_for_the_judge_waits_without_a_value() -> None:
    found = marked("judge", "1. 休む", "1. 休む", points=("- 短いか",))
    assert (found.value, found.status) == (None, "waiting")
    assert "waits for a judge" in found.explanation


def test_a_sitting_that_waits_has_no_mean_and_is_not_complete() -> None:
    found = sitting([marked("judge", "x", "y")])
    assert (found.waiting, found.errors, found.answered) == (1, 0, 1)
    assert found.primary is None and not found.complete


def sitting(scores: list[Score]) -> Sitting:
    question = Question(id="q", messages=(Message(role="user", content="?"),), form="short")
    exam = Exam(
        name="e", role="domain", digest="d", scorer="judge", normalisation="tokens", questions=1
    )
    answer = Answer(
        candidate_id="c",
        exam_digest="d",
        question_id="q",
        text="x",
        prompt_sha256="0",
        hash_kind="tokens",
        decoding=Decoding(method="text"),
    )
    return summarise(
        exam, [question], [answer], scores, arm="a", candidate_id="c", split="test", limit=None
    )
