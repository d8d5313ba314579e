"""A built suite is sat like any exam: letters are marked, what needs a judge is kept and waits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_igakuqa_is_built_sat_and_scored_by_its_own_rules(
    harbour: Path, tmp_path: Path, tokka: Callable[..., Any]
) -> None:
    home = tmp_path / "IgakuQA" / "data" / "2022"
    home.mkdir(parents=True)
    about = {"choices": ["あ", "い", "う", "え", "お"], "text_only": True, "points": "3"}
    rows = [
        {"problem_id": name, "problem_text": f"{name}はどれか。", "answer": ["e"], **about}
        for name in ("116A71", "116A72")
    ]
    kinki = [{"problem_id": row["problem_id"], "category": "", "kinki": []} for row in rows]
    for name, written in (("116-A", rows), ("116-A_metadata", kinki)):
        text = "".join(json.dumps(row) + "\n" for row in written)
        (home / f"{name}.jsonl").write_text(text)
    exam, sat = tmp_path / "igakuqa.jsonl", tmp_path / "sat"
    source = tmp_path / "IgakuQA"
    assert tokka("exam", "build", "igakuqa", "--source", source, "--out", exam).code == 0
    said = tokka(
        "exam", "sit", exam, "--model", harbour / "model", "--scorer", "letters", "--out", sat
    )
    assert said.code == 0, said.err
    scores = [json.loads(line) for line in (sat / "scores.jsonl").read_text().splitlines()]
    assert [score["scorer"] for score in scores] == ["letters", "letters"]
    assert scores[0]["value"] == 1.0  # 116A71 is right whatever was answered
    where = ("--suite", "igakuqa", "--source", source, "--predictions", sat)
    marks = tokka("exam", "score", *where, "--json").json
    right = int(sum(score["value"] for score in scores))
    assert marks["all"]["general"] == {"points": 3 * right, "of": 6, "right": right, "asked": 2}
    assert marks["years"]["2022"]["missing"] == []


def test_elyza_tasks_are_answered_kept_and_wait_for_the_judge(
    harbour: Path, tmp_path: Path, tokka: Callable[..., Any]
) -> None:
    source, exam, sat = tmp_path / "elyza", tmp_path / "elyza.jsonl", tmp_path / "sat"
    source.mkdir()
    with (source / "test.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [["input", "output", "eval_aspect"], ["5つ挙げて", "一、二", "- 5つか"]]
        csv.writer(file).writerows(rows)
    built = tokka("exam", "build", "elyza-tasks-100", "--source", source, "--out", exam)
    assert "--scorer judge" in built.out
    said = tokka(
        "exam", "sit", exam, "--model", harbour / "model", "--scorer", "judge", "--out", sat
    )
    assert said.code == 0, said.err
    sitting = json.loads((sat / "sitting.json").read_text())
    assert (sitting["answered"], sitting["waiting"], sitting["primary"]) == (1, 1, None)
    assert len((sat / "answers.jsonl").read_text().splitlines()) == 1
