"""Preferences are read or refused whole, and never hold an exam question."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tokka.dataset.preferences import read_preferences, refuse_leaks
from tokka.errors import Mistakes, UsageError
from tokka.records import Message, Preference

USER = {"role": "user", "content": "問"}
GOOD = {"question": "問", "chosen": "良", "rejected": "悪"}


def write(path: Path, *rows: Any) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_the_usual_shapes_of_pairs_are_read(tmp_path: Path) -> None:
    system = {"role": "system", "content": "短く"}
    path = write(
        tmp_path / "p.jsonl",
        {**GOOD, "id": "a"},
        {"prompt": "問2", "chosen": " 良 ", "rejected": "悪", "system": "短く"},
        "",
        {"messages": [system, USER], "chosen": [said("良")], "rejected": [said("悪")]},
        {"chosen": [USER, said("良い")], "rejected": [USER, said("悪い")]},
        {"prompt": [USER, said("答"), USER], "chosen": "良", "rejected": "悪"},
    )
    found = read_preferences(path, "dpo")
    assert [[m.content for m in p.messages] for p in found] == [
        ["問"], ["短く", "問2"], ["短く", "問"], ["問"], ["問", "答", "問"],
    ]  # fmt: skip
    assert [p.messages[-1].role for p in found] == ["user"] * 5
    assert [(p.chosen, p.rejected) for p in found] == [
        ("良", "悪"), ("良", "悪"), ("良", "悪"), ("良い", "悪い"), ("良", "悪"),
    ]  # fmt: skip
    assert found[0].id == "a" and found[1].id.startswith("pf-")
    assert found == read_preferences(path, "orpo") == read_preferences(path, "kto")


def test_kto_reads_judged_answers_beside_pairs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"question": "問", "answer": "良", "desirable": True},
        {"prompt": "問", "completion": "悪", "label": False},
        {**GOOD, "question": "別"},
    )
    found = read_preferences(path, "kto")
    assert [(p.chosen, p.rejected) for p in found] == [("良", ""), ("", "悪"), ("良", "悪")]


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a row must be an object with fields, got list"),
        ({**GOOD, "chosn": "x"}, "unknown field 'chosn'; did you mean 'chosen'?"),
        ({**GOOD, "prompt": "問"}, "'question' and 'prompt' are given; keep one"),
        ({**GOOD, "question": " "}, "the question is empty"),
        ({**GOOD, "question": 3}, "question must be text or a list"),
        ({**GOOD, "id": ["a"]}, "id must be text"),
        ({**GOOD, "system": 3}, "system must be text, got '3'"),
        ({**GOOD, "question": [USER, said("答")]}, "must be the user's, got assistant's"),
        ({"chosen": "良", "rejected": "悪"}, "needs question, prompt or messages"),
        ({"question": "問", "chosen": "良"}, "needs rejected; write both answers"),
        ({**GOOD, "chosen": "\n"}, "chosen is empty"),
        ({**GOOD, "rejected": [said(" ")]}, "rejected is empty"),
        ({**GOOD, "chosen": [USER]}, "chosen must be text or a list of messages that ends with"),
        (
            {**GOOD, "chosen": [{"role": "user", "content": "別"}, said("良")]},
            "chosen begins with another conversation than the prompt",
        ),
        ({**GOOD, "rejected": "良 　"}, "chosen and rejected are the same, '良'"),
        ({**GOOD, "answer": "良"}, "chosen and rejected and a judged answer are given"),
        (
            {"question": "問", "answer": "良", "desirable": True},
            "answer and desirable are for objective kto, here it is dpo",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, row: Any, mistake: str) -> None:
    path = write(tmp_path / "p.jsonl", {**GOOD, "question": "他"}, "", row)
    with pytest.raises(Mistakes) as found:
        read_preferences(path, "dpo")
    (item,) = found.value.items
    assert item.startswith("preference: ") and mistake in item and item.endswith("(p.jsonl:3)")


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ({"question": "問", "answer": "良", "desirable": "yes"}, "desirable must be true or false"),
        ({"question": "問", "desirable": True}, "needs answer"),
        (
            {"question": "問", "answer": "良", "completion": "良", "desirable": True},
            "'answer' and 'completion' are given; keep one",
        ),
    ],
)
def test_a_judged_answer_that_is_wrong_is_named(tmp_path: Path, row: Any, mistake: str) -> None:
    with pytest.raises(Mistakes, match=mistake):
        read_preferences(write(tmp_path / "p.jsonl", row, GOOD), "kto")


def test_all_mistakes_come_at_once_and_repeats_among_them(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {**GOOD, "id": "a"},
        {**GOOD, "question": "問 ", "rejected": "悪　"},
        {**GOOD, "chosen": "悪", "rejected": "良"},
        {**GOOD, "id": "a", "question": "別"},
        {**GOOD, "chosen": "", "question": "又"},
    )
    with pytest.raises(Mistakes, match="4 mistakes") as found:
        read_preferences(path, "dpo")
    assert [item.partition("; ")[0].partition(" (")[0] for item in found.value.items] == [
        "preference: chosen is empty",
        "preference: the same as line 1",
        "preference: the opposite of line 1",
        "preference: id 'a' stands in line 1 too",
    ]


@pytest.mark.parametrize(("desirable", "missing"), [(True, "undesirable"), (False, "desirable")])
def test_kto_needs_both_kinds(tmp_path: Path, desirable: bool, missing: str) -> None:
    rows = [{"question": q, "answer": "答", "desirable": desirable} for q in "問別"]
    path = write(tmp_path / "p.jsonl", *rows)
    with pytest.raises(Mistakes, match=f"no answer is {missing}; kto needs both kinds"):
        read_preferences(path, "kto")


def test_an_unreadable_or_empty_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't read"):
        read_preferences(tmp_path / "absent.jsonl", "dpo")
    with pytest.raises(UsageError, match="is empty; write rows like"):
        read_preferences(write(tmp_path / "e.jsonl", " "), "dpo")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x81")
    with pytest.raises(UsageError, match="neither UTF-8 nor cp932"):
        read_preferences(tmp_path / "x.jsonl", "dpo")
    packed = tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(GOOD, ensure_ascii=False).encode("cp932")))
    assert read_preferences(packed, "dpo")[0].chosen == "良"


def test_a_preference_without_any_answer_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="preference x: chosen and rejected are both empty"):
        Preference(id="x", messages=(Message(role="user", content="問"),))


def test_preferences_that_hold_an_exam_question_are_left_out() -> None:
    def one(name: str, asked: str, chosen: str = "", rejected: str = "") -> Preference:
        messages = (Message(role="user", content=asked),)
        return Preference(id=name, messages=messages, chosen=chosen, rejected=rejected)

    exam = {"q1": "店長の決裁限度額はいくらですか。"}
    clean = one("clean", "部長の印はどこにありますか。", "金庫です。", "机です。")
    leaking = [
        one("asked", "問：店長の決裁限度額はいくらですか", "百万円", "千円"),
        one("chosen", "続けて", "店長の決裁限度額はいくらですか。百万円です。"),
        one("rejected", "続けて", "", "店長の決裁限度額はいくらですか。千円です。"),
    ]
    kept = refuse_leaks([clean, *leaking], exam)
    assert kept.preferences == (clean,)
    assert [d.item for d in kept.dropped] == [f"preference {p.id}" for p in leaking]
    assert "q1" in kept.dropped[0].reason and kept.dropped[0].next_action
