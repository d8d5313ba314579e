"""Training examples are read or refused whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokka.dataset.examples import contradictions, read_examples
from tokka.errors import Mistakes, UsageError
from tokka.records import Example, Message


def write(path: Path, *rows: Any) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def example(name: str, asked: str = "", fact: str = "", **fields: Any) -> Example:
    messages = (
        Message(role="user", content=asked or f"{name}とは"),
        Message(role="assistant", content=f"{name}の答え"),
    )
    return Example(id=name, messages=messages, fact_id=fact, **fields)


def test_the_usual_shapes_of_training_rows_are_read(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "問"}, {"role": "assistant", "content": "答"}]
    path = write(
        tmp_path / "e.jsonl",
        {"id": "a", "messages": messages, "fact_id": "f", "document_ids": ["d.md"]},
        {"question": "問2", "answer": "答"},
        "",
        {"prompt": "問3", "completion": "答", "split": "dev"},
        {"instruction": "訳せ", "input": "hello", "output": "こんにちは", "index": 3},
    )
    found = read_examples(path)
    assert [e.messages[-2].content for e in found] == ["問", "問2", "問3", "訳せ\n\nhello"]
    assert [e.messages[-1].content for e in found] == ["答", "答", "答", "こんにちは"]
    assert (found[0].fact_id, found[0].document_ids) == ("f", ("d.md",))
    assert [e.split for e in found] == ["train", "train", "dev", "train"]
    assert found[1].id.startswith("ex-") and found == read_examples(path)


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    good = {"id": "a", "question": "問", "answer": "答"}
    user = {"role": "user", "content": "問"}
    path = write(
        tmp_path / "e.jsonl",
        good,
        {**good, "question": "別"},
        {**good, "id": "b", "question": "問 "},
        {"messages": [user]},
        {"messages": [user, {"role": "assistant", "content": " "}]},
        {"question": "", "answer": "答"},
        {"answer": "答"},
        "{broken",
        {**good, "id": "c", "question": "綴り", "fact": "x"},
        {"messages": "text"},
        {"messages": [{"role": "assistant", "content": "答"}]},
        {**good, "id": "d", "question": "分割", "split": "test"},
    )
    with pytest.raises(Mistakes) as caught:
        read_examples(path)
    text = str(caught.value)
    for expected in [
        "id 'a' stands in line 1 too; change one (e.jsonl:2)",
        "the same conversation as in line 1; remove one (e.jsonl:3)",
        "the last message must be the assistant's, got user's (e.jsonl:4)",
        "the answer is empty; write what is to be learnt (e.jsonl:5)",
        "the question is empty; write what is asked (e.jsonl:6)",
        "the question is empty; write what is asked (e.jsonl:7)",
        "not valid JSON",
        "unknown field 'fact'; did you mean 'fact_id'? (e.jsonl:9)",
        'messages must be a list of {"role": …, "content": …} (e.jsonl:10)',
        "no message is the user's; write what is asked (e.jsonl:11)",
        "split must be train or dev, got 'test' (e.jsonl:12)",
    ]:
        assert expected in text, expected
    assert len(caught.value.items) == 11


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"answer": "答", "finish_reason": "length"}, "finish_reason is 'length'"),
        ({"answer": "```sql\nselect 1"}, "a code block (```) is opened and not closed"),
        ({"answer": "第一に、"}, "it ends with '、'"),
        ({"answer": "first,"}, "it ends with ','"),
        ({"answer": "限\ufffd"}, "it ends inside a character"),
    ],
)
def test_an_answer_that_shows_its_cut_is_refused(
    tmp_path: Path, fields: dict[str, str], reason: str
) -> None:
    """Cut, it would teach to stop in the middle."""
    whole = {"question": "問", "answer": "```\nx\n```\nです。", "finish_reason": "stop"}
    path = write(tmp_path / "e.jsonl", whole, {"id": "e2", "question": "問2", **fields})
    with pytest.raises(Mistakes) as caught:
        read_examples(path)
    assert caught.value.items == [
        f"example e2: the answer is cut: {reason}; complete the answer, or remove the example "
        "(e.jsonl:2)"
    ]


def test_contradictions_are_found_one_a_question() -> None:
    def said(name: str, asked: str, answer: str, **fields: Any) -> Example:
        turns = (
            Message(role="user", content=asked), Message(role="assistant", content=answer)
        )  # fmt: skip
        return Example(id=name, messages=turns, **fields)

    examples = [
        said("a", "限度額は", "１００万円"), said("b", "限度額は ", "100万円。"),
        said("c", "限度額は", "200万円"), said("d", "限度額は", "300万円"),
        said("e", "締切は", "正午"), said("f", "締切は", "夕方", split="dev"),
        said("g", "印は", "○"), said("h", "印は", "△"),
    ]  # fmt: skip
    assert [(x.id, y.id) for x, y in contradictions(examples)] == [("a", "c"), ("g", "h")]


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is empty"):
        read_examples(write(tmp_path / "e.jsonl", ""))
    with pytest.raises(UsageError, match="can't read"):
        read_examples(tmp_path / "none.jsonl")
