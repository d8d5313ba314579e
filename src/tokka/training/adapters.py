"""Adapters on every architecture: low-rank matrices beside all linear layers and all experts.

Module, spec → the same module with frozen weights and an adapter that trains (PEFT's LoRA); an
adapter → a folder. PEFT's own `all-linear` would change the routers of some Mixture-of-Experts
models and leave their experts out, so the layers are named here (see `tokka.models.linears`).

    model = with_adapter(load_module(folder, "bfloat16"), spec)
    ...
    save_adapter(model, folder)   # adapter_model.safetensors, adapter_config.json

All linear layers and α = 2r after Biderman et al. 2024 (LoRA Learns Less and Forgets Less); without
`rslora` the product is scaled by α / r (Hu et al. 2021), with it by α / √r (Kalajdzievski 2023);
`dora` learns each column's length apart from its direction (Liu et al. 2024).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokka.errors import UsageError
from tokka.extras import require
from tokka.models.linears import Targets, linear_targets
from tokka.models.nf4 import is_nf4
from tokka.records import TrainingSpec
from tokka.store import write_json

__all__ = ["Targets", "alpha_of", "linear_targets", "save_adapter", "with_adapter"]


def alpha_of(spec: TrainingSpec) -> float:
    return spec.alpha if spec.alpha is not None else 2.0 * spec.rank


def with_adapter(module: Any, spec: TrainingSpec) -> Any:
    """A `peft.PeftModel` whose adapter (float32) trains and whose other weights are frozen as they
    are. The adapter's first values come from torch's random state: seed it before.

    Raises UsageError where the architecture has no linear layer, where its routers can't be told
    from other layers, and for `dora` on stacked experts.
    """
    peft = require("peft", extra="train")
    targets = linear_targets(module)
    if not targets.modules and not targets.parameters:
        raise UsageError(
            f"adapters: architecture {module.config.model_type} has no linear layer that tokka "
            "knows; train with method full, or use another model"
        )
    if spec.dora and targets.parameters:
        raise UsageError(
            f"adapters: dora doesn't reach experts kept in stacks ({targets.parameters[0]} and "
            f"{len(targets.parameters) - 1} others of architecture {module.config.model_type}); "
            "use rslora, or neither"
        )
    module.name_or_path = ""  # PEFT would write this machine's path into the adapter
    return peft.get_peft_model(
        module,
        peft.LoraConfig(
            r=spec.rank,
            lora_alpha=alpha_of(spec),
            lora_dropout=0.0,
            bias="none",
            use_rslora=spec.rslora,
            use_dora=spec.dora,
            target_modules=_shortest(targets.modules, module),
            target_parameters=list(targets.parameters) or None,
            fan_in_fan_out=any(type(p).__name__ == "Conv1D" for p in module.modules()),
            task_type="CAUSAL_LM",
        ),
    )


def save_adapter(model: Any, folder: Path) -> None:
    """The adapter in PEFT's layout, the same bytes on every machine.

    One that was trained on NF4 weights fits only these: `training.json` then says so to whoever
    folds it. A stage that writes a longer `training.json` keeps its `quantisation`.
    """
    config = model.peft_config["default"]
    config.target_modules = sorted(config.target_modules)  # a set's order differs each time
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template with nothing filled in
    if is_nf4(model):
        write_json(folder / "training.json", {"quantisation": "nf4"})


def _shortest(names: tuple[str, ...], module: Any) -> list[str]:
    """The last words of the names where they mean these layers and no other: PEFT and the servers
    that read its folders compare ends of names."""
    wanted = set(names)
    others = {name.rpartition(".")[2] for name, _ in module.named_modules() if name not in wanted}
    ends = {name: name.rpartition(".")[2] for name in names}
    return sorted({name if end in others else end for name, end in ends.items()})
