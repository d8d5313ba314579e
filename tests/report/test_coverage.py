"""Risk and coverage in the report: one curve per arm that searches, its threshold, its numbers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from tokka.records import Sitting
from tokka.report.coverage import coverage_figures
from tokka.report.standing import standings


def figures(run: Any) -> Any:
    return coverage_figures(run.results, standings(run.results, run.timings))


def unsure(sitting: Sitting) -> Sitting:
    return sitting.model_copy(update={"coverage": None})


def test_arms_that_search_have_a_line_with_its_area_and_threshold(run: Any) -> None:
    (figure,) = figures(run)
    said = {line[0]["en"]: [value["en"] for value in line[1:]] for line in figure.rows}
    assert set(said) == {"rag", "lora-rag"}
    assert said["lora-rag"][0].startswith("21.0%") and "12.0" in said["lora-rag"][0]
    assert (said["lora-rag"][1], said["lora-rag"][3]) == ("80.0%", "0.375")
    assert (said["rag"][1], said["rag"][3]) == ("100.0%", "-")


def test_both_languages_are_drawn(run: Any) -> None:
    (figure,) = figures(run)
    assert "questions answered" in figure.svg["en"] and "回答した設問" in figure.svg["ja"]
    assert "菱形" in figure.caption["ja"] and "diamond" in figure.caption["en"]


def test_where_nobody_is_sure_of_anything_there_is_no_figure(run: Any) -> None:
    arms = tuple(
        arm.model_copy(
            update={
                "sittings": tuple(s.model_copy(update={"coverage": None}) for s in arm.sittings)
            }
        )
        for arm in run.results.arms
    )
    results = run.results.model_copy(update={"arms": arms})
    assert coverage_figures(results, standings(results, run.timings)) == []


def test_the_page_shows_curve_support_and_threshold(run: Any, report: Any) -> None:
    page = report.read_text(encoding="utf-8")
    for text in ("AURC", "数値・日付・名称が引用箇所にある割合", "確信 0.375 未満は沈黙"):
        assert text in page
