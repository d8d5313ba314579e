"""Published exams import as they are published: every shape, and real files where at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tokka.exam.importing import import_exam, read_exam

DATA = Path(os.environ.get("TOKKA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def data(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"public data not at hand: {DATA / name} (set TOKKA_DATA)")
    return DATA / name


@pytest.mark.parametrize(
    ("row", "choices", "place"),
    [
        (
            {"q_id": 7, "question": "q?", "choice0": "a", "choice1": "b", "label": 1},
            *(("a", "b"), 1),
        ),
        (
            {"question": "q?", "subject": "law", "choices": ["1", "2", "3"], "answer": 1},
            *(("1", "2", "3"), 1),
        ),
        ({"question": "q?", "choices": ["x", "y"], "answer": 0}, ("x", "y"), 0),
        (
            {
                **{"question_id": 3, "question": "q?", "options": ["C", "D", "B"], "answer": "B"},
                **{"answer_index": 1, "category": "law", "cot_content": "", "src": "x"},
            },
            *(("C", "D", "B"), 1),
        ),
        (
            {"question": "q?", "options": {"A": "x", "B": "y"}, "answer_idx": "B", "answer": "y"},
            *(("x", "y"), 1),
        ),
        (
            {
                **{"id": "arc", "question": "q?", "answerKey": "2"},
                "choices": {"text": ["x", "y"], "label": ["1", "2"]},
            },
            *(("x", "y"), 1),
        ),
        (
            {
                "question": {
                    "stem": "q?",
                    "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}],
                },
                "answerKey": "A",
            },
            *(("x", "y"), 0),
        ),
        (
            {"pubid": 1, "question": "q?", "context": {}, "final_decision": "maybe"},
            *(("yes", "no", "maybe"), 2),
        ),
        (
            {"問題文": "q?", "選択肢": "a 甲\nb 乙\n続き\nc 丙", "output": "b", "指示": "選べ"},
            *(("甲", "乙\n続き", "丙"), 1),
        ),
        (
            {"problem_id": "1", "problem_text": "q?", "choices": ["x", "y"], "answer": ["b"]},
            *(("x", "y"), 1),
        ),
    ],
)
def test_a_published_shape_is_recognised_by_its_fields(
    tmp_path: Path, row: dict[str, Any], choices: tuple[str, ...], place: int
) -> None:
    (tmp_path / "e.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    _, questions, keys = read_exam(tmp_path / "e.jsonl", "e", "domain")
    assert questions[0].messages[0].content == "q?"
    assert questions[0].choices == choices
    assert keys[0].choice == place


def test_nested_questions_share_the_cluster_of_their_passage(tmp_path: Path) -> None:
    answers = {"text": ["x", "x", "y"], "answer_start": [1, 1, 2]}
    asked = [{"id": f"q{i}", "question": f"q{i}?", "answers": answers} for i in range(3)]
    paragraphs = [{"context": "one", "qas": asked[:2]}, {"context": "two", "qas": asked[2:]}]
    text = json.dumps({"version": "1", "data": [{"title": "t", "paragraphs": paragraphs}]})
    (tmp_path / "e.json").write_text(text)
    _, questions, keys = read_exam(tmp_path / "e.json", "e", "domain")
    assert [q.id for q in questions] == ["q0", "q1", "q2"]
    assert keys[0].targets == ("x", "y")
    assert questions[0].cluster_id == questions[1].cluster_id != questions[2].cluster_id


def test_jmmlu_imports_from_its_csv(tmp_path: Path) -> None:
    exam, questions, keys = read_exam(data("jmmlu/abstract_algebra.csv"), "jmmlu", "domain")
    assert exam.questions == 99 and exam.language == "ja"
    assert all(len(q.choices) == 4 and q.choices[0] == q.choices[0].strip() for q in questions)
    assert {k.choice for k in keys} == {0, 1, 2, 3}


def test_the_broken_questions_of_jmmlu_are_named() -> None:
    imported = import_exam(data("jmmlu/anatomy.csv"), "jmmlu", "domain", leave_out_mistakes=True)
    assert imported.exam.questions == 131
    assert [d.item for d in imported.dropped] == ["jmmlu: anatomy.csv:111"]


def test_jcommonsenseqa_imports_whole() -> None:
    path = data("jglue/jcommonsenseqa-v1.3_valid-v1.3.json.gz")
    exam, questions, keys = read_exam(path, "jcqa", "retention")
    assert exam.questions == 1119
    assert (questions[0].id, keys[0].targets) == ("8939", ("マザーボード",))


def test_lawqa_imports_whole_and_its_shuffled_options_stay_in_one_cluster() -> None:
    exam, questions, keys = read_exam(data("lawqa_jp/selection.json"), "lawqa", "domain")
    assert exam.questions == 140 and all(len(q.choices) == 4 for q in questions)
    assert keys[0].choice == 2
    path = data("lawqa_jp/selection_with_reference_randomized.json")
    _, shuffled, shuffled_keys = read_exam(path, "lawqa", "domain")
    assert (len(shuffled), len({q.cluster_id for q in shuffled})) == (560, 140)
    assert len({k.targets for k in shuffled_keys[:4]}) == 1


def test_gsm8k_imports_with_its_numbers() -> None:
    exam, questions, keys = read_exam(data("gsm8k/test.jsonl.gz"), "gsm8k", "retention")
    assert exam.questions == 1319 and exam.language == "en"
    assert {q.form for q in questions} == {"number"}
    assert keys[0].targets == ("18",)


def test_pubmedqa_imports_as_yes_no_maybe() -> None:
    exam, questions, _ = read_exam(data("pubmedqa/ori_pqal.json.gz"), "pubmedqa", "domain")
    assert exam.questions == 1000
    assert questions[0].id == "21645374" and questions[0].choices == ("yes", "no", "maybe")
