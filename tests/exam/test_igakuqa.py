"""IgakuQA by its own rules, on files of the publisher's shape (data/YEAR/NNN-X.jsonl)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import Mistakes, UsageError
from tokka.exam.igakuqa import Marks, cases, mark, read_predictions, read_problems, total
from tokka.exam.suites.files import Source
from tokka.exam.suites.medicine import mark_predictions

Row = dict[str, Any]


def lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def problem(name: str, answer: list[str], points: str = "1", **fields: Any) -> Row:
    return {
        "problem_id": name,
        "problem_text": f"{name}について正しいのはどれか。",
        "choices": ["あ", "い", "う", "え", "お"],
        "text_only": True,
        "answer": answer,
        "points": points,
        **fields,
    }


def block(
    folder: Path, year: str, name: str, rows: list[Row], kinki: Mapping[str, list[str]]
) -> None:
    lines(folder / "data" / year / f"{name}.jsonl", rows)
    about = [
        {
            "problem_id": row["problem_id"],
            "category": "救急",
            "kinki": kinki.get(row["problem_id"], []),
            "reason": "",
            "human_accuracy": "90.0",
            "breakdown": [],
        }
        for row in rows
    ]
    lines(folder / "data" / year / f"{name}_metadata.jsonl", about)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """2018 with a required and a general block, 2022 with a general one."""
    required = [problem("112B1", ["b"]), problem("112B30", ["a or d"], "3", text_only=False)]
    general = [problem("112A1", ["c"]), problem("112A2", ["b", "e"], "2")]
    number = problem("112F84", ["1.2"], choices=[])
    block(tmp_path, "2018", "112-B", required, {"112B1": ["e"], "112B30": ["b", "e"]})
    block(tmp_path, "2018", "112-A", general, {"112A1": ["a"]})
    block(tmp_path, "2018", "112-F", [number], {})
    block(tmp_path, "2022", "116-A", [problem("116A71", ["e"])], {"116A71": ["a"]})
    return tmp_path


def source(folder: Path) -> Source:
    return Source("IgakuQA", "https://example.org/igakuqa", folder)


@pytest.fixture
def marked(folder: Path, tmp_path: Path) -> Callable[..., Marks]:
    """Predictions as keyword arguments → marks."""

    def marks(**said: str) -> Marks:
        rows = [{"problem_id": name, "prediction": text} for name, text in said.items()]
        lines(tmp_path / "said" / "all.jsonl", rows or [{}])
        problems = read_problems(source(folder))
        return mark(problems, read_predictions(tmp_path / "said", problems))

    return marks


# ---- the rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("b,e", True),
        ("e,b", True),
        (" E , b ", True),
        ("ｂ、ｅ", True),
        ("b", False),
        ("b,e,a", False),
        ("b,d", False),
        ("be", False),
        ("bとeです", False),
        ("", False),
    ],
)
def test_an_answer_counts_if_its_set_of_letters_is_exactly_right(
    marked: Callable[..., Marks], said: str, right: bool
) -> None:
    assert marked(**{"112A2": said}).right["112A2"] is right


@pytest.mark.parametrize(
    ("said", "right"), [("a", True), ("d", True), ("a,d", False), ("b", False), ("a or d", False)]
)
def test_112b30_accepts_a_or_d(marked: Callable[..., Marks], said: str, right: bool) -> None:
    assert marked(**{"112B30": said}).right["112B30"] is right


@pytest.mark.parametrize("said", ["e", "a", "わかりません", None])
def test_116a71_is_right_whatever_was_answered(
    marked: Callable[..., Marks], said: str | None
) -> None:
    marks = marked(**({"116A71": said} if said else {"112B1": "b"}))
    assert marks.right["116A71"] is True
    assert marks.years["2022"].missing == () and marks.years["2022"].unreadable == ()


@pytest.mark.parametrize(
    ("said", "right"), [("1.2", True), ("12", True), ("1.3", False), ("a", False), ("約1.2", False)]
)
def test_a_question_without_options_is_marked_by_its_digits(
    marked: Callable[..., Marks], said: str, right: bool
) -> None:
    assert marked(**{"112F84": said}).right["112F84"] is right


def test_points_weigh_and_blocks_b_and_e_are_the_required_section(
    marked: Callable[..., Marks],
) -> None:
    marks = marked(**{"112B1": "b", "112B30": "d", "112A1": "a", "112A2": "e,b"})
    found = marks.years["2018"].sections
    assert (found["required"].points, found["required"].of) == (4, 4)
    assert (found["required"].right, found["required"].asked) == (2, 2)
    assert (found["general"].points, found["general"].of) == (2, 4)
    assert (found["general"].right, found["general"].asked) == (1, 3)
    whole = total(found)
    assert (whole.points, whole.of, whole.right, whole.asked) == (6, 8, 3, 5)
    everything = total(marks.totals)
    assert (everything.points, everything.of) == (7, 9)  # with 116A71


@pytest.mark.parametrize(
    ("letter", "section"),
    list(
        zip(
            "ABCDEF",
            ["general", "required"] + ["general"] * 2 + ["required", "general"],
            strict=True,
        )
    ),
)
def test_every_block_has_its_section(tmp_path: Path, letter: str, section: str) -> None:
    block(tmp_path, "2019", f"113-{letter}", [problem(f"113{letter}1", ["a"])], {})
    assert read_problems(source(tmp_path))[0].section == section


@pytest.mark.parametrize(("chosen", "failed"), [(3, False), (4, True), (5, True)])
def test_four_prohibited_choices_fail_the_year(tmp_path: Path, chosen: int, failed: bool) -> None:
    names = [f"115C{n}" for n in range(1, 6)]
    block(
        tmp_path, "2021", "115-C", [problem(n, ["a"]) for n in names], {key: ["e"] for key in names}
    )
    said = {name: "e" if place < chosen else "a" for place, name in enumerate(names)}
    lines(tmp_path / "p.jsonl", [{"problem_id": n, "prediction": s} for n, s in said.items()])
    problems = read_problems(source(tmp_path))
    year = mark(problems, read_predictions(tmp_path / "p.jsonl", problems)).years["2021"]
    assert year.prohibited == tuple(f"{name} e" for name in names[:chosen])
    assert year.failed is failed


def test_prohibited_choices_of_different_years_are_not_added(tmp_path: Path) -> None:
    said = []
    for year, number in (("2020", "114"), ("2021", "115")):
        names = [f"{number}D{n}" for n in range(1, 4)]
        rows = [problem(n, ["a"]) for n in names]
        block(tmp_path, year, f"{number}-D", rows, {key: ["e"] for key in names})
        said += [{"problem_id": n, "prediction": "e"} for n in names]
    lines(tmp_path / "p.jsonl", said)
    problems = read_problems(source(tmp_path))
    marks = mark(problems, read_predictions(tmp_path / "p.jsonl", problems))
    assert [len(y.prohibited) for y in marks.years.values()] == [3, 3]
    assert not any(year.failed for year in marks.years.values())


def test_a_missing_prediction_is_wrong_and_shown(marked: Callable[..., Marks]) -> None:
    marks = marked(**{"112B1": "b", "112A1": "見えません"})
    assert marks.years["2018"].missing == ("112A2", "112B30", "112F84")
    assert marks.years["2018"].unreadable == ("112A1",)
    assert marks.right["112A2"] is False and marks.years["2018"].sections["general"].asked == 3


# ---- files --------------------------------------------------------------------------------------


def test_unknown_ids_repeats_and_broken_rows_are_listed_together(
    folder: Path, tmp_path: Path
) -> None:
    said = [
        {"problem_id": "112B1", "prediction": "b"},
        {"problem_id": "112B1", "prediction": "b"},
        {"problem_id": "999A1", "prediction": "a"},
        {"problem_id": "112A1", "prediction": ["a"]},
        {"prediction": "a"},
    ]
    lines(tmp_path / "said" / "p.jsonl", said)
    problems = read_problems(source(folder))
    with pytest.raises(Mistakes) as caught:
        read_predictions(tmp_path / "said", problems)
    found = "\n".join(caught.value.items)
    assert "112B1 is predicted in p.jsonl:1 too (p.jsonl:2)" in found
    assert "'999A1' is no problem of the source (p.jsonl:3)" in found
    assert "(p.jsonl:4)" in found and "(p.jsonl:5)" in found
    assert len(caught.value.items) == 4


def test_one_of_the_publishers_systems_is_chosen_by_name(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "baseline_results" / "2018"
    for system, letter in (("gpt4", "b"), ("student-majority", "c")):
        row = {"problem_id": "112B1", "prediction": letter, "explanation": letter}
        lines(results / f"112-B_{system}.jsonl", [row])
    problems = read_problems(source(folder))
    with pytest.raises(UsageError, match=r"2 systems \(gpt4, student-majority\)"):
        read_predictions(results.parent, problems)
    found = read_predictions(results.parent, problems, "student-majority")
    assert found["112B1"].letters == {"c"}
    with pytest.raises(UsageError, match="there are gpt4, student-majority"):
        read_predictions(results.parent, problems, "gpt5")


def test_answers_of_a_sitting_count_as_predictions(folder: Path, tmp_path: Path) -> None:
    answer = {"question_id": "112A2", "text": "答えはbとeです。", "candidate_id": "c"}
    lines(tmp_path / "run" / "answers.jsonl", [answer])
    lines(tmp_path / "run" / "scores.jsonl", [{"question_id": "112A2", "value": 1.0}])
    problems = read_problems(source(folder))
    marks = mark(problems, read_predictions(tmp_path / "run", problems))
    assert marks.right["112A2"] is True


def test_questions_on_one_case_share_a_cluster(tmp_path: Path) -> None:
    rows = [problem(f"112B{n}", ["a"]) for n in range(40, 48)]
    rows[0]["problem_text"] = "次の文を読み、40、41の問いに答えよ。22歳の女性。"
    rows[3]["problem_text"] = "次の文を読み、43〜45の問いに答えよ。59歳の男性。"
    block(tmp_path, "2018", "112-B", rows, {})
    found = cases(read_problems(source(tmp_path)))
    assert [found[f"112B{n}"] for n in range(40, 48)] == [
        *("112B40", "112B40", "112B42", "112B43", "112B43", "112B43", "112B46", "112B47")
    ]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ({"problem_id": "B1"}, "isn't like 112B30"),
        ({"answer": "b"}, "answer of 112B1 must be a list of letters"),
        ({"answer": ["い"]}, "answer of 112B1 must be a list of letters"),
        ({"points": "one"}, "points of 112B1 must be a whole number"),
        ({"choices": "あ"}, "choices of 112B1 must be a list of texts"),
    ],
)
def test_a_broken_problem_is_named_with_its_place(folder: Path, spoil: Row, sentence: str) -> None:
    rows = [{**problem("112B1", ["b"]), **spoil}, problem("112B30", ["a or d"], "3")]
    lines(folder / "data" / "2018" / "112-B.jsonl", rows)
    with pytest.raises(Mistakes, match=sentence) as caught:
        read_problems(source(folder))
    assert any("(112-B.jsonl:1)" in item for item in caught.value.items)


def test_a_block_without_its_metadata_is_refused(folder: Path) -> None:
    (folder / "data" / "2018" / "112-B_metadata.jsonl").unlink()
    with pytest.raises(UsageError, match=r"112-B_metadata\.jsonl"):
        read_problems(source(folder))


def test_a_problem_without_metadata_and_metadata_without_a_problem_are_named(folder: Path) -> None:
    path = folder / "data" / "2018" / "112-A_metadata.jsonl"
    lines(path, [{"problem_id": "112A1", "kinki": []}, {"problem_id": "112A9", "kinki": []}])
    with pytest.raises(Mistakes) as caught:
        read_problems(source(folder))
    assert [item.partition(",")[0] for item in caught.value.items] == [
        "metadata of a problem '112A9' that isn't in 112-A.jsonl (112-A_metadata.jsonl)",
        "problem 112A2 has no metadata",
    ]


def test_another_folder_is_refused_with_the_files_and_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[A-F\]\.jsonl.*https://example\.org/igakuqa"):
        read_problems(source(tmp_path))


# ---- the command --------------------------------------------------------------------------------


def test_one_year_or_text_alone_can_be_marked(folder: Path, tmp_path: Path) -> None:
    lines(tmp_path / "p.jsonl", [{"problem_id": "112B1", "prediction": "b"}])
    one = mark_predictions("igakuqa", folder, tmp_path / "p.jsonl", "2022", "", False)
    assert list(one.years) == ["2022"]
    text = mark_predictions("igakuqa", folder, tmp_path / "p.jsonl", "all", "", True)
    assert "112B30" not in text.right and text.totals["required"].of == 1
    with pytest.raises(UsageError, match="no split '1999'"):
        mark_predictions("igakuqa", folder, tmp_path / "p.jsonl", "1999", "", False)
    with pytest.raises(UsageError, match="has no rules of its own"):
        mark_predictions("mmlu", folder, tmp_path / "p.jsonl", "all", "", False)


def test_the_command_prints_a_table_or_json(
    folder: Path, tmp_path: Path, tokka: Callable[..., Any]
) -> None:
    lines(tmp_path / "p" / "x.jsonl", [{"problem_id": "112B1", "prediction": "e"}])
    where = ("--suite", "igakuqa", "--source", folder, "--predictions", tmp_path / "p")
    said = tokka("exam", "score", *where, "--json")
    assert said.code == 0
    year = said.json["years"]["2018"]
    assert year["required"] == {"points": 0, "of": 4, "right": 0, "asked": 2}
    assert year["prohibited"] == ["112B1 e"] and year["failed_by_prohibited"] is False
    assert said.json["all"]["total"]["of"] == 9
    table = tokka("exam", "score", *where)
    assert "no prediction, so wrong: 112A1, 112A2, 112B30, 112F84" in table.out
    assert "prohibited choices: 112B1 e" in table.out and "required" in table.out
