"""Lessons teach the answer and its end, in an order laid down before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.models.rendering import TokenRenderer
from tokka.records import FinetuneSpec, Message, ReplaySpec
from tokka.training.lessons import Lesson, lesson, plan_batches

ASK = (Message(role="user", content="Question: Who?"),)


@pytest.fixture
def renderer(make_tokenizer: Callable[..., Any]) -> TokenRenderer:
    return TokenRenderer(make_tokenizer(), "en")


def spec(**fields: Any) -> FinetuneSpec:
    return FinetuneSpec(data="examples.jsonl", **fields)


def lessons(*lengths: int) -> list[Lesson]:
    return [
        Lesson(f"e{n}", tuple(range(length)), ((length - 1, length),))
        for n, length in enumerate(lengths)
    ]


def taken(plan: list[list[int]]) -> list[int]:
    return [index for batch in plan for index in batch]


def tokens(plan: list[list[int]], given: list[Lesson]) -> int:
    return sum(len(given[i].ids) for i in taken(plan))


# ---- one lesson ---------------------------------------------------------------------------------


def test_only_the_answer_and_its_end_are_learnt(renderer: TokenRenderer) -> None:
    """Pitfall 7: EOS is not trained."""
    taught = lesson("e1", ASK, "Me", renderer, context_tokens=100)
    assert renderer.decode(taught.ids[: taught.start]) == "Question: Who?\nAnswer:"
    assert renderer.pieces(taught.ids[taught.start :]) == [" ", "M", "e", "</s>"]
    assert taught.supervised == 4


@pytest.mark.parametrize("answer", ["", " \n　"])
def test_an_empty_answer_is_refused(renderer: TokenRenderer, answer: str) -> None:
    with pytest.raises(UsageError, match="example e1: the answer is empty"):
        lesson("e1", ASK, answer, renderer, context_tokens=100)


def test_an_example_beyond_the_context_is_refused_not_cut(renderer: TokenRenderer) -> None:
    """Cut, it would lose its end and teach never to stop (pitfall 7)."""
    length = len(lesson("e1", ASK, "Me", renderer, context_tokens=100).ids)
    assert len(lesson("e1", ASK, "Me", renderer, context_tokens=length).ids) == length
    with pytest.raises(UsageError, match=f"{length} tokens don't fit the context of {length - 1}"):
        lesson("e1", ASK, "Me", renderer, context_tokens=length - 1)


def test_an_answer_without_its_end_is_refused(
    renderer: TokenRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 7."""
    monkeypatch.setattr(renderer, "answer", renderer.option)
    with pytest.raises(UsageError, match="ends without EOS"):
        lesson("e1", ASK, "Me", renderer, context_tokens=100)


# ---- thoughts -----------------------------------------------------------------------------------

TURNS = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
# DeepSeek-R1: the prompt opens a thought, a finished turn leaves it out.
OPENED = TURNS.replace("<turn>assistant\n", "<turn>assistant\n<think>\n")
# Qwen3-Thinking-2507: a finished turn shows an empty one.
SHOWN = OPENED.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
)
# Qwen3: an empty one, where thinking is switched off.
EMPTIED = SHOWN.replace("<think>\n{% endif", "<think>\n\n</think>\n\n{% endif")
# Magistral: other tags, which are special tokens.
OWN = "{# [THINK] and [/THINK] #}" + TURNS
THOUGHT = "<think>\na\n</think>\n\n42"


@pytest.fixture
def chat(make_tokenizer: Callable[..., Any]) -> Callable[..., TokenRenderer]:
    def make(template: str | None, **how: Any) -> TokenRenderer:
        return TokenRenderer(make_tokenizer(chat_template=template, **how), "en")

    return make


def shown(taught: Lesson, renderer: TokenRenderer) -> tuple[str, str, str]:
    """The lesson as what the exam sends, what is only read behind it, and what is learnt."""
    sent, (span,) = len(renderer.prompt(ASK).ids), taught.learnt
    pieces = renderer.pieces(taught.ids)
    assert taught.ids[:sent] == renderer.prompt(ASK).ids
    assert span[1] == len(pieces)
    return "".join(pieces[:sent]), "".join(pieces[sent : span[0]]), "".join(pieces[span[0] :])


@pytest.mark.parametrize(
    ("template", "end"), [(None, "</s>"), (TURNS, "<end>")], ids=["base", "chat"]
)
def test_a_thought_is_learnt_read_or_dropped_as_declared(
    chat: Callable[..., TokenRenderer], template: str | None, end: str
) -> None:
    renderer, lead = chat(template), "" if template else " "
    found = {
        how: shown(lesson("e1", ASK, THOUGHT, renderer, 200, how), renderer)[1:]
        for how in ("learn", "read", "drop")
    }
    assert found == {
        "learn": ("", lead + THOUGHT + end),
        "read": (lead + "<think>\na\n</think>\n\n", "42" + end),
        "drop": ("", lead + "42" + end),
    }


@pytest.mark.parametrize("template", [OPENED, SHOWN], ids=["left out", "shown empty"])
@pytest.mark.parametrize("answer", [THOUGHT, THOUGHT.removeprefix("<think>\n")])
def test_a_prompt_that_opens_a_thought_is_gone_on_from(
    chat: Callable[..., TokenRenderer], template: str, answer: str
) -> None:
    """Whoever drops the thought teaches to close it at once: the exam sends the open one."""
    renderer = chat(template)
    found = {
        how: shown(lesson("e1", ASK, answer, renderer, 200, how), renderer)
        for how in ("learn", "read", "drop")
    }
    assert all(sent.endswith("assistant\n<think>\n") for sent, _, _ in found.values())
    assert {how: rest for how, (_, *rest) in found.items()} == {
        "learn": ["", "a\n</think>\n\n42<end>"],
        "read": ["a\n</think>\n\n", "42<end>"],
        "drop": ["", "\n</think>\n\n42<end>"],
    }
    for how in ("learn", "read", "drop"):  # an answer that was given without thinking
        taught = lesson("e1", ASK, "42", renderer, 200, how)
        assert shown(taught, renderer)[1:] == ("", "\n</think>\n\n42<end>")


def test_options_are_scored_behind_a_closed_thought(chat: Callable[..., TokenRenderer]) -> None:
    renderer = chat(OPENED)
    ids = renderer.option("42", renderer.prompt(ASK))
    assert "".join(renderer.pieces(ids)) == "\n</think>\n\n42"


def test_where_thinking_is_switched_off_a_thought_can_only_be_dropped(
    chat: Callable[..., TokenRenderer],
) -> None:
    renderer = chat(EMPTIED)
    taught = lesson("e1", ASK, THOUGHT, renderer, 200, "drop")
    assert shown(taught, renderer)[0].endswith("<think>\n\n</think>\n\n")
    assert shown(taught, renderer)[1:] == ("", "42<end>")
    for how in ("learn", "read"):
        with pytest.raises(UsageError, match=r"example e1: .*set thought: drop"):
            lesson("e1", ASK, THOUGHT, renderer, 200, how)
        lesson("e1", ASK, "42", renderer, 200, how)


def test_a_thought_stands_in_the_models_own_tags(chat: Callable[..., TokenRenderer]) -> None:
    renderer = chat(OWN, specials=("<turn>", "<end>", "[THINK]", "[/THINK]"))
    for answer in (THOUGHT, THOUGHT.replace("<think>", "[THINK]").replace("</", "[/")
                   .replace("think>", "THINK]")):  # fmt: skip
        taught = lesson("e1", ASK, answer, renderer, 200)
        assert shown(taught, renderer)[2] == "[THINK]\na\n[/THINK]\n\n42<end>"
    specials = {"[THINK]", "[/THINK]"}
    assert specials <= set(renderer.pieces(taught.ids))  # as such, not as text


def test_a_dropped_thought_leaves_earlier_turns_too(chat: Callable[..., TokenRenderer]) -> None:
    turns = (*ASK, Message(role="assistant", content=THOUGHT), *ASK)
    taught = lesson("e1", turns, THOUGHT, chat(TURNS), 200, "drop")
    assert "think" not in "".join(chat(TURNS).pieces(taught.ids))
    kept = lesson("e1", turns, THOUGHT, chat(TURNS), 200, "read")
    assert "".join(chat(TURNS).pieces(kept.ids)).count("<think>") == 2


@pytest.mark.parametrize("how", ["learn", "read", "drop"])
def test_a_thought_without_an_end_or_an_answer_is_refused(
    chat: Callable[..., TokenRenderer], how: Any
) -> None:
    with pytest.raises(UsageError, match=r"example e1: the answer is cut: .*never closes"):
        lesson("e1", ASK, "<think>a 42", chat(TURNS), 200, how)
    with pytest.raises(UsageError, match="example e1: the answer is empty"):
        lesson("e1", ASK, "<think>a</think>\n", chat(TURNS), 200, how)


# ---- the plan -----------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=30),
    epochs=st.sampled_from([1.0, 2.0, 2.5]),
    batch_tokens=st.integers(16, 120),
    batch_examples=st.integers(1, 6),
    packed=st.booleans(),
)
def test_every_lesson_comes_once_an_epoch_in_batches_within_the_limits(
    lengths: list[int], epochs: float, batch_tokens: int, batch_examples: int, packed: bool
) -> None:
    given_lessons = lessons(*lengths)
    how = spec(epochs=epochs, batch_tokens=batch_tokens, batch_examples=batch_examples)
    plan = plan_batches(given_lessons, how, packed=packed)
    counts = Counter(taken(plan))
    assert sum(counts.values()) == round(epochs * len(lengths))
    whole = int(epochs)
    assert all(whole <= counts[i] <= whole + 1 for i in range(len(lengths)))
    for batch in plan:
        own = [lengths[i] for i in batch]
        held = sum(own) if packed else len(own) * max(own)
        assert len(batch) == 1 or (held <= batch_tokens and len(batch) <= batch_examples)
        assert len(set(batch)) == len(batch)


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=20), limit=st.integers(1, 600))
def test_max_train_tokens_is_never_exceeded_but_for_a_first_lesson(
    lengths: list[int], limit: int
) -> None:
    given_lessons = lessons(*lengths)
    plan = plan_batches(given_lessons, spec(epochs=3, max_train_tokens=limit))
    used = tokens(plan, given_lessons)
    assert used <= limit or len(taken(plan)) == 1
    assert used > limit - max(lengths) or len(taken(plan)) == 3 * len(lengths)


def test_the_order_follows_the_seed_alone() -> None:
    """Pitfalls 10 and 14: the order of all epochs is known beforehand and doesn't drift."""
    given_lessons = lessons(*range(5, 45))
    plan = plan_batches(given_lessons, spec(seed=1))
    assert plan_batches(given_lessons, spec(seed=1)) == plan
    assert plan_batches(given_lessons, spec(seed=2)) != plan
    per_epoch = len(plan) // 3
    assert plan[:per_epoch] != plan[per_epoch : 2 * per_epoch]


def test_padded_batches_of_similar_length_come_in_mixed_order() -> None:
    given_lessons = lessons(*range(5, 45))
    plan = plan_batches(given_lessons, spec(epochs=1, batch_examples=4), packed=False)
    widest = [max(len(given_lessons[i].ids) for i in batch) for batch in plan]
    assert widest != sorted(widest)
    assert all(max(batch) - min(batch) < 4 for batch in plan)


@given(
    lengths=st.lists(st.integers(2, 40), min_size=10, max_size=30),
    general=st.lists(st.integers(2, 40), min_size=1, max_size=10),
    share=st.sampled_from([0.05, 0.25, 0.5]),
    packed=st.booleans(),
)
def test_replay_is_its_share_of_all_tokens_and_every_text_comes_before_any_comes_again(
    lengths: list[int], general: list[int], share: float, packed: bool
) -> None:
    task, replay = lessons(*lengths), lessons(*general)
    how = spec(epochs=2, replay=ReplaySpec(data="general.txt", share=share))
    plan = plan_batches(task, how, replay, packed=packed)
    every = [*task, *replay]
    used = sum(len(every[i].ids) for i in taken(plan) if i >= len(task))
    assert share <= used / tokens(plan, every) < share + max(general) / (2 * sum(lengths))
    counts = Counter(i for i in taken(plan) if i >= len(task))
    times = [counts[i] for i in range(len(task), len(every))]
    assert max(times) - min(times) <= 1
    assert sum(i < len(task) for i in taken(plan)) == 2 * len(task)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to learn from"):
        plan_batches([], spec())
