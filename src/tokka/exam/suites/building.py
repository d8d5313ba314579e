"""Make an exam file from a publisher's files: every question checked, every left-out one named.

    built = build(suite("gsm8k"), Path("grade-school-math"))
    write_all(built, Path("gsm8k.jsonl"), None)  # tokka's own exam file: read_exam(path, …)

Publisher's file → `Found`s (recipe) → rows in the owner's fields → the importer's own checks. The
same files give the same bytes. All questions go into the test split: a suite is for reporting.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import TokkaError, UsageError
from tokka.exam.checking import check_rows
from tokka.exam.rows import Row
from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite
from tokka.records import Dropped, Key, Message, Question
from tokka.store import write_text

_PLACE = re.compile(r"\bline (\d+)")


@dataclass(frozen=True, slots=True)
class Built:
    """`rows` are the exam file's; `examples` are few-shot examples in the training format;
    `opened` are the files that were read."""

    suite: Suite
    split: str
    rows: tuple[dict[str, Any], ...]
    dropped: tuple[Dropped, ...]
    examples: tuple[dict[str, Any], ...]
    examples_dropped: tuple[Dropped, ...]
    opened: tuple[Path, ...]

    @property
    def topics(self) -> dict[str, int]:
        """Questions by topic, in the order of the file."""
        return dict(Counter(row["topic"] for row in self.rows if row.get("topic")))


def build(
    suite: Suite,
    folder: Path,
    split: str = "",
    *,
    context: bool = True,
    text_only: bool = False,
    shots: bool = False,
) -> Built:
    """Read the split (the suite's first one when empty) from the publisher's folder.

    `context=False` leaves the publisher's passages out of the questions; `text_only` leaves out
    questions that need a picture; `shots` also reads the split that feeds examples. Raises
    UsageError where the folder isn't the suite's, or an option isn't for it.
    """
    split = split or suite.splits[0]
    _refuse_options(suite, split, context, text_only, shots)
    source = Source(suite.title, suite.url, folder, context, text_only)
    rows, dropped = _checked(suite, list(_read(suite, source, split)))
    if not rows:
        reasons = "; ".join(f"{one.item}: {one.reason}" for one in dropped[:3])
        raise UsageError(f"{suite.title}: no question is left of {folder} ({reasons})")
    examples: list[dict[str, Any]] = []
    left: list[Dropped] = []
    if shots:
        found = list(_read(suite, source, suite.shots))
        shown = {one.row["id"]: one.shot for one in found if isinstance(one, Found)}
        kept, left = _checked(suite, found)
        examples = list(_examples(suite, kept, shown, left))
    exam = tuple(row for row, _, _ in rows)
    opened = tuple(source.opened)
    return Built(suite, split, exam, tuple(dropped), tuple(examples), tuple(left), opened)


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One JSON object a line, written whole or not at all."""
    write_text(path, "".join(_line(row) + "\n" for row in rows))


def write_all(built: Built, out: Path, shots_out: Path | None, dry_run: bool = False) -> None:
    """The exam and its examples. Raises UsageError, before anything is written, for a path that is
    one of the publisher's own files, for a folder, and for one path given twice."""
    if shots_out is not None and out.resolve() == shots_out.resolve():
        raise UsageError(f"{out} is given for the exam and for the examples; name two files")
    for path in (out, shots_out):
        if path is None or not path.exists():
            continue
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name the file to write in it")
        if any(path.samefile(file) for file in built.opened):
            raise UsageError(f"{path} is the publisher's own file; name another one to write")
    if dry_run:
        return
    write(built.rows, out)
    if shots_out is not None:
        write(built.examples, shots_out)


# ---- parts ------------------------------------------------------------------------------------


def _refuse_options(suite: Suite, split: str, context: bool, text_only: bool, shots: bool) -> None:
    if split not in suite.splits:
        raise UsageError(f"{suite.name} has no split {split!r}; it has {', '.join(suite.splits)}")
    if not context and not suite.passages:
        raise UsageError(f"{suite.name} gives no passages to leave out; drop --no-context")
    if text_only and not suite.pictures:
        raise UsageError(f"{suite.name} shows no pictures; drop --text-only")
    if shots and not suite.shots:
        raise UsageError(f"{suite.name} publishes nothing for examples; drop --shots-out")
    if shots and split == suite.shots:
        raise UsageError(
            f"{suite.name}: examples come from the split {split}, which is the exam here; build "
            "another split, or drop --shots-out"
        )


def _read(suite: Suite, source: Source, split: str) -> Iterator[Found | Left]:
    """A file of another shape than published ends in a sentence, whatever a recipe stumbles on."""
    try:
        yield from suite.read(source, split)
    except TokkaError:
        raise
    except (AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
        where = source.opened[-1] if source.opened else source.folder
        raise UsageError(
            f"{suite.title}: {where} isn't as published ({type(error).__name__}: {error}); get it "
            f"from {suite.url}"
        ) from error


def _checked(
    suite: Suite, found: Sequence[Found | Left]
) -> tuple[list[tuple[dict[str, Any], Question, Key]], list[Dropped]]:
    """Rows that the importer takes, with what it makes of them; and what was left out, in the order
    of the files."""
    left = {n: one for n, one in enumerate(found, 1) if isinstance(one, Left)}
    rows = {n: _row(one.row) for n, one in enumerate(found, 1) if isinstance(one, Found)}
    for number, row in rows.items():
        try:
            _line(row).encode()
        except UnicodeEncodeError:
            left[number] = Left(found[number - 1].place, "a character in it is broken")
    while True:
        kept = {number: row for number, row in rows.items() if number not in left}
        checked = check_rows([Row(number, row) for number, row in kept.items()], suite.name)
        if not checked.mistakes:
            break
        for number, mistake in checked.mistakes:
            left[number] = Left(found[number - 1].place, _reason(mistake, found))
    dropped = [
        Dropped(
            item=f"{suite.name}: {one.place}",
            reason=one.reason,
            stage="suite",
            next_action=one.next_action,
        )
        for _, one in sorted(left.items())
    ]
    return [(kept[e.line], e.question, e.key) for e in checked.entries], dropped


def _reason(mistake: str, found: Sequence[Found | Left]) -> str:
    """The importer's sentence with the publisher's places in it, without what the row's owner
    should do about it."""
    sentence = mistake.removeprefix("exam: ").rpartition(" (")[0].partition(";")[0]
    return _PLACE.sub(lambda match: found[int(match[1]) - 1].place, sentence)


def _row(fields: dict[str, Any]) -> dict[str, Any]:
    return {**{name: v for name, v in fields.items() if v not in ("", [], None)}, "split": "test"}


def _examples(
    suite: Suite,
    rows: Sequence[tuple[dict[str, Any], Question, Key]],
    shown: dict[str, str],
    left: list[Dropped],
) -> Iterator[dict[str, Any]]:
    """Training examples; a conversation that stands twice is kept once."""
    seen: dict[tuple[str, ...], str] = {}
    for row, question, key in rows:
        answer = Message(role="assistant", content=shown.get(row["id"]) or key.targets[0])
        said = [
            {"role": message.role, "content": message.content.strip()}
            for message in (*question.messages, answer)
        ]
        first = seen.setdefault(_typed_alike(said), question.id)
        if first != question.id:
            reason = f"the same conversation as {first}"
            item = f"{suite.name}: {question.id}"
            left.append(Dropped(item=item, reason=reason, stage="suite"))
            continue
        example: dict[str, Any] = {"id": f"{suite.name}-{question.id}", "messages": said}
        if question.document_ids:
            example["document_ids"] = list(question.document_ids)
        yield example


def _typed_alike(messages: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Equal for conversations that differ in width and spaces alone: the training format refuses
    both together."""
    return tuple(" ".join(unicodedata.normalize("NFKC", m["content"]).split()) for m in messages)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
