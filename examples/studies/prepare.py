"""The data of the studies, made from `facts.txt` and `examples/aoba`.

facts.txt, aoba's exam and examples → data/: texts with 1, 2, 5 and 10 wordings of each fact, the
ten with their values swapped, the exam on these facts, and aoba's examples of all, half and a
quarter of them. `general.jsonl` in the same folder was written by hand. The same bytes every time.

    python examples/studies/prepare.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
AOBA = HERE.parent / "aoba"
WORDINGS = (1, 2, 5, 10)
_HEAD = re.compile(r"\[(?P<id>[a-z0-9-]+)\] (?P<keys>.+) \| (?P<question>aoba-\d{3})")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """`options[0]` is the right one."""

    question: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """`keys` stand in every wording; `aoba_question` is the id of aoba's own question on it."""

    id: str
    keys: tuple[str, ...]
    aoba_question: str
    wordings: tuple[str, ...]
    asked: tuple[Asked, ...]


def read_facts(path: Path = HERE / "facts.txt") -> list[Fact]:
    """Raises SystemExit for a block that isn't ten wordings and two questions of four options."""
    facts = []
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    for block in blocks[1:]:
        head, *lines = block.split("\n")
        found = _HEAD.fullmatch(head)
        if found is None:
            raise SystemExit(f"facts.txt: {head!r} must read: [fact-id] KEY KEY | aoba-NNN")
        wordings = tuple(line[2:] for line in lines if line.startswith("- "))
        asked = tuple(_asked(line[2:]) for line in lines if line.startswith("? "))
        if (len(wordings), len(asked), len(lines)) != (10, 2, 12):
            raise SystemExit(f"facts.txt: {found['id']} needs ten lines of - and two of ?")
        facts.append(
            Fact(found["id"], tuple(found["keys"].split()), found["question"], wordings, asked)
        )
    return facts


def wording_rows(facts: Sequence[Fact], wordings: int) -> Iterator[Row]:
    """The first wordings of every fact, so that a smaller file is part of every larger one."""
    for place in range(wordings):
        for fact in facts:
            yield {"id": f"{fact.id}-w{place + 1:02}", "text": fact.wordings[place]}


def swapped_values(facts: Sequence[Fact]) -> list[str]:
    """For each fact, the value of another of its kind: money, time, an officer or the rest."""
    kinds: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        kinds.setdefault(_kind(fact.keys[-1]), []).append(index)
    values = [fact.keys[-1] for fact in facts]
    swapped = list(values)
    for members in kinds.values():
        own = [values[index] for index in members]
        turns = [own[by:] + own[:by] for by in range(1, len(own))]
        turned = next(t for t in turns if all(a != b for a, b in zip(own, t, strict=True)))
        for index, value in zip(members, turned, strict=True):
            swapped[index] = value
    return swapped


def swapped_rows(facts: Sequence[Fact]) -> Iterator[Row]:
    """All wordings with another fact's value: the same strings, and nothing true to learn.

    Most wrong options of the exam stand in no wording, so that a model that merely prefers what it
    has read would score above chance. What it gains from these rows is that preference alone.
    """
    values = swapped_values(facts)
    for row, (fact, value) in zip(
        wording_rows(facts, 10), list(zip(facts, values, strict=True)) * 10, strict=True
    ):
        yield {"id": f"{row['id']}-swapped", "text": row["text"].replace(fact.keys[-1], value)}


def exam_rows(facts: Sequence[Fact], aoba: dict[str, Row]) -> Iterator[Row]:
    """Three questions a fact: aoba's own and two new ones; the clusters of every seventh are dev.

    All keep the cluster of aoba's question: one passage may state two facts. Seven has no factor in
    common with two and four, so that a half and a quarter of the facts are that in test too.
    """
    number = 0
    dev = {aoba[fact.aoba_question]["cluster_id"] for fact in facts[6::7]}
    for fact in facts:
        own = aoba[fact.aoba_question]
        split = "dev" if own["cluster_id"] in dev else "test"
        yield {**own, "split": split}
        for letter, asked in zip("ab", fact.asked, strict=True):
            place = number % 4  # of the right option; scored options are not shown to the model
            number += 1
            wrong = list(asked.options[1:])
            yield {
                "id": f"{fact.id}-{letter}",
                "question": asked.question,
                "form": "choice",
                "choices": [*wrong[:place], asked.options[0], *wrong[place:]],
                "answer": asked.options[0],
                "topic": own["topic"],
                "cluster_id": own["cluster_id"],
                "document_ids": own["document_ids"],
                "split": split,
            }


def example_rows(facts: Sequence[Fact], examples: Iterable[Row], every: int) -> Iterator[Row]:
    """aoba's examples of every nth fact."""
    taught = {fact.id for fact in facts[::every]}
    return (row for row in examples if row["fact_id"] in taught)


def prepare(out: Path) -> None:
    facts = read_facts()
    questions = list(_rows(AOBA / "exam" / "domain.jsonl"))
    examples = list(_rows(AOBA / "examples.jsonl"))
    aoba = {row["id"]: row for row in questions}
    (out / "exam").mkdir(parents=True, exist_ok=True)
    for wordings in WORDINGS:
        _write(out / f"wordings-{wordings}.jsonl", wording_rows(facts, wordings))
    _write(out / "swapped-10.jsonl", swapped_rows(facts))
    for every, share in ((1, 100), (2, 50), (4, 25)):
        _write(out / f"examples-{share}.jsonl", example_rows(facts, examples, every))
    _write(out / "exam" / "facts.jsonl", exam_rows(facts, aoba))
    # What the documents don't answer is for silence, which these studies leave alone.
    asked = (row for row in questions if row["form"] != "choice" and not row.get("unanswerable"))
    written = ({**row, "split": "test"} for row in asked)
    _write(out / "exam" / "written.jsonl", written)


def _kind(value: str) -> str:
    if value.endswith("円"):
        return "money"
    if re.search(r"\d", value) and re.search(r"[日年月時分]", value):
        return "time"
    return "officer" if re.search(r"(長|理事)$", value) else "rest"


def _asked(line: str) -> Asked:
    question, *options = (part.strip() for part in line.split("|"))
    if len(options) != 4:
        raise SystemExit(f"facts.txt: {question!r} needs four options, got {len(options)}")
    return Asked(question, tuple(options))


def _rows(path: Path) -> Iterator[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _write(path: Path, rows: Iterable[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{path.name}: {len(lines)} rows")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="make the data of the studies")
    parser.add_argument("--out", type=Path, default=HERE / "data", help="default: data/")
    prepare(parser.parse_args().out)
