"""A Modelfile for Ollama that gives a conversation the prompt that tokka gives it.

Whatever renders conversations → its pieces, found by rendering a few and held against others → a Go
template. A chat template that doesn't render turn by turn (one that hides old thoughts, or writes
today's date) is refused: a wrong template answers, and answers worse.

    pieces = pieces_of(lambda messages: renderer.text(messages))
    write_text(folder / "Modelfile", modelfile("./model.gguf", pieces, stop=("<|im_end|>",)))
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tokka.errors import UsageError
from tokka.records import Message

Render = Callable[[Sequence[Message]], str]
_SAID = ("tokkaONEtokka", "tokkaTWOtokka", "tokkaTHREEtokka")
_QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a rendered conversation is made of, beside what was said in it. `head_system` is None
    where the template takes no system text."""

    head_user: str  # before the first user's text, where nobody said a system text
    head_system: str | None
    system_user: str  # between a system text and the user's
    user_assistant: str
    assistant_user: str
    tail: str  # behind the last user's text: where the answer begins

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as Ollama renders it by `template`."""
        parts: list[str] = []
        for place, message in enumerate(messages):
            if message.role == "system" and self.head_system is not None:
                parts += [self.head_system, message.content, self.system_user]
            elif message.role == "user":
                parts += ["" if place else self.head_user, message.content]
            elif message.role == "assistant":
                parts += [self.user_assistant, message.content, self.assistant_user]
        return "".join([*parts, self.tail])

    def template(self) -> str:
        """The same in Go's template language, as Ollama reads it."""
        said = "{{ .Content }}"
        system = ""
        if self.head_system is not None:
            shown = f"{_go(self.head_system)}{said}{_go(self.system_user)}"
            system = f'if eq .Role "system" }}}}{shown}{{{{ else '
        assistant = f"{_go(self.user_assistant)}{said}{_go(self.assistant_user)}"
        return (
            "{{ range $place, $message := .Messages }}{{ "
            + system
            + f'if eq .Role "user" }}}}{{{{ if eq $place 0 }}}}{_go(self.head_user)}{{{{ end }}}}'
            + said
            + f'{{{{ else if eq .Role "assistant" }}}}{assistant}'
            + "{{ end }}{{ end }}"
            + _go(self.tail)
        )


def pieces_of(render: Render, bos: str = "") -> Pieces:
    """Find the pieces of what `render` makes of messages that end with a user's. `bos` is left out
    at the beginning, where llama.cpp puts it itself.

    Raises UsageError where other conversations aren't rendered from the same pieces.
    """
    one, two, three = _SAID

    def rendered(*said: tuple[str, str]) -> str:
        messages = [Message.model_validate({"role": role, "content": c}) for role, c in said]
        return render(messages).removeprefix(bos)

    head_user, tail = _cut(rendered(("user", one)), one)
    talk = rendered(("user", one), ("assistant", two), ("user", three))
    _, between, _ = _cut(talk, one, two)
    after = _cut(talk, two, three)[1]
    head_system: str | None
    try:
        shown = rendered(("system", one), ("user", two))
    except UsageError:
        head_system, system_user = None, ""
    else:
        head_system, system_user, _ = _cut(shown, one, two)
    found = Pieces(head_user, head_system, system_user, between, after, tail)
    _check(found, render, bos)
    return found


def _cut(text: str, *said: str) -> tuple[str, ...]:
    """`text` around each of `said`, which stand in it once and in this order."""
    parts: list[str] = []
    for one in said:
        before, found, text = text.partition(one)
        if not found or one in text:
            raise _irregular("a turn is left out or said twice")
        parts.append(before)
    return (*parts, text)


def _check(pieces: Pieces, render: Render, bos: str) -> None:
    """Longer conversations, with text that a template might bend."""
    words = itertools.cycle(("締切は？", 'say "{{ .System }}" \\n', "a\nb", "<b>&amp;</b>", "12"))
    for system in (False, True) if pieces.head_system is not None else (False,):
        for turns in (1, 2, 3):
            roles = ["system"] * system + ["user", "assistant"] * (turns - 1) + ["user"]
            said = [
                Message.model_validate({"role": role, "content": next(words)}) for role in roles
            ]
            if render(said).removeprefix(bos) != pieces.render(said):
                raise _irregular(f"{turns} turns are rendered otherwise than their parts")


def _irregular(reason: str) -> UsageError:
    return UsageError(
        f"Modelfile: this chat template doesn't go turn by turn ({reason}), so Ollama's would give "
        "other prompts; serve the GGUF with tokka serve or llama.cpp's own server"
    )


def modelfile(
    gguf: str,
    pieces: Pieces,
    *,
    stop: Sequence[str] = (),
    context_tokens: int,
    system: str = "",
    licence: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The text of a Modelfile for the file at `gguf`. Greedy, as it was examined.

    A Modelfile has no way to write three quotes in a text: a system text that holds them goes into
    the template, where Go's strings can; in a licence they become apostrophes. Raises UsageError
    for a system text that the template has no place for.
    """
    if system and pieces.head_system is None:
        raise UsageError(
            "Modelfile: the chat template takes no system text and prompt.system has one; say it "
            "in prompt.format"
        )
    if not _quotable(system) and pieces.head_system is not None:
        opening = pieces.head_system + system + pieces.system_user
        pieces, system = replace(pieces, head_user=opening), ""
    lines = [f"# {' '.join(note.split())}" for note in notes]
    if not all(map(_quotable, stop)):
        lines.append(
            "# A stop string with quotes at its ends can't be written here and is left out."
        )
    lines += [f"FROM {gguf}", f"TEMPLATE {_quoted(pieces.template())}"]
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines.append("PARAMETER temperature 0")
    lines.append(f"PARAMETER num_ctx {context_tokens}")
    lines += [f"PARAMETER stop {_quoted(mark)}" for mark in stop if _quotable(mark) and mark]
    if licence:
        lines.append(f"LICENSE {_quoted(_unquoted(licence))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f"{_QUOTES}{text}{_QUOTES}"


def _quotable(text: str) -> bool:
    return _QUOTES not in text and not text.startswith('"') and not text.endswith('"')


def _unquoted(text: str) -> str:
    text = text.replace(_QUOTES, "'''")
    return text if _quotable(text) else f" {text} "


def _go(text: str) -> str:
    """A literal text in a Go template: a Go string, in which nothing is a line, a brace or three
    quotes."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
