"""What an answer is worth, and what it never becomes: a failed question is neither 0 nor gone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tokka.errors import IntegrityError, UsageError
from tokka.exam.importing import SHORT_SCORERS
from tokka.exam.scorers import BUILTIN, score, scorer
from tokka.exam.scorers.choice import normalised
from tokka.exam.scorers.short import best_f1, why_not_contained
from tokka.exam.scorers.stance import stance_of
from tokka.records import Answer, Decoding, Exam, Form, Key, Message, Normalisation, Question, Score

CHOICES = ("300万円", "五百万円以下", "千円")


def ask(form: Form) -> Question:
    return Question(
        id="q1",
        messages=(Message(role="user", content="いくらですか"),),
        form=form,
        choices=CHOICES if form == "choice" else (),
    )


def answered(text: str = "", **fields: Any) -> Answer:
    return Answer(
        candidate_id="c",
        exam_digest="d",
        question_id="q1",
        text=text,
        prompt_sha256="0",
        hash_kind="tokens",
        decoding=Decoding(method="text"),
        **fields,
    )


def exam(normalisation: Normalisation = "sum", by: str = "contained") -> Exam:
    return Exam(
        name="e",
        role="domain",
        digest="d",
        scorer=by,
        normalisation=normalisation,
        questions=1,
    )


def short(text: str, *targets: str, by: str = "contained") -> Score:
    return score(answered(text), Key(question_id="q1", targets=targets), ask("short"), exam(by=by))


def number(text: str, target: str, unit: str = "", tolerance: float = 0.0) -> Score:
    key = Key(question_id="q1", targets=(target,), unit=unit, tolerance=tolerance)
    return score(answered(text), key, ask("number"), exam())


def chosen(values: tuple[float, ...], right: int, normalisation: Normalisation = "sum") -> Score:
    key = Key(question_id="q1", targets=(CHOICES[right],), choice=right)
    answer = answered(CHOICES[0], choice_loglikelihoods=values, choice_lengths=(2, 6, 1))
    return score(answer, key, ask("choice"), exam(normalisation))


# ---- choice -----------------------------------------------------------------------------------


def test_the_normalisation_decides_which_option_is_the_likeliest() -> None:
    values = (-4.0, -9.0, -3.0)
    assert chosen(values, 2, "sum").value == 1.0
    assert chosen(values, 1, "tokens").value == 1.0  # -2.0, -1.5, -3.0
    assert normalised(values, CHOICES, (2, 6, 1), "characters") == [-4 / 5, -9 / 6, -3 / 2]
    assert normalised(values, CHOICES, (2, 6, 1), "bytes") == [-4 / 9, -9 / 18, -3 / 6]
    assert chosen(values, 0, "characters").value == 1.0
    assert chosen(values, 0, "bytes").value == 1.0


def test_a_tie_goes_to_the_first_option_and_says_so() -> None:
    tied = chosen((-2.0, -1.0, -1.0), 1)
    assert tied.value == 1.0 and "tie with C" in tied.explanation
    assert chosen((-2.0, -1.0, -1.0), 2).value == 0.0


@pytest.mark.parametrize(
    "values", [(-1.0, math.nan, -2.0), (-1.0, -2.0), (-math.inf, -math.inf, -math.inf)]
)
def test_unusable_likelihoods_are_an_error_and_not_a_wrong_answer(
    values: tuple[float, ...],
) -> None:
    broken = chosen(values, 0)
    assert broken.value is None and broken.status == "error" and broken.explanation


def test_an_impossible_option_does_not_spoil_the_others() -> None:
    assert chosen((-math.inf, -1.0, -2.0), 1).value == 1.0


@pytest.mark.parametrize(
    ("text", "choice", "value"),
    [("B", None, 1.0), ("答えはAです", None, 0.0), ("", 1, 1.0), ("五百万円以下", None, 1.0)],
)
def test_an_answer_by_letter_is_scored_too(text: str, choice: int | None, value: float) -> None:
    key = Key(question_id="q1", targets=(CHOICES[1],), choice=1)
    assert score(answered(text, choice=choice), key, ask("choice"), exam()).value == value


def test_an_answer_that_names_no_option_is_wrong_and_one_that_declines_says_so() -> None:
    key = Key(question_id="q1", targets=(CHOICES[1],), choice=1)
    vague = score(answered("場合によります"), key, ask("choice"), exam())
    assert (vague.value, vague.status) == (0.0, "scored")
    unknown = score(answered("わかりません"), key, ask("choice"), exam())
    assert (unknown.value, unknown.status) == (0.0, "abstained")


# ---- short ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("３，５００万円です。", "3500万円"),
        ("令和6年4月1日から", "2024年4月1日"),
        ("2024年4月1日", "4月1日"),
        ("答え：理事長", "理事長"),
        ("The answer is the charge nurse.", "charge nurse"),
        ("within 30 minutes", "30 minutes"),
        ("窓口担当者が、本人確認の上、理事長に報告します", "理事長"),
        ("確か理事長です", "理事長"),
        ("form no. 12", "12"),
        ("3か月です", "3"),
        ("C++です", "C++"),
    ],
)
def test_an_accepted_text_is_found_in_a_sentence(text: str, target: str) -> None:
    assert why_not_contained(text, target) == ""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("100", "10"),
        ("10.5", "10"),
        ("130万円です", "30万円"),
        ("15日以内", "5日以内"),
        ("2〜3日", "3日"),
        ("13%", "3%"),
        ("副部長", "部長"),
        ("非課税です", "課税"),
        ("sodium", "so"),
        ("C++", "C"),
        ("承認は必要ありません", "必要"),
        ("no approval is needed", "approval"),
        ("it isn't the charge nurse", "charge nurse"),
        ("理事長または専務理事", "理事長"),
        ("500万円か300万円", "300万円"),
        ("the nurse or the doctor", "nurse"),
        ("doctor/nurse", "nurse"),
        ("部長、課長、理事長", "理事長"),
        ("あ" * 100 + "理事長", "理事長"),
        ("専務理事", "理事長"),
    ],
)
def test_part_of_a_word_a_denial_or_a_list_does_not_count(text: str, target: str) -> None:
    assert why_not_contained(text, target)


def test_any_accepted_text_counts_and_f1_is_shown_beside() -> None:
    found = short("理事長が決裁する", "代表理事", "理事長")
    assert found.value == 1.0 and "F1" in found.explanation
    wrong = short("専務が決裁する", "代表理事", "理事長")
    assert wrong.value == 0.0 and wrong.status == "scored"


def test_exact_wants_the_whole_answer_and_f1_gives_a_share() -> None:
    assert short("理事長です。", "理事長", by="exact").value == 1.0
    assert short("理事長の決裁", "理事長", by="exact").value == 0.0
    # 3 of 6 characters shared with a target of 3: precision 1/2, recall 1
    assert short("理事長の決裁", "理事長", by="f1").value == pytest.approx(2 / 3)
    key = Key(question_id="q1", targets=("the charge nurse",))
    # after the article: 2 of 4 words shared with a target of 2
    assert best_f1("charge nurse on duty", key) == pytest.approx(2 / 3)


# ---- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target", "unit", "tolerance", "value"),
    [
        ("300万円です", "300", "万円", 0, 1.0),
        ("3,000,000円", "300", "万円", 0, 1.0),
        ("300", "300", "万円", 0, 1.0),
        ("第5条により300万円", "300", "万円", 0, 1.0),
        ("90分", "1.5", "時間", 0, 1.0),
        ("300ドル", "300", "円", 0, 0.0),
        ("301円", "300", "円", 1, 1.0),
        ("302円", "300", "円", 1, 0.0),
        ("16-3-4=9, so the answer is 18", "18", "", 0, 1.0),
        ("$18", "18", "", 0, 1.0),
        ("40床です", "40", "床", 0, 1.0),
        ("12 patients in 3 rooms", "3", "rooms", 0, 1.0),
        ("-5", "5", "", 0, 0.0),
        ("なし", "5", "", 0, 0.0),
    ],
)
def test_a_number_is_right_in_any_unit_of_its_kind_and_within_tolerance(
    text: str, target: str, unit: str, tolerance: float, value: float
) -> None:
    assert number(text, target, unit, tolerance).value == value


def test_a_wrong_unit_is_named() -> None:
    assert "300ドル is in another unit than 300円" in number("300ドル", "300", "円").explanation


# ---- statuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["choice", "short", "number"])
def test_a_failed_question_has_no_value_and_a_declined_one_is_worth_nothing(form: Form) -> None:
    key = Key(question_id="q1", targets=("3",), choice=0 if form == "choice" else None)
    failed = score(answered(status="error", error="timeout"), key, ask(form), exam())
    assert (failed.value, failed.status) == (None, "error") and "timeout" in failed.explanation
    for status in ("refused", "abstained"):
        declined = score(answered("3", status=status), key, ask(form), exam())
        assert (declined.value, declined.status) == (0.0, status)


@pytest.mark.parametrize(
    ("text", "stance"),
    [
        ("わかりません。", "abstained"),
        ("資料には記載がありません。", "abstained"),
        ("I don’t know.", "abstained"),
        ("The policy does not mention it.", "abstained"),
        ("", "abstained"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("申し訳ありませんが、お答えできません。", "refused"),
        ("記載はありませんが、300万円です", "answered"),
        ("必要ありません", "answered"),
        ("No.", "answered"),
    ],
)
def test_declining_is_told_from_answering(text: str, stance: str) -> None:
    assert stance_of(text) == stance


def test_a_right_answer_counts_even_when_it_doubts() -> None:
    assert short("わかりません。理事長だと思います", "理事長").value == 1.0
    assert short("わかりません。部長だと思います", "理事長").status == "abstained"


def test_an_answer_is_never_scored_with_another_questions_key() -> None:
    with pytest.raises(IntegrityError, match="q2"):
        score(answered("3"), Key(question_id="q2", targets=("3",)), ask("short"), exam())


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_built_in_scorer_resolves(name: str) -> None:
    assert callable(scorer(name))


def test_an_unknown_scorer_is_refused_by_name() -> None:
    assert set(SHORT_SCORERS) <= set(BUILTIN)
    with pytest.raises(UsageError, match="bleu"):
        scorer("bleu")


# ---- questions without an answer ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fields", "value", "status"),
    [
        ("資料には答えが見つかりません。", {"status": "abstained"}, 1.0, "scored"),
        ("資料には記載がありません。", {}, 1.0, "scored"),
        ("I don't know.", {}, 1.0, "scored"),
        ("300万円", {}, 0.0, "scored"),
        ("", {}, 0.0, "scored"),  # an empty text says nothing
        ("お答えは差し控えます。", {}, 0.0, "refused"),
        ("", {"status": "error", "error": "timeout"}, None, "error"),
    ],
)
@pytest.mark.parametrize("by", ["contained", "f1", "letters", "spans", "judge"])
def test_where_there_is_no_answer_saying_so_is_right(
    said: str, fields: dict[str, Any], value: float | None, status: str, by: str
) -> None:
    key = Key(question_id="q1", targets=(), unanswerable=True)
    own = exam(by=by)
    found = score(answered(said, **fields), key, ask("short"), own)
    assert (found.value, found.status) == (value, status)


def test_silence_on_a_question_that_has_an_answer_is_worth_nothing() -> None:
    key = Key(question_id="q1", targets=("300万円",))
    found = score(
        answered("資料には答えが見つかりません。", status="abstained"), key, ask("short"), exam()
    )
    assert (found.value, found.status) == (0.0, "abstained")
