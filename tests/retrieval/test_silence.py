"""How sure the search is, and the threshold that development questions choose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.records import Passage, RetrievalSpec
from tokka.retrieval.silence import FEWEST, Heard, confidence, silence_said, tune

pytest.importorskip("sudachipy")
pytest.importorskip("snowballstemmer")

LOAN = "融資の限度額は300万円とする。理事長の承認を得る。"
SCORES = st.one_of(st.none(), st.floats(-1, 1))


def passage(text: str, number: int = 1, **scores: Any) -> Passage:
    return Passage(
        number=number, chunk_id=f"c{number}", document_id="d", title="", text=text, start=0,
        end=len(text), **scores,
    )  # fmt: skip


def heard(*rows: tuple[float, float, bool]) -> list[Heard]:
    """Filled up with sure and right answers to as many as are needed."""
    filled = [Heard(0.99, 1.0, False)] * (FEWEST - len(rows))
    return [Heard(*row) for row in rows] + filled


# ---- confidence -------------------------------------------------------------------------------


def test_no_passage_means_no_confidence() -> None:
    assert confidence("融資の限度額は？", [], "ja") == 0.0


def test_a_passage_with_the_questions_words_is_surer_than_one_without() -> None:
    held = confidence("融資の限度額は誰が承認するか", [passage(LOAN)], "ja")
    other = confidence("育児休業は何日取れるか", [passage(LOAN)], "ja")
    assert held > 0.6 > 0.2 > other


def test_numbers_count_by_value_whatever_they_are_written_in() -> None:
    asked = "三百万円を超える融資は？"
    assert confidence(asked, [passage(LOAN)], "ja") > confidence(
        asked, [passage(LOAN.replace("300", "30"))], "ja"
    )


def test_words_that_only_ask_say_nothing() -> None:
    with_it = "When does the tug leave?"
    assert confidence(with_it, [passage("The tug leaves at noon.")], "en") == confidence(
        "tug leave", [passage("The tug leaves at noon.")], "en"
    )


def test_full_width_is_the_same_question() -> None:
    asked = "ＡＴＭの稼働時間は２１時までか"
    found = [passage("ATMの稼働時間は21時までとする。")]
    assert confidence(asked, found, "ja") == confidence("ATMの稼働時間は21時までか", found, "ja")


def test_a_passage_far_ahead_of_the_next_is_surer() -> None:
    def sure(second: float) -> float:
        found = [passage(LOAN, 1, lexical=10.0), passage(LOAN, 2, lexical=second)]
        return confidence("融資の限度額は？", found, "ja")

    assert sure(1.0) > sure(9.0)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_nearer_in_meaning_is_never_less_sure(one: float, other: float) -> None:
    low, high = sorted((one, other))
    asked = "融資の限度額は？"
    assert confidence(asked, [passage(LOAN, dense=low)], "ja") <= confidence(
        asked, [passage(LOAN, dense=high)], "ja"
    )


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_better_reranked_passage_is_never_less_sure(one: float, other: float) -> None:
    low, high = sorted((one, other))
    asked = "融資の限度額は？"
    assert confidence(asked, [passage(LOAN, rerank=low)], "ja") <= confidence(
        asked, [passage(LOAN, rerank=high)], "ja"
    )


@given(st.text(max_size=20), st.lists(st.tuples(st.text(max_size=20), SCORES, SCORES), max_size=3))
def test_a_confidence_lies_between_0_and_1(asked: str, found: list[tuple[str, Any, Any]]) -> None:
    passages = [
        passage(text, n, lexical=None if lexical is None else abs(lexical), dense=dense)
        for n, (text, lexical, dense) in enumerate(found, 1)
    ]
    assert 0 <= confidence(asked, passages, "en") <= 1


# ---- the threshold ----------------------------------------------------------------------------


def test_the_threshold_parts_what_is_answered_from_what_isnt() -> None:
    tuned = tune([heard((0.2, 0.0, True), (0.3, 0.0, True), (0.5, 1.0, False))])
    assert tuned.threshold == 0.4
    assert (tuned.questions, tuned.unanswerable) == (FEWEST, 2)
    best = next(one for one in tuned.tried if one.threshold == 0.4)
    assert (best.mean, best.silent) == (1.0, 0.2)


def test_a_threshold_of_0_is_never_silent() -> None:
    tuned = tune([heard((0.0, 1.0, False), (0.2, 0.0, True))])
    assert tuned.tried[0] == (0.0, 0.9, 0.0)


def test_an_answer_that_would_be_right_is_worth_more_than_silence() -> None:
    rows = [(0.2, 1.0, False), (0.3, 0.0, True), (0.1, 1.0, False)]
    assert tune([heard(*rows)]).threshold == 0.0


def test_an_arm_that_says_itself_that_there_is_no_answer_needs_no_silence() -> None:
    """Ties go to the lower threshold."""
    assert tune([heard((0.2, 1.0, True), (0.5, 1.0, False))]).threshold == 0.0


def test_of_equally_good_thresholds_the_lowest_is_taken() -> None:
    tuned = tune([heard((0.2, 0.0, True), (0.4, 0.0, False), (0.6, 0.0, False))])
    assert tuned.threshold == pytest.approx(0.3)


def test_each_exam_counts_the_same_however_long() -> None:
    """The long exam has nothing to be silent on and loses by it; the short one gains as much."""
    short = [Heard(0.2, 0.0, True), Heard(0.9, 1.0, False)]
    long = [Heard(0.2, 1.0, False)] + [Heard(0.9, 1.0, False)] * 9
    assert tune([short, long]).threshold == pytest.approx(0.55)
    assert tune([short + long]).threshold == 0.0


def test_too_little_to_choose_by_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"at least 10 development questions.*got 9.*\"dev\""):
        tune([heard((0.2, 0.0, True))[:9]])
    with pytest.raises(UsageError, match='add rows with "unanswerable": true and "split": "dev"'):
        tune([heard((0.2, 0.0, False))])


def test_silence_is_said_in_the_candidates_language() -> None:
    assert silence_said("ja") == "資料には答えが見つかりません。"
    assert silence_said("en") == silence_said("de") == "The documents don't hold the answer."


def test_a_threshold_off_the_scale_is_refused() -> None:
    assert RetrievalSpec(silence=1).silence == 1.0
    for silence in (-0.1, 40.0):
        with pytest.raises(ValueError, match="silence must be a number from 0 to 1 or tuned"):
            RetrievalSpec(silence=silence)
