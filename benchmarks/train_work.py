"""What both sides are trained on: token ids, and the first place that is learnt.

JSQuAD (or the project's own example, where there is none) → pairs of a prompt with its paragraph
and a short answer, rendered by tokka's renderer; and windows of running text. Held-out pairs are
about other paragraphs, held-out windows from other articles.

>>> short_answers(rows, renderer, train=128, heldout=64)
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import public_data

AOBA = Path(__file__).parents[1] / "examples" / "aoba"
WINDOW = 512
SEED = 0


@dataclass(frozen=True)
class Pair:
    """Ids of a text of which everything from `start` on is learnt."""

    ids: tuple[int, ...]
    start: int

    @property
    def learnt(self) -> int:
        return len(self.ids) - self.start


@dataclass(frozen=True)
class Work:
    title: str
    train: tuple[Pair, ...]
    heldout: tuple[Pair, ...]

    @property
    def tokens(self) -> int:
        return sum(len(pair.ids) for pair in self.train)

    @property
    def learnt(self) -> int:
        return sum(pair.learnt for pair in self.train)

    @property
    def mean_length(self) -> float:
        return self.tokens / len(self.train)


@dataclass(frozen=True)
class Asked:
    passage: str
    question: str
    answer: str


def read(folder: Path | None) -> tuple[str, list[Asked], list[str]]:
    """The data's name, questions with their passages, and running texts. JSQuAD's validation file;
    `examples/aoba` where no folder is given."""
    if folder is None:
        return ("examples/aoba", *_aoba())
    asked = [
        Asked(row["context"], row["question"], row["answers"][0]["text"])
        for row in public_data.jsquad(folder)
    ]
    return "JSQuAD", asked, public_data.jsquad_articles(folder)


def _aoba() -> tuple[list[Asked], list[str]]:
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted((AOBA / "documents").glob("*.md"))
    }
    asked = []
    for line in (AOBA / "examples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        question, answer = (message["content"] for message in row["messages"])
        asked += [Asked(texts[n], question, answer) for n in row["document_ids"] if n in texts]
    return asked, list(texts.values())


def short_answers(
    title: str, asked: Sequence[Asked], renderer: Any, *, train: int, heldout: int
) -> Work:
    """Every question comes after its passage; the answer and its end are learnt. Passages are
    shuffled, and none is on both sides."""
    passages = list(dict.fromkeys(one.passage for one in asked))
    random.Random(SEED).shuffle(passages)
    place = {passage: number for number, passage in enumerate(passages)}
    order = sorted(asked, key=lambda one: place[one.passage])
    chosen = order[:heldout]
    apart = {one.passage for one in chosen}
    rest = [one for one in order if one.passage not in apart]
    if len(rest) < train:
        raise SystemExit(f"{title}: {train} pairs were wanted, {len(rest)} are there; take fewer")
    return Work(
        f"{title}: passage, question → short answer",
        tuple(_pair(one, renderer) for one in rest[:train]),
        tuple(_pair(one, renderer) for one in chosen),
    )


def _pair(one: Asked, renderer: Any) -> Pair:
    from tokka.records import Message

    text = f"{one.passage}\n質問：{one.question}"
    prompt = renderer.prompt((Message(role="user", content=text),))
    return Pair((*prompt.ids, *renderer.answer(one.answer, prompt)), len(prompt.ids))


def running_text(
    title: str,
    texts: Sequence[str],
    renderer: Any,
    *,
    train: int,
    heldout: int,
    window: int = WINDOW,
) -> Work:
    """Windows of exactly `window` ids, so that neither side pads; a rest that fills none is left
    out, and texts too short for one are joined first."""
    joined, texts = [], list(texts)
    random.Random(SEED).shuffle(texts)
    for text in texts:
        if joined and len(joined[-1]) < 4 * window:  # about two windows of Japanese
            joined[-1] += "\n\n" + text
        else:
            joined.append(text)
    cut: list[list[Pair]] = []
    for text in joined:
        ids = renderer.completion(text).ids
        whole = range(0, len(ids) - window + 1, window)
        cut.append([Pair(tuple(ids[at : at + window]), 1) for at in whole])
    held: list[Pair] = []
    while len(held) < heldout and cut:
        held += cut.pop(0)
    windows = [pair for pairs in cut for pair in pairs]
    if len(windows) < train or len(held) < heldout:
        raise SystemExit(
            f"{title}: {train} + {heldout} windows of {window} tokens were wanted, there are "
            f"{len(windows)} + {len(held)}; take fewer"
        )
    random.Random(SEED).shuffle(windows)
    return Work(f"{title}: windows of {window}", tuple(windows[:train]), tuple(held[:heldout]))
