"""Mistakes in what is learnt from are told by `check`, and stop a run before it trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import Mistakes
from tokka.pipeline import run
from tokka.project import load_project

Tell = Callable[..., Any]


@pytest.fixture
def strict(fresh: Path, only_arms: Callable[..., None]) -> Path:
    """The Blue Harbour, which holds an exam question among its examples, with nothing left out."""
    only_arms(fresh, "base", "lora")
    project = fresh / "tokka.yaml"
    project.write_text(project.read_text().replace('"leave_out_mistakes": true', '"seed": 0'))
    return fresh


def add(path: Path, **row: str) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_check_tells_what_would_spoil_the_training(strict: Path, tokka: Tell) -> None:
    add(strict / "examples.jsonl", id="cut", question="Why is the sky?", answer="First,")
    said = tokka("check", strict)
    assert said.code == 2
    assert "example copied: exam question domain/d00 stands in it" in said.err
    assert "(examples.jsonl:13)" in said.err
    assert "example cut: the answer is cut" in said.err and "(examples.jsonl:14)" in said.err


def test_check_tells_what_cant_be_learnt_from_an_example(strict: Path, tokka: Tell) -> None:
    examples = strict / "examples.jsonl"
    examples.write_text("".join(examples.read_text().splitlines(keepends=True)[:-1]))
    assert tokka("check", strict).code == 0
    add(examples, id="thought", question="Why?", answer="<think>So.</think>")
    add(examples, id="long", question="Why?", answer="blue " * 600)
    said = tokka("check", strict)
    assert said.code == 2
    assert "example thought: the answer is empty" in said.err and "l:13)" in said.err
    assert "don't fit the context of 512" in said.err and "l:14)" in said.err


def test_an_exam_question_among_the_examples_stops_a_run(strict: Path, listener: Any) -> None:
    with pytest.raises(Mistakes, match=r"1 mistakes in .*set leave_out_mistakes: true"):
        run(load_project(strict), listener)
    assert listener.tasks == []


def test_an_exam_question_in_the_replayed_text_stops_a_run(
    fresh: Path, only_arms: Callable[..., None], listener: Any
) -> None:
    only_arms(fresh, "base", "lora")
    project, data = fresh / "tokka.yaml", '"data": "examples.jsonl"'
    replayed = f'{data}, "replay": {{"data": "general.jsonl"}}'
    project.write_text(project.read_text().replace(data, replayed))
    add(fresh / "general.jsonl", text="The sea is wide.")
    add(fresh / "general.jsonl", question="What is the capital of France?", answer="Paris")
    with pytest.raises(Mistakes, match="exam question retention/r00 stands in it"):
        run(load_project(fresh), listener)
    assert listener.tasks == []
