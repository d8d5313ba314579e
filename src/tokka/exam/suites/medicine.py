"""PubMedQA (Jin et al. 2019), MedQA (Jin et al. 2020) and IgakuQA (Kasai et al. 2023).

data/ori_pqal.json · data_clean/questions/US/test.jsonl · data/2022/116-A.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokka.errors import UsageError
from tokka.exam.igakuqa import (
    YEARS,
    Marks,
    Problem,
    cases,
    mark,
    read_predictions,
    read_problems,
    read_prompts,
)
from tokka.exam.rows import read_text
from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite

_DECISIONS = ("yes", "no", "maybe")
_US = "data_clean/questions/US"
_FOUR = "4_options/phrases_no_exclude_"
_MEDQA = {
    **{split: f"{_FOUR}{split}.jsonl" for split in ("test", "dev", "train")},
    **{f"{split}-5-options": f"{split}.jsonl" for split in ("test", "dev", "train")},
}


def pubmedqa() -> Suite:
    return Suite(
        name="pubmedqa",
        title="PubMedQA",
        language="en",
        task="yes, no or maybe from a passage",
        measures="whether a medical abstract answers its own question with yes, no or maybe",
        measures_ja="医学論文の抄録から yes・no・maybe を答える（英語）",
        licence="MIT",
        url="https://github.com/pubmedqa/pubmedqa",
        files=("data/ori_pqal.json", "data/test_ground_truth.json (splits test and train)"),
        splits=("test", "all", "train"),
        shots="train",
        read=_read_pubmedqa,
        passages=True,
    )


def medqa() -> Suite:
    return Suite(
        name="medqa",
        title="MedQA (USMLE)",
        language="en",
        task="choice of 4 or 5",
        measures="questions in the style of the US medical licensing examination",
        measures_ja="米国医師国家試験形式の問題（英語・4択または5択）",
        licence="MIT for the repository; the questions are of medical board examinations",
        url="https://github.com/jind11/MedQA (data_clean.zip)",
        files=(f"{_US}/{_FOUR}SPLIT.jsonl", f"{_US}/SPLIT.jsonl (five options)"),
        splits=tuple(_MEDQA),
        shots="train",
        read=_read_medqa,
    )


def igakuqa() -> Suite:
    return Suite(
        name="igakuqa",
        title="IgakuQA",
        language="ja",
        task="letters, one or several",
        measures="the Japanese medical licensing examinations of 2018 to 2022, by their own rules",
        measures_ja="日本の医師国家試験（2018〜2022年、必修・一般・禁忌肢の規則つき）",
        licence="none stated; the questions are published by the Ministry of Health, Labour and "
        "Welfare",
        url="https://github.com/jungokasai/IgakuQA",
        files=("data/YEAR/NNN-X.jsonl", "data/YEAR/NNN-X_metadata.jsonl"),
        splits=("all", *YEARS),
        shots="prompts",
        scorer="letters",
        read=_read_igakuqa,
        pictures=True,
    )


def mark_predictions(
    suite: str, folder: Path, predictions: Path, year: str, system: str, text_only: bool
) -> Marks:
    """Stored predictions by IgakuQA's rules. Raises UsageError for another suite or an unknown
    year."""
    found = igakuqa()
    if suite != found.name:
        raise UsageError(
            f"suite {suite!r} has no rules of its own, only {found.name} has; build it with tokka "
            "exam build and examine with that file"
        )
    if year not in found.splits:
        raise UsageError(f"{found.name} has no split {year!r}; it has {', '.join(found.splits)}")
    problems = read_problems(Source(found.title, found.url, folder))
    said = read_predictions(predictions, problems, system)
    chosen = [
        problem
        for problem in problems
        if year in ("all", problem.year) and (problem.text_only or not text_only)
    ]
    if not chosen:
        raise UsageError(f"{found.name}: {folder} holds no problem of {year}; name another year")
    return mark(chosen, said)


def _read_pubmedqa(source: Source, split: str) -> Iterator[Found | Left]:
    path = source.one("data/ori_pqal.json", "ori_pqal.json")
    test: set[str] = set()
    if split != "all":
        truth = source.one("data/test_ground_truth.json", "test_ground_truth.json")
        try:
            test = set(json.loads(read_text(truth)))
        except (ValueError, TypeError) as error:
            raise UsageError(f"PubMedQA: {truth} isn't JSON: {error}; fetch it again") from error
    for row in source.rows(path, "QUESTION", "CONTEXTS", "final_decision"):
        name = str(row.fields["id"])
        if split != "all" and (name in test) != (split == "test"):
            continue
        question, passage = row.fields["QUESTION"], "\n".join(row.fields["CONTEXTS"])
        fields = {
            "id": name,
            "question": f"{passage}\n\n{question}" if source.context else question,
            "choices": list(_DECISIONS),
            "answer": row.fields["final_decision"],
        }
        yield Found(fields, f"{path.name}:{row.line}")


def _read_medqa(source: Source, split: str) -> Iterator[Found | Left]:
    name = _MEDQA[split]
    inner = name.rpartition("/")[2]
    path = source.one(f"{_US}/{name}", f"questions/US/{name}", f"US/{name}", name, inner)
    for number, row in enumerate(source.rows(path, "question", "options", "answer_idx"), 1):
        place = f"{path.name}:{row.line}"
        options, right = row.fields["options"], row.fields["answer_idx"]
        if right not in options:
            yield Left(place, f"the answer {right!r} is none of its options")
            continue
        fields = {
            "id": f"{split}-{number}",
            "question": row.fields["question"],
            "choices": list(options.values()),
            "answer_index": list(options).index(right),
            "topic": row.fields.get("meta_info", ""),
        }
        yield Found(fields, place)


def _read_igakuqa(source: Source, split: str) -> Iterator[Found | Left]:
    problems = read_prompts(source) if split == "prompts" else read_problems(source, split)
    of_case = cases(problems)
    for problem in problems:
        if source.text_only and not problem.text_only:
            yield Left(problem.place, "it needs a picture, which the suite doesn't hold")
            continue
        fields = {
            "id": problem.id,
            "question": _posed(problem),
            "form": "short",
            "answer": list(problem.targets),
            "topic": problem.topic,
            "cluster_id": of_case[problem.id],
            "prohibited": sorted(problem.prohibited),
        }
        yield Found(fields, problem.place)


def _posed(problem: Problem) -> str:
    if not problem.choices:
        return f"{problem.text}\n\n数値だけを答えてください。"
    letters = [chr(ord("a") + place) for place in range(len(problem.choices))]
    options = "\n".join(f"{a}. {b}" for a, b in zip(letters, problem.choices, strict=True))
    ask = f"正しい選択肢の記号（{letters[0]}〜{letters[-1]}）だけを答えてください。"
    several = "複数あるときはコンマで区切ってください。"
    return f"{problem.text}\n\n{options}\n\n{ask}{several}"
