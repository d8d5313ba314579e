"""MMLU (Hendrycks et al. 2021) and JMMLU: one headerless CSV a subject, four options and a letter.

data/test/anatomy_test.csv, data/dev/anatomy_dev.csv · JMMLU/anatomy.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokka.errors import UsageError
from tokka.exam.suites.files import Source, stem, table
from tokka.exam.suites.recipe import Found, Left, Suite

_COLUMNS = 6  # question, four options, letter


def mmlu() -> Suite:
    return Suite(
        name="mmlu",
        title="MMLU",
        language="en",
        task="choice of 4",
        measures="knowledge and reasoning in 57 school, university and professional subjects",
        measures_ja="57科目の知識と推論（英語・4択）",
        licence="MIT",
        url="https://github.com/hendrycks/test (data.tar)",
        files=("data/SPLIT/SUBJECT_SPLIT.csv",),
        splits=("test", "val", "dev"),
        shots="dev",
        read=_read_mmlu,
    )


def jmmlu() -> Suite:
    return Suite(
        name="jmmlu",
        title="JMMLU",
        language="ja",
        task="choice of 4",
        measures="knowledge in 53 subjects in Japanese: MMLU translated, and Japanese history",
        measures_ja="日本語の53科目の知識（MMLUの翻訳と日本史、4択）",
        licence="CC BY-SA 4.0; split nc-nd (three subjects): CC BY-NC-ND 4.0",
        url="https://github.com/nlp-waseda/JMMLU",
        files=("JMMLU/SUBJECT.csv", "JMMLU_NC_ND/SUBJECT.csv (split nc-nd)"),
        splits=("test", "nc-nd"),
        read=_read_jmmlu,
    )


def _read_mmlu(source: Source, split: str) -> Iterator[Found | Left]:
    pattern = f"{split}/*_{split}.csv"
    for path in source.several(f"data/{pattern}", pattern, f"*_{split}.csv"):
        yield from _subject(path, stem(path).removesuffix(f"_{split}"), f"{split}-")


def _read_jmmlu(source: Source, split: str) -> Iterator[Found | Left]:
    if split == "nc-nd":
        paths = source.several("JMMLU_NC_ND/*.csv", "*/JMMLU_NC_ND/*.csv")
    else:
        paths = source.several("JMMLU/*.csv", "JMMLU/JMMLU/*.csv", "*.csv")
    for path in paths:
        yield from _subject(path, stem(path), "")


def _subject(path: Path, subject: str, part: str) -> Iterator[Found | Left]:
    """Raises UsageError where the first record has other columns: then it is another file."""
    for number, (line, cells) in enumerate(table(path), 1):
        place = f"{path.name}:{line}"
        if len(cells) != _COLUMNS:
            reason = f"{len(cells)} cells where question, four options and a letter are published"
            if number == 1:
                raise UsageError(f"{path}:{line}: {reason}; name the folder of the suite itself")
            yield Left(place, reason)
            continue
        question, *choices, answer = cells
        letter = answer.strip().upper()
        if letter not in ("A", "B", "C", "D"):
            yield Left(place, f"the answer is {answer.strip()[:20]!r}, not A to D")
            continue
        fields = {
            "id": f"{subject}-{part}{number}",
            "question": question,
            "choices": choices,
            "answer_index": "ABCD".index(letter),
            "topic": subject,
        }
        yield Found(fields, place)
