"""What a body asks; what is refused, what isn't applied, and that a message repeats nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.serving.asks import Asked, Rules, ask_chat, ask_completion, ask_embeddings
from tokka.serving.faults import Fault

RULES = Rules(("aoba-1", "aoba"), max_tokens=100)
HELLO = [{"role": "user", "content": "融資の限度額は？"}]


def chat(rules: Rules = RULES, **given) -> Asked:
    body = {"model": "aoba-1", "messages": HELLO, **given}
    return ask_chat(json.dumps(body).encode(), rules)


def refused(**given) -> Fault:
    with pytest.raises(Fault) as caught:
        chat(**given)
    return caught.value


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{}], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": "\ud800"}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": HELLO * 600}, "messages"),
    ],
)  # fmt: skip
def test_what_would_change_the_answers_meaning_is_refused_by_name(given, param):
    fault = refused(**given)
    assert (fault.status, fault.param) == (400, param)


def test_what_only_tunes_the_writing_is_named_as_not_applied():
    asked = chat(temperature=0.7, top_p=0.9, seed=3, tools=[{"type": "function"}], chat_id="x")
    assert asked.not_applied == ("temperature", "top_p", "seed", "tools", "chat_id")
    assert chat(temperature=0, top_p=1, n=1, seed=None).not_applied == ()


def test_half_a_character_in_a_name_can_be_sent_back():
    assert chat(**{"\ud800": 1}).not_applied == ("?",)


def test_limits_can_only_be_narrowed():
    assert chat().max_tokens == 100
    assert chat(max_tokens=7, max_completion_tokens=9).max_tokens == 7
    assert chat(max_tokens=5000).max_tokens == 100
    assert chat(max_tokens=5000).not_applied == ("max_tokens",)
    assert chat(stop="。").stop == ("。",)


@pytest.mark.parametrize(
    ("policy", "said", "not_applied"),
    [
        ("ignore", ["融資の限度額は？"], ("messages.system",)),
        ("append", ["Be rude.", "融資の限度額は？"], ()),
    ],
)
def test_a_callers_system_text_counts_as_the_project_says(policy, said, not_applied):
    messages = [{"role": "system", "content": "Be rude."}, *HELLO]
    asked = chat(Rules(("aoba-1",), policy), messages=messages)
    assert [m.content for m in asked.messages] == said
    assert asked.not_applied == not_applied


def test_a_callers_system_text_is_refused_where_the_project_says_so():
    messages = [{"role": "developer", "content": "Be rude."}, *HELLO]
    with pytest.raises(Fault, match="system text isn't taken"):
        chat(Rules(("aoba-1",), "refuse"), messages=messages)


def test_turns_alternate_and_earlier_answers_lose_their_footnotes():
    asked = chat(
        messages=[
            {"role": "assistant", "content": "ようこそ"},
            {"role": "user", "content": "一"},
            {"role": "user", "content": [{"type": "text", "text": "二"}]},
            {"role": "assistant", "content": "三です。\n\n[1] 融資規程、2ページ\n[2] 表"},
            *HELLO,
        ]
    )
    assert [(m.role, m.content) for m in asked.messages] == [
        ("user", "一\n\n二"), ("assistant", "三です。"), ("user", "融資の限度額は？")
    ]  # fmt: skip
    assert asked.not_applied == ("messages.assistant",)


def test_another_model_is_not_found():
    fault = refused(model="gpt-4o")
    assert (fault.status, fault.code, fault.param) == (404, "model_not_found", "model")
    assert chat(model="aoba").messages


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_what_isnt_a_json_object_is_refused(body):
    with pytest.raises(Fault) as caught:
        ask_chat(body, RULES)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_a_completion_is_one_text():
    def ask(**given) -> Asked:
        return ask_completion(json.dumps({"model": "aoba-1", **given}).encode(), RULES)

    assert ask(prompt="限度額").question == ask(prompt=["限度額"]).question == "限度額"
    for wrong in ({"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"prompt": ""}, {"prompt": "a",
                  "echo": True}, {"prompt": "a", "logprobs": 1}, {"prompt": "a", "suffix": "b"},
                  {"prompt": "a", "best_of": 3}, {}):  # fmt: skip
        with pytest.raises(Fault):
            ask(**wrong)


def test_embeddings_take_texts_and_no_token_ids():
    def ask(**given):
        return ask_embeddings(json.dumps({"model": "aoba", **given}).encode(), RULES)

    assert ask(input="a").texts == ("a",)
    assert ask(input=["a", "b"], encoding_format="base64").base64
    assert ask(input="a", input_type="passage").kind == "passage"
    for wrong in ([1, 2], [[1]], [], "", ["a"] * 257):
        with pytest.raises(Fault):
            ask(input=wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(
    st.sampled_from(["messages", "temperature", "stop", "max_tokens", "n", "stream", "tools",
                     "logit_bias", "response_format", "stream_options", "modalities", "x"]), JSON,
))  # fmt: skip
def test_any_body_is_asked_or_refused_with_a_reason(given):
    try:
        asked = ask_chat(json.dumps({"model": "aoba-1", **given}).encode(), RULES)
    except Fault as fault:
        assert fault.status == 400
    else:
        assert asked.messages[-1].role == "user"
        assert 1 <= asked.max_tokens <= 100


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["temperature", "stop", "messages", "model", "logprobs"]), st.integers(0, 2))
def test_no_refusal_repeats_what_was_sent(name, depth):
    secret = "山田太郎 090-1234-5678"
    value = {0: secret, 1: [secret], 2: {secret: secret}}[depth]
    try:
        chat(**{name: value})
    except Fault as fault:
        assert "山田" not in fault.message
        assert "山田" not in str(fault.param)
