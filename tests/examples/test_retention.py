"""The retention exam of `examples/aoba`: general knowledge in two languages."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

EXAM = Path(__file__).parents[2] / "examples" / "aoba" / "exam"
FIELDS = {"id", "question", "form", "answer", "topic", "cluster_id", "document_ids"}
EXTRA_FIELDS = {"choice": {"choices"}, "short": set(), "number": {"unit", "tolerance"}}

Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (EXAM / name).read_text("utf-8").splitlines()]


def is_japanese(row: Row) -> bool:
    return bool(re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", row["question"]))


@pytest.fixture
def exam() -> list[Row]:
    return rows("retention.jsonl")


def test_the_full_exam_has_the_size_that_was_asked_for() -> None:
    forms = Counter(row["form"] for row in rows("retention.jsonl"))
    assert forms.total() >= 120
    assert forms["choice"] >= 100
    assert forms["short"] + forms["number"] >= 20


def test_rows_hold_exactly_the_fields_of_their_form(exam: list[Row]) -> None:
    for row in exam:
        assert set(row) == FIELDS | EXTRA_FIELDS[row["form"]], row["id"]
        assert row["document_ids"] == []
        assert row["cluster_id"] and row["topic"]


def test_ids_and_questions_are_unique(exam: list[Row]) -> None:
    assert len({row["id"] for row in exam}) == len(exam)
    assert len({row["question"] for row in exam}) == len(exam)


def test_options_are_distinct_and_hold_the_key_once(exam: list[Row]) -> None:
    for row in exam:
        if row["form"] == "choice":
            assert len(row["choices"]) in (4, 5), row["id"]
            assert len({text.casefold().strip() for text in row["choices"]}) == len(row["choices"])
            assert row["choices"].count(row["answer"]) == 1, row["id"]


def test_no_position_holds_more_than_40_percent_of_the_keys(exam: list[Row]) -> None:
    choice = [row for row in exam if row["form"] == "choice"]
    positions = Counter(row["choices"].index(row["answer"]) for row in choice)
    assert set(positions) == {0, 1, 2, 3}
    assert max(positions.values()) <= 0.4 * len(choice)


def test_the_length_of_an_option_does_not_give_the_key_away(exam: list[Row]) -> None:
    choice = [row for row in exam if row["form"] == "choice"]
    longest = shortest = 0
    for row in choice:
        others = [len(text) for text in row["choices"] if text != row["answer"]]
        longest += len(row["answer"]) > max(others)
        shortest += len(row["answer"]) < min(others)
        assert len(row["answer"]) <= 2.5 * max(others) and len(row["answer"]) >= 0.25 * min(others)
    assert longest <= 0.4 * len(choice)
    assert shortest <= 0.4 * len(choice)


def test_both_languages_hold_at_least_40_percent(exam: list[Row]) -> None:
    share = sum(is_japanese(row) for row in exam) / len(exam)
    assert 0.4 <= share <= 0.6


def test_each_language_is_spread_over_at_least_8_topics(exam: list[Row]) -> None:
    for japanese in (True, False):
        topics = Counter(row["topic"] for row in exam if is_japanese(row) == japanese)
        assert len(topics) >= 8
        assert max(topics.values()) <= 0.25 * topics.total()


def test_short_and_number_keys_can_be_read(exam: list[Row]) -> None:
    for row in exam:
        if row["form"] == "number":
            assert Decimal(row["answer"]).is_finite() and row["tolerance"] == 0
        if row["form"] == "short":
            variants = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
            assert variants and all(text == text.strip() and text for text in variants), row["id"]
            assert len(set(variants)) == len(variants)


def test_questions_of_one_passage_share_their_cluster(exam: list[Row]) -> None:
    passages: dict[str, set[str]] = {}
    for row in exam:
        if row["cluster_id"].startswith("ret-read-"):
            passages.setdefault(row["cluster_id"], set()).add(row["question"][:30])
        else:
            assert row["cluster_id"] == row["id"]
    assert all(len(openings) == 1 for openings in passages.values())
    assert passages
