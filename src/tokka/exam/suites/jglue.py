"""JGLUE (Kurihara et al. 2022): JCommonsenseQA, JSQuAD and JNLI, from its repository's files.

datasets/jcommonsenseqa-v1.3/valid-v1.3.json → Suite("jcommonsenseqa").read(source, "valid")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokka.exam.suites.files import Source
from tokka.exam.suites.recipe import Found, Left, Suite
from tokka.records import fingerprint

_ASKED = (
    "前提：{sentence1}\n仮説：{sentence2}\n\n前提と仮説の関係は、entailment（含意）、"
    "contradiction（矛盾）、neutral（中立）のどれですか。"
)
_LABELS = ("entailment", "contradiction", "neutral")
_SPLITS = ("valid", "test", "train")


def jcommonsenseqa() -> Suite:
    return Suite(
        name="jcommonsenseqa",
        title="JCommonsenseQA",
        task="choice of 5",
        measures="common sense in Japanese",
        measures_ja="日本語の常識推論（5択）",
        **_jglue("jcommonsenseqa", _read_jcommonsenseqa),
    )


def jsquad() -> Suite:
    return Suite(
        name="jsquad",
        title="JSQuAD",
        task="short answer from a passage",
        measures="reading comprehension of Japanese Wikipedia",
        measures_ja="日本語の機械読解（文章からの抜き出し）",
        scorer="f1",
        passages=True,
        **_jglue("jsquad", _read_jsquad),
    )


def jnli() -> Suite:
    return Suite(
        name="jnli",
        title="JNLI",
        task="choice of 3",
        measures="whether a Japanese sentence follows from another, contradicts it, or neither",
        measures_ja="日本語の自然言語推論（含意・矛盾・中立）",
        **_jglue("jnli", _read_jnli),
    )


def _jglue(task: str, read: Callable[[Source, str], Iterator[Found | Left]]) -> dict[str, Any]:
    return {
        "language": "ja",
        "licence": "CC BY-SA 4.0",
        "url": "https://github.com/yahoojapan/JGLUE",
        "files": (f"datasets/{task}-v*/SPLIT-v*.json", f"{task}-v*_SPLIT-v*.json"),
        "splits": _SPLITS,
        "shots": "train",
        "read": read,
    }


def _patterns(task: str, split: str) -> tuple[str, ...]:
    file = f"{split}-v*.json"
    return (f"datasets/{task}-v*/{file}", f"{task}-v*/{file}", f"{task}-v*_{file}", file)


def _read_jcommonsenseqa(source: Source, split: str) -> Iterator[Found | Left]:
    path = source.one(*_patterns("jcommonsenseqa", split))
    options = [f"choice{n}" for n in range(5)]
    for row in source.rows(path, "q_id", "question", *options, "label"):
        fields = {
            "id": str(row.fields["q_id"]),
            "question": row.fields["question"],
            "choices": [row.fields[name] for name in options],
            "answer_index": row.fields["label"],
        }
        yield Found(fields, f"{path.name}:{row.line}")


def _read_jnli(source: Source, split: str) -> Iterator[Found | Left]:
    path = source.one(*_patterns("jnli", split))
    for row in source.rows(path, "sentence_pair_id", "sentence1", "sentence2", "label"):
        fields = {
            "id": str(row.fields["sentence_pair_id"]),
            "question": _ASKED.format(**row.fields),
            "choices": list(_LABELS),
            "answer": row.fields["label"],
        }
        yield Found(fields, f"{path.name}:{row.line}")


def _read_jsquad(source: Source, split: str) -> Iterator[Found | Left]:
    """A context is published as "title [SEP] text"; the questions on it share a cluster."""
    path = source.one(*_patterns("jsquad", split))
    for article in source.rows(path, "title", "paragraphs"):
        for paragraph in article.fields["paragraphs"]:
            for name in ("context", "qas"):
                if name not in paragraph:
                    raise source.not_published(f"{path.name}, {article.fields['title']}", name)
            title, _, text = paragraph["context"].rpartition("[SEP]")
            passage = f"{title.strip()}\n{text.strip()}".strip()
            for asked in paragraph["qas"]:
                for name in ("id", "question", "answers"):
                    if name not in asked:
                        raise source.not_published(f"{path.name}, {article.fields['title']}", name)
                question = asked["question"]
                fields = {
                    "id": asked["id"],
                    "question": f"{passage}\n\n{question}" if source.context else question,
                    "form": "short",
                    "answer": list(dict.fromkeys(a["text"] for a in asked["answers"])),
                    "cluster_id": f"passage-{fingerprint(paragraph['context'])[:12]}",
                }
                yield Found(fields, f"{path.name}, {asked['id']}")
