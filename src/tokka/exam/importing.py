"""Import an exam: the owner's file, or a public one, into questions and keys that lie apart.

JSON lines, JSON or CSV → `Exam`, `Question`s, `Key`s. Every mistake in the file is reported at
once, with its line; nothing is imported from a file that holds one, unless the caller wants the bad
questions left out and named.

>>> exam, questions, keys = read_exam(Path("domain.jsonl"), "domain", "domain")
>>> write_exam(folder, exam, questions, keys)    # exam.json, questions.jsonl, keys.jsonl
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import ValidationError

from tokka.errors import IntegrityError, Mistakes, UsageError
from tokka.exam.checking import Entry, check_rows
from tokka.exam.rows import read_rows
from tokka.records import (
    Dropped,
    Exam,
    Key,
    Normalisation,
    Question,
    Record,
    Role,
    ShortScorer,
    Split,
    fingerprint,
)

DEV_SHARE = 0.2
SHORT_SCORERS: tuple[str, ...] = get_args(ShortScorer)

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Imported:
    """`questions[i]` and `keys[i]` belong together, in the order of the file."""

    exam: Exam
    questions: list[Question]
    keys: list[Key]
    dropped: list[Dropped]


def read_exam(
    path: Path,
    name: str,
    role: Role,
    normalisation: Normalisation = "tokens",
    *,
    scorer: str = "contained",
    dev_share: float = DEV_SHARE,
    language: str = "",
) -> tuple[Exam, list[Question], list[Key]]:
    """The exam in the file; raises Mistakes with all that is wrong in it, each with its line.

    `scorer` marks short answers (a `ShortScorer`). `language` is guessed when empty: "ja"
    where at least half of the questions are written in Japanese, else "en".
    """
    imported = import_exam(
        path, name, role, normalisation, scorer=scorer, dev_share=dev_share, language=language
    )
    return imported.exam, imported.questions, imported.keys


def import_exam(
    path: Path,
    name: str,
    role: Role,
    normalisation: Normalisation = "tokens",
    *,
    scorer: str = "contained",
    dev_share: float = DEV_SHARE,
    language: str = "",
    leave_out_mistakes: bool = False,
) -> Imported:
    """As `read_exam`; with `leave_out_mistakes` wrong rows are left out and returned as `dropped`.

    Published exams hold a few broken questions (two equal options, say). Leaving them out changes
    the exam and so its digest. A file with no good question is refused either way.
    """
    if scorer not in SHORT_SCORERS:
        raise UsageError(f"exam {name}: scorer {scorer!r} is none of {', '.join(SHORT_SCORERS)}")
    if not 0.0 <= dev_share < 1.0:
        raise UsageError(f"exam {name}: dev_share must be in [0, 1), got {dev_share}")
    found = read_rows(path)
    checked = check_rows(found.rows, path.name)
    mistakes = [*found.mistakes, *(mistake for _, mistake in checked.mistakes)]
    if mistakes and not leave_out_mistakes:
        raise Mistakes(f"exam {name}: {len(mistakes)} mistakes in {path}", mistakes)
    if not checked.entries:
        raise Mistakes(f"exam {name}: no question in {path}; write one a line", mistakes)
    questions = [_question(entry, dev_share) for entry in checked.entries]
    keys = [entry.key for entry in checked.entries]
    exam = Exam(
        name=name,
        role=role,
        digest=exam_digest(questions, keys, scorer, normalisation),
        scorer=scorer,
        normalisation=normalisation,
        questions=len(questions),
        language=language or _language(questions),
    )
    return Imported(exam, questions, keys, [_dropped(mistake, name) for mistake in mistakes])


def split_of(cluster_id: str, dev_share: float = DEV_SHARE) -> Split:
    """dev or test by the SHA-256 of the cluster: whole clusters, stable as questions are added."""
    place = int.from_bytes(hashlib.sha256(cluster_id.encode()).digest()[:8], "big")
    return "dev" if place < dev_share * 2**64 else "test"


def exam_digest(
    questions: Iterable[Question],
    keys: Iterable[Key],
    scorer: str,
    normalisation: Normalisation,
) -> str:
    """Fingerprint of all that decides scores; the order of the file decides nothing."""
    return fingerprint(
        {
            "questions": sorted(questions, key=lambda question: question.id),
            "keys": sorted(keys, key=lambda key: key.question_id),
            "scorer": scorer,
            "normalisation": normalisation,
        }
    )


# ---- files ------------------------------------------------------------------------------------


def write_exam(
    folder: Path, exam: Exam, questions: Sequence[Question], keys: Sequence[Key]
) -> None:
    """exam.json, questions.jsonl and keys.jsonl: an arm is handed the questions alone."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "questions.jsonl", questions)
    _write(folder / "keys.jsonl", keys)
    _write(folder / "exam.json", [exam])


def load_exam(folder: Path) -> Exam:
    """Raises IntegrityError where the file is missing or isn't what `write_exam` wrote."""
    return _load(folder / "exam.json", Exam)[0]


def load_questions(folder: Path) -> list[Question]:
    return _load(folder / "questions.jsonl", Question)


def load_keys(folder: Path) -> list[Key]:
    return _load(folder / "keys.jsonl", Key)


def _write(path: Path, records: Sequence[Record]) -> None:
    lines = (json.dumps(r.model_dump(mode="json"), ensure_ascii=False) for r in records)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    temporary.replace(path)


def _load(path: Path, record: type[R]) -> list[R]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"exam: can't read {path}: {error}; import the exam again") from error
    loaded: list[R] = []
    for number, line in enumerate(lines, 1):
        if line:
            try:
                loaded.append(record.model_validate_json(line))
            except ValidationError as error:
                raise IntegrityError(
                    f"exam: {path}:{number} is no {record.__name__} "
                    f"({error.errors()[0]['msg']}); import the exam again"
                ) from error
    if not loaded:
        raise IntegrityError(f"exam: {path} is empty; import the exam again")
    return loaded


# ---- parts ------------------------------------------------------------------------------------


def _question(entry: Entry, dev_share: float) -> Question:
    split = entry.split or split_of(entry.question.cluster_id, dev_share)
    return entry.question.model_copy(update={"split": split})


def _language(questions: Sequence[Question]) -> str:
    japanese = sum(
        any("\u3041" <= c <= "\u30ff" or "\u4e00" <= c <= "\u9fff" for c in q.messages[-1].content)
        for q in questions
    )
    return "ja" if 2 * japanese >= len(questions) else "en"


def _dropped(mistake: str, exam: str) -> Dropped:
    place = mistake.rpartition("(")[2].rstrip(")")
    return Dropped(
        item=f"{exam}: {place}", reason=mistake, stage="exam", next_action="correct the row"
    )
