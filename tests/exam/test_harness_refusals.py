"""A task file is somebody else's text: nothing of it is run, and what can't be taken is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import Mistakes, TokkaError, UsageError
from tokka.exam.harness import sandbox, templates
from tokka.exam.harness.data import splits_of
from tokka.exam.harness.task_file import READ, SUPPORTED, read_task
from tokka.exam.harness.task_import import import_task

pytest.importorskip("jinja2")

TASK = """\
task: small
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: label
"""
ROW = {"question": "2+2?", "choices": ["4", "5"], "label": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    own = tmp_path / "tasks"
    own.mkdir()
    (own / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return own


def task(folder: Path, *lines: str, drop: str = "") -> Path:
    kept = [line for line in TASK.splitlines() if not drop or not line.startswith(drop)]
    path = folder / "small.yaml"
    path.write_text("\n".join([*kept, *lines]) + "\n", encoding="utf-8")
    return path


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(TokkaError) as error:
        import_task(path, **how)
    return str(error.value)


def test_a_plain_task_is_taken(folder: Path) -> None:
    (row,) = import_task(task(folder)).rows
    assert row["completion"] == "2+2?"


def test_a_function_is_refused_with_its_line_and_never_loaded(folder: Path) -> None:
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n", encoding="utf-8")
    said = refused(task(folder, "doc_to_text: !function code.prompt", drop="doc_to_text"))
    assert "doc_to_text: !function code.prompt would run code" in said
    assert "(small.yaml:8)" in said
    assert "write a Jinja template or the name of a field" in said
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["process_docs: !function code.f"], "process_docs: !function code.f would run code"),
        (["process_docs: utils.f"], "process_docs: a function that rewrites the rows"),
        (["process_results: f"], "process_results: a function that marks answers"),
        (["custom_dataset: f"], "custom_dataset: a function that makes the data"),
        (["class: my.Task"], "class: a task written in Python"),
        (["use_prompt: promptsource:x"], "use_prompt: a prompt of the library promptsource"),
        (["unsafe_code: true"], "unsafe_code: the task runs what the model wrote"),
        (["metadata: !!python/object/apply:os.system [ls]"], "would run code"),
        (["fewshot_config: {samples: !function code.f}"], "fewshot_config.samples: !function"),
        (["metric_list: [{metric: !function code.f}]"], "metric_list.0.metric: !function"),
        (["group: several"], "group: a group of tasks; import each of its task files by itself"),
        (["task_list: [a, b]"], "task_list: a list of tasks"),
        (["doc_to_image: image"], "doc_to_image: an image"),
        (["repeats: 8"], "repeats: 8, but tokka asks once"),
        (["num_fewshots: 2"], "num_fewshots: unknown field; did you mean num_fewshot?"),
        (["test_split: test"], "test_split: stands there twice"),
        (["num_fewshot: many"], "num_fewshot: must be a whole number from 0, got 'many'"),
        (["fewshot_config: {sampler: balanced}"], "'balanced' is none of default, first_n"),
        (["fewshot_config: {fewshot_indices: [1]}"], "fewshot_config.fewshot_indices: is not"),
        (["target_delimiter: 1"], "target_delimiter: must be a text, got 1"),
        (
            ["metric_list: [{metric: acc, hf_evaluate: true}]"],
            "acc would fetch and run code (hf_evaluate)",
        ),
        (["metric_list: [{metric: f1}]"], "none of its metrics is one of acc, acc_norm"),
        (["metric_list: [{metric: acc, aggregation: median}]"], "aggregated by median"),
    ],
)
def test_what_cannot_be_taken_is_named_with_its_line(
    lines: list[str], said: str, folder: Path
) -> None:
    message = refused(task(folder, *lines))
    assert said in message
    assert "(small.yaml:9)" in message


def test_of_a_group_nothing_but_the_group_is_said(folder: Path) -> None:
    path = folder / "small.yaml"
    path.write_text("group: g\ntask: [a, b]\naggregate_metric_list: []\n", encoding="utf-8")
    with pytest.raises(Mistakes) as error:
        import_task(path)
    assert [item.split(":")[0] for item in error.value.items] == ["group"]


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    with pytest.raises(Mistakes) as error:
        import_task(task(folder, "process_docs: !function a.f", "num_fewshot: x", "repeats: 2"))
    assert [item.split(":")[0] for item in error.value.items] == [
        "process_docs",
        "repeats",
        "num_fewshot",
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["generation_kwargs: {do_sample: true}"], "would sample"),
        (["generation_kwargs: {temperature: 0.7}"], "generation_kwargs.temperature: would sample"),
        (["generation_kwargs: {top_p: 0.5}"], "generation_kwargs.top_p: is not read"),
        (["generation_kwargs: {until: 3}"], "must be a list of texts, got 3"),
        (["generation_kwargs: {max_gen_toks: 0}"], "must be 1 to 8192, got 0"),
        (
            ["filter_list: [{name: a, filter: [{function: majority_vote}]}]"],
            "'majority_vote' is none of regex",
        ),
        (
            ["filter_list: [{name: a, filter: [{function: take_first}, {function: lowercase}]}]"],
            "must end with - function: take_first",
        ),
        (
            [
                "metric_list: [{metric: exact_match, regexes_to_ignore: [a]}]",
                "filter_list: [{name: a, filter: [{function: lowercase}]}]",
            ],
            "must end with - function: take_first",
        ),
        (
            ["filter_list: [{name: a, filter: [{function: regex, regex_pattern: '('}]}]"],
            "'(' is no regular expression",
        ),
        (
            ["filter_list: [{name: a, filter: [{function: map, mapping_dict: {a: 1}}]}]"],
            "write texts in quotes",
        ),
        (
            ["metric_list: [{metric: exact_match, regexes_to_ignore: ['[']}]"],
            "'[' is no regular expression",
        ),
        (["metric_list: [{metric: exact_match, ignore_dots: true}]"], "ignore_dots: is not read"),
    ],
)
def test_what_a_text_task_cannot_ask_is_named(lines: list[str], said: str, folder: Path) -> None:
    path = task(folder, *lines)
    text = path.read_text(encoding="utf-8").replace("multiple_choice", "generate_until")
    path.write_text(text, encoding="utf-8")
    assert said in refused(path)


def test_the_temperature_counts_only_where_it_samples(folder: Path) -> None:
    path = task(folder, "generation_kwargs: {do_sample: false, temperature: 0.7}")
    text = path.read_text(encoding="utf-8").replace("multiple_choice", "generate_until")
    path.write_text(text, encoding="utf-8")
    assert import_task(path).rows[0]["stop"] == ["\n\n"]


def test_metrics_that_are_not_computed_are_left_out_with_a_notice(folder: Path) -> None:
    path = task(folder, "metric_list: [{metric: f1}, {metric: acc_norm}]")
    imported = import_task(path)
    assert (imported.metrics, imported.normalisation) == (("acc_norm",), "characters")
    assert "metric f1 is not computed by tokka and is left out" in imported.notices


def test_every_field_that_is_read_is_listed() -> None:
    assert [name for name in READ if name not in SUPPORTED] == []


# ---- files ------------------------------------------------------------------------------------


def test_an_include_may_not_leave_the_folder_unless_its_root_is_named(folder: Path) -> None:
    (folder.parent / "base.yaml").write_text(TASK, encoding="utf-8")
    path = folder / "small.yaml"
    path.write_text("include: ../base.yaml\ntask: mine\n", encoding="utf-8")
    said = refused(path)
    assert "include: ../base.yaml lies outside of the task's folder" in said
    assert "--root (small.yaml:1)" in said
    assert import_task(path, roots=[folder.parent]).name == "mine"


def test_a_link_does_not_lead_out_of_the_folder(folder: Path) -> None:
    (folder.parent / "secret.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    (folder / "link.jsonl").symlink_to(folder.parent / "secret.jsonl")
    path = task(folder)
    path.write_text(path.read_text().replace("rows.jsonl", "link.jsonl"), encoding="utf-8")
    assert "link.jsonl lies outside of the task's folder" in refused(path)


def test_an_included_field_is_named_where_it_stands(folder: Path) -> None:
    (folder / "base.yaml").write_text(TASK + "process_docs: f\n", encoding="utf-8")
    path = folder / "small.yaml"
    path.write_text("include: base.yaml\n", encoding="utf-8")
    assert "(base.yaml:9)" in refused(path)
    path.write_text("include: base.yaml\nprocess_docs: null\n", encoding="utf-8")
    assert import_task(path).name == "small"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("include: small.yaml\n", "includes itself"),
        ("task: [\n", "not valid YAML"),
        ("- a\n", "holds no task"),
        ("a: &x [1, 1, 1, 1, 1, 1, 1, 1]\nb: &y [*x, *x, *x, *x, *x, *x, *x, *x]\n"
         "c: &z [*y, *y, *y, *y, *y, *y, *y, *y]\nd: &w [*z, *z, *z, *z, *z, *z, *z, *z]\n"
         "e: [*w, *w, *w, *w, *w, *w, *w, *w]\n", "holds more than 20,000 values"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_task_is_refused(text: str, said: str, folder: Path) -> None:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_task(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dataset_path: json", "dataset_path: hf-org/quiz", "nothing is fetched from a hub"),
        ("rows.jsonl", "none.jsonl", "none.jsonl is neither in"),
        ("rows.jsonl", "https://example.org/a.jsonl", "is no local file"),
        ("rows.jsonl", "'*.jsonl'", "is no local file"),
        ("{data_files: {test: rows.jsonl}}", "{revision: x}", "revision is not read"),
        (
            "{data_files: {test: rows.jsonl}}",
            "{trust_remote_code: true}",
            "trust_remote_code would run code",
        ),
        ("test_split: test", "test_split: final", "the data has no split 'final', it has test"),
    ],
)
def test_data_that_is_not_local_is_refused(old: str, new: str, said: str, folder: Path) -> None:
    path = task(folder)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert said in refused(path)


def test_a_broken_row_of_data_is_named_with_its_line(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n{broken\n", encoding="utf-8")
    assert "(rows.jsonl:2)" in refused(task(folder))


def test_a_csv_column_has_one_type_as_pandas_gives_it(folder: Path) -> None:
    (folder / "rows.csv").write_text(
        "n,f,gap,truth,text,code\n1,1.5,2,true,a,01\n2,NA,,FALSE,None,x2\n", encoding="utf-8"
    )
    path = task(folder, drop="dataset")
    path.write_text(
        path.read_text() + "dataset_path: csv\ndataset_kwargs: {data_files: {test: rows.csv}}\n",
        encoding="utf-8",
    )
    rows = splits_of(read_task(path), [folder.resolve()], [])["test"]
    assert rows == [
        {"n": 1, "f": 1.5, "gap": 2.0, "truth": True, "text": "a", "code": "01"},
        {"n": 2, "f": None, "gap": None, "truth": False, "text": None, "code": "x2"},
    ]


def test_lists_of_nothing_but_dates_are_refused_where_they_are_asked(folder: Path) -> None:
    row = {**ROW, "choices": ["2024-01-01", "2024-02-01"]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert "the lists in choices of test hold nothing but dates" in refused(task(folder))
    rows = [row, {**ROW, "question": "3+3?"}]
    lines = "".join(json.dumps(one) + "\n" for one in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    assert len(import_task(task(folder)).rows) == 2


# ---- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"label": 7}, "the key '7' is none of the 2 options"),
        ({"label": [0, 1]}, "has several right options, and tokka marks one"),
        ({"choices": [1, 2]}, "doc_to_choice must make a list of texts, got [1, 2]"),
        ({"choices": ["4", ""]}, "option B is empty"),
        ({"question": "  "}, "the prompt is empty"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named_and_can_be_left_out(
    row: dict[str, Any], said: str, folder: Path
) -> None:
    rows = [{**ROW, "question": "1+3?"}, {**ROW, **row}, {**ROW, "question": "0+4?"}]
    lines = "".join(json.dumps(one) + "\n" for one in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    message = refused(task(folder))
    assert said in message and "test-1" in message
    imported = import_task(task(folder), leave_out_mistakes=True)
    assert [one["id"] for one in imported.rows] == ["test-0", "test-2"]
    (left_out,) = imported.left_out
    assert said in left_out


def test_one_answer_after_several_prompts_is_refused(folder: Path) -> None:
    assert "doc_to_text: makes a number" in refused(
        task(folder, "doc_to_text: label", drop="doc_to_text")
    )


# ---- templates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{missing}}", "'missing' is undefined"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{question.__class__.__mro__}}", "SecurityError"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "SecurityError"),
        ("{{ self._TemplateReference__context }}", "SecurityError"),
        ("{% set x = choices.append(1) %}", "SecurityError"),
        ("{{ range(10**9) | list }}", "OverflowError"),
        ("{{ choices | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{% include 'x' %}", "no loader"),
        ("{{ 'x' * 2000000 }}", "a text of more than 1,000,000 characters"),
        ("{{ question | regex_replace('(', '') }}", "in row 1 of test"),
    ],
)
def test_a_template_stays_in_its_box(template: str, said: str, folder: Path) -> None:
    line = f"doc_to_text: {json.dumps(template)}"
    message = refused(task(folder, line, drop="doc_to_text"))
    assert said in message
    assert "(small.yaml:8)" in message


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of a process")
@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' | center(9999999999) }}",
        "{{ question | regex_replace('(a+)+$', '') }}",
    ],
)
def test_a_template_that_takes_everything_ends_its_own_process(
    template: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {**ROW, "question": "a" * 40 + "b"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    monkeypatch.setattr(templates, "TIMEOUT_SECONDS", 3.0)
    said = refused(task(folder, f"doc_to_text: {json.dumps(template)}", drop="doc_to_text"))
    assert "too much" in said or "took more" in said


def test_the_box_is_given_rows_and_nothing_else() -> None:
    ((reply,), (error,)) = (
        sandbox.rendered(["{{a}}{{ b | regex_replace('x+', '-') }}\n"], [row], [[0, 0]])
        for row in ({"a": 1, "b": "axxb"}, {"b": 2})
    )
    assert reply == {"text": "1a-b\n"}
    assert set(error) == {"error"}
