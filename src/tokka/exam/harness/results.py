"""A sitting in the layout of lm-evaluation-harness: its results file and its samples.

Exam, answers, scores → `HarnessResults`. Tasks, rows and hashes are those of the exported exam, so
that a run of the harness on the export can be laid beside it line by line. Failed questions have no
metrics here either: the task's mean is then null, and `errors` counts them.

>>> found = harness_results(sat, model=About("embedded:gemma-3-270m"))
>>> found.results["results"]["domain"]["acc,none"]
0.55
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import tokka
from tokka.exam.harness.marking import prediction, right_by
from tokka.exam.harness.task_export import CHOICE_METRICS, Render, Task, targets_of, tasks_of
from tokka.exam.scorers.choice import normalised
from tokka.records import (
    Answer,
    Exam,
    FilterChain,
    Key,
    Marking,
    Normalisation,
    Question,
    Score,
    Split,
)
from tokka.store import write_text

_BY: dict[str, Normalisation] = {
    "acc": "sum",
    "acc_norm": "characters",
    "acc_bytes": "bytes",
}


@dataclass(frozen=True, slots=True)
class About:
    """What the results say of the run. `date` is in seconds since 1970. `plain`: the prompts were
    those of the export; an arm's own prompts aren't kept, and stay out."""

    model: str
    dtype: str = ""
    limit: int | None = None
    shots: int = 0
    date: float = 0.0
    seconds: float = 0.0
    plain: bool = True


@dataclass(frozen=True, slots=True)
class HarnessResults:
    """`samples` by task, as they stand in samples_TASK_….jsonl."""

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


def harness_results(
    exam: Exam,
    questions: Sequence[Question],
    keys: Sequence[Key],
    answers: Sequence[Answer],
    scores: Sequence[Score],
    render: Render,
    about: About,
    split: Split = "test",
) -> HarnessResults:
    """`questions` is the whole exam, `answers` and `scores` of those that were asked."""
    answer_of = {answer.question_id: answer for answer in answers}
    score_of = {score.question_id: score for score in scores}
    tasks = tasks_of(exam, questions, keys, render, split).tasks
    samples = {task.name: _samples(task, answer_of, score_of, about) for task in tasks}
    errors = {
        task.name: sum(
            answer_of[q.id].status == "error" for q in task.questions if q.id in answer_of
        )
        for task in tasks
    }
    tasks = [task for task in tasks if samples[task.name] or errors[task.name]]
    metrics = {t.name: _metrics(t, samples[t.name], errors[t.name]) for t in tasks}
    sanitised = re.sub(r"[\"<>:/|\\?*\[\]]+", "__", about.model)
    results: dict[str, Any] = {
        "results": metrics,
        "group_subtasks": {},
        "configs": {task.name: {"task": task.name, **task.config} for task in tasks},
        "versions": {task.name: 1.0 for task in tasks},
        "n-shot": {task.name: about.shots for task in tasks},
        "higher_is_better": {
            name: {
                key.partition(",")[0]: True
                for key in found
                if "," in key and not key.partition(",")[0].endswith("_stderr")
            }
            for name, found in metrics.items()
        },
        "n-samples": {
            task.name: {
                "original": len(task.rows),
                "effective": sum(q.id in answer_of for q in task.questions),
            }
            for task in tasks
        },
        "config": {
            "model": "tokka",
            "model_args": {"pretrained": about.model, "dtype": about.dtype},
            "model_dtype": about.dtype,
            "batch_size": None,
            "batch_sizes": [],
            "device": None,
            "use_cache": None,
            "limit": about.limit,
            "bootstrap_iters": 0,
            "gen_kwargs": None,
            "fewshot_seed": 1234,
        },
        "date": about.date,
        "tokka_version": tokka.__version__,
        "errors": errors,
        "task_hashes": {name: _hash_of(of) for name, of in samples.items() if of},
        "model_source": "tokka",
        "model_name": about.model,
        "model_name_sanitized": sanitised,
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(about.seconds),
    }
    return HarnessResults(results, {task.name: samples[task.name] for task in tasks})


def write_results(found: HarnessResults, folder: Path) -> list[Path]:
    """results_DATE.json and samples_TASK_DATE.jsonl, each whole or not at all; the results last."""
    date = datetime.fromtimestamp(found.results["date"]).isoformat().replace(":", "-")
    texts = {
        folder / f"samples_{name}_{date}.jsonl": "".join(
            json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples
        )
        for name, samples in found.samples.items()
    }
    body = json.dumps(found.results, ensure_ascii=False, indent=2)
    texts[folder / f"results_{date}.json"] = body + "\n"
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


# ---- samples ----------------------------------------------------------------------------------


def _samples(
    task: Task, answer_of: Mapping[str, Answer], score_of: Mapping[str, Score], about: About
) -> list[dict[str, Any]]:
    """By filter, then by question, as the harness lists them. A failed question has none."""
    found: list[dict[str, Any]] = []
    for chain in task.marking.chains if task.marking else (FilterChain(name="none"),):
        for place, (question, key) in enumerate(zip(task.questions, task.keys, strict=True)):
            answer, row = answer_of.get(question.id), task.rows[place]
            if answer is None or answer.status == "error":
                continue
            if task.marking is None:
                said = _of_choice(task, question, row, answer, key)
                target = str(key.choice)
            else:
                said = _of_text(task.marking, chain, row, answer, key)
                own = score_of[question.id]
                if key.marking is None and own.value is not None:
                    said.metrics[own.scorer] = own.value
                target = str(targets_of(key))
            found.append(
                {
                    "doc_id": place,
                    "doc": row,
                    "target": target,
                    "arguments": _arguments(said.asked) if about.plain else {},
                    "resps": [[one] for one in said.responses],
                    "filtered_resps": said.filtered,
                    "filter": chain.name,
                    "metrics": list(said.metrics),
                    "doc_hash": _sha256(json.dumps(row, indent=2, ensure_ascii=False)),
                    "prompt_hash": _sha256(row["completion"]) if about.plain else "",
                    "target_hash": _sha256(target),
                    "tokka_prompt_sha256": answer.prompt_sha256,
                    **said.metrics,
                }
            )
    return found


@dataclass(frozen=True, slots=True)
class _Said:
    """`asked` are the requests: (context, continuation) or (context, generation settings)."""

    asked: list[tuple[str, Any]]
    responses: list[Any]
    filtered: list[Any]
    metrics: dict[str, float]


def _of_choice(
    task: Task, question: Question, row: Mapping[str, Any], answer: Answer, key: Key
) -> _Said:
    """Whether an option is the greedy continuation isn't computed: it is given as None."""
    delimiter = task.config["target_delimiter"]
    pairs: list[Any] = [[str(value), "None"] for value in answer.choice_loglikelihoods]
    likelihoods = answer.choice_loglikelihoods
    metrics = {"acc": float(answer.choice == key.choice)}  # by letter, where none is scored
    if likelihoods:
        for name in CHOICE_METRICS:
            by = normalised(likelihoods, question.choices, answer.choice_lengths, _BY[name])
            metrics[name] = float(by.index(max(by)) == key.choice)
    elif answer.decoding.method == "loglikelihood":  # silent: wrong by every measure
        metrics = dict.fromkeys(CHOICE_METRICS, 0.0)
    return _Said(
        asked=[(row["completion"], delimiter + option) for option in question.choices],
        responses=pairs or [answer.text],
        filtered=pairs or [answer.text],
        metrics=metrics,
    )


def _of_text(
    marking: Marking,
    chain: FilterChain,
    row: Mapping[str, Any],
    answer: Answer,
    key: Key,
) -> _Said:
    predicted = prediction(chain, answer.text)
    return _Said(
        asked=[(row["completion"], _generation(answer))],
        responses=[answer.text],
        filtered=[str(predicted)],
        metrics={"exact_match": float(right_by(chain, marking, answer.text, targets_of(key)))},
    )


def _generation(answer: Answer) -> dict[str, Any]:
    """As the answer was really written."""
    said = answer.decoding
    return {
        "until": list(said.stop),
        "max_gen_toks": said.max_tokens,
        "do_sample": False,
        "temperature": said.temperature,
    }


def _arguments(asked: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {f"gen_args_{n}": {"arg_0": one, "arg_1": two} for n, (one, two) in enumerate(asked)}


# ---- means ------------------------------------------------------------------------------------


def _metrics(task: Task, samples: Sequence[Mapping[str, Any]], errors: int) -> dict[str, Any]:
    """Mean and standard error of each metric and filter; null where a question failed."""
    values: dict[str, list[float]] = {}
    asked = {sample["doc_id"] for sample in samples}
    for sample in samples:
        for name in sample["metrics"]:
            values.setdefault(f"{name},{sample['filter']}", []).append(sample[name])
    found: dict[str, Any] = {
        "name": task.name,
        "alias": task.name,
        "sample_len": len(asked) + errors,
    }
    for key, numbers in values.items():
        name, _, chain = key.partition(",")
        found[key] = None if errors else fmean(numbers)
        several = not errors and len(numbers) > 1
        found[f"{name}_stderr,{chain}"] = (
            stdev(numbers) / math.sqrt(len(numbers)) if several else "N/A"
        )
    return found


def _hash_of(samples: Sequence[Mapping[str, Any]]) -> str:
    return _sha256("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
