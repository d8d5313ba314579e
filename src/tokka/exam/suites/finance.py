"""TAT-QA (Zhu et al. 2021) and FinanceBench (Islam et al. 2023): questions on financial reports.

    dataset_raw/tatqa_dataset_dev.json · data/financebench_open_source.jsonl

TAT-QA's numbers are asked with their scale (thousand, million, billion or percent), which is part
of the answer, and marked to two digits behind the point, as the publisher does. FinanceBench's are
marked to the last digit that it gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tokka.exam.numbers import plain
from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite

_SCALES = {"": 1, "thousand": 10**3, "million": 10**6, "billion": 10**9, "percent": 1}
_FIGURE = re.compile(
    r"(?P<open>\()?(?P<minus>[-−–])?\s*[$€£¥]?\s*(?P<minus_too>[-−–])?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"\s*(?P<percent>%)?(?(open)\))(?P<percent_too>%)?\.?"
)
_HALF_A_HUNDREDTH = Decimal("0.005")
_SCALE_ASKED = re.compile(r"\b(?:USD|dollars?|in)\s+(thousand|million|billion)s?\b", re.IGNORECASE)
_ASK_SCALE = (
    "Answer with the value alone, and with its scale where it has one "
    "(thousand, million, billion or percent)."
)
_TATQA = {
    "test": "tatqa_dataset_test_gold.json",
    "dev": "tatqa_dataset_dev.json",
    "train": "tatqa_dataset_train.json",
}


def tatqa() -> Suite:
    return Suite(
        name="tat-qa",
        title="TAT-QA",
        language="en",
        task="number or spans from a table and text",
        measures="reading and arithmetic over tables and paragraphs of financial reports",
        measures_ja="財務報告書の表と文章からの読み取りと計算（英語）",
        licence="CC BY 4.0",
        url="https://github.com/NExTplusplus/TAT-QA",
        files=tuple(f"dataset_raw/{name}" for name in _TATQA.values()),
        splits=tuple(_TATQA),
        shots="train",
        scorer="spans",
        read=_read_tatqa,
        passages=True,
    )


def financebench() -> Suite:
    return Suite(
        name="financebench",
        title="FinanceBench",
        language="en",
        task="number or short answer from evidence",
        measures="questions on filings of US companies; sentences, which the publisher marks by "
        "hand, get an F1",
        measures_ja="米国企業の開示書類についての質問（英語。文の答えはF1で採点）",
        licence="CC BY-NC 4.0",
        url="https://github.com/patronus-ai/financebench",
        files=("data/financebench_open_source.jsonl",),
        splits=("open-source",),
        scorer="f1",
        read=_read_financebench,
        passages=True,
    )


# ---- TAT-QA -----------------------------------------------------------------------------------


def _read_tatqa(source: Source, split: str) -> Iterator[Found | Left]:
    name = _TATQA[split]
    path = source.one(f"dataset_raw/{name}", name)
    for row in source.rows(path, "table", "paragraphs", "questions"):
        table, passage = row.fields["table"], _passage(row.fields)
        for asked in row.fields["questions"]:
            place = f"{path.name}, {asked.get('uid', f'line {row.line}')}"
            for field in ("uid", "question", "answer", "answer_type", "scale"):
                if field not in asked:
                    raise source.not_published(place, field)
            key = _tatqa_key(asked)
            if isinstance(key, str):
                yield Left(place, key)
                continue
            question = f"{asked['question'].strip()}\n{_ASK_SCALE}"
            fields = {
                "id": asked["uid"],
                "question": f"{passage}\n\n{question}" if source.context else question,
                "topic": asked["answer_type"],
                "cluster_id": table["uid"],
                **key,
            }
            yield Found(fields, place, shot=_tatqa_shot(asked))


def _passage(row: Mapping[str, Any]) -> str:
    """The paragraphs in their order, then the table with its cells between bars."""
    paragraphs = sorted(row["paragraphs"], key=lambda paragraph: paragraph["order"])
    rows = ("| " + " | ".join(map(str, cells)) + " |" for cells in row["table"]["table"])
    return "\n".join([*(paragraph["text"] for paragraph in paragraphs), "", *rows])


def _tatqa_key(asked: Mapping[str, Any]) -> dict[str, Any] | str:
    """The key's fields, or why there are none. Single spans that are figures are numbers, as the
    publisher's metric takes them."""
    answer, scale = asked["answer"], asked["scale"]
    if scale not in _SCALES:
        return f"its scale is {scale!r}, none of thousand, million, billion and percent"
    spans = [_plain(one) for one in (answer if isinstance(answer, list) else [answer])]
    if not spans or "" in spans:
        return "its answer is empty"
    figure = _figure(spans[0]) if len(spans) == 1 else None
    if figure is not None:
        value, _, percent = figure
        unit = "%" if percent or scale == "percent" else ""
        times = 1 if unit else _SCALES[scale]
        return {
            "form": "number",
            "answer": plain(value * times),
            "unit": unit,
            "tolerance": float(_HALF_A_HUNDREDTH * times),
        }
    if asked["answer_type"] in ("arithmetic", "count"):
        return f"its answer {spans[0][:40]!r} is no number"
    suffix = f" {scale}" if scale else ""
    return {"form": "short", "answer": [f"{span}{suffix}" for span in spans]}


def _plain(value: Any) -> str:
    """A number without exponent: 1e-05 is 0.00001."""
    return plain(Decimal(str(value))) if isinstance(value, int | float) else str(value).strip()


def _tatqa_shot(asked: Mapping[str, Any]) -> str:
    answer = asked["answer"]
    spans = answer if isinstance(answer, list) else [answer]
    return f"{', '.join(map(str, spans))} {asked['scale'] or ''}".strip()


# ---- FinanceBench -----------------------------------------------------------------------------


def _read_financebench(source: Source, split: str) -> Iterator[Found | Left]:
    """Document ids are the names of the publisher's PDF files, for a corpus that is their
    folder."""
    name = "financebench_open_source.jsonl"
    path = source.one(f"data/{name}", name)
    for row in source.rows(path, "financebench_id", "question", "answer", "doc_name", "evidence"):
        question = row.fields["question"].strip()
        if source.context:
            evidence = (part["evidence_text"].strip() for part in row.fields["evidence"])
            question = "\n\n".join([*evidence, question])
        fields = {
            "id": row.fields["financebench_id"],
            "question": question,
            "topic": row.fields.get("question_type", ""),
            "cluster_id": row.fields["doc_name"],
            "document_ids": [f"{row.fields['doc_name']}.pdf"],
            **_financebench_key(row.fields["question"], row.fields["answer"].strip()),
        }
        yield Found(fields, f"{path.name}:{row.line}")


def _financebench_key(question: str, answer: str) -> dict[str, Any]:
    """A figure counts as it stands and, where the question names a scale, written out: for "in USD
    millions" $1577.00 and $1,577 million are the same answer."""
    figure = _figure(answer)
    if figure is None:
        return {"form": "short", "answer": [answer]}
    value, step, percent = figure
    scale = _SCALE_ASKED.search(question)
    numbers = [value] if percent or scale is None else [value, value * _SCALES[scale[1].lower()]]
    return {
        "form": "number",
        "answer": list(dict.fromkeys(map(plain, numbers))),
        "unit": "%" if percent else "",
        "tolerance": float(step / 2),
    }


def _figure(text: str) -> tuple[Decimal, Decimal, bool] | None:
    """(value, one unit of its last digit, whether in percent) of a text that is one figure, else
    None. Accountants write negative figures in brackets."""
    match = _FIGURE.fullmatch(text.strip())
    if match is None:
        return None
    digits = Decimal(match["digits"].replace(",", ""))
    negative = bool(match["open"] or match["minus"] or match["minus_too"])
    exponent = digits.as_tuple().exponent
    step = Decimal(1).scaleb(int(exponent))
    return (-digits if negative else digits), step, bool(match["percent"] or match["percent_too"])
