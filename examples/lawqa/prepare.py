"""Turn the publishers' files of lawqa_jp into a tokka project.

    python examples/lawqa/prepare.py --source FOLDER
    tokka run examples/lawqa/tokka.yaml

FOLDER holds lawqa_jp/, japanese_articles/, japanese_laws_2013/ and jglue/ (README.md says where
to get them). Written beside this file, or under --out: documents.jsonl, examples.jsonl,
exam/domain.jsonl, exam/retention.jsonl. Only the standard library is needed, and two runs give the
same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from articles import Article, code_articles, gold_articles, leave_out_near, statute_articles
from lessons import exam_wording, lessons, repeats

# The statutes of 2013, and what they are called in the gold contexts
STATUTES = {
    "金融商品取引法": "金融商品取引法",
    "薬事法": "医薬品、医療機器等の品質、有効性及び安全性の確保等に関する法律",
    "借地借家法": "借地借家法",
}
RETENTION_QUESTIONS = 200
OVERLAP_CHARACTERS = 13

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the lawqa project.")
    parser.add_argument(
        "--source", type=Path, required=True, help="folder of the publishers' files"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args()
    for line in prepare(options.source, options.out):
        print(line)


def prepare(source: Path, out: Path) -> list[str]:
    """Write the four files under `out`; returns what was counted, in sentences."""
    samples = _read(source / "lawqa_jp/selection.json")["samples"]
    codes = list(code_articles(_read_lines(source / "japanese_articles/articles.jsonl.gz")))
    laws = {
        law["title"]: law["text"]
        for law in _read_lines(source / "japanese_laws_2013/laws.jsonl.gz")
        if law["title"] in STATUTES
    }
    if missing := sorted(set(STATUTES) - set(laws)):
        raise SystemExit(f"prepare: {', '.join(missing)} not found in japanese_laws_2013")
    common = _read_lines(source / "jglue/jcommonsenseqa-v1.3_valid-v1.3.json.gz")

    gold, gold_of = gold_articles(samples)
    old = [a for title, law in STATUTES.items() for a in statute_articles(title, law, laws[title])]
    distractors, near = leave_out_near([*codes, *old], gold)
    documents = [*gold.values(), *distractors]
    domain = domain_rows(samples, gold_of)
    retention = retention_rows(common[:RETENTION_QUESTIONS])

    kept_old = {article.id for article in distractors} & {article.id for article in old}
    taught = [a for a in documents if a.id in gold or a.id in kept_old]
    asked = [text for row in [*domain, *retention] for text in (row["question"], *row["choices"])]
    wording = exam_wording(
        asked, (f"{a.title}\n{text}" for a in documents for text in ("", *a.passages)),
        OVERLAP_CHARACTERS,
    )  # fmt: skip
    made = list(lessons(taught, every_wording=gold.keys()))
    examples = [row for row in made if not repeats(row, wording, OVERLAP_CHARACTERS)]

    _write(out / "documents.jsonl", map(document_row, documents))
    _write(out / "exam/domain.jsonl", domain)
    _write(out / "exam/retention.jsonl", retention)
    _write(out / "examples.jsonl", examples)
    left = Counter(article.id.split("/")[0] for article in near)
    return [
        f"documents.jsonl: {len(documents)} articles: {len(gold)} gold, "
        f"{len(codes)} of japanese_articles, {len(old)} of the laws of 2013; "
        f"{len(near)} nearly identical to a gold one left out "
        f"({', '.join(f'{law} {count}' for law, count in sorted(left.items()))})",
        f"exam/domain.jsonl: {len(domain)} questions in "
        f"{len({row['cluster_id'] for row in domain})} clusters, "
        f"{min(map(len, gold_of.values()))} to {max(map(len, gold_of.values()))} gold documents",
        f"exam/retention.jsonl: {len(retention)} questions",
        f"examples.jsonl: {len(examples)} conversations on "
        f"{len({row['fact_id'] for row in examples})} facts; {len(made) - len(examples)} left out "
        f"for {OVERLAP_CHARACTERS} characters of the exam's own wording",
    ]


def document_row(article: Article) -> Row:
    row = {
        "id": article.id,
        "title": article.title,
        "text": article.text,
        "source": article.source,
        "language": "ja",
    }
    return row | ({"licence": article.licence} if article.licence else {})


def domain_rows(
    samples: Sequence[Mapping[str, str]], gold_of: Mapping[str, list[str]]
) -> list[Row]:
    """Owner's exam rows. All are test: nothing is tuned here. Clusters share a gold document."""
    clusters = linked(gold_of)
    rows = []
    for sample in samples:
        name = sample["ファイル名"]
        choices = [
            re.sub(r"^[a-dａ-ｄ][\s　.．)）]*", "", line).strip()
            for line in sample["選択肢"].splitlines()
            if line.strip()
        ]
        letter = sample["output"].strip().upper()
        if len(choices) != 4 or letter not in "ABCD":
            raise SystemExit(f"prepare: {name} has {len(choices)} options and the key {letter!r}")
        rows.append(
            {
                "id": name,
                "question": sample["問題文"].strip(),
                "form": "choice",
                "choices": choices,
                "answer": letter,
                "topic": name.split("_")[0],
                "cluster_id": clusters[name],
                "document_ids": gold_of[name],
                "split": "test",
            }
        )
    return rows


def linked(gold_of: Mapping[str, list[str]]) -> dict[str, str]:
    """The cluster of each question: questions linked by shared gold documents, however indirectly.

    A cluster is called after its first question.
    """
    first: dict[str, str] = {}

    def root(question: str) -> str:
        while first[question] != question:
            question = first[question]
        return question

    holder: dict[str, str] = {}
    for question, documents in gold_of.items():
        first[question] = question
        for document in documents:
            earlier = root(holder.setdefault(document, question))
            first[root(question)] = earlier
    return {question: root(question) for question in gold_of}


def retention_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [
        {
            "id": f"jcommonsenseqa-{row['q_id']}",
            "question": row["question"],
            "form": "choice",
            "choices": [row[f"choice{number}"] for number in range(5)],
            "answer": "ABCDE"[row["label"]],
            "topic": "常識",
            "split": "test",
        }
        for row in rows
    ]


def _read(path: Path) -> Any:
    return json.loads(_text(path))


def _read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in _text(path).split("\n") if line.strip()]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SystemExit(
            f"prepare: can't read {path} ({error.strerror}); README.md says where to get it"
        ) from error
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
