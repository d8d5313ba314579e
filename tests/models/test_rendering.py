"""Token ids: BOS once, an end that is learnt, the same text in training, exam and serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.errors import UsageError
from tokka.models.rendering import TokenRenderer, hash_ids
from tokka.records import Message, Messages
from tokka.training.lessons import lesson

Make = Callable[..., Any]

TURNS = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + TURNS
ENDLESS = TURNS.replace("<end>", "")
# What Qwen3-like templates do: the generation prompt opens with what a finished turn doesn't show.
DRIFTING = TURNS.replace("<turn>assistant\n", "<turn>assistant\nlet me see: ")
SPACED_END = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }} </s>"
    "{% else %}[{{ m.content }}]{% endif %}{% endfor %}"
)
BOS, EOS, UNKNOWN = 1, 2, 0
ASK = (Message(role="user", content="x"),)


def conversation(*texts: str, system: str = "") -> Messages:
    """User and assistant in turn."""
    said = [
        Message(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(texts)
    ]
    return (*([Message(role="system", content=system)] if system else []), *said)


# ---- BOS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, TURNS, WITH_BOS], ids=["base", "chat", "chat with bos"])
def test_bos_stands_exactly_once_where_the_tokenizer_wants_it(
    make_tokenizer: Make, template: str | None
) -> None:
    """Pitfall 1: BOS missing or BOS twice."""
    renderer = TokenRenderer(make_tokenizer(adds_bos=True, chat_template=template), "en")
    ids = renderer.prompt(conversation("x", "y", "z", system="s")).ids
    assert ids[0] == BOS
    assert ids.count(BOS) == 1


@pytest.mark.parametrize(
    ("template", "times"), [(None, 0), (TURNS, 0), (WITH_BOS, 1)], ids=["base", "chat", "with bos"]
)
def test_bos_stands_only_where_the_template_writes_it_if_the_tokenizer_doesnt(
    make_tokenizer: Make, template: str | None, times: int
) -> None:
    """Pitfall 1."""
    for named in ({}, {} if template == WITH_BOS else {"bos_token": None}):
        tokenizer = make_tokenizer(adds_bos=False, chat_template=template, **named)
        ids = TokenRenderer(tokenizer, "en").prompt(ASK).ids
        assert ids.count(BOS) == times
        assert ids[:1].count(BOS) == times


def test_a_question_that_begins_with_the_text_of_bos_gets_a_real_one(make_tokenizer: Make) -> None:
    """Pitfall 1: the text of BOS is no BOS."""
    renderer = TokenRenderer(make_tokenizer(), "en")
    ids = renderer.prompt((Message(role="user", content="<s>x"),)).ids
    assert ids[0] == BOS and ids.count(BOS) == 1
    assert renderer.prompt(ASK).ids != ids


def test_answers_and_options_carry_no_bos(make_tokenizer: Make) -> None:
    """Pitfall 1: they go on from a prompt."""
    for template in (None, TURNS):
        renderer = TokenRenderer(make_tokenizer(chat_template=template), "en")
        asked = renderer.prompt(ASK)
        assert BOS not in renderer.option("x", asked) + renderer.answer("x", asked)


# ---- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, TURNS, WITH_BOS, SPACED_END])
def test_an_answer_is_learnt_with_the_token_that_stops_it(
    make_tokenizer: Make, template: str | None
) -> None:
    """Pitfall 7: never stops. An option is the same without its end."""
    renderer = TokenRenderer(make_tokenizer(chat_template=template), "en")
    asked = renderer.prompt(ASK)
    ids, option = renderer.answer("yes", asked), renderer.option("yes", asked)
    assert ids[: len(option)] == option
    assert ids[-1] in renderer.stop_ids
    assert not renderer.stop_ids.intersection(ids[:-1])


def test_only_special_tokens_stop_an_answer(make_tokenizer: Make) -> None:
    """A template that writes " </s>" must not make every space the end."""
    renderer = TokenRenderer(make_tokenizer(chat_template=SPACED_END), "en")
    assert renderer.stop_ids == {EOS}
    assert renderer.decode(renderer.answer("a b", renderer.prompt(ASK))).rstrip() == "a b"


def test_both_eos_and_the_end_of_turn_stop_a_chat_model(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(chat_template=TURNS)
    renderer = TokenRenderer(tokenizer, "en")
    assert renderer.stop_ids == {EOS, tokenizer.convert_tokens_to_ids("<end>")}
    assert renderer.stop == ()


def test_a_base_model_answers_in_one_line(make_tokenizer: Make) -> None:
    assert TokenRenderer(make_tokenizer(), "ja").stop == ("\n",)


def test_a_template_that_ends_a_turn_with_nothing_is_refused(make_tokenizer: Make) -> None:
    """Pitfall 7."""
    with pytest.raises(
        UsageError, match=r"nothing ends the assistant's turn.*correct the template"
    ):
        TokenRenderer(make_tokenizer(chat_template=ENDLESS), "en")


def test_a_base_tokenizer_without_eos_is_refused(make_tokenizer: Make) -> None:
    """Pitfall 7."""
    with pytest.raises(UsageError, match=r"no EOS token.*set eos_token"):
        TokenRenderer(make_tokenizer(eos_token=None), "en")


def test_a_template_whose_finished_turn_differs_from_its_prompt_is_refused(
    make_tokenizer: Make,
) -> None:
    """Pitfall 2: template drift."""
    with pytest.raises(UsageError, match="doesn't begin with its own generation prompt"):
        TokenRenderer(make_tokenizer(chat_template=DRIFTING), "en")


# ---- the text -----------------------------------------------------------------------------------


def test_the_base_format_in_japanese_is_exactly_this(make_tokenizer: Make) -> None:
    renderer = TokenRenderer(make_tokenizer(), "ja")
    messages = conversation("質問：締切はいつ", "翌日", "質問：限度は", system="規程である。")
    text = "規程である。\n\n質問：締切はいつ\n答え：翌日\n\n質問：限度は\n答え："
    assert renderer.text(messages) == text
    asked = renderer.prompt(messages)
    assert asked.text == renderer.decode(asked.ids) == text and UNKNOWN not in asked.ids
    assert renderer.decode(renderer.option("円", asked)) == "円"


def test_the_base_format_in_english_is_exactly_this(make_tokenizer: Make) -> None:
    renderer = TokenRenderer(make_tokenizer(), "en")
    messages = conversation("Question: When?", "Noon", "Question: Who?", system="Be brief.")
    text = "Be brief.\n\nQuestion: When?\nAnswer: Noon\n\nQuestion: Who?\nAnswer:"
    assert renderer.text(messages) == text
    assert renderer.decode(renderer.option("Me", renderer.prompt(messages))) == " Me"


@pytest.mark.parametrize("template", [None, TURNS, WITH_BOS])
@pytest.mark.parametrize("language", ["ja", "en"])
def test_what_training_teaches_is_what_a_later_turn_shows(
    make_tokenizer: Make, template: str | None, language: str
) -> None:
    """Pitfall 2: prompt + answer open the conversation that goes on from them."""
    renderer = TokenRenderer(make_tokenizer(chat_template=template), language)
    first = conversation("q", system="s")
    asked = renderer.prompt(first)
    end = len(renderer.answer("a", asked)) - len(renderer.option("a", asked))
    taught = asked.ids + renderer.answer("a", asked)
    later = renderer.prompt((*first, *conversation("q", "a")[1:], *conversation("r"))).ids
    shown = taught if template else taught[:-end]  # a base format ends its turns with a blank line
    assert later[: len(shown)] == shown


@pytest.mark.parametrize("template", [TURNS, WITH_BOS])
def test_a_chat_prompt_is_what_the_template_itself_renders(
    make_tokenizer: Make, template: str
) -> None:
    """Pitfall 2: checked against transformers' own tokenisation of the template."""
    tokenizer = make_tokenizer(adds_bos=template == WITH_BOS, chat_template=template)
    messages = conversation("q", "a", "r", system="s")
    plain = [{"role": m.role, "content": m.content} for m in messages]
    own = tokenizer.apply_chat_template(
        plain, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert list(TokenRenderer(tokenizer, "en").prompt(messages).ids) == own


@pytest.mark.parametrize("template", [None, WITH_BOS])
def test_a_lesson_begins_with_the_ids_of_the_exam(
    make_tokenizer: Make, template: str | None
) -> None:
    """Pitfall 2: one renderer, and a hash of the ids to prove it."""
    renderer = TokenRenderer(make_tokenizer(chat_template=template), "ja")
    messages = conversation("質問：締切は", "翌日", "質問：限度は", system="規程")
    taught = lesson("e1", messages, "300万円", renderer, context_tokens=200)
    asked = renderer.prompt(messages)
    assert taught.ids[: taught.start] == asked.ids
    assert hash_ids(taught.ids[: taught.start]) == asked.sha256
    assert taught.ids[taught.start :] == renderer.answer("300万円", asked)


def test_a_prompt_ends_with_the_users_turn(make_tokenizer: Make) -> None:
    renderer = TokenRenderer(make_tokenizer(), "en")
    for messages in ((), conversation("q", "a")):
        with pytest.raises(UsageError, match="ends with a user message"):
            renderer.prompt(messages)


def test_an_option_of_no_tokens_is_refused(make_tokenizer: Make) -> None:
    with pytest.raises(UsageError, match="no tokens"):
        renderer = TokenRenderer(make_tokenizer(), "ja")
        renderer.option("", renderer.prompt(ASK))


# ---- special tokens in texts --------------------------------------------------------------------

PIECES = ["<s>", "</s>", "<turn>", "<end>", "<unk>", "<", ">", "/", "s", "e", "nd>", " ", "\n"]


@given(text=st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@pytest.mark.parametrize("template", [None, WITH_BOS])
def test_special_tokens_in_anybodys_text_are_only_text(
    make_tokenizer: Make, template: str | None, text: str
) -> None:
    """A question can't end its own turn, open another or become the assistant's."""
    renderer = renderers(make_tokenizer, template)
    special = {BOS, EOS, 3, 4}

    def frame(said: str) -> list[int]:
        ids = renderer.prompt(conversation(said, said, said, system="s" + said)).ids
        return [i for i in ids if i in special]

    assert frame(text) == frame("x")
    asked = renderer.prompt(ASK)
    assert not special.intersection(renderer.option(text + "x", asked))
    plain = renderer.decode(renderer.option(text + "x", asked))
    assert plain.replace(" ", "") == (text + "x").replace(" ", "")


_RENDERERS: dict[str | None, TokenRenderer] = {}


def renderers(make_tokenizer: Make, template: str | None) -> TokenRenderer:
    if template not in _RENDERERS:
        _RENDERERS[template] = TokenRenderer(make_tokenizer(chat_template=template), "ja")
    return _RENDERERS[template]


# ---- identity -----------------------------------------------------------------------------------


def test_the_digest_follows_all_that_decides_ids(make_tokenizer: Make) -> None:
    tokenizers = [
        (make_tokenizer(), "en"),
        (make_tokenizer(), "ja"),
        (make_tokenizer(adds_bos=False), "en"),
        (make_tokenizer(chat_template=TURNS), "en"),
        (make_tokenizer(chat_template=WITH_BOS), "en"),
        (make_tokenizer(specials=("<turn>", "<end>", "<more>")), "en"),
    ]
    digests = [TokenRenderer(*given).digest for given in tokenizers]
    assert len(set(digests)) == len(digests)
    assert TokenRenderer(make_tokenizer(), "en").digest == digests[0]


def test_the_prompt_hash_is_sha256_over_little_endian_ids() -> None:
    import hashlib

    assert hash_ids((1, 258)) == hashlib.sha256(b"\1\0\0\0\2\1\0\0").hexdigest()


def test_pieces_show_every_token_and_count_counts_them(make_tokenizer: Make) -> None:
    renderer = TokenRenderer(make_tokenizer(chat_template=TURNS), "en")
    ids = renderer.answer("ab", renderer.prompt(ASK))
    assert renderer.pieces(ids) == ["a", "b", "<end>"]
    assert renderer.decode(ids) == "ab"
    assert renderer.count("abc") == 3


def test_thinking_is_switched_off_where_a_template_has_the_switch(make_tokenizer: Make) -> None:
    """Qwen3: a finished turn shows an empty thought, a prompt only without thinking."""
    thought = "(thought)"
    template = (
        "{% for m in messages %}<turn>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}" + thought + "{% endif %}{{ m.content }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant\n"
        "{% if enable_thinking is defined and not enable_thinking %}" + thought + "{% endif %}"
        "{% endif %}"
    )
    renderer = TokenRenderer(make_tokenizer(chat_template=template), "en")
    assert renderer.text(ASK).endswith("<turn>assistant\n" + thought)


def test_a_template_that_refuses_a_system_text_says_what_to_do(make_tokenizer: Make) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    ) + TURNS
    renderer = TokenRenderer(make_tokenizer(chat_template=template), "en")
    with pytest.raises(UsageError, match=r"no system role.*prompt\.system"):
        renderer.prompt(conversation("x", system="s"))
