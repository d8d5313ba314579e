"""Endpoints that hide their scores answer by letter, and the letter is read without guessing."""

from __future__ import annotations

import pytest

from tokka.candidates.letters import letter_messages, parse_letter
from tokka.records import Message, Question

QUESTION = Question(
    id="q1",
    messages=(
        Message(role="system", content="社内規程に基づいて答える。"),
        Message(role="user", content="決裁者は誰ですか。"),
    ),
    form="choice",
    choices=("理事長", "部長", "店長"),
)


def test_the_options_stand_under_letters_and_only_the_letter_is_asked_for() -> None:
    messages = letter_messages(QUESTION, "ja")
    assert messages[0] == QUESTION.messages[0]
    assert "A. 理事長\nB. 部長\nC. 店長" in messages[1].content
    assert messages[1].content.startswith("決裁者は誰ですか。")
    assert "A–C" in messages[1].content and "1文字" in messages[1].content
    assert "letter" in letter_messages(QUESTION, "en")[1].content


def test_a_question_without_options_has_no_letters() -> None:
    with pytest.raises(ValueError, match="q1"):
        letter_messages(QUESTION.model_copy(update={"choices": ()}), "ja")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("B", 1),
        ("b.", 1),
        (" (C) ", 2),
        ("Ｂ", 1),
        ("Bです。", 1),
        ("答えはＢです。", 1),
        ("The answer is C.", 2),
        ("Answer: **D**", 3),
        ("選択肢Bが正しい", 1),
        ("B. 300万円", 1),
        ("A", 0),
        ("answer is (A) because B is wrong", 0),
        ("First I thought the answer is A, but the answer is B", 1),
        ("A nurse should", None),
        ("The answer is a nurse", None),
        ("B or C", None),
        ("I would say", None),
        ("", None),
        ("Z", None),
        ("E", None),
    ],
)
def test_a_letter_is_read_or_nothing_is(text: str, place: int | None) -> None:
    assert parse_letter(text, 4) == place
