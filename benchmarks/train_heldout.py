"""Mean loss of saved weights on held-out lessons: one plain forward pass for every side.

Job: `model` (folder), `lessons` ([ids, first learnt place]), `cases` (name → "" for the model
itself, an adapter's folder, or a folder of whole weights). Runs in the peer's environment and
knows nothing of tokka. Out: `losses`, nats per learnt token, by case.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measuring import Facts, contestant, tell


def work(job: Facts) -> Facts:
    losses = {}
    for name, folder in job["cases"].items():
        losses[name] = mean_loss(opened(job["model"], folder), job["lessons"])
        tell(f"held-out loss, {name}: {losses[name]:.4f}")
    return {"losses": losses}


def opened(model: str, folder: str) -> Any:
    """float32 and without dropout, whatever it was trained in."""
    import torch
    from transformers import AutoModelForCausalLM

    adapter = bool(folder) and Path(folder, "adapter_config.json").exists()
    place = "cuda" if torch.cuda.is_available() else "cpu"
    weights = folder if folder and not adapter else model
    module = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).to(place)
    if adapter:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, folder)
    return module.eval()


def mean_loss(module: Any, lessons: Any) -> float:
    """Nats per learnt token, float32 softmax, each lesson alone and without padding."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for ids, start in lessons:
            row = torch.tensor([ids], device=module.device)
            learnt = len(ids) - start
            logits = module(input_ids=row, use_cache=False, logits_to_keep=learnt + 1).logits
            chosen = torch.log_softmax(logits[0, :-1].float(), dim=-1)
            total -= float(chosen.gather(1, row[0, start:, None]).double().sum())
            count += learnt
    return total / count


if __name__ == "__main__":
    contestant(work)
