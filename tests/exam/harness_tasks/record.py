"""Write expected.json: what lm-evaluation-harness makes of the tasks in this folder.

Run with a Python that has lm_eval 0.4.13, in this folder:

    python record.py

For each task: the requests that it would send (context and continuation, or context and generation
settings), the token ids of its first choice question, and its metrics by question for made-up
log-likelihoods or texts.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
logging.disable(logging.CRITICAL)

import datasets  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).parent
TEXTS = (
    *("8", " 8 \n", "#### 1,234.", "eight", "Yes!", "yes", "PARIS, France", "Paris", "[invalid]"),
    *("", "The answer is $3 and 144.", "no 1", "YES2", "other", "#### 144", "12.0"),
)


def likelihood(question: int, option: int) -> float:
    """Made up, with ties: `test_harness_import.py` makes up the same."""
    return -((question * 7 + option * 13) % 11) / 2 - 0.5


def recorded(path: Path, model: HFLM) -> dict[str, Any]:
    (task,) = TaskManager(include_defaults=False).load([str(path)])["tasks"].values()
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    documents = list(task.eval_docs)
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    requests = [[list(one.args) for one in by_document[n]] for n in range(len(documents))]
    marks: list[Any] = []
    for text in [None] if task.OUTPUT_TYPE == "multiple_choice" else TEXTS:
        for n, instances in by_document.items():
            for place, instance in enumerate(instances):
                given = (likelihood(n, place), False) if text is None else text
                instance.resps, instance.filtered_resps = [given], {}
        task.apply_filters()
        chains = list(task.instances[0].filtered_resps)
        marks.append(
            [
                {
                    f"{metric},{chain}": float(value)
                    for chain in chains
                    for metric, value in task.process_results(
                        documents[n], [one.filtered_resps[chain] for one in by_document[n]]
                    ).items()
                }
                for n in range(len(documents))
            ]
        )
    choice = task.OUTPUT_TYPE == "multiple_choice"
    ids = [model._encode_pair(*pair) for pair in requests[0]] if choice else []
    return {"requests": requests, "ids": ids, "marks": marks}


def main() -> None:
    os.chdir(HERE)
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained("tokenizer")
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=1, **small)
    model = HFLM(pretrained=LlamaForCausalLM(config), tokenizer=tokenizer, device="cpu")
    found = {path.stem: recorded(path, model) for path in sorted(Path().glob("*.yaml"))}
    lines = [json.dumps(name) + ": " + json.dumps(found[name]) for name in found]
    head = f'{{"texts": {json.dumps(TEXTS)},\n"tasks": {{\n'
    Path("expected.json").write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
