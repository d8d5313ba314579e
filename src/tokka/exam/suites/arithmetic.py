"""GSM8K (Cobbe et al. 2021): word problems whose answer is one number.

grade_school_math/data/test.jsonl → Suite("gsm8k").read(source, "test")
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite

# "48/2 = <<48/2=24>>24": for a calculator that the publisher's models called while writing.
_CALCULATION = re.compile(r"<<[^<>]*>>")


def gsm8k() -> Suite:
    return Suite(
        name="gsm8k",
        title="GSM8K",
        language="en",
        task="number",
        measures="grade-school arithmetic in two to eight steps",
        measures_ja="小学校レベルの文章題（英語・数値）",
        licence="MIT",
        url="https://github.com/openai/grade-school-math",
        files=("grade_school_math/data/SPLIT.jsonl", "SPLIT.jsonl"),
        splits=("test", "train"),
        shots="train",
        read=_read,
    )


def _read(source: Source, split: str) -> Iterator[Found | Left]:
    name = f"{split}.jsonl"
    path = source.one(f"grade_school_math/data/{name}", f"data/{name}", name)
    for number, row in enumerate(source.rows(path, "question", "answer"), 1):
        place = f"{path.name}:{row.line}"
        steps, mark, answer = str(row.fields["answer"]).rpartition("\n#### ")
        if not mark:
            yield Left(place, "the answer has no line that begins with ####")
            continue
        fields = {
            "id": f"{split}-{number}",
            "question": row.fields["question"],
            "form": "number",
            "answer": answer.strip(),
        }
        yield Found(fields, place, shot=f"{_CALCULATION.sub('', steps)}\n#### {answer.strip()}")
