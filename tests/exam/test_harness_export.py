"""An exported exam is a task that the harness can run, and comes home as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokka.exam.harness.results import About, HarnessResults, harness_results, write_results
from tokka.exam.harness.task_export import Plain, Task, task_name, tasks_of, write_tasks
from tokka.exam.harness.task_import import import_task, write_task
from tokka.exam.importing import read_exam
from tokka.exam.scorers import score
from tokka.records import Answer, Decoding, Exam, Key, Question

TASKS = Path(__file__).parent / "harness_tasks"

OWN: list[dict[str, Any]] = [
    {
        "id": "c1",
        "question": "Which colour is the buoy?",
        "choices": ["red", "blue"],
        "answer": "blue",
        "topic": "colours",
        "cluster_id": "buoys",
        "document_ids": ["a.md", "b.md"],
    },
    {
        "id": "c2",
        "messages": [
            {"role": "system", "content": "Be brief. "},
            {"role": "user", "content": " And the lamp? \n"},
        ],
        "choices": ["red, or so", "blue"],
        "answer": "A",
        "points": ["colour"],
    },
    {"id": "n1", "question": "How long is it?", "answer": 12.5, "unit": "m", "tolerance": "2%"},
    {"id": "s1", "question": "Who signs?", "answer": ["the master", "master"]},
    {"id": "s2", "question": "Who rows?", "answer": "the mate", "stop": [], "max_tokens": 9},
]


DEV = {"id": "d", "question": "Who waits?", "answer": "the crew", "split": "dev"}


def render(question: Question) -> Plain:
    """Stands for the renderer's base format."""
    stop = ("\n",) if question.stop is None else question.stop
    if question.completion:
        return Plain(question.completion, question.delimiter, stop, question.max_tokens or 48)
    text = f"Question: {question.messages[-1].content}\nAnswer:"
    return Plain(text, " ", stop, question.max_tokens or 48)


def exam_of(folder: Path, *rows: dict[str, Any]) -> tuple[Exam, list[Question], list[Key]]:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_exam(path, "own", "domain", dev_share=0.0)


def home(folder: Path, tasks: list[Task]) -> tuple[list[Question], list[Key]]:
    """What comes back of exported tasks, by id."""
    questions: list[Question] = []
    keys: list[Key] = []
    for task in tasks:
        write_task(import_task(folder / f"{task.name}.yaml"), folder / "home.jsonl")
        _, found, of = read_exam(folder / "home.jsonl", "home", "domain", dev_share=0.0)
        questions += found
        keys += of
    return (sorted(questions, key=lambda q: q.id), sorted(keys, key=lambda k: k.question_id))


def test_an_own_exam_comes_home_with_the_same_questions_and_keys(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    exam, questions, keys = exam_of(tmp_path, *OWN)
    exported = tasks_of(exam, questions, keys, render)
    assert [(t.name, len(t.rows)) for t in exported.tasks] == [
        ("own_choice", 2),
        ("own_text", 2),
        ("own_text_2", 1),
    ]
    write_tasks(exported.tasks, tmp_path / "tasks")
    assert home(tmp_path / "tasks", exported.tasks) == (questions, keys)


@pytest.mark.parametrize("name", ["choice_random", "text_numbers", "text_targets"])
def test_an_imported_task_comes_home_with_the_same_questions_and_keys(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.chdir(TASKS)
    write_task(import_task(Path(f"{name}.yaml")), tmp_path / "exam.jsonl")
    exam, questions, keys = read_exam(tmp_path / "exam.jsonl", name, "domain", dev_share=0.0)
    (task,) = tasks_of(exam, questions, keys, render).tasks
    write_tasks([task], tmp_path / "tasks")
    own = sorted(questions, key=lambda q: q.id), sorted(keys, key=lambda k: k.question_id)
    assert home(tmp_path / "tasks", [task]) == own


def test_a_task_that_asks_something_else_does_not_come_home(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    exam, questions, keys = exam_of(tmp_path, OWN[0])
    (task,) = tasks_of(exam, questions, keys, render).tasks
    write_tasks([task], tmp_path)
    file = tmp_path / "own.yaml"
    file.write_text(file.read_text().replace("doc_to_text: completion", "doc_to_text: id"))
    ((question,), _) = home(tmp_path, [task])
    assert (question.completion, question.topic) == ("c1", "")


def test_a_choice_task_says_what_the_harness_needs(tmp_path: Path) -> None:
    exam, questions, keys = exam_of(tmp_path, *OWN[:2])
    (task,) = tasks_of(exam, questions, keys, render).tasks
    written = write_tasks([task], tmp_path / "tasks")
    assert [path.name for path in written] == ["own.jsonl", "own.yaml"]
    said = yaml.safe_load(written[1].read_text(encoding="utf-8"))
    assert said["dataset_kwargs"]["data_files"] == {"test": str(written[0].resolve())}
    assert (said["doc_to_text"], said["target_delimiter"]) == ("completion", " ")
    assert said["num_fewshot"] == 0
    rows = [json.loads(line) for line in written[0].read_text(encoding="utf-8").splitlines()]
    assert rows[0]["completion"] == "Question: Which colour is the buoy?\nAnswer:"
    assert [(row["choices"], row["gold"]) for row in rows] == [
        (["red", "blue"], 1),
        (["red, or so", "blue"], 0),
    ]


def test_what_a_task_cannot_say_is_noticed(tmp_path: Path) -> None:
    exam, questions, keys = exam_of(tmp_path, *OWN, DEV)
    exported = tasks_of(exam, questions, keys, render)
    said = "\n".join(exported.notices)
    assert "short answers (2): lm_eval marks the whole answer as equal or not" in said
    assert "numbers (1): lm_eval compares the text" in said
    assert "questions of the other split (1) are left out" in said
    assert all(question.id != "d" for task in exported.tasks for question in task.questions)
    exam, questions, keys = exam_of(tmp_path, *OWN[:2])
    assert tasks_of(exam, questions, keys, render).notices == []


def test_a_number_counts_with_and_without_its_unit(tmp_path: Path) -> None:
    exam, questions, keys = exam_of(tmp_path, OWN[2])
    (task,) = tasks_of(exam, questions, keys, render).tasks
    assert task.rows[0]["targets"] == ["12.5", "12.5m"]


def test_lists_of_nothing_but_dates_are_kept_from_becoming_times(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    dates = ["2024-01-01", "2024-02-01"]
    row = {"id": "d", "question": "When?", "choices": dates, "answer_index": 1}
    exam, questions, keys = exam_of(tmp_path, row)
    (task,) = tasks_of(exam, questions, keys, render).tasks
    assert task.rows[0]["choices"] == "['2024-01-01', '2024-02-01']"
    write_tasks([task], tmp_path)
    assert home(tmp_path, [task]) == (questions, keys)
    exam, questions, keys = exam_of(tmp_path, row, OWN[0])
    (task,) = tasks_of(exam, questions, keys, render).tasks
    assert task.rows[0]["choices"] == dates


@pytest.mark.parametrize(
    ("name", "file"), [("faq", "faq"), ("a/b c", "a_b_c"), ("..", "exam"), ("融資", "融資")]
)
def test_a_task_is_named_as_a_file_can_be(name: str, file: str) -> None:
    assert task_name(name) == file


# ---- results ----------------------------------------------------------------------------------


def answered(question: Question, **said: Any) -> Answer:
    return Answer(
        **{
            "candidate_id": "c",
            "exam_digest": "d",
            "question_id": question.id,
            "text": "",
            "prompt_sha256": "p",
            "hash_kind": "tokens",
            "decoding": Decoding(method="text", max_tokens=7, stop=("\n",)),
            **said,
        }
    )


def results_for(
    folder: Path, answers: list[dict[str, Any]], rows: list[dict[str, Any]], **about: Any
) -> HarnessResults:
    exam, questions, keys = exam_of(folder, *rows)
    given = [answered(q, **said) for q, said in zip(questions, answers, strict=False)]
    key_of = {key.question_id: key for key in keys}
    by_id = {question.id: question for question in questions}
    scores = [score(a, key_of[a.question_id], by_id[a.question_id], exam) for a in given]
    about_it = About("tiny:model", date=1_700_000_000.0, **about)
    return harness_results(exam, questions, keys, given, scores, render, about_it)


def test_choices_are_reported_by_every_metric_of_the_harness(tmp_path: Path) -> None:
    likely = [
        {"choice": 1, "choice_loglikelihoods": (-3.0, -2.0), "choice_lengths": (1, 1)},
        {"choice": 1, "choice_loglikelihoods": (-3.0, -2.0), "choice_lengths": (4, 1)},
    ]
    found = results_for(tmp_path, likely, OWN[:2], shots=3, limit=2)
    own = found.results["results"]["own"]
    assert (own["acc,none"], own["acc_norm,none"]) == (0.5, 1.0)
    assert own["acc_stderr,none"] == pytest.approx(0.5)
    assert own["sample_len"] == 2
    assert found.results["n-shot"] == {"own": 3}
    assert found.results["n-samples"] == {"own": {"original": 2, "effective": 2}}
    assert found.results["higher_is_better"]["own"] == {
        "acc": True,
        "acc_norm": True,
        "acc_bytes": True,
    }
    assert found.results["configs"]["own"]["output_type"] == "multiple_choice"
    first = found.samples["own"][0]
    assert first["arguments"]["gen_args_1"] == {
        "arg_0": "Question: Which colour is the buoy?\nAnswer:",
        "arg_1": " blue",
    }
    assert first["resps"] == [[["-3.0", "None"]], [["-2.0", "None"]]]
    assert (first["target"], first["acc"], first["metrics"]) == (
        "1",
        1.0,
        ["acc", "acc_norm", "acc_bytes"],
    )
    assert first["target_hash"] == hashlib.sha256(b"1").hexdigest()


def test_a_letter_has_accuracy_alone(tmp_path: Path) -> None:
    found = results_for(tmp_path, [{"choice": 1, "text": "B"}], OWN[:1])
    own = found.results["results"]["own"]
    assert own["acc,none"] == 1.0 and "acc_norm,none" not in own
    assert own["acc_stderr,none"] == "N/A"


def test_a_failed_question_takes_the_mean_away(tmp_path: Path) -> None:
    given = [
        {"choice": 1, "choice_loglikelihoods": (-3.0, -2.0), "choice_lengths": (1, 1)},
        {"status": "error", "error": "gone"},
    ]
    found = results_for(tmp_path, given, OWN[:2])
    own = found.results["results"]["own"]
    assert own["acc,none"] is None and own["acc_stderr,none"] == "N/A"
    assert own["sample_len"] == 2
    assert found.results["errors"] == {"own": 1}
    assert [sample["doc_id"] for sample in found.samples["own"]] == [0]


def test_texts_have_the_harness_metric_and_tokkas_own(tmp_path: Path) -> None:
    found = results_for(tmp_path, [{"text": "it is the master"}], [OWN[3]])
    own = found.results["results"]["own"]
    assert (own["exact_match,none"], own["contained,none"]) == (0.0, 1.0)
    (sample,) = found.samples["own"]
    assert sample["arguments"]["gen_args_0"]["arg_1"] == {
        "until": ["\n"],
        "max_gen_toks": 7,
        "do_sample": False,
        "temperature": 0.0,
    }
    assert sample["resps"] == [["it is the master"]]


def test_the_prompts_of_another_arm_are_not_claimed(tmp_path: Path) -> None:
    found = results_for(tmp_path, [{"text": "the master"}], [OWN[3]], plain=False)
    (sample,) = found.samples["own"]
    assert (sample["arguments"], sample["prompt_hash"]) == ({}, "")
    assert sample["tokka_prompt_sha256"] == "p"


def test_unasked_questions_are_counted_and_not_sampled(tmp_path: Path) -> None:
    found = results_for(tmp_path, [{"choice": 1, "text": "B"}], OWN[:2], limit=1)
    assert found.results["n-samples"] == {"own": {"original": 2, "effective": 1}}
    assert len(found.samples["own"]) == 1


def test_the_files_are_named_as_the_harness_names_them(tmp_path: Path) -> None:
    found = results_for(tmp_path, [{"choice": 1, "text": "B"}], OWN[:1])
    samples, results = write_results(found, tmp_path / "out")
    assert results.name.startswith("results_2023-11-1") and results.suffix == ".json"
    assert samples.name.startswith("samples_own_2023-11-1") and samples.suffix == ".jsonl"
    assert ":" not in results.name
    assert json.loads(results.read_text(encoding="utf-8")) == found.results
    assert json.loads(samples.read_text(encoding="utf-8")) == found.samples["own"][0]


def test_questions_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "unanswerable": True}, {"question": "Why?", "answer": "so"}]
    exam, questions, keys = exam_of(tmp_path, *rows)
    exported = tasks_of(exam, questions, keys, render)
    assert [[q.messages[0].content for q in task.questions] for task in exported.tasks] == [
        ["Why?"]
    ]
    assert any("questions without an answer (1) are left out" in n for n in exported.notices)
    assert any(n.startswith("short answers (1)") for n in exported.notices)


def test_silence_on_a_choice_is_wrong_by_every_measure(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "choices": ["a", "b"], "answer": "a"} for n in (1, 2)]
    by = {"decoding": Decoding(method="loglikelihood")}
    likely = {"choice": 0, "choice_loglikelihoods": (-1.0, -2.0), "choice_lengths": (1, 1)}
    silent = {"status": "abstained", "text": "Not there."}
    found = results_for(tmp_path, [{**likely, **by}, {**silent, **by}], rows)
    (metrics,) = found.results["results"].values()
    names = ("acc,none", "acc_norm,none", "acc_bytes,none")
    assert [metrics[name] for name in names] == [0.5, 0.5, 0.5]
