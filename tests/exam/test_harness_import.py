"""Imported tasks ask and mark what lm-evaluation-harness asks and marks.

`harness_tasks/expected.json` was written by the harness itself (`harness_tasks/record.py`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tokka.exam.harness.marking import right_by
from tokka.exam.harness.shots import drawn
from tokka.exam.harness.task_import import import_task, shots_path, write_task
from tokka.exam.importing import import_exam, read_exam
from tokka.exam.scorers import score
from tokka.exam.scorers.choice import normalised
from tokka.records import Answer, Decoding, Key, Marking, Question

pytest.importorskip("jinja2")

TASKS = Path(__file__).parent / "harness_tasks"
EXPECTED: dict[str, Any] = json.loads((TASKS / "expected.json").read_text(encoding="utf-8"))
NAMES = sorted(EXPECTED["tasks"])
CHOICES = [name for name in NAMES if name.startswith("choice")]
TEXTS = [name for name in NAMES if name.startswith("text")]


@pytest.fixture(autouse=True)
def in_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness takes the names of data files from the current folder."""
    monkeypatch.chdir(TASKS)


def read(name: str, folder: Path, **how: Any) -> tuple[Any, list[Question], list[Key]]:
    """A task by the whole way: import, file, exam."""
    write_task(import_task(Path(f"{name}.yaml"), **how), folder / "exam.jsonl")
    return read_exam(folder / "exam.jsonl", name, "domain", "sum", dev_share=0.0)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_task_sends_the_contexts_and_continuations_of_the_harness(
    name: str, tmp_path: Path
) -> None:
    _, questions, _ = read(name, tmp_path)
    ours = [[[q.completion, q.delimiter + choice] for choice in q.choices] for q in questions]
    assert ours == EXPECTED["tasks"][name]["requests"]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_task_sends_the_contexts_and_settings_of_the_harness(
    name: str, tmp_path: Path
) -> None:
    _, questions, _ = read(name, tmp_path)
    theirs = EXPECTED["tasks"][name]["requests"]
    assert [q.completion for q in questions] == [context for [[context, _]] in theirs]
    for question, [[_, settings]] in zip(questions, theirs, strict=True):
        until = settings["until"]
        assert question.stop == tuple([until] if isinstance(until, str) else until)
        most = settings.get("max_gen_toks", settings.get("max_new_tokens", 256))
        assert question.max_tokens == most


@pytest.mark.parametrize("name", CHOICES)
def test_the_token_ids_are_those_of_the_harness(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokka.models.rendering import TokenRenderer

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(TASKS / "tokenizer"))
    renderer = TokenRenderer(tokenizer, "en")
    _, (question, *_), _ = read(name, tmp_path)
    prompt = renderer.completion(question.completion, delimiter=question.delimiter, scored=True)
    ids = [[list(prompt.ids), list(renderer.option(c, prompt))] for c in question.choices]
    assert ids == EXPECTED["tasks"][name]["ids"]


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_marked_as_the_harness_marks_it(name: str, tmp_path: Path) -> None:
    _, questions, keys = read(name, tmp_path)
    (marks,) = EXPECTED["tasks"][name]["marks"]
    by = {"acc,none": "sum", "acc_norm,none": "characters", "acc_bytes,none": "bytes"}
    for place, (question, key, theirs) in enumerate(zip(questions, keys, marks, strict=True)):
        values = [-((place * 7 + n * 13) % 11) / 2 - 0.5 for n in range(len(question.choices))]
        for metric, mark in theirs.items():
            ours = normalised(values, question.choices, (), by[metric])  # type: ignore[arg-type]
            assert float(ours.index(max(ours)) == key.choice) == mark, (metric, question.id)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_marked_as_the_harness_marks_it(name: str, tmp_path: Path) -> None:
    exam, questions, keys = read(name, tmp_path)
    for text, marks in zip(EXPECTED["texts"], EXPECTED["tasks"][name]["marks"], strict=True):
        for question, key, theirs in zip(questions, keys, marks, strict=True):
            assert key.marking is not None
            ours = {
                f"exact_match,{chain.name}": float(right_by(chain, key.marking, text, key.targets))
                for chain in key.marking.chains
            }
            assert ours == theirs, (text, question.id)
            given = score(answer(question, text), key, question, exam)
            assert (given.scorer, given.value) == ("exact_match", next(iter(theirs.values())))


def answer(question: Question, text: str) -> Answer:
    return Answer(
        candidate_id="c",
        exam_digest="d",
        question_id=question.id,
        text=text,
        prompt_sha256="",
        hash_kind="tokens",
        decoding=Decoding(method="text"),
    )


def test_the_first_questions_get_the_shots_that_all_of_them_get(tmp_path: Path) -> None:
    _, whole, _ = read("choice_random", tmp_path)
    _, first, _ = read("choice_random", tmp_path, limit=3)
    assert first == whole[:3]
    assert import_task(Path("choice_random.yaml")) == import_task(Path("choice_random.yaml"))


def test_shots_can_be_asked_for_and_are_stored_beside_the_exam(tmp_path: Path) -> None:
    imported = import_task(Path("choice_first_n.yaml"), shots=2)
    out = tmp_path / "exam.jsonl"
    assert write_task(imported, out) == [out, shots_path(out)]
    shots = {row["id"]: row["text"] for row in map(json.loads, shots_path(out).open())}
    assert list(shots) == ["train-0", "train-1"]
    for row in map(json.loads, out.open(encoding="utf-8")):
        assert row["shots"] == ["train-0", "train-1"]
        assert "".join(shots[name] for name in row["shots"]) in row["completion"]


def test_a_task_of_no_shots_keeps_its_zero() -> None:
    from tokka.errors import Mistakes

    with pytest.raises(Mistakes, match=r"num_fewshot: is 0 in the file.*text_numbers.yaml:6"):
        import_task(Path("text_numbers.yaml"), shots=2)


def test_a_named_filter_decides_the_score(tmp_path: Path) -> None:
    from tokka.errors import UsageError

    exam, (question, *_), (key, *_) = read("text_numbers", tmp_path, chain="flexible-extract")
    assert score(answer(question, "It is 8"), key, question, exam).value == 1.0
    exam, (question, *_), (key, *_) = read("text_numbers", tmp_path)
    found = score(answer(question, "It is 8"), key, question, exam)
    assert found.value == 0.0
    assert "flexible-extract: '8' is '8'" in found.explanation
    with pytest.raises(UsageError, match="has strict-match, flexible-extract"):
        import_task(Path("text_numbers.yaml"), chain="no")
    with pytest.raises(UsageError, match="choice task"):
        import_task(Path("choice_random.yaml"), chain="no")


def test_a_question_among_its_own_shots_is_noticed() -> None:
    notices = import_task(Path("choice_test_pool.yaml")).notices
    assert any("4 questions stand among their own shots" in notice for notice in notices)
    notices = import_task(Path("choice_own_split.yaml")).notices
    assert not any("own shots" in notice for notice in notices)


def test_a_key_with_a_marking_survives_the_exam_file(tmp_path: Path) -> None:
    _, _, keys = read("text_targets", tmp_path)
    marking = keys[0].marking
    assert marking is not None
    assert marking.ignore_case and marking.ignore_punctuation and not marking.ignore_numbers
    assert [chain.name for chain in marking.chains] == ["tidy", "loud"]
    assert marking.chains[0].steps[2].mapping == {"yes!": "yes", "eight": "8"}
    assert keys[3].targets == ("Yes", "yes")
    assert Marking.model_validate_json(marking.model_dump_json()) == marking


def test_the_pool_must_be_large_enough() -> None:
    from tokka.errors import UsageError

    rows = [{"a": 1}, {"a": 2}]
    assert drawn(rows, rows, 1, "first_n", True) == [[1], [0]]
    with pytest.raises(UsageError, match="2 examples are wanted and 1 rows are there"):
        drawn(rows, rows, 2, "first_n", True)
    with pytest.raises(UsageError, match="3 examples are wanted"):
        drawn(rows, rows, 3, "default", False)


# ---- rows of an exam file that carry a whole prompt --------------------------------------------


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WHOLE = {"question": "?", "choices": [" yes", " no"], "answer_index": 1, "completion": "Q?\nA:  "}


def test_a_whole_prompt_and_its_options_are_read_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**WHOLE, "delimiter": "\n"})
    _, (question,), (key,) = read_exam(path, "a", "domain")
    assert (question.completion, question.delimiter) == ("Q?\nA:  ", "\n")
    assert (question.choices, key.choice) == ((" yes", " no"), 1)


def test_options_that_differ_in_width_only_are_two_of_a_whole_prompt(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.jsonl", {**WHOLE, "choices": ["A", "Ａ"]})
    _, (question,), _ = read_exam(path, "a", "domain")
    assert question.choices == ("A", "Ａ")
    owner = {name: value for name, value in WHOLE.items() if name != "completion"}
    path = write(tmp_path / "b.jsonl", {**owner, "choices": ["A", "Ａ"]}, {**owner})
    assert len(import_exam(path, "b", "domain", leave_out_mistakes=True).dropped) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"completion": " \n"}, "completion is empty"),
        ({"completion": 3}, "completion must be a text, got '3'"),
        ({"delimiter": ["x"]}, "delimiter must be a text"),
        ({"stop": ["\n"]}, "stop and max_tokens belong to written answers"),
        ({"choices": ["a", ""]}, "option B is empty"),
        ({"choices": ["a"]}, "1 options; give 2 to 26"),
    ],
)
def test_a_wrong_part_of_a_whole_prompt_is_named(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", {**WHOLE, "answer_index": 0, **change}, WHOLE)
    (dropped,) = import_exam(path, "a", "domain", leave_out_mistakes=True).dropped
    assert said in dropped.reason
    assert "a.jsonl:1" in dropped.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stop": "x"}, "stop must be a list of texts, got 'x'"),
        ({"stop": [""]}, "stop must be a list of texts"),
        ({"max_tokens": 0}, "max_tokens must be 1 to 8192, got 0"),
        ({"max_tokens": True}, "max_tokens must be 1 to 8192, got True"),
        ({"delimiter": " "}, "delimiter belongs to completion"),
        ({"marking": {"chains": []}}, 'marking must be like {"chains"'),
        ({"marking": {"chains": [{"name": "a", "step": []}]}}, "marking must be like"),
        ({"marking": {"chains": [{"name": "a"}]}, "answer": [3]}, "answer must be a text or a"),
    ],
)
def test_a_wrong_ending_or_marking_is_named(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    good = {"question": "Where?", "answer": ["here"], "form": "short"}
    path = write(tmp_path / "a.jsonl", {**good, **change}, {**good, "question": "And where?"})
    (dropped,) = import_exam(path, "a", "domain", leave_out_mistakes=True).dropped
    assert said in dropped.reason


def test_one_prompt_with_two_keys_is_a_mistake_and_two_prompts_to_one_question_are_not(
    tmp_path: Path,
) -> None:
    two = write(tmp_path / "a.jsonl", WHOLE, {**WHOLE, "answer_index": 0})
    assert len(import_exam(two, "a", "domain", leave_out_mistakes=True).dropped) == 1
    other = {**WHOLE, "completion": "Other shots. Q?\nA:", "answer_index": 0}
    _, questions, _ = read_exam(write(tmp_path / "b.jsonl", WHOLE, other), "b", "domain")
    assert len({question.id for question in questions}) == 2


def test_data_beside_the_task_is_found_from_elsewhere_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tasks"
    shutil.copytree(TASKS, folder)
    monkeypatch.chdir(tmp_path)
    imported = import_task(folder / "choice_table.yaml")
    assert [row["completion"] for row in imported.rows] == [
        one[0][0] for one in EXPECTED["tasks"]["choice_table"]["requests"]
    ]
    assert imported.notices == [
        "table.csv was read from beside the task; lm_eval looks in the current folder"
    ]
