"""What is said to a model: the same parts in the same places, whatever the arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tokka.models.batches import shared_prefix
from tokka.models.prompting import compose, context
from tokka.models.rendering import TokenRenderer
from tokka.records import Example, Message, Passage, PromptSpec


def user(text: str) -> Message:
    return Message(role="user", content=text)


def shot(n: int, *before: Message) -> Example:
    answered = (user(f"shot {n}?"), Message(role="assistant", content=f"answer {n}"))
    return Example(id=f"e{n}", messages=(*before, *answered))


def passage(number: int, text: str, title: str = "Rules") -> Passage:
    return Passage(
        number=number,
        chunk_id=f"c{number}",
        document_id="d",
        title=title,
        text=text,
        start=0,
        end=9,
    )


def said(messages: Any) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in messages]


def test_every_part_has_its_place() -> None:
    system = Message(role="system", content="of the exam")
    messages = compose(
        (system, user("first?"), Message(role="assistant", content="so."), user("then?")),
        spec=PromptSpec(system="of the arm", shots=2, format="One word."),
        shots=[shot(1, Message(role="system", content="of the shot")), shot(2)],
        passages=[passage(1, "the text")],
        language="en",
    )
    assert said(messages) == [
        ("system", "of the arm\nof the exam"),
        ("user", "Question: shot 1?"),
        ("assistant", "answer 1"),
        ("user", "Question: shot 2?"),
        ("assistant", "answer 2"),
        ("user", "Question: first?"),
        ("assistant", "so."),
        ("user", "Documents:\n[1] (Rules) the text\n\nQuestion: then?\nOne word."),
    ]


def test_a_bare_question_gets_its_label_only() -> None:
    assert said(compose((user("限度は"),), spec=PromptSpec(), language="ja")) == [
        ("user", "質問：限度は")
    ]
    assert said(compose((user("Who?"),), spec=PromptSpec(), language="fr")) == [
        ("user", "Question: Who?")
    ]


def test_passages_are_numbered_one_a_paragraph_with_their_titles() -> None:
    found = [passage(1, "一行目\n 二行目", "融資規程"), passage(2, "表", "")]
    assert context(found, "ja") == "資料：\n[1]（融資規程）一行目 二行目\n[2] 表"
    assert context(found[1:], "en") == "Documents:\n[2] 表"


@pytest.mark.parametrize("language", ["ja", "en"])
def test_system_and_shots_are_a_prefix_that_all_questions_share(
    make_tokenizer: Callable[..., Any], language: str
) -> None:
    """Pitfalls 4 and 5: shots stand in one order before what differs, so they are computed once."""
    renderer = TokenRenderer(make_tokenizer(), language)
    spec = PromptSpec(system="be brief", shots=2)
    shots = [shot(1), shot(2)]

    def ids(text: str, *found: Passage) -> tuple[int, ...]:
        messages = compose((user(text),), spec=spec, shots=shots, passages=found, language=language)
        return renderer.prompt(messages).ids

    prompts = [ids("Aあ"), ids("Bい", passage(1, "x")), ids("Cう", passage(1, "y"))]
    shown = renderer.text(compose((user(""),), spec=spec, shots=shots, language=language))
    before = shown[: shown.rindex(renderer.text((user("Q"),))[1:])]  # up to the last answer label
    label = compose((user(""),), spec=spec, language=language)[-1].content
    assert before.endswith(label)
    assert shared_prefix(prompts) >= 1 + len(before.removesuffix(label))  # BOS, then a token a char
    assert "answer 2" in renderer.decode(prompts[0][: shared_prefix(prompts)])


def test_what_goes_before_a_whole_text_is_nothing_where_the_arm_says_nothing() -> None:
    from tokka.models.prompting import before_completion

    assert before_completion(PromptSpec(), language="ja") == ""
    spec = PromptSpec(system="規程である。", format="一語で。")
    system = Message(role="system", content="of the shot")
    told = before_completion(spec, [shot(1, system)], [passage(1, "表", "")], language="ja")
    assert told == "規程である。\n\n質問：shot 1?\n答え：answer 1\n\n資料：\n[1] 表\n\n一語で。"
