"""Public data sets that the benchmarks ask about, read from the publishers' own files.

A folder that holds JGLUE and lawqa_jp, at any depth, plain or gzipped → rows as published.

>>> jglue(folder, "jcommonsenseqa", "valid")[0]["choice0"]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

Row = dict[str, Any]
USUAL = Path(__file__).parents[2] / "shared" / "data"
WHERE = """\
JGLUE (JCommonsenseQA, JSQuAD; CC BY-SA 4.0): https://github.com/yahoojapan/JGLUE
lawqa_jp (Public Data License 1.0):            https://github.com/digital-go-jp/lawqa_jp
JaQuAD (CC BY-SA 3.0):                         https://github.com/SkelterLabsInc/JaQuAD
Put them into one folder and name it with --data FOLDER or the environment variable TOKKA_DATA."""


def add_data_option(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("TOKKA_DATA"),
        help="folder that holds JGLUE and lawqa_jp (default: environment variable TOKKA_DATA, "
        "else shared/data beside this repository)",
    )


def data_folder(given: Path | str | None) -> Path:
    """The folder that was named, or the usual one; ends the program with where to get the data if
    there is none."""
    folder = Path(given) if given else USUAL
    if not folder.is_dir():
        what = f"{given} is no folder" if given else "no data folder was named"
        sys.exit(f"data: {what}\n{WHERE}")
    return folder


def jglue(folder: Path, task: str, split: str) -> list[Row]:
    """The rows of a JGLUE task's split: `jcommonsenseqa-v1.3/train-v1.3.json` or `…_train-….gz`."""
    path = _find(folder, rf"(^|/){task}-v1\.\d[/_]{split}-v1\.\d\.json(\.gz)?$")
    return [json.loads(line) for line in _text(path).splitlines()]


def jsquad(folder: Path) -> list[Row]:
    """JSQuAD's validation questions, each with the `context` that it is asked about."""
    rows = []
    for whole in jglue(folder, "jsquad", "valid"):
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                # "title [SEP] paragraph"
                context = paragraph["context"].rpartition("[SEP]")[2].strip()
                rows += [{**question, "context": context} for question in paragraph["qas"]]
    return rows


def jsquad_articles(folder: Path) -> list[str]:
    """The articles that JSQuAD's validation questions are about: their paragraphs, a line each."""
    articles = []
    for whole in jglue(folder, "jsquad", "valid"):
        for article in whole["data"]:
            paragraphs = [
                p["context"].rpartition("[SEP]")[2].strip() for p in article["paragraphs"]
            ]
            articles.append("\n".join(paragraphs))
    return articles


def jaquad_passages(folder: Path) -> list[Row]:
    """JaQuAD's passages, of train and then of dev: `title`, `context`, `questions` with `id` and
    `question`."""
    texts = [_text(_find(folder, rf"jaquad/{part}\.jsonl(\.gz)?$")) for part in ("train", "dev")]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def statutes(folder: Path) -> list[Row]:
    """The statutes of japanese_laws_2013: `title`, `text`."""
    text = _text(_find(folder, r"japanese_laws_2013/laws\.jsonl(\.gz)?$"))
    return [json.loads(line) for line in text.splitlines()]


def lawqa(folder: Path) -> list[Row]:
    rows: list[Row] = json.loads(_text(_find(folder, r"(^|/)selection\.json$")))["samples"]
    return rows


def _find(folder: Path, pattern: str) -> Path:
    found = [name for name in _files(folder) if re.search(pattern, name)]
    if not found:
        sys.exit(f"data: nothing in {folder} is named like {pattern}\n{WHERE}")
    return folder / min(found)


@cache
def _files(folder: Path) -> tuple[str, ...]:
    return tuple(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.json*")
        if path.suffix in {".json", ".jsonl", ".gz"}
    )


def _text(path: Path) -> str:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode()
    return path.read_text(encoding="utf-8")
