"""A Modelfile's template is the chat template in Go's language, and nothing breaks out of it.

Go itself (1.19) rendered these templates to the same texts; here a few lines stand for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.models.ollama import modelfile, pieces_of
from tokka.models.rendering import base_text
from tokka.records import Message

Talk = Sequence[Message]


def said(*turns: tuple[str, str]) -> list[Message]:
    return [Message.model_validate({"role": role, "content": text}) for role, text in turns]


TALKS = [
    said(("user", "締切は？")),
    said(("system", "短く"), ("user", "a\n\nb")),
    said(("user", "1"), ("assistant", '2 🎌 {{ .System }} """'), ("user", "3")),
    said(("system", "s"), *[("user", "1"), ("assistant", "2")] * 2, ("user", "5")),
]


def chatml(talk: Talk) -> str:
    """With a system text of its own where nobody gives one, as SmolLM2's."""
    if talk[0].role != "system":
        talk = [Message(role="system", content="You are helpful."), *talk]
    turns = [f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in talk]
    return "".join([*turns, "<|im_start|>assistant\n"])


def gemma(talk: Talk) -> str:
    """A system text stands in the first user's turn."""
    head = ""
    if talk[0].role == "system":
        head, talk = talk[0].content + "\n\n", talk[1:]
    parts = ["<bos>"]
    for place, message in enumerate(talk):
        name = "model" if message.role == "assistant" else "user"
        text = message.content if place else head + message.content
        parts.append(f"<start_of_turn>{name}\n{text}<end_of_turn>\n")
    return "".join([*parts, "<start_of_turn>model\n"])


def llama3(talk: Talk) -> str:
    turns = [f"<|start|>{m.role}<|end|>\n\n{m.content}<|eot|>" for m in talk]
    return "".join(["<bos>", *turns, "<|start|>assistant<|end|>\n\n"])


def go(template: str, talk: Talk) -> str:
    """Go's text/template, as far as ours uses it: range, if … else if … end, strings, .Content."""
    marks = re.findall(r'\{\{ ((?:"(?:[^"\\]|\\.)*"|[^"}])*?) \}\}', template)
    assert template == "".join(f"{{{{ {mark} }}}}" for mark in marks)
    end = max(place for place, mark in enumerate(marks) if mark == "end")
    assert marks[0] == "range $place, $message := .Messages"
    out = []
    for place, message in enumerate(talk):
        taken = [True]  # of each open if: whether this branch is taken
        done = [True]
        for mark in marks[1:end]:
            asked = re.fullmatch(r'(?:else )?if eq (?:\.Role (".*")|\$place 0)', mark)
            if mark == "end":
                taken.pop(), done.pop()
            elif asked is not None:
                met = asked[1] == f'"{message.role}"' if asked[1] else place == 0
                if mark.startswith("else"):
                    met = met and not done[-1]
                    taken[-1], done[-1] = met, done[-1] or met
                else:
                    taken.append(met), done.append(met)
            elif all(taken):
                out.append(message.content if mark == ".Content" else json.loads(mark))
    return "".join([*out, *map(json.loads, marks[end + 1 :])])


@pytest.mark.parametrize(
    ("render", "bos"),
    [
        (chatml, ""),
        (gemma, "<bos>"),
        (llama3, "<bos>"),
        (lambda talk: base_text(talk, "ja"), ""),
        (lambda talk: base_text(talk, "en"), ""),
    ],
    ids=["chatml", "gemma", "llama-3", "base ja", "base en"],
)
def test_the_template_gives_every_conversation_the_same_prompt(render: Any, bos: str) -> None:
    pieces = pieces_of(render, bos)
    for talk in TALKS:
        wanted = render(talk).removeprefix(bos)
        assert pieces.render(talk) == wanted
        assert go(pieces.template(), talk) == wanted


def test_a_template_that_takes_no_system_text_says_so() -> None:
    def render(talk: Talk) -> str:
        if talk[0].role == "system":
            raise UsageError("chat template: no system role")
        return chatml(talk)

    pieces = pieces_of(render)
    assert pieces.head_system is None
    assert go(pieces.template(), TALKS[0]) == chatml(TALKS[0])
    with pytest.raises(UsageError, match=r"say it in prompt\.format"):
        modelfile("./m.gguf", pieces, context_tokens=64, system="短く")


@pytest.mark.parametrize(
    "bend",
    [
        lambda talk: chatml(talk).replace("assistant\ntokkaTWO", "assistant\n"),
        lambda talk: chatml(talk) + str(len(talk)),
        lambda talk: chatml(talk).replace("&", "&amp;"),
        lambda talk: chatml(talk[-1:]),
    ],
    ids=["hides a turn", "counts turns", "escapes", "forgets"],
)
def test_a_template_that_does_not_go_turn_by_turn_is_refused(bend: Any) -> None:
    with pytest.raises(UsageError, match="doesn't go turn by turn"):
        pieces_of(bend)


def test_a_modelfile_says_all_that_was_examined() -> None:
    pieces = pieces_of(chatml)
    text = modelfile(
        "./model.gguf",
        pieces,
        stop=("<|im_end|>", "\n"),
        context_tokens=512,
        system="短く。",
        licence="Apache-2.0",
        notes=["a\nFROM evil"],
    )
    assert text.startswith("# a FROM evil\nFROM ./model.gguf\nTEMPLATE ")
    assert 'SYSTEM """短く。"""\n' in text
    assert "PARAMETER temperature 0\nPARAMETER num_ctx 512\n" in text
    assert 'PARAMETER stop """<|im_end|>"""\nPARAMETER stop """\n"""\n' in text
    assert text.endswith('LICENSE """Apache-2.0"""\n')


@pytest.mark.parametrize("text", ['x"""\nFROM evil', '"""', 'say "x"', '"x" say', '""'])
def test_three_quotes_break_out_of_no_text(text: str) -> None:
    pieces = pieces_of(chatml)
    made = modelfile("./m.gguf", pieces, context_tokens=64, system=text, licence=text, stop=[text])
    commands = re.sub(r'"""(.*?)"""', "TEXT", made, flags=re.DOTALL)
    assert re.fullmatch(
        r"# A stop string .*\nFROM \./m\.gguf\nTEMPLATE TEXT\nPARAMETER temperature 0\n"
        r"PARAMETER num_ctx 64\nLICENSE TEXT\n",
        commands,
    )
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', made, flags=re.DOTALL)
    asked = said(("user", "?"))
    assert go(template, asked) == chatml(said(("system", text), ("user", "?")))
