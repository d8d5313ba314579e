"""lm-evaluation-harness sits exams: a contestant that runs in the harness's own environment.

Job: `model` (folder), `dtype`, `tasks` (folder), `sittings` (task, limit, batch_size; `warm_up` for
one that isn't measured). The clock runs from the harness's requests to its metrics; loading the
model and the data set does not count.
"""

from __future__ import annotations

import tempfile
from typing import Any

from measuring import Facts, contestant, tell, timed


def work(job: Facts) -> Facts:
    import datasets
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="tokka-datasets-") as cache:
        datasets.config.HF_DATASETS_CACHE = cache
        model: Any = HFLM(
            pretrained=job["model"],
            dtype=job["dtype"],
            device="cuda" if torch.cuda.is_available() else "cpu",
            batch_size=1,
        )
        manager = TaskManager(include_path=job["tasks"], include_defaults=False)
        found = []
        for sitting in job["sittings"]:
            name, limit = sitting["task"], sitting["limit"]
            model.batch_size_per_gpu = sitting["batch_size"]
            loaded = manager.load([name])
            sent: list[Any] = []
            _watch(model, sent)
            tell(f"{name}: {limit} questions, batches of {sitting['batch_size']}")
            run = timed(
                lambda loaded=loaded, limit=limit: evaluate(
                    model, loaded, limit=limit, bootstrap_iters=0, log_samples=True
                )
            )
            tell(f"{name}: {run.seconds:.1f} s")
            samples = sorted(run.value["samples"][name], key=lambda sample: sample["doc_id"])
            found.append(
                {
                    "seconds": run.seconds,
                    "peak_bytes": run.peak_bytes,
                    "sent": sent,
                    "loglikelihoods": [
                        [float(value) for value, _ in sample["filtered_resps"]]
                        for sample in samples
                    ],
                    "accuracy": run.value["results"][name]["acc,none"],
                }
            )
    return {"sittings": found}


def _watch(model: Any, sent: list[Any]) -> None:
    """Write down the token ids of every request: (prompt, answer), in the order of the task."""
    original = type(model)._loglikelihood_tokens

    def score(requests: Any, *rest: Any, **named: Any) -> Any:
        sent.extend([prompt, answer] for _, prompt, answer in requests)
        return original(model, requests, *rest, **named)

    model._loglikelihood_tokens = score


if __name__ == "__main__":
    contestant(work)
