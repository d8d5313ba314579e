"""Suites build from their publishers' own files; what can't be asked is named, not lost.

The miniatures below have the file names, formats and fields that the publishers use; their
questions were written for these tests.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tokka.dataset.examples import read_examples
from tokka.errors import Mistakes, UsageError
from tokka.exam.importing import read_exam
from tokka.exam.suites import BUILTIN, suite, suites
from tokka.exam.suites.building import build, write_all
from tokka.records import Key, Question

WANTED = (
    *("jcommonsenseqa", "jsquad", "jnli", "jmmlu", "lawqa_jp", "igakuqa", "mmlu", "pubmedqa"),
    *("medqa", "gsm8k", "tat-qa", "financebench", "elyza-tasks-100", "japanese-lm-fin-harness"),
)


def lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def whole(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(text, encoding="utf-8")


def table(path: Path, rows: Iterable[Iterable[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


# ---- miniatures ---------------------------------------------------------------------------------


def jcommonsenseqa(folder: Path) -> None:
    def row(number: int, question: str, label: int) -> dict[str, Any]:
        choices = {f"choice{n}": text for n, text in enumerate(["海", "山", "川", "空", "森"])}
        return {"q_id": number, "question": question, **choices, "label": label}

    home = folder / "datasets" / "jcommonsenseqa-v1.3"
    lines(home / "valid-v1.3.json", [row(8939, "船が進むところは？", 0), row(8940, "鳥は？", 3)])
    train = [row(0, "登るところは？", 1), row(1, "登るところは？", 1), row(2, "木が多いのは？", 4)]
    lines(home / "train-v1.3.json", train)


def jnli(folder: Path) -> None:
    rows = [
        {
            **{"sentence_pair_id": "0", "yjcaptions_id": "1-2-3", "label": "entailment"},
            **{"sentence1": "犬が海辺を走っています。", "sentence2": "犬が走っています。"},
        }
    ]
    lines(folder / "datasets" / "jnli-v1.3" / "valid-v1.3.json", rows)


def jsquad(folder: Path) -> None:
    asked = [
        {
            **{"id": "a1p0q0", "question": "港はいつできたか。", "is_impossible": False},
            "answers": [{"text": t, "answer_start": 3} for t in ("1868年", "1868年", "明治元年")],
        },
        {
            **{"id": "a1p0q1", "question": "どこにあるか。", "is_impossible": False},
            "answers": [{"text": "神戸", "answer_start": 9}],
        },
    ]
    passage = {"qas": asked, "context": "港 [SEP] 港は1868年（明治元年）に神戸にできた。"}
    value = {"version": "1.3", "data": [{"title": "港", "paragraphs": [passage]}]}
    whole(folder / "datasets" / "jsquad-v1.3" / "valid-v1.3.json", json.dumps(value))


def jmmlu(folder: Path) -> None:
    first = [["骨はどれか", "橈骨", "胃", "肺", "腎", "A"], ["同じ", "一", "一", "三", "四", "C"]]
    table(folder / "JMMLU" / "anatomy.csv", first)
    table(folder / "JMMLU" / "marketing.csv", [["4Pは？", "価格", "猫", "犬", "鳥", " A"]])
    table(
        folder / "JMMLU_NC_ND" / "japanese_idiom.csv", [["猿も", "落ちる", "寝る", "a", "b", "A"]]
    )


def mmlu(folder: Path) -> None:
    for split, answer in (("test", "C"), ("dev", "B"), ("val", "A")):
        rows = [[f"What is {split}; a; b; c?", "one", "two", "three, or more", "4", answer]]
        table(folder / "data" / split / f"high_school_physics_{split}.csv", rows)


def lawqa(folder: Path) -> None:
    row = {
        "ファイル名": "金商法_第2章_問題番号57",
        "コンテキスト": "## 法\n第5条 届出書を提出する。",
        "問題文": "第5条によれば何を提出するか。",
        "指示": "選択肢から1つ選んでください。",
        "選択肢": "a 届出書\nb 請求書\nc 領収書\nd 何も",
        "output": "a",
        "references": [],
    }
    whole(folder / "data" / "selection.json", {"samples": [row]})


def igakuqa(folder: Path) -> None:
    home = folder / "data" / "2018"
    about: dict[str, Any] = {"problem_text": "正しいのはどれか。2つ選べ。", "points": "1"}
    choices = ["あ", "い", "う", "え", "お"]
    one = {**about, "problem_id": "112A1", "choices": choices, "text_only": True}
    two = {**about, "problem_id": "112A2", "choices": [], "text_only": False}
    lines(home / "112-A.jsonl", [{**one, "answer": ["b", "e"]}, {**two, "answer": ["04"]}])
    kinki = {"112A1": ["a"], "112A2": []}
    rows = [{"problem_id": n, "category": "救急", "kinki": k} for n, k in kinki.items()]
    lines(home / "112-A_metadata.jsonl", rows)
    shot = {"problem_id": "100E5", "problem_text": "例題", "choices": choices, "text_only": True}
    lines(folder / "scripts" / "prompts" / "prompt.jsonl", [{**shot, "answer": ["a", "c"]}])


def pubmedqa(folder: Path) -> None:
    def row(decision: str) -> dict[str, Any]:
        question = f"Does sleep help ({decision})?"
        context = ["Sleep was studied.", "It helped."]
        return {"QUESTION": question, "CONTEXTS": context, "final_decision": decision}

    rows = {"11": row("yes"), "12": row("maybe"), "13": row("no")}
    whole(folder / "data" / "ori_pqal.json", rows)
    whole(folder / "data" / "test_ground_truth.json", {"12": "maybe", "13": "no"})


def medqa(folder: Path) -> None:
    def row(letters: str) -> dict[str, Any]:
        options = {letter: f"drug {letter}" for letter in letters}
        about = {"answer": "drug B", "meta_info": "step1", "answer_idx": "B"}
        return {"question": f"Which of {len(letters)} drugs?", "options": options, **about}

    home = folder / "data_clean" / "questions" / "US"
    lines(home / "test.jsonl", [row("ABCDE")])
    for split in ("test", "train"):
        file = home / "4_options" / f"phrases_no_exclude_{split}.jsonl"
        lines(file, [{**row("ABCD"), "metamap_phrases": ["drug"]}])


def gsm8k(folder: Path) -> None:
    home = folder / "grade_school_math" / "data"
    answer = "He has 3+4 = <<3+4=7>>7 apples.\n#### 7,000"
    lines(home / "test.jsonl", [{"question": "How many apples?", "answer": answer}])
    lines(home / "train.jsonl", [{"question": "How many pears?", "answer": answer}])


def elyza(folder: Path) -> None:
    rows = [
        ["input", "output", "eval_aspect"],
        ["5つ挙げてください。\n条件：短く", "1. 休む, 2. 話す", "- 5つ挙げているか\n- 短いか"],
    ]
    table(folder / "test.csv", rows)


def tatqa(folder: Path) -> None:
    asked = [
        {
            **{"uid": "q1", "order": 1, "question": "What was revenue?", "answer": ["$1,452.4"]},
            **{"answer_type": "span", "scale": "million", "derivation": ""},
        },
        {
            **{"uid": "q2", "order": 2, "question": "Which kinds are there?"},
            **{"answer": ["fixed price", "cost plus"], "answer_type": "multi-span", "scale": ""},
        },
    ]
    block = {
        "table": {"uid": "t1", "table": [["", "2019"], ["Fixed Price", "$ 1,452.4"]]},
        "paragraphs": [{"uid": "p1", "order": 1, "text": "Fixed price and cost plus."}],
        "questions": asked,
    }
    whole(folder / "dataset_raw" / "tatqa_dataset_test_gold.json", [block])


def financebench(folder: Path) -> None:
    row = {
        **{"financebench_id": "financebench_id_1", "company": "3M", "doc_name": "3M_2018_10K"},
        **{"question_type": "metrics-generated", "answer": "$1577.00"},
        "question": "What is the FY2018 capital expenditure (in USD millions) for 3M?",
        "evidence": [{"evidence_text": "Purchases of PP&E (1,577)", "evidence_page_num": 59}],
    }
    sentence = {**row, "financebench_id": "financebench_id_2", "question": "Is it intensive?"}
    rows = [row, {**sentence, "answer": "No, it is managed well."}]
    lines(folder / "data" / "financebench_open_source.jsonl", rows)


def finance_harness(folder: Path) -> None:
    options = [{"id": 0, "text": "○"}, {"id": 1, "text": "×"}]
    asked = "次の文章について、正しければ○と答えよ。"
    rows = [
        {"id": n, "question": asked, "context": f"文章{n}。", "choices": options, "answer": n}
        for n in (0, 1)
    ]
    home = folder / "jlm_fin_eval" / "datasets"
    whole(home / "security_sales_1" / "data.json", {"data": rows})


MINIATURES: dict[str, tuple[Callable[[Path], None], int]] = {
    "jcommonsenseqa": (jcommonsenseqa, 2),
    "jsquad": (jsquad, 2),
    "jnli": (jnli, 1),
    "jmmlu": (jmmlu, 2),
    "mmlu": (mmlu, 1),
    "lawqa_jp": (lawqa, 1),
    "igakuqa": (igakuqa, 2),
    "pubmedqa": (pubmedqa, 2),
    "medqa": (medqa, 1),
    "gsm8k": (gsm8k, 1),
    "tat-qa": (tatqa, 2),
    "financebench": (financebench, 2),
    "elyza-tasks-100": (elyza, 1),
    "japanese-lm-fin-harness": (finance_harness, 2),
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[list[Question], list[Key]]]:
    """Suite → the questions and keys that the importer reads from what was built."""

    def exam(name: str, **options: Any) -> tuple[list[Question], list[Key]]:
        folder, found = tmp_path / name, suite(name)
        MINIATURES[name][0](folder)
        built = build(found, folder, **options)
        write_all(built, tmp_path / "exam.jsonl", None)
        _, questions, keys = read_exam(
            tmp_path / "exam.jsonl", name, "domain", found.normalisation, scorer=found.scorer
        )
        return questions, keys

    return exam


# ---- all of them --------------------------------------------------------------------------------


def test_every_wanted_suite_is_listed_with_licence_source_and_files() -> None:
    assert sorted(BUILTIN) == sorted(WANTED)
    for found in suites():
        assert found.licence and found.url.startswith("https://") and found.files and found.splits
        assert found.language in ("ja", "en") and found.measures and found.measures_ja
        assert found.name in BUILTIN


@pytest.mark.parametrize("name", MINIATURES)
def test_a_suite_becomes_an_exam_that_the_importer_reads_without_mistakes(
    name: str, made: Callable[..., tuple[list[Question], list[Key]]]
) -> None:
    questions, keys = made(name)
    assert len(questions) == len(keys) == MINIATURES[name][1]
    assert {question.split for question in questions} == {"test"}


@pytest.mark.parametrize("name", MINIATURES)
def test_the_same_files_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    MINIATURES[name][0](tmp_path / "source")
    for out in ("a.jsonl", "b.jsonl"):
        write_all(build(suite(name), tmp_path / "source"), tmp_path / out, None)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("name", BUILTIN)
def test_another_folder_is_refused_with_the_files_and_where_to_get_them(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("something else")
    found = suite(name)
    with pytest.raises(UsageError) as caught:
        build(found, tmp_path)
    said = str(caught.value)
    assert found.url in said and str(tmp_path) in said
    assert any(ending in said for ending in (".json", ".jsonl", ".csv"))
    with pytest.raises(UsageError, match="is no folder"):
        build(found, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file", "text", "sentence"),
    [
        ("jnli", "valid-v1.3.json", '{"q_id": 1, "question": "q"}\n', "has no field 'sentence"),
        ("jcommonsenseqa", "valid-v1.3.json", '{"label": "neutral"}\n', "has no field 'q_id'"),
        ("gsm8k", "test.jsonl", '{"prompt": "q"}\n', "has no field 'question'"),
        ("medqa", "phrases_no_exclude_test.jsonl", '{"question": "q"}\n', "no field 'options'"),
        ("jsquad", "valid-v1.3.json", '{"data": [{"title": "t"}]}', "no field 'paragraphs'"),
        (
            "jsquad",
            "valid-v1.3.json",
            '{"data": [{"title": "t", "paragraphs": [{}]}]}',
            "'context'",
        ),
        ("jsquad", "valid-v1.3.json", '{"data": [{"title": "t", "paragraphs": 7}]}', "TypeError"),
        ("tat-qa", "tatqa_dataset_test_gold.json", '[{"table": {}}]', "no field 'paragraphs'"),
        ("elyza-tasks-100", "test.csv", "input,answer\nq,a\n", "has no field 'output'"),
        ("jmmlu", "anatomy.csv", "question,answer\nq,a\n", "name the folder of the suite itself"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(
    name: str, file: str, text: str, sentence: str, tmp_path: Path
) -> None:
    whole(tmp_path / file, text)
    with pytest.raises(UsageError, match=sentence) as caught:
        build(suite(name), tmp_path)
    assert file in str(caught.value)


def test_a_damaged_file_is_refused_as_a_whole(tmp_path: Path) -> None:
    gsm8k(tmp_path)
    path = tmp_path / "grade_school_math" / "data" / "test.jsonl"
    path.write_text(path.read_text() + '{"question": "cut o')
    with pytest.raises(Mistakes, match="damaged; fetch it again"):
        build(suite("gsm8k"), tmp_path)


def test_packed_files_count_and_two_versions_are_refused(tmp_path: Path) -> None:
    jnli(tmp_path)
    path = tmp_path / "datasets" / "jnli-v1.3" / "valid-v1.3.json"
    (tmp_path / "jnli-v1.3_valid-v1.3.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "jnli-v1.3_valid-v1.3.json").write_bytes(path.read_bytes())
    path.unlink()
    assert [p.name for p in build(suite("jnli"), tmp_path).opened] == ["jnli-v1.3_valid-v1.3.json"]
    (tmp_path / "jnli-v1.3_valid-v1.3.json").unlink()
    assert len(build(suite("jnli"), tmp_path).rows) == 1
    (tmp_path / "jnli-v1.1_valid-v1.1.json").write_text("{}")
    with pytest.raises(UsageError, match="2 files fit"):
        build(suite("jnli"), tmp_path)


def test_an_unknown_suite_split_or_option_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'lawqa_jp'"):
        suite("lawqa")
    gsm8k(tmp_path)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"split": "valid"}, "it has test, train"),
        ({"context": False}, "drop --no-context"),
        ({"text_only": True}, "drop --text-only"),
        ({"split": "train", "shots": True}, "which is the exam here"),
    ]
    for options, sentence in refused:
        with pytest.raises(UsageError, match=sentence):
            build(suite("gsm8k"), tmp_path, **options)
    with pytest.raises(UsageError, match="drop --shots-out"):
        build(suite("jmmlu"), tmp_path, shots=True)


# ---- what is asked ------------------------------------------------------------------------------


def test_options_and_keys_are_as_published(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    questions, keys = made("jcommonsenseqa")
    assert questions[0].id == "8939" and questions[0].choices == ("海", "山", "川", "空", "森")
    assert [key.choice for key in keys] == [0, 3]
    questions, keys = made("jnli")
    assert questions[0].choices == ("entailment", "contradiction", "neutral")
    assert keys[0].choice == 0 and "犬が走っています。" in questions[0].messages[0].content
    assert made("lawqa_jp")[1][0].targets == ("届出書",)
    questions, keys = made("mmlu")
    assert questions[0].topic == "high_school_physics"
    assert questions[0].messages[0].content == "What is test; a; b; c?"
    assert keys[0].targets == ("three, or more",)


def test_passages_stand_in_the_question_unless_they_are_left_out(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    for name, passage, question in (
        ("jsquad", "港\n港は1868年（明治元年）に神戸にできた。", "港はいつできたか。"),
        ("lawqa_jp", "## 法\n第5条 届出書を提出する。", "第5条によれば何を提出するか。"),
        ("pubmedqa", "Sleep was studied.\nIt helped.", "Does sleep help (maybe)?"),
        ("financebench", "Purchases of PP&E (1,577)", "What is the FY2018 capital expenditure"),
    ):
        asked = made(name)[0][0].messages[0].content
        assert asked.startswith(f"{passage}\n\n{question}")
        assert made(name, context=False)[0][0].messages[0].content.startswith(question)


def test_questions_on_one_passage_share_a_cluster(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    questions, keys = made("jsquad")
    assert len({question.cluster_id for question in questions}) == 1
    assert keys[0].targets == ("1868年", "明治元年")


def test_pubmedqa_asks_the_publishers_test_split_and_the_rest_feeds_examples(
    made: Callable[..., tuple[list[Question], list[Key]]], tmp_path: Path
) -> None:
    assert [question.id for question in made("pubmedqa")[0]] == ["12", "13"]
    assert [question.id for question in made("pubmedqa", split="all")[0]] == ["11", "12", "13"]
    built = build(suite("pubmedqa"), tmp_path / "pubmedqa", shots=True)
    assert [row["id"] for row in built.examples] == ["pubmedqa-11"]


def test_medqa_has_four_options_or_five(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    assert len(made("medqa")[0][0].choices) == 4
    questions, keys = made("medqa", split="test-5-options")
    assert len(questions[0].choices) == 5 and keys[0].targets == ("drug B",)
    assert questions[0].topic == "step1"


def test_gsm8k_asks_for_the_number_alone(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    questions, keys = made("gsm8k")
    assert questions[0].form == "number" and keys[0].targets == ("7000",)


def test_elyza_carries_the_reference_and_what_to_look_at_for_the_judge(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    questions, keys = made("elyza-tasks-100")
    assert questions[0].messages[0].content == "5つ挙げてください。\n条件：短く"
    assert keys[0].targets == ("1. 休む, 2. 話す",)
    assert keys[0].points == ("- 5つ挙げているか\n- 短いか",)
    assert suite("elyza-tasks-100").scorer == "judge"


def test_igakuqa_is_sat_by_letters_and_without_pictures_on_request(
    made: Callable[..., tuple[list[Question], list[Key]]], tmp_path: Path
) -> None:
    questions, keys = made("igakuqa")
    assert [question.form for question in questions] == ["short", "short"]
    assert keys[0].targets == ("b,e",) and keys[0].prohibited == ("a",)
    assert (
        "e. お" in questions[0].messages[0].content
        and "（a〜e）" in questions[0].messages[0].content
    )
    assert "数値だけ" in questions[1].messages[0].content
    built = build(suite("igakuqa"), tmp_path / "igakuqa", text_only=True, shots=True)
    assert [row["id"] for row in built.rows] == ["112A1"]
    assert [one.item for one in built.dropped] == ["igakuqa: 112-A.jsonl:2"]
    assert built.examples[0]["messages"][-1]["content"] == "a,c"


def test_hidden_files_are_not_the_publishers(tmp_path: Path) -> None:
    jmmlu(tmp_path)
    (tmp_path / "JMMLU" / "._anatomy.csv").write_bytes(b"\x00\x05")  # as a Mac leaves them
    assert len(build(suite("jmmlu"), tmp_path).rows) == 2


def test_jmmlu_names_the_subjects_under_another_licence_apart(
    made: Callable[..., tuple[list[Question], list[Key]]],
) -> None:
    assert {question.topic for question in made("jmmlu")[0]} == {"anatomy", "marketing"}
    assert [q.topic for q in made("jmmlu", split="nc-nd")[0]] == ["japanese_idiom"]


# ---- what is left out, and what is written ------------------------------------------------------


def test_a_question_that_cannot_be_asked_is_left_out_with_its_place_and_reason(
    tmp_path: Path,
) -> None:
    jmmlu(tmp_path)
    (one,) = build(suite("jmmlu"), tmp_path).dropped
    assert (one.item, one.stage) == ("jmmlu: anatomy.csv:2", "suite")
    assert one.reason == "options A and B are the same text '一'"


def test_one_question_with_two_keys_is_kept_once_and_both_places_are_named(tmp_path: Path) -> None:
    row = {"question": "How many?", "answer": "So\n#### 1"}
    home = tmp_path / "grade_school_math" / "data"
    lines(home / "test.jsonl", [row, {**row, "answer": "So\n#### 2"}, {**row, "answer": "none"}])
    built = build(suite("gsm8k"), tmp_path)
    assert [question["id"] for question in built.rows] == ["test-1"]
    assert [one.item for one in built.dropped] == ["gsm8k: test.jsonl:2", "gsm8k: test.jsonl:3"]
    assert "the same question as in test.jsonl:1 with another key" in built.dropped[0].reason
    assert "####" in built.dropped[1].reason


def test_a_suite_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    lines(tmp_path / "test.jsonl", [{"question": "How many?", "answer": "many"}])
    with pytest.raises(UsageError, match="no question is left"):
        build(suite("gsm8k"), tmp_path)


def test_a_broken_character_leaves_its_question_out(tmp_path: Path) -> None:
    rows = [{"question": "half \ud83d?", "answer": "\n#### 1"}]
    rows.append({"question": "whole?", "answer": "\n#### 2"})
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = build(suite("gsm8k"), tmp_path)
    assert [one.reason for one in built.dropped] == ["a character in it is broken"]
    write_all(built, tmp_path / "exam.jsonl", None)


@pytest.mark.parametrize("name", ["jcommonsenseqa", "mmlu", "medqa", "gsm8k", "igakuqa"])
def test_examples_are_in_the_training_format(name: str, tmp_path: Path) -> None:
    MINIATURES[name][0](tmp_path / "source")
    built = build(suite(name), tmp_path / "source", shots=True)
    write_all(built, tmp_path / "exam.jsonl", tmp_path / "shots.jsonl")
    examples = read_examples(tmp_path / "shots.jsonl")
    assert examples and all(example.messages[-1].role == "assistant" for example in examples)


def test_a_conversation_that_stands_twice_is_one_example(tmp_path: Path) -> None:
    jcommonsenseqa(tmp_path)
    built = build(suite("jcommonsenseqa"), tmp_path, shots=True)
    assert [row["id"] for row in built.examples] == ["jcommonsenseqa-0", "jcommonsenseqa-2"]
    assert [one.item for one in built.examples_dropped] == ["jcommonsenseqa: 1"]


def test_conversations_that_differ_in_width_alone_are_one_example(tmp_path: Path) -> None:
    jcommonsenseqa(tmp_path)
    path = tmp_path / "datasets" / "jcommonsenseqa-v1.3" / "train-v1.3.json"
    path.write_text(
        path.read_text().replace("木が多いのは？", "登るところは？").replace("？", "?", 1)
    )
    built = build(suite("jcommonsenseqa"), tmp_path, shots=True)
    write_all(built, tmp_path / "exam.jsonl", tmp_path / "shots.jsonl")
    assert len(read_examples(tmp_path / "shots.jsonl")) == len(built.examples) == 1


def test_an_example_of_gsm8k_shows_its_steps_without_the_calculators_marks(tmp_path: Path) -> None:
    gsm8k(tmp_path)
    (example,) = build(suite("gsm8k"), tmp_path, shots=True).examples
    assert example["messages"][-1]["content"] == "He has 3+4 = 7 apples.\n#### 7,000"


def test_the_publishers_own_file_is_never_overwritten(tmp_path: Path) -> None:
    gsm8k(tmp_path)
    path = tmp_path / "grade_school_math" / "data" / "test.jsonl"
    before = path.read_bytes()
    built = build(suite("gsm8k"), tmp_path)
    for out, sentence in ((path, "own file"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=sentence):
            write_all(built, out, None)
    with pytest.raises(UsageError, match="name two files"):
        write_all(built, tmp_path / "a.jsonl", tmp_path / "a.jsonl")
    assert path.read_bytes() == before and not (tmp_path / "a.jsonl").exists()


# ---- the commands -------------------------------------------------------------------------------


def test_the_commands_list_describe_and_build(
    tmp_path: Path, tokka: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jmmlu(tmp_path / "source")
    listed = tokka("exam", "suites", "--json")
    assert [row["name"] for row in listed.json["suites"]] == list(BUILTIN)
    table = tokka("exam", "suites")
    assert table.code == 0 and "jmmlu" in table.out and "CC BY-SA 4.0" in table.out
    assert "nlp-waseda/JMMLU" in tokka("exam", "suites", "jmmlu").out
    arguments = ("exam", "build", "jmmlu", "--source", tmp_path / "source")
    dry = tokka(*arguments, "--dry-run")
    assert "would write jmmlu.jsonl" in dry.out and not (tmp_path / "jmmlu.jsonl").exists()
    said = tokka(*arguments)
    assert "2 questions" in said.out and "anatomy 1, marketing 1" in said.out
    assert "jmmlu: anatomy.csv:2: options A and B are the same text" in said.out
    assert (tmp_path / "jmmlu.jsonl").exists()
    found = tokka(*arguments, "--out", tmp_path / "b.jsonl", "--json").json
    assert found["questions"] == 2 and found["topics"] == {"anatomy": 1, "marketing": 1}
    assert found["left_out"][0]["item"] == "jmmlu: anatomy.csv:2"
    assert tokka("exam", "build", "jmml", "--source", tmp_path).code == 2
