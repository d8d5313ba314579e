import io
import subprocess
import sys

from rich.console import Console

from tokka.records import Results
from tokka.report.leaderboard import leaderboard, verdict_text


def printed(results: Results, timings, language: str, colours: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=colours, no_color=not colours)
    console.print(leaderboard(results, timings, language))
    return console.file.getvalue()


def test_every_arm_stands_with_score_interval_effect_and_verdict_in_80_columns(run):
    table = printed(run.results, run.timings, "en")
    for arm in run.results.arms:
        primary = arm.sittings[0].primary
        assert f"{100 * primary.estimate:.1f}%" in table
        assert f"{100 * primary.low:.1f}~{100 * primary.high:.1f}" in table
        assert arm.arm.name in table
        for comparison in arm.comparisons:
            assert f"{100 * comparison.effect:+.1f}" in table
    assert {"pass", "inconclusive", "control"} <= set(table.split())
    assert "…" not in table


def test_the_best_score_stands_first(run):
    table = printed(run.results, run.timings, "en")
    order = sorted(run.results.arms, key=lambda arm: arm.sittings[0].primary.estimate, reverse=True)
    positions = [table.index(f"\n{arm.arm.name} ") for arm in order]
    assert positions == sorted(positions)


def test_japanese_words_and_no_colour_codes_in_a_pipe(run):
    table = printed(run.results, run.timings, "ja")
    assert "合格" in table and "判定保留" in table and "対照" in table
    assert "\x1b[" not in table
    assert "\x1b[" in printed(run.results, run.timings, "ja", colours=True)


def test_markup_in_names_is_text(run):
    results = run.results.model_copy(update={"project": "[red]a[/red]"})
    assert "[red]a[/red]" in printed(results, run.timings, "en")


def test_the_winner_is_named_with_its_numbers(run):
    winner = next(arm for arm in run.results.arms if arm.arm.name == run.results.winner)
    gain, loss = winner.comparisons
    for language in ("ja", "en"):
        said = verdict_text(run.results, language)
        assert winner.arm.name in said
        assert f"{100 * gain.effect:+.1f}" in said and f"{100 * gain.low:+.1f}" in said
        assert f"{-100 * loss.low:.1f}" in said
    assert "is the arm to choose" in verdict_text(run.results, "en")


def test_without_a_winner_the_text_says_so_and_how_many_questions_would_settle_it(undecided):
    assert undecided.results.winner is None
    need = max(
        comparison.questions_needed
        for arm in undecided.results.arms
        if arm.arm.name == "lora"
        for comparison in arm.comparisons
        if comparison.questions_needed
    )
    english = verdict_text(undecided.results, "en")
    assert english.startswith(f"No arm is proven better; you'd need {need} questions")
    japanese = verdict_text(undecided.results, "ja")
    assert "証明された方式はありません" in japanese and f"{need}問が必要" in japanese


def changed(results: Results, **update) -> Results:
    """The same results with every comparison and verdict changed, and no winner."""
    arms = tuple(
        arm.model_copy(
            update={
                "comparisons": tuple(c.model_copy(update=update) for c in arm.comparisons),
                "verdict": arm.verdict
                and arm.verdict.model_copy(update={"outcome": update["outcome"]}),
            }
        )
        for arm in results.arms
    )
    return results.model_copy(update={"arms": arms, "winner": None})


def test_an_unknown_number_of_questions_is_not_invented(undecided):
    results = changed(undecided.results, outcome="inconclusive", questions_needed=None)
    assert "can't be told" in verdict_text(results, "en")


def test_when_every_arm_fails_more_questions_are_not_promised(undecided):
    results = changed(undecided.results, outcome="fail", questions_needed=None)
    said = verdict_text(results, "en")
    assert said.startswith("No arm is proven better.") and "would not help" in said
    assert "you'd need" not in said


def test_a_partial_exam_proves_nothing(undecided):
    first, *others = undecided.results.arms
    sitting = first.sittings[0].model_copy(
        update={"partial": True, "asked": 10, "answered": 10, "primary": None}
    )
    first = first.model_copy(update={"sittings": (sitting, *first.sittings[1:])})
    results = undecided.results.model_copy(update={"arms": (first, *others)})
    said = verdict_text(results, "en")
    assert said.startswith("No arm is proven better.") and "base (domain): 10 questions" in said
    assert "partial" in printed(results, undecided.timings, "en")


def test_the_leaderboard_loads_no_charts_and_no_templates():
    code = (
        "import sys, tokka.report.leaderboard;"
        "print([m for m in ('altair', 'vl_convert', 'pandas', 'jinja2', 'numpy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_answers_that_wait_for_a_judge_are_named_as_the_reason(undecided):
    first, *others = undecided.results.arms
    sitting = first.sittings[0].model_copy(update={"waiting": 100, "primary": None})
    waits = first.model_copy(update={"sittings": (sitting, *first.sittings[1:])})
    results = undecided.results.model_copy(update={"arms": (waits, *others)})
    name = f"{first.arm.name} ({sitting.exam})"
    assert f"{name}: 100 answers wait for a judge" in verdict_text(results, "en")
    assert f"{name}：審査待ちの回答100件" in verdict_text(results, "ja")
