"""How the peers are set up: what differs from their own defaults, as plain data.

`documented`: as TRL's documentation shows it, which checkpoints activations and casts by autocast.
`options`: no checkpoints, bfloat16 weights as they are, rows of like lengths together.
`compact`: the same, and TRL's own way on a GPU, where the head is computed at supervised positions
only; on a CPU it computes the head everywhere and throws the rest away. No option says so: a
private function of TRL is replaced.

>>> setup("documented")["arguments"]
{}
"""

from __future__ import annotations

from importlib.util import find_spec

from measuring import Facts

_PLAIN = {"gradient_checkpointing": False, "bf16": False}
_ALIKE = {**_PLAIN, "train_sampling_strategy": "group_by_length"}
_PACKED = {**_PLAIN, "packing": True}
# Sleeping sooner or later than GNU OpenMP's default: the peer gets the better of both.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "1000"}
# What `tokka.training.heap` does for us: freed memory isn't given back to the kernel between steps.
_MEMORY_KEPT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}

_SETUPS: dict[str, Facts] = {
    "documented": {},
    "options": {"arguments": _ALIKE},
    "options, packed": {"arguments": _PACKED, "batch": 1},
    "compact": {"arguments": _ALIKE, "compact": True},
    "compact, short spin": {
        "arguments": _ALIKE,
        "compact": True,
        "environment": _SHORT_SPIN,
    },
    "compact, eager": {
        "arguments": _ALIKE,
        "compact": True,
        "load": {"attn_implementation": "eager"},
    },
    "compact, packed": {"arguments": _PACKED, "compact": True, "batch": 1},
    "compact, compiled": {"arguments": {**_ALIKE, "torch_compile": True}, "compact": True},
    "liger": {"arguments": {**_ALIKE, "bf16": True, "use_liger_kernel": True}},
    "unsloth": {"arguments": {**_ALIKE, "bf16": True}, "loader": "unsloth"},
    # transformers' example of causal language modelling; TrainingArguments' own defaults
    "pretrain": {"arguments": {"bf16": True}},
    "pretrain, short spin": {"arguments": {"bf16": True}, "environment": _SHORT_SPIN},
    "pretrain, memory kept": {"arguments": {"bf16": True}, "environment": _MEMORY_KEPT},
}

# The first of each was the fastest so far: --quick takes it without trying the others.
OPTIONS = ("options", "options, packed")
COMPACT = (
    "compact",
    "compact, short spin",
    "compact, packed",
    "compact, eager",
    "compact, compiled",
)
PRETRAIN = ("pretrain", "pretrain, short spin")
PRETRAIN_TUNED = "pretrain, memory kept"


def setup(name: str) -> Facts:
    """`arguments` for SFTConfig or TrainingArguments, `load` for from_pretrained, `environment`
    of the process, `batch` rows (0: as many as make the wanted tokens), `compact`, `loader`."""
    given = _SETUPS[name]
    plain: Facts = {"arguments": {}, "load": {}, "environment": {}, "batch": 0}
    return {"name": name, "compact": False, "loader": "", **plain, **given}


def on_gpu(peer_has: frozenset[str]) -> tuple[list[str], list[str]]:
    """Set-ups for a GPU, and a line for each that needs a package which the peer lacks."""
    packages = {"liger": "liger_kernel", "unsloth": "unsloth"}
    there = [name for name, package in packages.items() if package in peer_has]
    absent = [
        f"{name} is left out: {package} is not installed in the peer's environment"
        for name, package in packages.items()
        if package not in peer_has
    ]
    return ["options", "options, packed", *there], absent


def packages_here() -> list[str]:
    """Which of the packages of `on_gpu` this Python has."""
    return [name for name in ("liger_kernel", "unsloth") if find_spec(name)]
