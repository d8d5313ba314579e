"""The two exams that tokka and lm-evaluation-harness sit side by side.

Public data → documents → a harness task with its data (for the peer) and questions whose prompts
are the same text (for tokka). Whether they really are the same is checked on token ids, afterwards.

>>> for work in works(folder): write_task(work, tasks)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import public_data

SHOT_DELIMITER = "\n\n"
QUESTIONS = {"5shot": 200, "0shot_long": 60}
SHOTS = 5


@dataclass(frozen=True)
class Document:
    """`text` is the question as it is asked, up to where an answer begins; `answer` indexes
    `choices`."""

    text: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Work:
    """`name` is the harness task's; the `shots` are its training split, in their order."""

    name: str
    title: str
    documents: tuple[Document, ...]
    shots: tuple[Document, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """What stands before the answer, shots included."""
        shown = "".join(s.text + s.choices[s.answer] + SHOT_DELIMITER for s in self.shots)
        return tuple(shown + document.text for document in self.documents)


def works(folder: Path) -> dict[str, Work]:
    """JCommonsenseQA with five shots, lawqa_jp with the gold context and none.

    The first questions of both files, all of them: the longest lawqa_jp context has 757 characters,
    so nothing needs to be left out or cut.
    """
    shots = public_data.jglue(folder, "jcommonsenseqa", "train")[:SHOTS]
    asked = public_data.jglue(folder, "jcommonsenseqa", "valid")[: QUESTIONS["5shot"]]
    law = public_data.lawqa(folder)[: QUESTIONS["0shot_long"]]
    return {
        "5shot": Work(
            "tokka_jcommonsenseqa",
            f"JCommonsenseQA valid, {SHOTS} shots",
            tuple(map(_commonsense, asked)),
            tuple(map(_commonsense, shots)),
        ),
        "0shot_long": Work("tokka_lawqa", "lawqa_jp, gold context", tuple(map(_law, law))),
    }


def first(work: Work, count: int) -> Work:
    return Work(work.name, work.title, work.documents[:count], work.shots)


def _commonsense(row: public_data.Row) -> Document:
    choices = tuple(str(row[f"choice{i}"]) for i in range(5))
    return Document(_question(row["question"]), choices, int(row["label"]))


def _law(row: public_data.Row) -> Document:
    from tokka.exam.shapes import recognise

    fields = recognise(row)[0].fields
    text = f"{row['コンテキスト'].strip()}\n\n{_question(fields['question'])}"
    return Document(text, tuple(fields["choices"]), "abcd".index(fields["answer"]))


def _question(text: str) -> str:
    return f"質問：{text}\n答え："


# ---- for the harness ----------------------------------------------------------------------------


def write_task(work: Work, folder: Path) -> None:
    """A task of the harness with its data beside it."""
    files = {"test": _write_rows(folder / f"{work.name}.test.jsonl", work.documents)}
    task: dict[str, Any] = {
        "task": work.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "output_type": "multiple_choice",
        "test_split": "test",
        "num_fewshot": len(work.shots),
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "fewshot_delimiter": SHOT_DELIMITER,
        "metric_list": [{"metric": "acc"}],
    }
    if work.shots:
        files["train"] = _write_rows(folder / f"{work.name}.train.jsonl", work.shots)
        task |= {
            "training_split": "train",
            "fewshot_split": "train",
            "fewshot_config": {"sampler": "first_n"},
        }
    # JSON is YAML.
    path = folder / f"{work.name}.yaml"
    path.write_text(json.dumps(task, ensure_ascii=False, indent=1), encoding="utf-8")


def _write_rows(path: Path, documents: Sequence[Document]) -> str:
    rows = (json.dumps(asdict(document), ensure_ascii=False) for document in documents)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return str(path)
