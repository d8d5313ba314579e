"""Learning against forgetting: which marks stand for what, and what is said beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from tokka.records import Choice
from tokka.report.figures import choice_notes, frontier, tradeoff_figures, trail_lines
from tokka.report.standing import Standing, standings


def with_choice(run: Any, **changed: Any) -> Any:
    """The run with another choice of arm lora; `choice=None` takes it away."""
    arms = tuple(
        arm.model_copy(
            update={
                "choice": changed["choice"]
                if "choice" in changed
                else arm.choice.model_copy(update=changed)
            }
        )
        if arm.choice
        else arm
        for arm in run.results.arms
    )
    return replace(run, results=run.results.model_copy(update={"arms": arms}))


def learning(run: Any) -> Any:
    return tradeoff_figures(run.results, standings(run.results, run.timings))[0]


def choice_of(run: Any) -> Choice:
    (found,) = [arm.choice for arm in run.results.arms if arm.choice]
    return found


def rows(run: Any) -> tuple[Standing, ...]:
    return standings(run.results, run.timings)


def test_the_frontier_holds_what_no_other_equals_or_beats_in_both() -> None:
    marks = [(0.0, 0.0), (-5.0, 10.0), (-6.0, 9.0), (-5.0, 8.0), (2.0, 0.0), (-9.0, 30.0)]
    assert frontier(marks) == [(-9.0, 30.0), (-5.0, 10.0), (2.0, 0.0)]
    assert frontier([(1.0, 1.0), (1.0, 1.0)]) == [(1.0, 1.0)]
    assert frontier([]) == []


def test_states_are_joined_by_alpha_or_along_it(run: Any) -> None:
    choice = choice_of(run)
    assert trail_lines(choice) == ((0, 1, 3, 5), (0, 2, 4, 6))
    last = [point for point in choice.points if point.state in (0, choice.end)]
    assert trail_lines(choice.model_copy(update={"points": tuple(last)})) == ((0, 1, 2),)


def test_the_table_holds_every_mark_and_names_its_questions(run: Any) -> None:
    figure = learning(run)
    said = [tuple(value["en"] for value in line) for line in figure.rows]
    arms, states = said[:4], said[4:]
    assert all("[" in gain for _, gain, _ in arms) and not any("[" in gain for _, gain, _ in states)
    assert states[0] == ("lora (development): before its last stage", "+0.0", "+0.0")
    taken = "lora (development): end of training, α = 0.5 (taken)"
    assert states[5] == (taken, "+21.0", "-7.0")
    assert len(states) == 7 and sum("taken" in name for name, *_ in states) == 1
    assert figure.rows[6][0]["ja"] == "lora（開発用の設問）：途中の状態1、α = 1"
    assert "by test questions" in figure.caption["en"] and "テスト用" in figure.caption["ja"]
    assert "by development questions" in figure.caption["en"] and "開発用" in figure.caption["ja"]


def test_the_caption_says_what_is_there(run: Any) -> None:
    plain = learning(with_choice(run, choice=None))
    assert "development" not in plain.caption["en"] and len(plain.rows) == 4
    assert "Small" not in plain.caption["en"]
    arms = tuple(
        arm.model_copy(
            update={
                "sittings": tuple(s.model_copy(update={"split": "dev"}) for s in arm.sittings),
                "choice": None,
            }
        )
        for arm in run.results.arms
    )
    other = replace(run, results=run.results.model_copy(update={"arms": arms}))
    assert "are arms, by development questions" in learning(other).caption["en"]


def test_the_choice_is_told_in_both_languages(run: Any) -> None:
    (note,) = choice_notes(rows(run))
    assert note["en"] == (
        "lora: of 6 states, 54 development questions chose end of training, α = 0.5: 46.0% in the "
        "domain, and a change of -7.0 points where most is lost; -10.0 are allowed. No test "
        "question was used."
    )
    assert "「学習の終わり、α = 0.5」を採用" in note["ja"]
    (missed,) = choice_notes(rows(with_choice(run, met=False, taken=6)))
    assert "none of 6 states keeps to the -10.0 points" in missed["en"]
    assert "収まりません" in missed["ja"] and "-21.0" in missed["ja"]
    bare = [point.model_copy(update={"loss": None}) for point in choice_of(run).points]
    (unguarded,) = choice_notes(rows(with_choice(run, points=tuple(bare))))
    assert "No retention exam guarded" in unguarded["en"]
    assert choice_notes(rows(with_choice(run, choice=None))) == []


def test_the_page_shows_the_choice(run: Any, report: Any) -> None:
    page = report.read_text(encoding="utf-8")
    section = page[page.index('<section id="tradeoffs">') : page.index('<section id="topics">')]
    assert "54 development questions chose" in section and "開発用の設問54問" in section
    assert "変化は −7.0 ポイント" in section
