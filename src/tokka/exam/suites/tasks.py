"""ELYZA-tasks-100: a hundred instructions in Japanese, each with a reference and what to look at.

    test.csv (input, output, eval_aspect) → Suite("elyza-tasks-100").read(source, "test")

Only a judge can mark the answers: they are asked and kept, and their scores wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokka.exam.rows import Row
from tokka.exam.suites.files import Source, table
from tokka.exam.suites.recipe import Found, Left, Suite

_FIELDS = ("input", "output", "eval_aspect")


def elyza_tasks_100() -> Suite:
    return Suite(
        name="elyza-tasks-100",
        title="ELYZA-tasks-100",
        language="ja",
        task="free text, for a judge",
        measures="following complex instructions in Japanese helpfully",
        measures_ja="複雑な日本語の指示への応答（採点は審査役を待つ）",
        licence="CC BY-SA 4.0",
        url="https://huggingface.co/datasets/elyza/ELYZA-tasks-100",
        files=("test.csv", "test.jsonl", "test.json"),
        splits=("test",),
        scorer="judge",
        read=_read,
    )


def _read(source: Source, split: str) -> Iterator[Found | Left]:
    path = source.one("test.csv", "test.jsonl", "test.json", "*/test.csv")
    for number, row in enumerate(_rows(source, path), 1):
        fields = {
            "id": f"elyza-{number}",
            "question": row.fields["input"],
            "form": "short",
            "answer": [row.fields["output"]],
            "points": [row.fields["eval_aspect"]],
        }
        yield Found(fields, f"{path.name}:{row.line}")


def _rows(source: Source, path: Path) -> list[Row]:
    if ".csv" not in path.suffixes:
        return source.rows(path, *_FIELDS)
    (line, header), *records = table(path) or [(1, [])]
    missing = [name for name in _FIELDS if name not in header]
    if missing:
        raise source.not_published(f"{path.name}:{line}", missing[0])
    return [Row(n, dict(zip(header, cells, strict=False))) for n, cells in records]
