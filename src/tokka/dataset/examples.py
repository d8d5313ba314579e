"""Read training examples.

JSON lines → `Example`s. A row is {"messages": […]}, or {"question", "answer"}, {"prompt",
"completion"}, {"instruction", "input", "output"}; beside it id, fact_id, document_ids, origin,
split, finish_reason. All mistakes in a file are reported at once, with their lines.

>>> examples = read_examples(Path("examples.jsonl"))
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokka.errors import Mistakes, UsageError
from tokka.records import Example, Message, Messages, fingerprint
from tokka.store import read_text

_ABOUT = ("id", "fact_id", "document_ids", "origin", "split", "finish_reason")
_NO_TEXT = ("document_ids", "split")
_PAIRS = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))
_FIELDS = ("messages", *(name for pair in _PAIRS for name in pair), "input", "system", *_ABOUT)
_ROLES = ("system", "user", "assistant")
_CUT_REASONS = ("length", "max_tokens")  # as OpenAI's interface names it, and Anthropic's


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with teaching an example that can be read. `place` is its file and line."""

    example_id: str
    place: str
    reason: str
    next_action: str

    def __str__(self) -> str:
        return f"example {self.example_id}: {self.reason}; {self.next_action} ({self.place})"


@dataclass(frozen=True, slots=True)
class Surveyed:
    """The examples of a file and where they stand, without those that repeat another; what is wrong
    with some, these included; what is wrong with the rows that can't be read."""

    examples: tuple[Example, ...]
    places: dict[str, str]  # by example id
    mistakes: tuple[Mistake, ...]
    unreadable: tuple[str, ...]


def read_examples(path: Path) -> list[Example]:
    """The examples of a file, plain or gzipped, in its order.

    Raises Mistakes naming every bad row; UsageError where the file can't be read at all. A row
    without id gets one from its content.
    """
    surveyed = survey(path)
    wrong = [*surveyed.unreadable, *map(str, surveyed.mistakes)]
    if wrong:
        raise Mistakes(f"examples: {len(wrong)} mistakes in {path}", wrong)
    return list(surveyed.examples)


def survey(path: Path) -> Surveyed:
    """As `read_examples`, with the mistakes returned: rows that can't be read, and examples that
    repeat another, share its id, or whose answer is cut. Raises UsageError."""
    found: list[tuple[str, Example]] = []
    unreadable: list[str] = []
    mistakes: list[Mistake] = []
    for line, text in enumerate(read_text(path, "example").split("\n"), 1):
        if not text.strip():
            continue
        wrong: list[str] = []
        place = f"{path.name}:{line}"
        example, finish_reason = _example(text, wrong)
        unreadable.extend(f"example: {reason} ({place})" for reason in wrong)
        if example is None or wrong:
            continue
        found.append((place, example))
        if why := _cut(example.messages[-1].content, finish_reason):
            action = "complete the answer, or remove the example"
            mistakes.append(Mistake(example.id, place, f"the answer is cut: {why}", action))
    if not found and not unreadable:
        raise UsageError(
            f'example: {path} is empty; write rows like {{"question": …, "answer": …}}'
        )
    repeats = _repeats(found)
    again = {mistake.place for mistake in repeats}
    kept = [(place, example) for place, example in found if place not in again]
    order = {place: number for number, (place, _) in enumerate(found)}
    return Surveyed(
        tuple(example for _, example in kept),
        {example.id: place for place, example in kept},
        tuple(sorted([*mistakes, *repeats], key=lambda mistake: order[mistake.place])),
        tuple(unreadable),
    )


def contradictions(examples: Sequence[Example]) -> list[tuple[Example, Example]]:
    """Pairs of training examples that are asked the same and answer otherwise: the first of a
    question, and the first that differs from it. Letter case and marks make no difference."""
    first: dict[str, Example] = {}
    found: dict[str, tuple[Example, Example]] = {}
    for example in examples:
        if example.split != "train":
            continue
        asks = fingerprint([[m.role, _same(m.content)] for m in example.messages[:-1]])
        before = first.setdefault(asks, example)
        if asks not in found and _said(before) != _said(example):
            found[asks] = (before, example)
    return list(found.values())


# ---- one row ----------------------------------------------------------------------------------


def _example(text: str, wrong: list[str]) -> tuple[Example | None, str]:
    """The example, and how the model that wrote its answer came to an end."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        wrong.append(f"not valid JSON: {getattr(error, 'msg', error)}; correct the row")
        return None, ""
    if not isinstance(row, dict):
        wrong.append(f"a row must be an object with fields, got {type(row).__name__}")
        return None, ""
    if "instruction" not in row:  # published instruction data carries fields of its own
        wrong.extend(_unknown(name) for name in row if name not in _FIELDS)
    messages = _messages(row, wrong)
    about = {name: _text(row, name, wrong) for name in _ABOUT if name not in _NO_TEXT}
    split: Literal["train", "dev"] = "dev" if row.get("split") == "dev" else "train"
    if row.get("split") not in (None, "train", "dev"):
        wrong.append(f"split must be train or dev, got {row['split']!r}")
    document_ids = row.get("document_ids") or []
    if not isinstance(document_ids, list) or not all(isinstance(d, str) for d in document_ids):
        wrong.append(f"document_ids must be a list of texts, got {str(document_ids)[:40]!r}")
        document_ids = []
    if wrong or not messages:
        return None, ""
    content = [[m.role, m.content] for m in messages]
    example = Example(
        id=about["id"] or f"ex-{fingerprint(content)[:12]}",
        messages=messages,
        fact_id=about["fact_id"],
        document_ids=tuple(document_ids),
        origin=about["origin"] or "label",
        split=split,
    )
    return example, about["finish_reason"]


def _messages(row: dict[str, Any], wrong: list[str]) -> Messages:
    pairs = [pair for pair in _PAIRS if any(row.get(name) is not None for name in pair)]
    given = row.get("messages")
    if given is not None and pairs:
        wrong.append(f"both 'messages' and {pairs[0][0]!r} are given; keep one")
        return ()
    if given is None:
        if len(pairs) != 1:
            names = " and ".join(repr(pair[0]) for pair in pairs) or "none"
            wrong.append(f"needs messages, or question and answer; got {names}")
            return ()
        given = _conversation(row, *pairs[0])
    if not isinstance(given, list) or not given or not all(_is_message(m) for m in given):
        wrong.append('messages must be a list of {"role": …, "content": …}')
        return ()
    messages = tuple(Message(role=m["role"], content=m["content"].strip()) for m in given)
    if messages[-1].role != "assistant":
        wrong.append(f"the last message must be the assistant's, got {messages[-1].role}'s")
    elif not messages[-1].content:
        wrong.append("the answer is empty; write what is to be learnt")
    elif len(messages) > 1 and messages[-2].role != "user":
        wrong.append(f"the message before the answer must be the user's, got {messages[-2].role}'s")
    if not any(m.role == "user" for m in messages):
        wrong.append("no message is the user's; write what is asked")
    if any(not m.content for m in messages[:-1]):
        wrong.append("the question is empty; write what is asked")
    return messages


def _conversation(row: dict[str, Any], asks: str, answers: str) -> list[dict[str, Any]]:
    question = row.get(asks) or ""
    if asks == "instruction" and row.get("input"):
        question = f"{question}\n\n{row['input']}"
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [
        *system,
        {"role": "user", "content": question},
        {"role": "assistant", "content": row.get(answers) or ""},
    ]


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"role", "content"}
        and value["role"] in _ROLES
        and isinstance(value["content"], str)
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_FIELDS)}"
    return f"unknown field {name!r}; {hint}"


def _text(row: dict[str, Any], name: str, wrong: list[str]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        wrong.append(f"{name} must be text, got {str(value)[:40]!r}")
        return ""
    return str(value).strip()


# ---- all rows ---------------------------------------------------------------------------------


def _repeats(found: Sequence[tuple[str, Example]]) -> list[Mistake]:
    wrong: list[Mistake] = []
    ids: dict[str, str] = {}
    conversations: dict[str, str] = {}
    for place, example in found:
        said = fingerprint([[m.role, _same(m.content)] for m in example.messages])
        first = conversations.setdefault(said, place)
        if first != place:
            reason = f"the same conversation as in line {first.rpartition(':')[2]}"
            wrong.append(Mistake(example.id, place, reason, "remove one"))
        elif (before := ids.setdefault(example.id, place)) != place:
            reason = f"id {example.id!r} stands in line {before.rpartition(':')[2]} too"
            wrong.append(Mistake(example.id, place, reason, "change one"))
    return wrong


def _cut(answer: str, finish_reason: str) -> str:
    """How an answer shows that its end is missing; "" where it doesn't."""
    if finish_reason in _CUT_REASONS:
        return f"finish_reason is {finish_reason!r}"
    if sum(line.lstrip().startswith("```") for line in answer.splitlines()) % 2:
        return "a code block (```) is opened and not closed"
    if answer.endswith(("、", "，", ",")):
        return f"it ends with {answer[-1]!r}"
    return "it ends inside a character" if answer.endswith("\ufffd") else ""


def _same(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip()


def _said(example: Example) -> str:
    folded = unicodedata.normalize("NFKC", example.messages[-1].content).casefold()
    return "".join(re.findall(r"\w", folded)) or folded
