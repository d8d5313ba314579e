"""What was asked, as it goes to the model; and how a long conversation is made to fit.

Messages → `Heard`: the passages, the shots and the prompt that an answer rests on.

>>> heard = specialist.hear(messages, Caller(labels=("hr",)))
>>> heard.dropped_turns, heard.silent
(2, '')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokka.errors import UsageError
from tokka.models.protocol import Prompt
from tokka.records import Example, Message, Messages, Passage, Question


@dataclass(frozen=True, slots=True)
class Heard:
    """A question with all that its answer rests on. `silent` is what is said where the documents
    hold no answer: then no model is asked. `dropped_turns` messages of an old conversation had no
    room."""

    question: Question
    passages: tuple[Passage, ...]
    shots: tuple[Example, ...]
    prompt: Prompt
    search_seconds: float
    confidence: float | None
    silent: str = ""
    dropped_turns: int = 0


def fitting(
    messages: Messages, prompt_of: Callable[[Messages], Prompt], room: int
) -> tuple[Prompt, int]:
    """The prompt of a conversation in at most `room` tokens, and how many messages were left out.

    The oldest go first, a user's message together with what was answered; system texts and the last
    message stay. Raises UsageError where these alone are too long.
    """
    prompt = prompt_of(messages)
    if len(prompt.ids) <= room:
        return prompt, 0
    starts = [i for i, m in enumerate(messages) if m.role == "user"]

    def left(count: int) -> tuple[Prompt, int]:
        kept = _without(messages, starts[count])
        return prompt_of(kept), len(messages) - len(kept)

    too_few, enough = 0, len(starts) - 1  # users' messages that are left out
    best = left(enough) if enough else (prompt, 0)
    if len(best[0].ids) > room:
        raise UsageError(
            f"messages: the last message makes a prompt of {len(best[0].ids)} tokens with what "
            f"belongs to it, and {room} fit; shorten it"
        )
    while enough - too_few > 1:  # halving: each try renders the whole conversation
        middle = (too_few + enough) // 2
        tried = left(middle)
        if len(tried[0].ids) <= room:
            best, enough = tried, middle
        else:
            too_few = middle
    return best


def _without(messages: Messages, before: int) -> tuple[Message, ...]:
    return tuple(m for i, m in enumerate(messages) if i >= before or m.role == "system")
