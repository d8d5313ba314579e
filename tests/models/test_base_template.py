"""A base model's template gives other programs the prompt that the exam gave it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

jinja2 = pytest.importorskip("jinja2")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: E402

from tokka.models.base_template import base_template, is_base_format  # noqa: E402
from tokka.models.prompting import compose  # noqa: E402
from tokka.models.rendering import TokenRenderer, base_text, plain  # noqa: E402
from tokka.records import Message, PromptSpec  # noqa: E402


def rendered(messages: list[Message], language: str, **how: Any) -> str:
    """As transformers renders: a sandbox, trimmed blocks."""
    inside = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = inside.from_string(base_template(language, bos=bool(how)))
    return str(template.render(messages=plain(messages), add_generation_prompt=True, **how))


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    text = st.text(max_size=12) | st.sampled_from(
        ["締切は？", "{{ x }}", "{% if %}", "a\n\nb", "'"]
    )
    system = draw(st.none() | text.filter(bool))
    said = [] if system is None else [Message(role="system", content=system)]
    for turn in range(draw(st.integers(0, 2)) * 2 + 1):
        said.append(Message(role="assistant" if turn % 2 else "user", content=draw(text)))
    return said


@given(said=conversations(), language=st.sampled_from(["ja", "en"]))
def test_any_conversation_is_rendered_as_the_exam_renders_it(
    said: list[Message], language: str
) -> None:
    asked = compose(tuple(said), spec=PromptSpec(), language=language)
    assert rendered(said, language) == base_text(asked, language)
    assert rendered(said, language, bos_token="<s>") == "<s>" + base_text(asked, language)


def test_our_own_renderer_goes_on_as_without_it(make_tokenizer: Callable[..., Any]) -> None:
    asked = (Message(role="user", content="質問：締切は？"),)
    before = TokenRenderer(make_tokenizer(), "ja")
    for language in ("ja", "en"):
        for bos in (True, False):
            template = base_template(language, bos)
            after = TokenRenderer(make_tokenizer(chat_template=template), "ja")
            assert not after.chat_template
            assert after.stop == before.stop == ("\n",)
            assert after.prompt(asked).sha256 == before.prompt(asked).sha256


def test_another_template_is_never_taken_for_it() -> None:
    ours = base_template("ja", bos=False)
    assert is_base_format(ours) and is_base_format(ours + "\n")
    for other in (None, "", {"default": ours}, ours.replace("質問", "問"), ours + "{{ x }}"):
        assert not is_base_format(other)
