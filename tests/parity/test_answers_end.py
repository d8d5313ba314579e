"""Pitfall 7: never stops. The end is taught, the mask is never empty, and every engine obeys it.

tests/training/test_lessons.py refuses answers without an end, tests/models/test_rendering.py
templates that write none; tests/models/test_generation.py and test_llamacpp.py stop at EOS.
"""

from __future__ import annotations

from typing import Any

import pytest

from tokka.models.endpoint import open_endpoint
from tokka.models.protocol import GenerateRequest
from tokka.models.rendering import TokenRenderer
from tokka.records import Message
from tokka.training.lessons import lesson

FAMILIES = ("bytes", "llama2", "gemma", "smollm2")
CONVERSATION = (
    Message(role="user", content="質問：締切は。"),
    Message(role="assistant", content="翌日"),
    Message(role="user", content="質問：限度額は。"),
)
# As most published templates are: nothing in them marks which tokens are the assistant's.
STOCK = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


@pytest.mark.parametrize("answer", ["はい", "「三億円」", "two\nlines", " spaced ", "blue"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_lesson_teaches_its_answer_and_one_end(
    renderer_of: Any, family: str, answer: str
) -> None:
    renderer: TokenRenderer = renderer_of(family)
    taught = lesson("e1", CONVERSATION, answer, renderer, 4096)
    learnt = taught.ids[taught.start :]
    before = renderer.decode(taught.ids[: taught.start])
    assert renderer.decode(taught.ids) == before + answer
    ends = [i for i, token in enumerate(learnt) if token in renderer.stop_ids]
    assert ends == [len(learnt) - 1]
    assert taught.supervised == len(learnt) >= 2


def test_a_template_without_marks_for_training_still_has_a_mask(make_tokenizer: Any) -> None:
    """transformers gives an all-zero assistant mask for such a template, and says nothing."""
    tokenizer = make_tokenizer(chat_template=STOCK)
    renderer = TokenRenderer(tokenizer, "ja")
    taught = lesson("e1", CONVERSATION, "はい", renderer, 4096)
    assert renderer.pieces(taught.ids[taught.start :]) == ["は", "い", "<end>"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_completion_endpoint_is_told_which_tokens_end_an_answer(
    renderer_of: Any, wire: Any, family: str
) -> None:
    renderer = renderer_of(family)
    prompt = renderer.prompt(CONVERSATION)
    wire.say = "\n三億円\nand on"
    with open_endpoint(wire.url, hosts=[], api_key_env=None, renderer=renderer) as model:
        (result,) = model.generate([GenerateRequest(prompt, 8, stop=("\n", "。"))])
    ((_, body),) = wire.bodies
    assert body["stop_token_ids"] == sorted(renderer.stop_ids)
    assert body["stop"] == ["。"]  # a line break counts once something was said
    assert (result.text, result.finish) == ("\n三億円", "stop")
