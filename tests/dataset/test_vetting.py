"""What would spoil a training silently is refused with its line, or left out by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokka.dataset.vetting import vet, vet_preferences, vet_texts
from tokka.errors import Mistakes, UsageError

ASKED = {
    "domain/q1": "店長の決裁限度額はいくらですか。",
    "retention/r1": "日本の首都はどこですか。",
}
GOOD = {"id": "good", "question": "誰が決裁しますか。", "answer": "店長"}
CUT = {"id": "cut", "question": "理由は何ですか。", "answer": "第一に、"}
TWICE = {"id": "twice", "question": "誰が決裁しますか。 ", "answer": "店長"}
SAME_ID = {"id": "good", "question": "印は何色ですか。", "answer": "青"}
LEAK = {"id": "leak", "question": "問：店長の決裁限度額はいくらですか", "answer": "100万円"}


def write(path: Path, *rows: Any) -> Path:
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_all_mistakes_are_refused_together_with_example_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", LEAK, GOOD, "", CUT, TWICE, SAME_ID, "{broken")
    with pytest.raises(Mistakes) as caught:
        vet(path, ASKED)
    assert "correct them, or set leave_out_mistakes: true in the stage" in caught.value.title
    assert "5 mistakes" in caught.value.title
    broken, leak, cut, twice, same_id = caught.value.items
    assert "not valid JSON" in broken and broken.endswith("(e.jsonl:7)")
    assert leak.startswith("example leak: exam question domain/q1 stands in it (")
    assert leak.endswith("; reword the example so that it teaches the fact and not the question "
                         "(e.jsonl:1)")  # fmt: skip
    assert cut.startswith("example cut: the answer is cut") and cut.endswith("(e.jsonl:4)")
    assert twice == ("example twice: the same conversation as in line 2; remove one (e.jsonl:5)")
    assert same_id.startswith("example good: id 'good' stands in line 2 too")


def test_mistakes_that_are_left_out_are_named_and_the_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", LEAK, GOOD, CUT, TWICE, SAME_ID)
    kept = vet(path, ASKED, leave_out_mistakes=True)
    assert [(e.id, e.messages[-1].content) for e in kept.examples] == [("good", "店長")]
    assert [row.item for row in kept.dropped] == [
        "example leak", "example cut", "example twice", "example good",
    ]  # fmt: skip
    assert all(row.stage == "dataset" and row.next_action for row in kept.dropped)
    with pytest.raises(UsageError, match=r"every example in .* is a mistake; example cut"):
        vet(write(path, CUT), ASKED, leave_out_mistakes=True)


def test_rows_that_cant_be_read_are_never_left_out(tmp_path: Path) -> None:
    with pytest.raises(Mistakes) as caught:
        vet(write(tmp_path / "e.jsonl", GOOD, CUT, "{broken"), ASKED, leave_out_mistakes=True)
    assert len(caught.value.items) == 1
    assert "leave_out_mistakes" not in caught.value.title


def test_examples_without_a_mistake_pass_as_they_are(tmp_path: Path) -> None:
    kept = vet(write(tmp_path / "e.jsonl", GOOD, {**SAME_ID, "id": "b"}), ASKED)
    assert [e.id for e in kept.examples] == ["good", "b"]
    assert kept.dropped == ()


def test_contradictions_are_kept_and_said_once_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", GOOD, {**GOOD, "id": "other", "answer": "部長"})
    kept = vet(path, ASKED)
    assert [e.id for e in kept.examples] == ["good", "other"]
    (row,) = kept.dropped
    assert row.item == "e.jsonl"
    assert row.reason == (
        "kept, though the same question is answered differently (questions: 1, such as in "
        "examples good and other)"
    )


def test_a_preference_that_holds_an_exam_question_is_refused(tmp_path: Path) -> None:
    leak = {"id": "p1", "question": LEAK["question"], "chosen": "100万円", "rejected": "1万円"}
    good = {"id": "p2", "question": "誰が決裁しますか。", "chosen": "店長", "rejected": "客"}
    path = write(tmp_path / "p.jsonl", "", good, leak)
    with pytest.raises(Mistakes) as caught:
        vet_preferences(path, "dpo", ASKED)
    (item,) = caught.value.items
    assert item.startswith("preference p1: exam question domain/q1") and item.endswith("l:3)")
    kept = vet_preferences(path, "dpo", ASKED, leave_out_mistakes=True)
    assert [p.id for p in kept.preferences] == ["p2"]
    assert [row.item for row in kept.dropped] == ["preference p1"]


def test_a_general_text_that_holds_an_exam_question_is_refused() -> None:
    """Replayed, it would hide what was forgotten."""
    texts = {"g.jsonl:1": "空は青い。", "g.jsonl:2": "クイズ。日本の首都はどこですか。東京。"}
    vet_texts(Path("g.jsonl"), {"g.jsonl:1": texts["g.jsonl:1"]}, ASKED)
    with pytest.raises(Mistakes) as caught:
        vet_texts(Path("g.jsonl"), texts, ASKED)
    (item,) = caught.value.items
    assert "exam question retention/r1 stands in it" in item and item.endswith("(g.jsonl:2)")
