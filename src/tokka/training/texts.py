"""Running text → lessons: what continued pretraining learns, and what is replayed against
forgetting.

Documents are cut into windows. A window holds one document or a part of one; cuts fall behind the
end of a sentence where one is near. BOS opens every window where the tokenizer wants one, EOS ends
a document's last window and no other: a cut is no end. No torch here.

    lessons = windows(documents, renderer, window_tokens=512)
    replayed = replay_lessons(Path("general.jsonl"), renderer, "ja", 512, 2048)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from tokka.errors import Mistakes, UsageError
from tokka.models.prompting import compose
from tokka.models.protocol import Renderer
from tokka.records import Document, Example, Message, Messages, PromptSpec
from tokka.store import read_text
from tokka.training.lessons import Lesson, lesson

_ENDS, _SPACED_ENDS, _CLOSERS = "。．！？｡", ".!?", "」』）)】〕》〉］]”’\"'"  # 3.5 is no end
_PAIRS = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))


def windows(documents: Iterable[Document], renderer: Renderer, window_tokens: int) -> list[Lesson]:
    """Lessons of at most `window_tokens` ids, BOS and EOS included; all ids but the first are
    learnt.

    Every token of every document is learnt exactly once. Where the tokenizer has no BOS, a document
    goes on from its last token before the cut, which is read again, and its very first token is
    only read. Documents without text give none. Raises UsageError for windows of under 16 tokens.
    """
    if window_tokens < 16:
        raise UsageError(f"window_tokens must be at least 16, got {window_tokens}; raise it")
    found: list[Lesson] = []
    for document in documents:
        text = renderer.running(document.text)
        # Something must stand before the first token that is learnt.
        before, rest = text.before or text.ids[:1], text.ids if text.before else text.ids[1:]
        parts = _parts(rest, renderer, window_tokens - 1)
        for number, (start, stop) in enumerate(parts, 1):
            first = before if start == 0 or text.before else rest[start - 1 : start]
            ids = first + rest[start:stop]
            name = document.id if len(parts) == 1 else f"{document.id} ({number}/{len(parts)})"
            found.append(Lesson(name, ids, ((1, len(ids)),)))
    return found


def _parts(ids: Sequence[int], renderer: Renderer, room: int) -> list[tuple[int, int]]:
    """Spans of at most `room` ids that cover them all. None is a scrap: [BOS, EOS] alone would
    teach that a text may be nothing."""
    parts: list[tuple[int, int]] = []
    start = 0
    while len(ids) - start > room:
        latest = min(start + room, len(ids) - room // 2)
        stop = _cut(ids, renderer, start + (latest - start) // 2, latest)
        parts.append((start, stop))
        start = stop
    return [*parts, (start, len(ids))] if ids else []


def _cut(ids: Sequence[int], renderer: Renderer, earliest: int, latest: int) -> int:
    """The last place after `earliest`, up to `latest`, where a sentence ends; else a line; else
    `latest`."""
    line = 0
    for stop in range(latest, earliest, -1):
        begin = max(0, stop - 4)
        said = renderer.decode(ids[begin:stop])
        # Decoded alone, SentencePiece's tokens lose the space that they begin with.
        following = renderer.decode(ids[begin : stop + 1])[len(said) :]
        if _ends_sentence(said, following):
            return stop
        if not line and said.endswith("\n"):
            line = stop
    return line or latest


def _ends_sentence(said: str, following: str) -> bool:
    if following and following[0] in _CLOSERS + _ENDS + _SPACED_ENDS:
        return False
    if said.endswith("\n\n"):
        return not following.startswith("\n")
    mark = said.rstrip().rstrip(_CLOSERS)[-1:] or " "
    spaced = said[-1:].isspace() or following[:1].isspace()
    return mark in _ENDS or (mark in _SPACED_ENDS and spaced)


# ---- replay -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class General:
    """What a replay file holds: running text, and conversations."""

    documents: tuple[Document, ...]
    examples: tuple[Example, ...]

    @property
    def texts(self) -> dict[str, str]:
        """All that is said, by place."""
        said = {e.id: "\n".join(m.content for m in e.messages) for e in self.examples}
        return {document.id: document.text for document in self.documents} | said


def replay_lessons(
    path: Path,
    renderer: Renderer,
    language: str,
    window_tokens: int,
    context_tokens: int,
    thought: Literal["learn", "read", "drop"] = "learn",
) -> list[Lesson]:
    """General text as windows, general examples as finetuning learns them; all with the origin
    "replay".

    Raises Mistakes naming every example of which nothing or not all could be learnt, UsageError
    where the file can't be read or holds nothing.
    """
    general = read_general(path)
    found = windows(general.documents, renderer, min(window_tokens, context_tokens))
    mistakes: list[str] = []
    for example in general.examples:
        messages = compose(example.messages[:-1], spec=PromptSpec(), language=language)
        answer = example.messages[-1].content
        try:
            found.append(lesson(example.id, messages, answer, renderer, context_tokens, thought))
        except UsageError as error:
            mistakes.append(f"replay: {error}")
    if mistakes:
        raise Mistakes(f"replay: {len(mistakes)} mistakes in {path}", mistakes)
    if not found:
        raise UsageError(f"replay: {path} holds no text; add some, or remove replay")
    return [dataclasses.replace(one, origin="replay") for one in found]


def read_general(path: Path) -> General:
    """General text: a .txt or .md file is one document; each row of a .jsonl (or .jsonl.gz) file is
    {"text": …} or an example ({"messages": […]}, {"question", "answer"}, {"prompt", "completion"},
    {"instruction", "input", "output"}), whatever other fields it has.

    Raises Mistakes naming every bad row, UsageError where the file as a whole can't be read.
    """
    if path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        return _rows(path)
    if path.suffix.lower() not in (".txt", ".md"):
        raise UsageError(
            f"general text: {path} is no .txt, .md or .jsonl file; convert it to one of these"
        )
    text = _read(path)
    return General((_document(path.name, text, path.name),) if text.strip() else (), ())


def _rows(path: Path) -> General:
    documents: list[Document] = []
    examples: list[Example] = []
    mistakes: list[str] = []
    # Not splitlines(): U+2028 may stand inside a JSON string.
    for number, line in enumerate(
        read_text(path, "general text").replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1
    ):
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        try:
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("text"), str) and row["text"].strip():
                documents.append(_document(place, row["text"], place))
            else:
                examples.append(Example(id=place, messages=_messages(row)))
        except (ValueError, RecursionError) as error:
            reason = "not valid JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            mistakes.append(f"general text: {reason} ({place})")
    if mistakes:
        raise Mistakes(f"general text: {len(mistakes)} mistakes in {path}", mistakes)
    return General(tuple(documents), tuple(examples))


def _messages(row: Any) -> Messages:
    """Raises ValueError saying what the row lacks."""
    lacks = "a row needs text, messages, or a question and its answer; correct or remove it"
    if not isinstance(row, dict):
        raise ValueError(lacks)
    given = row.get("messages")
    if given is None:
        asks, answers = next((p for p in _PAIRS if all(row.get(n) for n in p)), ("", ""))
        if not asks:
            raise ValueError(lacks)
        asked = "\n\n".join(str(row[n]) for n in (asks, "input") if row.get(n))
        given = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": str(row[answers])},
        ]
    try:
        messages = tuple(
            Message(role=m["role"], content=m["content"].strip()) for m in given if m["content"]
        )
    except (ValidationError, TypeError, KeyError, AttributeError):
        raise ValueError(
            'messages must be a list of {"role": …, "content": …}; correct the row'
        ) from None
    if [m.role for m in messages[-2:]] != ["user", "assistant"]:
        raise ValueError(
            "a conversation must end with the user's message and the assistant's answer; "
            "correct or remove it"
        )
    return messages


def _document(name: str, text: str, source: str) -> Document:
    return Document(
        id=name,
        text=text,
        source=source,
        title="",
        language="",
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def _read(path: Path) -> str:
    return read_text(path, "general text").replace("\r\n", "\n").replace("\r", "\n")
