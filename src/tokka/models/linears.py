"""Which weights of a causal language model are linear layers: what adapters and NF4 are applied to.

Module → the names of its linear layers, of its experts where they lie in stacks, and of the routers
that choose among them. The head and the embedding are none of these. A router is told by its name
and, among the parts of a block that holds experts, by its width: an architecture where the two
don't agree is refused, since a changed router sends tokens to experts that never learnt them.

>>> linear_targets(mixtral).parameters[:2]
('model.layers.0.mlp.experts.gate_up_proj', 'model.layers.0.mlp.experts.down_proj')
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from tokka.errors import UsageError

# What configurations of transformers 5 call the number of experts.
_COUNTS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
)
# `gate_proj` and `gate_up_proj` are the gates of an MLP, which learn like everything else in it.
_ROUTER_NAME = re.compile(r"(^|_)(router|gating)(_|$)|(^|_)gate$|^wg$")
_ROUTER_CLASS = re.compile(r"Router|Gating|TopKGate")


@dataclass(frozen=True, slots=True)
class Targets:
    """Full names. `modules`: linear layers. `parameters`: stacks of experts (experts, …, …), which
    are no layers. `routers`: modules that choose experts, or how much of one; never to be
    changed."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    routers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Holder:
    """A module that holds experts: in stacks named `labels`, or, a list, as modules."""

    name: str
    experts: int
    labels: tuple[str, ...]


def linear_targets(module: Any) -> Targets:
    """All linear layers of attention and MLP, shared and routed experts included.

    Raises UsageError where a router can't be told from the layers beside it, or where experts that
    the configuration speaks of can't be found.
    """
    parts = dict(module.named_modules())
    head = module.get_output_embeddings()
    counted = _counted(module)
    holders = [holder for name in parts for holder in _holders(name, parts[name], counted)]
    routers = {name for name in parts if _ROUTER_CLASS.search(type(parts[name]).__name__)}
    stacks: list[str] = []
    unclear: list[str] = []
    for holder in holders:
        block, found = _block(holder, holders, parts)
        if not found and counted is None:
            continue  # three dimensions, but nothing that chooses: no experts
        routers |= found
        unclear += _unclear(holder, block, holders, parts, routers) if found else [holder.name]
        stacks += [f"{holder.name}.{label}" for label in holder.labels]
    architecture = module.config.model_type
    if unclear:
        raise UsageError(
            f"adapters: in architecture {architecture} a router can't be told from other layers: "
            f"{', '.join(sorted(set(unclear))[:4])}; train with method full, or use another model"
        )
    if counted is not None and not holders and any(map(_router_named, parts)):
        raise UsageError(
            f"adapters: architecture {architecture} keeps its {counted} experts in a way that "
            "tokka doesn't know, and adapters would leave them out; train with method full, or "
            "use another model"
        )
    return Targets(
        tuple(
            name
            for name, part in parts.items()
            if is_linear(part) and part is not head and not _within(name, routers)
        ),
        tuple(stacks),
        tuple(name for name in parts if name in routers),
    )


def is_linear(part: Any) -> bool:
    """`nn.Linear` and what derives from it, and GPT-2's `Conv1D`."""
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"


def _counted(module: Any) -> int | None:
    config = module.config.get_text_config()
    counts = [getattr(config, name, None) for name in _COUNTS]
    return next((n for n in counts if isinstance(n, int) and n > 1), None)


def _holders(name: str, part: Any, counted: int | None) -> Iterator[_Holder]:
    if isinstance(part, nn.ModuleList) and name.rpartition(".")[2] == "experts" and len(part) > 1:
        yield _Holder(name, len(part), ())
        return
    if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return
    shapes = {label: tuple(w.shape) for label, w in part.named_parameters(recurse=False)}
    stacks = [
        label
        for label, shape in shapes.items()
        if len(shape) == 3 and min(shape) > 1 and counted in (None, shape[0])
    ]
    if stacks:
        yield _Holder(name, shapes[stacks[0]][0], tuple(stacks))


def _block(holder: _Holder, holders: list[_Holder], parts: dict[str, Any]) -> tuple[str, set[str]]:
    """The smallest part around the holder that has routers, and these: not above its layer."""
    block = holder.name
    while block:
        block = block.rpartition(".")[0]
        found = {name for name in _beside(block, holders, parts) if _router_named(name)}
        above = parts[block.rpartition(".")[0]]
        if found or isinstance(above, nn.ModuleList):
            return block, found
    return block, set()


def _beside(block: str, holders: list[_Holder], parts: dict[str, Any]) -> Iterator[str]:
    """What lies in a block outside of its experts, and has weights."""
    experts = {holder.name for holder in holders}
    for name, part in parts.items():
        inside = name.startswith(f"{block}.") and not _within(name, experts)
        if inside and next(part.parameters(), None) is not None:
            yield name


def _unclear(
    holder: _Holder,
    block: str,
    holders: list[_Holder],
    parts: dict[str, Any],
    routers: set[str],
) -> list[str]:
    """Layers as wide as a router (or as the gate of a shared expert: 1) that aren't named like
    one."""
    return [
        name
        for name in _beside(block, holders, parts)
        if is_linear(parts[name])
        and not _within(name, routers)
        and getattr(parts[name], "out_features", 0) in (1, holder.experts)
    ]


def _router_named(name: str) -> bool:
    return _ROUTER_NAME.search(name.rpartition(".")[2]) is not None


def _within(name: str, some: set[str]) -> bool:
    """Is it one of them, or inside of one?"""
    pieces = name.split(".")
    return any(".".join(pieces[:n]) in some for n in range(1, len(pieces) + 1))
