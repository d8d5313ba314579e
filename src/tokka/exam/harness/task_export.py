"""An exam → tasks of lm-evaluation-harness with their data, so that the harness asks the same.

Exam, questions, keys → `Task`s: a YAML file and rows, each row with the whole prompt that tokka
sends for a plain arm. Questions that end differently need a task each, so an exam may become a few.
What a task can't say (tolerances, units, "contained") comes back as a notice.

>>> exported = tasks_of(exam, questions, keys, render)
>>> write_tasks(exported.tasks, Path("tasks"))     # tasks/domain.yaml, tasks/domain.jsonl
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokka.exam.harness.data import is_time
from tokka.exam.harness.task_import import HOME
from tokka.records import (
    Exam,
    FilterChain,
    Key,
    Marking,
    Question,
    Split,
    TextFilter,
    canonical_json,
)
from tokka.store import write_text


@dataclass(frozen=True, slots=True)
class Plain:
    """A question as a plain arm asks a base model: the prompt, what stands before an answer, and
    how a written answer ends."""

    text: str
    delimiter: str
    stop: tuple[str, ...]
    max_tokens: int


Render = Callable[[Question], Plain]

# What lm-evaluation-harness can do for a text: no tolerances, no units, no "contained".
OWN_MARKING = Marking(
    chains=(FilterChain(name="none", steps=(TextFilter(function="remove_whitespace"),)),),
    ignore_case=True,
    ignore_punctuation=True,
)
CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes")


@dataclass(frozen=True, slots=True)
class Task:
    """`config` is the task file's content but for where the data lies; `rows[i]` is of
    `questions[i]`. `marking` is None for choices."""

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    questions: list[Question]
    keys: list[Key]
    marking: Marking | None


@dataclass(frozen=True, slots=True)
class ExportedExam:
    tasks: list[Task]
    notices: list[str]


def tasks_of(
    exam: Exam,
    questions: Sequence[Question],
    keys: Iterable[Key],
    render: Render,
    split: Split = "test",
) -> ExportedExam:
    """A task for each way of asking, in the order of the questions; the other split stays here."""
    key_of = {key.question_id: key for key in keys}
    groups: dict[str, list[tuple[Question, Key, Plain]]] = {}
    for question in (q for q in questions if q.split == split):
        key, plain = key_of[question.id], render(question)
        if key.unanswerable:  # no text equals "that isn't there"
            continue
        setting = canonical_json(_setting(question, key, plain))
        groups.setdefault(setting, []).append((question, key, plain))
    kinds = ["choice" if group[0][0].form == "choice" else "text" for group in groups.values()]
    tasks: list[Task] = []
    numbers: Counter[str] = Counter()
    for kind, group in zip(kinds, groups.values(), strict=True):
        numbers[kind] += 1
        suffix = f"_{kind}" + (f"_{numbers[kind]}" if numbers[kind] > 1 else "")
        name = task_name(exam.name) + (suffix if len(groups) > 1 else "")
        tasks.append(_task(name, exam, group))
    return ExportedExam(tasks, _notices(exam, questions, key_of, split))


def task_name(name: str) -> str:
    """A name that is also a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "exam"


def write_tasks(tasks: Sequence[Task], folder: Path) -> list[Path]:
    """NAME.jsonl and then NAME.yaml of each task, each whole or not at all."""
    written: list[Path] = []
    for task in tasks:
        data, file = (folder / f"{task.name}{suffix}" for suffix in (".jsonl", ".yaml"))
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in task.rows)
        write_text(data, lines)
        config = {
            "task": task.name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
            **task.config,
        }
        head = (
            f"# lm_eval run --tasks {task.name} --include_path {folder.resolve()} "
            "--model hf --model_args pretrained=MODEL\n"
        )
        body = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        write_text(file, head + body)
        written += [data, file]
    return written


class _Dumper(yaml.SafeDumper):
    """Line breaks as \\n in double quotes, where YAML would write them as empty lines."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


# ---- one task ---------------------------------------------------------------------------------


def _setting(question: Question, key: Key, plain: Plain) -> dict[str, Any]:
    """What one task file says for all its rows."""
    if question.form == "choice":
        return {"delimiter": plain.delimiter}
    marking = key.marking or OWN_MARKING
    return {"stop": plain.stop, "max_tokens": plain.max_tokens, "marking": marking}


def _task(name: str, exam: Exam, group: Sequence[tuple[Question, Key, Plain]]) -> Task:
    question, key, plain = group[0]
    choice = question.form == "choice"
    marking = None if choice else key.marking or OWN_MARKING
    config: dict[str, Any] = {
        "output_type": "generate_until" if marking else "multiple_choice",
        "test_split": "test",
        "num_fewshot": 0,  # shots stand in the prompts
        "doc_to_text": "completion",
    }
    if marking is None:
        config |= {"doc_to_choice": "{{choices}}", "doc_to_target": "gold"}
        config["target_delimiter"] = plain.delimiter
        config["metric_list"] = [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in CHOICE_METRICS
        ]
    else:
        config["doc_to_target"] = "{{targets}}"
        config["generation_kwargs"] = {
            "until": list(plain.stop),
            "max_gen_toks": plain.max_tokens,
            "do_sample": False,
            "temperature": 0.0,
        }
        config["filter_list"] = [_chain(chain) for chain in marking.chains]
        config["metric_list"] = [_exact_match(marking)]
    config["metadata"] = {"version": 1.0, "exam": exam.name, "exam_digest": exam.digest}
    rows = [_row(*one, marking) for one in group]
    listed = "choices" if marking is None else "targets"
    if all(is_time(text) for row in rows for text in row[listed]):
        for row in rows:  # lists of dates would be read as times; templates read this as the list
            row[listed] = repr(row[listed])
    return Task(name, config, rows, [q for q, _, _ in group], [k for _, k, _ in group], marking)


def _row(question: Question, key: Key, plain: Plain, marking: Marking | None) -> dict[str, Any]:
    """What the harness asks, and in one text column the question's own row with what an import of
    this row would make of it."""
    row: dict[str, Any] = {"id": question.id, "completion": plain.text}
    if marking is None:
        row |= {"choices": list(question.choices), "gold": key.choice}
        asks: dict[str, Any] = {
            "form": "choice",
            "choices": list(question.choices),
            "answer_index": key.choice,
            "completion": plain.text,
            "delimiter": plain.delimiter,
        }
    else:
        row["targets"] = targets_of(key)
        asks = {
            "form": "short",
            "answer": row["targets"],
            "completion": plain.text,
            "stop": list(plain.stop),
            "max_tokens": plain.max_tokens,
            "marking": marking.model_dump(mode="json", exclude_defaults=True),
        }
    home = {"row": owner_row(question, key), "asks": asks}
    row[HOME] = json.dumps(home, ensure_ascii=False, sort_keys=True)
    return row


def targets_of(key: Key) -> list[str]:
    """The texts that lm_eval compares with: a number also with its unit behind it."""
    return list(dict.fromkeys([*key.targets, *(target + key.unit for target in key.targets)]))


def owner_row(question: Question, key: Key) -> dict[str, Any]:
    """The row of an exam file from which question and key are read again as they are."""
    (*before, last) = question.messages
    row: dict[str, Any] = {"id": question.id}
    if before or last.content != last.content.strip():
        row["messages"] = [{"role": m.role, "content": m.content} for m in question.messages]
    else:
        row["question"] = last.content
    row["form"] = question.form
    if question.form == "choice":
        row |= {"choices": list(question.choices), "answer_index": key.choice}
    elif key.unanswerable:
        row["unanswerable"] = True
    else:
        row["answer"] = list(key.targets)
    if question.form == "number":
        row |= {"unit": key.unit, "tolerance": key.tolerance}
    optional: dict[str, Any] = {
        "completion": question.completion,
        "delimiter": question.delimiter,
        "stop": None if question.stop is None else list(question.stop),
        "max_tokens": question.max_tokens,
        "marking": key.marking and key.marking.model_dump(mode="json", exclude_defaults=True),
        "topic": question.topic,
        "cluster_id": question.cluster_id,
        "document_ids": list(question.document_ids),
        "gold": list(question.gold),
        "points": list(key.points),
        "prohibited": list(key.prohibited),
    }
    row |= {name: value for name, value in optional.items() if value not in (None, "", [])}
    if question.stop == ():
        row["stop"] = []
    return {**row, "split": question.split}


def _chain(chain: FilterChain) -> dict[str, Any]:
    return {
        "name": chain.name,
        "filter": [*map(_step, chain.steps), {"function": "take_first"}],
    }


def _step(step: TextFilter) -> dict[str, Any]:
    if step.function == "regex":
        return {
            "function": "regex",
            "regex_pattern": step.pattern,
            "group_select": step.match,
            "fallback": step.fallback,
        }
    if step.function == "map":
        return {
            "function": "map",
            "mapping_dict": dict(step.mapping),
            "default_value": step.default,
        }
    return {"function": step.function}


def _exact_match(marking: Marking) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "metric": "exact_match",
        "aggregation": "mean",
        "higher_is_better": True,
    }
    if marking.regexes_to_ignore:
        entry["regexes_to_ignore"] = list(marking.regexes_to_ignore)
    for name in ("ignore_case", "ignore_punctuation", "ignore_numbers"):
        if getattr(marking, name):
            entry[name] = True
    return entry


def _notices(
    exam: Exam, questions: Sequence[Question], key_of: dict[str, Key], split: Split
) -> list[str]:
    asked = [q for q in questions if q.split == split]
    own = Counter(
        q.form
        for q in asked
        if q.form != "choice" and key_of[q.id].marking is None and not key_of[q.id].unanswerable
    )
    notices: list[str] = []
    if own["short"]:
        notices.append(
            f"short answers ({own['short']}): lm_eval marks the whole answer as equal or not, "
            f"tokka by {exam.scorer!r}"
        )
    if own["number"]:
        notices.append(
            f"numbers ({own['number']}): lm_eval compares the text and knows no units or tolerances"
        )
    if own:
        notices.append(
            "an answer that begins with a line break is empty to lm_eval; tokka reads on"
        )
    silent = sum(key_of[q.id].unanswerable for q in asked)
    if silent:
        notices.append(
            f"questions without an answer ({silent}) are left out: lm_eval compares texts, and "
            "silence is none"
        )
    if len(asked) < len(questions):
        notices.append(
            f"questions of the other split ({len(questions) - len(asked)}) are left out: a task "
            "asks one split"
        )
    return notices
