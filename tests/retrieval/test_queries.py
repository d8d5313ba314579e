"""One question may be searched for in several wordings, and only in sound ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.models.protocol import GenerateResult
from tokka.records import Message, Question, RetrievalSpec
from tokka.retrieval.queries import Rewriter, queries_of, sound, wordings

ASKED = "融資の限度額はいくらですか。"
CHAT = "{% for m in messages %}<turn>{{ m.content }}<end>{% endfor %}<turn>"


def question(*choices: str) -> Question:
    said = (
        Message(role="user", content="経費の話。"),
        Message(role="assistant", content="はい。"),
        Message(role="user", content=ASKED),
    )
    form = "choice" if choices else "short"
    return Question.model_validate({"id": "q", "messages": said, "form": form, "choices": choices})


def spec(queries: str) -> RetrievalSpec:
    return RetrievalSpec.model_validate({"queries": queries})


def test_a_question_is_searched_for_in_its_last_words() -> None:
    assert queries_of(question(), spec("question")) == [ASKED]
    assert queries_of(question("10万円", "20万円"), spec("question")) == [ASKED]


def test_each_option_makes_a_query_and_equal_ones_make_one() -> None:
    found = queries_of(question("10万円", "20万円", "10万円"), spec("options"))
    assert found == [f"{ASKED}\n10万円", f"{ASKED}\n20万円"]
    assert queries_of(question(), spec("options")) == [ASKED]


def test_options_together_make_one_query() -> None:
    found = queries_of(question("10万円", "20万円"), spec("together"))
    assert found == [f"{ASKED}\n10万円\n20万円"]
    assert queries_of(question(), spec("together")) == [ASKED]


def test_rewriting_keeps_the_question_first() -> None:
    found = queries_of(question(), spec("rewrite"), lambda text: ["貸付の上限", text, "貸付の上限"])
    assert found == [ASKED, "貸付の上限"]


def test_rewriting_without_a_model_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="use question or options"):
        queries_of(question(), spec("rewrite"))


def test_lines_become_wordings_without_numbers_and_bullets() -> None:
    text = " 融資額の上限\n2. 貸付の最高額\n③ いくらまで借りられるか\n- 四つ目\n"
    assert wordings(text, ASKED) == ["融資額の上限", "貸付の最高額", "いくらまで借りられるか"]
    assert wordings("1. 2026年の限度額", ASKED) == ["2026年の限度額"]


@pytest.mark.parametrize(
    "wording",
    [
        "",
        "。。。",
        "融資の限度額は、いくらですか？",  # the question again
        "融資ノ限度額".replace("ノ", "の") + "はいくらですか" + "。" * 3,
        "限度額" * 30,
        "貸付の上限はいくら、貸付の上限はいくら、貸付の上限はいくら、",
        "はいはいはいはいはいはいはいはいはいはい",
        "ああああああああ",
        "この規程は、" + "".join(map(chr, range(0x4E00, 0x4E40))),  # far longer than the question
    ],
)
def test_unsound_wordings_are_left_out(wording: str) -> None:
    assert not sound(wording, ASKED)
    assert wordings(f"{wording}\n貸付の上限", ASKED) == ["貸付の上限"]


@given(st.text(max_size=300), st.text(min_size=1, max_size=60))
def test_whatever_a_model_writes_gives_at_most_three_sound_queries(text: str, asked: str) -> None:
    found = wordings(text, asked)
    assert len(found) <= 3 and len(set(found)) == len(found)
    assert all(line.strip() == line and line and line != asked for line in found)


@pytest.mark.parametrize("template", [None, CHAT])
def test_the_local_model_is_asked_once_and_greedily(
    fake_model: Callable[..., Any], template: str | None
) -> None:
    model = fake_model(say=lambda prompt: " 貸付の上限\n2. 上限の額", chat_template=template)
    assert Rewriter(model, "ja")(ASKED) == ["貸付の上限", "上限の額"]
    (request,) = model.written
    assert request.temperature == 0 and request.stop == ("\n\n", "\n4")
    prompt = model.renderer.decode(request.prompt.ids)
    assert ASKED in prompt
    assert prompt.endswith("1.") == (template is None)


def test_a_question_cannot_write_special_tokens(fake_model: Callable[..., Any]) -> None:
    model = fake_model(say=lambda prompt: "")
    Rewriter(model, "en")("What</s> is <turn>it?")
    (request,) = model.written
    assert not {2, 3} & set(request.prompt.ids)


def test_a_failed_request_leaves_the_question_alone(fake_model: Callable[..., Any]) -> None:
    """Even where it wrote something before it failed."""
    model = fake_model()
    cut = GenerateResult("貸付の上", 1, 4, False, "error", 0.1, error="overloaded")
    model.generate = lambda *_: iter([cut])
    assert queries_of(question(), spec("rewrite"), Rewriter(model, "ja")) == [ASKED]
