"""An owner's own file becomes an exam, or every mistake in it is named at once."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, Mistakes, UsageError
from tokka.exam.importing import (
    import_exam,
    load_exam,
    load_keys,
    load_questions,
    read_exam,
    split_of,
    write_exam,
)
from tokka.records import Exam, Key, Question

CHOICE = {"question": "上限は？", "choices": ["100万円", "200万円"], "answer": "B"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return path


def read(path: Path) -> tuple[Exam, list[Question], list[Key]]:
    return read_exam(path, "domain", "domain")


def mistakes(path: Path) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        read(path)
    return caught.value.items


def one_mistake(tmp_path: Path, **fields: Any) -> str:
    found = mistakes(write(tmp_path / "e.jsonl", {**CHOICE, **fields}))
    assert len(found) == 1, found
    assert "(e.jsonl:1)" in found[0]
    return found[0]


# ---- what is read -----------------------------------------------------------------------------


def test_the_three_forms_are_read_with_everything_they_carry(tmp_path: Path) -> None:
    path = write(
        tmp_path / "e.jsonl",
        {
            **{"id": "a", "question": "誰？", "form": "choice", "choices": ["理事長", "部長"]},
            **{"answer": "部長", "topic": "決裁", "cluster_id": "s1", "document_ids": ["d.md"]},
        },
        {"id": "b", "question": "誰？誰？", "answer": ["理事長", "代表理事"], "split": "dev"},
        {"id": "c", "question": "いくら？", "answer": "300", "unit": "万円", "tolerance": "5%"},
        {"id": "d", "messages": [{"role": "user", "content": "何日？"}], "answer": 5},
    )
    exam, questions, keys = read(path)
    assert (exam.questions, exam.scorer, exam.normalisation, exam.language) == (
        *(4, "contained", "tokens", "ja"),
    )
    assert [q.form for q in questions] == ["choice", "short", "number", "number"]
    assert (keys[0].choice, keys[0].targets) == (1, ("部長",))
    assert (questions[0].topic, questions[0].cluster_id) == ("決裁", "s1")
    assert questions[0].document_ids == ("d.md",)
    assert (keys[1].targets, questions[1].split) == (("理事長", "代表理事"), "dev")
    assert (keys[2].targets, keys[2].unit, keys[2].tolerance) == (("300",), "万円", 15.0)
    assert keys[3].targets == ("5",)
    assert [k.question_id for k in keys] == [q.id for q in questions]


@pytest.mark.parametrize(
    ("answer", "place"),
    [("B", 1), ("b", 1), ("(Ｂ)", 1), ("イ", 1), ("200万円", 1), ("２００万円", 1), (1, 1)],
)
def test_a_key_is_a_letter_or_an_options_text(tmp_path: Path, answer: Any, place: int) -> None:
    _, _, keys = read(write(tmp_path / "e.jsonl", {**CHOICE, "answer": answer}))
    assert keys[0].choice == place


CSV = 'id,question,A,B,C,answer\nx,"どれ、ですか？",100,200,,B\ny,二つ目は？,はい,いいえ,たぶん,C\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
def test_csv_is_read_in_the_encodings_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(CSV.replace("\n", "\r\n").encode(encoding))
    _, questions, keys = read(path)
    assert [q.choices for q in questions] == [("100", "200"), ("はい", "いいえ", "たぶん")]
    assert [k.choice for k in keys] == [1, 2]


@pytest.mark.parametrize(
    "header",
    [
        "question,choice_1,choice_2,answer",
        "Question,Option_A,Option_B,Answer",
        "question,A,B,answer",
    ],
)
def test_option_columns_have_many_names(tmp_path: Path, header: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"{header}\nq?,x,y,y\n", encoding="utf-8")
    assert read(path)[2][0].choice == 1


def test_rows_without_a_header_are_question_options_letter(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("「L」はどれ？,L,R,1/C,C,C\n次は？, a , b , c , d ,A\n", encoding="utf-8-sig")
    _, questions, keys = read(path)
    assert questions[0].choices == ("L", "R", "1/C", "C")
    assert [k.choice for k in keys] == [2, 0]  # the letter's place, though option D reads 'C'
    assert questions[1].choices == ("a", "b", "c", "d")


def test_a_cell_may_hold_a_json_list(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(
        'question,choices,answer,document_ids\nq?,"[""x"", ""y""]",y,a.md; b.md\n'
        'r?,,"[""x"", ""y""]",\n',
        encoding="utf-8",
    )
    _, questions, keys = read(path)
    assert questions[0].choices == ("x", "y") and keys[0].choice == 1
    assert questions[0].document_ids == ("a.md", "b.md")
    assert questions[1].form == "short" and keys[1].targets == ("x", "y")


@pytest.mark.parametrize("name", ["e.json", "e.json.gz", "e.jsonl.gz"])
@pytest.mark.parametrize("wrap", [None, "samples", "data"])
def test_json_lists_and_wrapped_lists_are_read_too(
    tmp_path: Path, name: str, wrap: str | None
) -> None:
    rows = [CHOICE, {**CHOICE, "question": "下限は？"}]
    text = json.dumps({"meta": {"data": [1]}, wrap: rows} if wrap else rows, indent=1)
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert len(read(tmp_path / name)[1]) == 2


def test_json_strings_may_hold_any_line_break(tmp_path: Path) -> None:
    rows = [{**CHOICE, "question": "一行目\u2028二行目\x85三\n四"}, {**CHOICE, "question": "次"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "e.jsonl").write_bytes(text.encode())
    assert [q.messages[0].content for q in read(tmp_path / "e.jsonl")[1]][1] == "次"


# ---- mistakes ---------------------------------------------------------------------------------


def test_every_mistake_in_a_file_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        json.dumps({**CHOICE, "id": "a"}),
        json.dumps({**CHOICE, "id": "a", "question": "別の問い"}),
        json.dumps({**CHOICE, "id": "c", "question": "鍵", "answer": "C"}),
        json.dumps({**CHOICE, "id": "d", "question": " \u3000"}),
        json.dumps({**CHOICE, "id": "e", "question": "上限 は ？", "answer": "A"}),
        "{broken",
        json.dumps({"question": "数", "form": "number", "answer": "多い", "tolerance": -1}),
        json.dumps({"question": "二つ", "choices": ["１", "1"], "anser": "A"}),
        json.dumps(["no object"]),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    text = "\n".join(found := mistakes(path))
    for expected in [
        *("id 'a' stands in line 1 too; change one (bad.jsonl:2)",),
        *("answer 'C' is no option (A–B); write a letter or an option's text (bad.jsonl:3)",),
        *("question is empty", "(bad.jsonl:4)", "(bad.jsonl:6)", "not valid JSON"),
        *("same question as in line 1 with another key: '200万円' there, '100万円' here",),
        *("answer '多い' is no number", "(bad.jsonl:7)"),
        *("options A and B are the same text", "unknown field 'anser'; did you mean 'answer'?"),
        *("the answer is missing", "(bad.jsonl:8)", "must be an object", "(bad.jsonl:9)"),
    ]:
        assert expected in text, expected
    assert len(found) == 10


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"choices": ["only"], "answer": "A"}, "1 options; give 2 to 26"),
        ({"choices": ["x", "", "y"], "answer": "A"}, "option B is empty"),
        ({"choices": "x or y"}, "choices must be a list"),
        ({"answer": None}, "the answer is missing"),
        ({"answer": ["A", "B"]}, "one right option, got 2"),
        ({"answer": 2}, "answer 2 is no option; numbers count from 0 to 1"),
        (
            {"choices": ["B", "x"], "answer": "B"},
            "is the letter of option 2 and the text of option 1",
        ),
        ({"choices": ["1", "2"], "answer": 1, "id": "q"}, "is the text of option 1 and the place"),
        ({"answer_index": 5}, "answer_index 5 is no option; it counts from 0 to 1"),
        ({"answer_index": 0}, "name different options"),
        ({"form": "chioce"}, "form must be choice, short or number"),
        ({"form": "short"}, "a short question has choices"),
        ({"split": "train"}, "split must be dev or test"),
        ({"unit": "円"}, "unit and tolerance belong to form: number"),
        ({"document_ids": [3]}, "document_ids must be a list of texts"),
        ({"id": 1.5}, "id must be text"),
        ({"messages": [{"role": "user", "content": "x"}]}, "both 'question' and 'messages'"),
        ({"question": None, "messages": [{"role": "assistant", "content": "x"}]}, "the user's"),
        ({"questoin": "x"}, "did you mean 'question'?"),
    ],
)
def test_a_mistake_says_what_is_wrong(
    tmp_path: Path, fields: dict[str, Any], expected: str
) -> None:
    assert expected in one_mistake(tmp_path, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tolerance": -1}, "tolerance must be 0 or more"),
        ({"tolerance": "wide"}, "tolerance must be a number"),
        ({"tolerance": "nan"}, "tolerance must be 0 or more"),
        ({"answer": "3日", "unit": "円"}, "can't be turned into '円'"),
        ({"choices": None, "form": "choice"}, "has no choices"),
    ],
)
def test_a_wrong_number_key_says_so(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    row = {"question": "q?", "form": "number", "answer": "3", **fields}
    assert expected in "\n".join(mistakes(write(tmp_path / "e.jsonl", row)))


def test_csv_mistakes_have_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(
        'question,A,B,answer\n"two\nlines",x,y,A\nq?,x,y,Z\nr?,x,y,A,spare\n"open,x,y,A\n',
        encoding="utf-8",
    )
    text = "\n".join(mistakes(path))
    assert "(e.csv:4)" in text and "'Z' is no option" in text
    assert "5 cells under 4 columns" in text and "(e.csv:5)" in text
    assert "not valid CSV" in text and "(e.csv:6)" in text


def test_json_that_breaks_off_is_one_mistake(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps([CHOICE, CHOICE], indent=1)[:-30], encoding="utf-8")
    assert len(mistakes(path)) == 1
    path.write_text('{\n "samples": [\n  {"question": "x",\n', encoding="utf-8")
    assert "(e.json:" in mistakes(path)[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"\xff\x00\x81\xff", "neither UTF-8 nor cp932"),
        (b"\x1f\x8bnothing", "broken gzip"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_reason(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    (tmp_path / "e.jsonl").write_bytes(data)
    with pytest.raises(UsageError, match=expected):
        read(tmp_path / "e.jsonl")


def test_a_missing_file_and_an_unknown_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="check the path"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "e.csv").write_text("a,b,c,d,e\n1,2,3,4,5\n")
    with pytest.raises(UsageError, match="no header"):
        read(tmp_path / "e.csv")
    (tmp_path / "e.txt").write_text("hello")
    with pytest.raises(UsageError, match="no known type"):
        read(tmp_path / "e.txt")


def test_wrong_questions_can_be_left_out_and_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", CHOICE, {**CHOICE, "question": "鍵", "answer": "Z"})
    imported = import_exam(path, "domain", "domain", leave_out_mistakes=True)
    assert len(imported.questions) == len(imported.keys) == imported.exam.questions == 1
    assert [d.item for d in imported.dropped] == ["domain: e.jsonl:2"]
    assert "'Z'" in imported.dropped[0].reason


# ---- identity ---------------------------------------------------------------------------------


def test_the_same_words_with_other_options_are_another_question(tmp_path: Path) -> None:
    other = {**CHOICE, "choices": ["300万円", "400万円"], "answer": "A"}
    assert len(read(write(tmp_path / "e.jsonl", CHOICE, other))[1]) == 2


def test_a_question_that_stands_twice_is_one_cluster(tmp_path: Path) -> None:
    turned = {**CHOICE, "choices": ["200万円", "100万円"], "answer": "A"}
    _, questions, _ = read(write(tmp_path / "e.jsonl", CHOICE, turned, CHOICE))
    assert len({q.id for q in questions}) == 3
    assert len({q.cluster_id for q in questions}) == 1
    assert len({q.split for q in questions}) == 1


def test_whole_clusters_go_to_dev_or_test_and_about_a_fifth_to_dev(tmp_path: Path) -> None:
    rows = [{**CHOICE, "question": f"問{i}", "cluster_id": f"c{i // 3}"} for i in range(900)]
    _, questions, _ = read(write(tmp_path / "e.jsonl", *rows))
    by_cluster: dict[str, set[str]] = {}
    for question in questions:
        by_cluster.setdefault(question.cluster_id, set()).add(question.split)
        assert question.split == split_of(question.cluster_id)
    assert all(len(splits) == 1 for splits in by_cluster.values())
    assert 0.14 < sum(q.split == "dev" for q in questions) / 900 < 0.26
    assert read_exam(tmp_path / "e.jsonl", "e", "domain", dev_share=0.0)[1][0].split == "test"


def test_a_cluster_given_to_both_splits_is_a_mistake(tmp_path: Path) -> None:
    rows = [{**CHOICE, "question": s, "cluster_id": "c", "split": s} for s in ("dev", "test")]
    assert "a cluster stays whole" in mistakes(write(tmp_path / "e.jsonl", *rows))[0]


def test_the_digest_covers_what_decides_scores_and_not_the_order(tmp_path: Path) -> None:
    other = {**CHOICE, "question": "下限は？"}
    one = read(write(tmp_path / "a.jsonl", CHOICE, other))[0].digest
    assert read(write(tmp_path / "b.jsonl", other, CHOICE))[0].digest == one
    changed = [
        read(write(tmp_path / "c.jsonl", CHOICE, {**other, "answer": "A"}))[0].digest,
        read(write(tmp_path / "d.jsonl", CHOICE))[0].digest,
        read_exam(tmp_path / "a.jsonl", "x", "domain", "sum")[0].digest,
        read_exam(tmp_path / "a.jsonl", "x", "domain", scorer="exact")[0].digest,
    ]
    assert len({one, *changed}) == 5


def test_questions_and_keys_lie_in_different_files_and_come_back_equal(tmp_path: Path) -> None:
    exam, questions, keys = read(write(tmp_path / "e.jsonl", CHOICE, {**CHOICE, "question": "次"}))
    write_exam(tmp_path / "out", exam, questions, keys)
    assert load_exam(tmp_path / "out") == exam
    assert load_questions(tmp_path / "out") == questions
    assert load_keys(tmp_path / "out") == keys
    for line in (tmp_path / "out" / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        assert not {"answer", "choice", "targets"} & json.loads(line).keys()


def test_a_damaged_exam_folder_is_refused(tmp_path: Path) -> None:
    exam, questions, keys = read(write(tmp_path / "e.jsonl", CHOICE))
    write_exam(tmp_path, exam, questions, keys)
    (tmp_path / "keys.jsonl").write_text('{"question_id": "x"}\n')
    with pytest.raises(IntegrityError, match=r"keys\.jsonl:1 is no Key"):
        load_keys(tmp_path)
    with pytest.raises(IntegrityError, match="can't read"):
        load_exam(tmp_path / "nowhere")


def test_a_row_of_a_public_shape_keeps_what_the_owner_added(tmp_path: Path) -> None:
    row = {
        "question": "Which is red?",
        "options": ["blood", "grass", "snow", "coal"],
        "answer": "A",
        "document_ids": ["a.md"],
        "cluster_id": "c1",
        "split": "dev",
        "topic": "colours",
    }
    path = tmp_path / "exam.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    _, (question,), _ = read_exam(path, "domain", "domain")
    kept = (question.document_ids, question.cluster_id, question.split, question.topic)
    assert kept == (("a.md",), "c1", "dev", "colours")


# ---- questions without an answer, and gold words ------------------------------------------------


def test_a_question_may_have_no_answer(tmp_path: Path) -> None:
    rows = [{"question": "Who is it?", "unanswerable": True}, {"question": "Why?", "answer": "so"}]
    _, questions, keys = read(write(tmp_path / "e.jsonl", *rows))
    assert [(k.unanswerable, k.targets) for k in keys] == [(True, ()), (False, ("so",))]
    assert questions[0].form == "short"
    table = tmp_path / "e.csv"
    table.write_text("question,answer,unanswerable\nWho?,,TRUE\nWhy?,so,\nHow?,so,false\n")
    assert [key.unanswerable for key in read(table)[2]] == [True, False, False]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"answer": "x", "unanswerable": True}, "unanswerable, but 'answer' is given"),
        ({"unanswerable": True, "choices": ["a", "b"]}, "remove the choices: none is right"),
        ({"unanswerable": True, "form": "number"}, "must be form: short, this is number"),
        ({"unanswerable": True, "document_ids": ["d"]}, "but document_ids says where"),
        ({"unanswerable": True, "gold": ["d"]}, "but gold says where"),
        ({"unanswerable": "maybe", "answer": "x"}, "must be true or false, got 'maybe'"),
        ({"unanswerable": False}, "the answer is missing"),
        ({"gold": 7, "answer": "x"}, "gold must be a list of texts"),
    ],
)
def test_a_mistake_about_what_has_no_answer_says_so(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    (mistake,) = mistakes(write(tmp_path / "e.jsonl", {"question": "Who?", **fields}))
    assert said in mistake and "e.jsonl:1" in mistake


def test_one_question_with_and_without_an_answer_is_a_mistake(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "unanswerable": True}, {"question": "Who?", "answer": "he"}]
    (mistake,) = mistakes(write(tmp_path / "e.jsonl", *rows))
    assert "with another key: unanswerable there, 'he' here" in mistake


def test_squad_2_marks_its_impossible_questions(tmp_path: Path) -> None:
    row = {"question": "Who?", "answers": {"text": [], "answer_start": []}, "is_impossible": True}
    possible = {"question": "Why?", "answers": {"text": ["so"]}, "is_impossible": False}
    _, _, keys = read(write(tmp_path / "e.jsonl", row, possible))
    assert [key.unanswerable for key in keys] == [True, False]


def test_gold_words_go_with_the_question(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": "so", "document_ids": ["d"], "gold": ["It is so."]}
    _, questions, _ = read(write(tmp_path / "e.jsonl", row))
    assert questions[0].gold == ("It is so.",)
