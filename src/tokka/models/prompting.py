"""What is said to a model: system text, shots, numbered passages, question. The same in training,
exam and serving.

Shots and system text come first, so that every question of an exam shares them as a prefix; the
passages stand in the last user message, before the question.

    prompt = pose(question, renderer, spec=arm.prompt, shots=shots, passages=hits, language="ja")

A question that is a whole text to be continued (`Question.completion`) keeps every character; what
an arm says goes before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokka.models.base_template import QUESTION_LABEL
from tokka.models.protocol import Prompt, Renderer
from tokka.models.rendering import base_text
from tokka.records import Example, Message, Messages, Passage, PromptSpec, Question

CONTEXT_LABEL = {"ja": "資料：", "en": "Documents:"}


def labelled(text: str, language: str) -> str:
    return QUESTION_LABEL[_known(language)] + text


def pose(
    question: Question,
    renderer: Renderer,
    *,
    spec: PromptSpec,
    shots: Sequence[Example] = (),
    passages: Sequence[Passage] = (),
    language: str,
    said: Messages = (),
    scored: bool = False,
) -> Prompt:
    """The prompt of one question. `said` replaces the question's own words, `scored`: its options
    are scored, not written."""
    if question.completion and not said:
        return renderer.completion(
            question.completion,
            delimiter=question.delimiter,
            before=before_completion(spec, shots, passages, language=language),
            scored=scored,
        )
    asked = said or question.messages
    return renderer.prompt(
        compose(asked, spec=spec, shots=shots, passages=passages, language=language)
    )


def compose(
    asked: Messages,
    *,
    spec: PromptSpec,
    shots: Sequence[Example] = (),
    passages: Sequence[Passage] = (),
    language: str,
) -> Messages:
    """Messages for one question. Earlier turns of `asked` are kept; only its last one gets
    passages."""
    messages: list[Message] = []
    system = "\n".join(
        part for part in (spec.system, *(m.content for m in asked if m.role == "system")) if part
    )
    if system:
        messages.append(Message(role="system", content=system))
    for shot in shots:
        messages += [_label_user(m, language) for m in shot.messages if m.role != "system"]
    turns = [m for m in asked if m.role != "system"]
    messages += [_label_user(m, language) for m in turns[:-1]]
    last = labelled(turns[-1].content, language)
    if spec.format:
        last += "\n" + spec.format
    if passages:
        last = context(passages, language) + "\n\n" + last
    messages.append(Message(role="user", content=last))
    return tuple(messages)


def before_completion(
    spec: PromptSpec,
    shots: Sequence[Example] = (),
    passages: Sequence[Passage] = (),
    *,
    language: str,
) -> str:
    """What an arm puts before a question that is a whole text: system text, shots in the base
    format, passages, format, with a blank line between. "" where the arm says none of it, so that
    the control sends the exact text."""
    turns = [_label_user(m, language) for s in shots for m in s.messages if m.role != "system"]
    told = base_text(turns, language).removesuffix("\n\n")
    found = context(passages, language) if passages else ""
    return "\n\n".join(part for part in (spec.system, told, found, spec.format) if part)


def context(passages: Sequence[Passage], language: str) -> str:
    """Numbered passages, one a paragraph, each with its title."""
    lines = [CONTEXT_LABEL[_known(language)]]
    for passage in passages:
        title = f"（{passage.title}）" if language == "ja" else f" ({passage.title}) "
        body = " ".join(passage.text.split())
        lines.append(f"[{passage.number}]{title if passage.title else ' '}{body}")
    return "\n".join(lines)


def _label_user(message: Message, language: str) -> Message:
    if message.role != "user":
        return message
    return Message(role="user", content=labelled(message.content, language))


def _known(language: str) -> str:
    return "ja" if language == "ja" else "en"
