"""Pitfall 1: BOS missing, BOS twice. On the wire as in the renderer.

tests/models/test_rendering.py has each kind of template; here are real tokenizers, whole texts, and
what a service gets and counts.
"""

from __future__ import annotations

from typing import Any

import pytest

from tokka.errors import ServiceError
from tokka.models.endpoint import open_endpoint
from tokka.models.protocol import GenerateRequest, ScoreRequest
from tokka.records import Message
from tokka.training.lessons import lesson

FAMILIES = ("bytes", "llama2", "gemma", "smollm2")
ASK = (Message(role="user", content="質問：限度額は。"),)


def expected(tokenizer: Any, renderer: Any) -> tuple[int, int]:
    """BOS, and how often it stands in a conversation: SmolLM2 opens every turn with its BOS."""
    wants = tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id]
    opens = (renderer.text(ASK) + "x").count(tokenizer.bos_token) if renderer.chat_template else 0
    return tokenizer.bos_token_id, opens or int(wants)


@pytest.mark.parametrize("family", FAMILIES)
def test_bos_opens_what_is_learnt_scored_and_asked_once(
    tokenizer_of: Any, renderer_of: Any, family: str
) -> None:
    tokenizer, renderer = tokenizer_of(family), renderer_of(family)
    bos, times = expected(tokenizer, renderer)
    prompt = renderer.prompt(ASK)
    for ids in (
        prompt.ids,
        prompt.ids + renderer.option("翌日", prompt),
        lesson("e1", ASK, "翌日", renderer, 4096).ids,
    ):
        assert ids.count(bos) == times
        assert ids[:1].count(bos) == min(times, 1)
        assert ids[1] != bos


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_bos_opens_a_whole_text_once_even_one_that_brings_its_own(
    tokenizer_of: Any, renderer_of: Any, family: str, scored: bool
) -> None:
    tokenizer, renderer = tokenizer_of(family), renderer_of(family)
    wants = list(tokenizer("x").input_ids[:1]) == [tokenizer.bos_token_id]
    bare = renderer.completion("Which colour?", scored=scored)
    named = renderer.completion(tokenizer.bos_token + "Which colour?", scored=scored)
    assert bare.ids.count(tokenizer.bos_token_id) == int(wants)
    assert named.ids.count(tokenizer.bos_token_id) == 1
    assert list(bare.ids) == tokenizer.encode("Which colour?")
    assert bare.ids == named.ids or not wants
    assert tokenizer.bos_token_id not in renderer.option("blue", bare)


@pytest.mark.parametrize("family", FAMILIES)
def test_llamacpp_and_a_completion_endpoint_get_it_once(
    tokenizer_of: Any, renderer_of: Any, wire: Any, llamacpp_on: Any, family: str
) -> None:
    renderer = renderer_of(family)
    bos, times = expected(tokenizer_of(family), renderer)
    prompt = renderer.prompt(ASK)
    request = GenerateRequest(prompt, 4)
    with llamacpp_on(renderer) as model:
        list(model.generate([request]))
        list(model.score([ScoreRequest(prompt.ids, (renderer.option("翌日", prompt),))]))
    with open_endpoint(wire.url, hosts=[], api_key_env=None, renderer=renderer) as model:
        list(model.generate([request]))
    assert {path for path, _ in wire.bodies} == {"/completion", "/v1/completions"}
    assert [sent.count(bos) for sent in wire.prompts] == [times] * len(wire.prompts)


def test_a_service_that_puts_a_token_before_the_prompt_is_refused(
    renderer_of: Any, wire: Any
) -> None:
    """A second BOS is worth points and makes no error of its own."""
    renderer = renderer_of("bytes")
    wire.extra_tokens = 1
    sent = len(renderer.prompt(ASK).ids)
    with (
        open_endpoint(wire.url, hosts=[], api_key_env=None, renderer=renderer) as model,
        pytest.raises(ServiceError, match=f"{sent} prompt tokens were sent and {sent + 1} were"),
    ):
        list(model.generate([GenerateRequest(renderer.prompt(ASK), 4)]))
