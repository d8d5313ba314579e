"""What is wrong with the weights stages of an arm: their order, their data, settings that clash.

Project → faults, each at its place in the project file. Only the existence of files is looked at.

>>> [fault.text for fault in stage_faults(project, "lora", arm, broken=frozenset())]
['stands after quantise, whose GGUF file …']
"""

from __future__ import annotations

import os.path  # unlike Path, it answers False for a name that no file can have
from collections.abc import Iterator, Sequence

from tokka.learning_rates import learning_rate
from tokka.models.opening import kind
from tokka.project_settings import Project
from tokka.project_words import nearest
from tokka.project_yaml import Fault, Location
from tokka.records import (
    Arm,
    FinetuneSpec,
    MergeSpec,
    PreferSpec,
    PretrainSpec,
    ScratchSpec,
    Stage,
    TrainingSpec,
)

JOINS = ("ties", "dare")


def stage_faults(
    project: Project, name: str, arm: Arm, broken: frozenset[Location]
) -> Iterator[Fault]:
    """The faults of one arm's `weights` and `choose`; nothing is concluded from what is
    `broken`."""
    here: Location = ("arms", name, "weights")
    whole = not any(place[:3] == here and len(place) <= 5 for place in broken)
    sort = kind(project.base_model)
    for number, stage in enumerate(arm.weights):
        spec, place = stage.spec, (*here, number, stage.kind)
        if sort in ("endpoint", "gguf"):
            what = "an HTTP endpoint" if sort == "endpoint" else "a GGUF file"
            text = f"needs weights that can be trained, and base_model is {what}; "
            yield Fault(place, text + "use embedded:NAME, hub:OWNER/NAME or a safetensors folder")
        if isinstance(spec, TrainingSpec):
            yield from _training(project, arm, spec, place)
        elif isinstance(spec, MergeSpec):
            yield from _merge(project, name, spec, place, number, broken)
        if isinstance(spec, FinetuneSpec) and spec.context == "retrieved" and not arm.retrieval:
            text = "is retrieved, but the arm retrieves nothing in the exam; add retrieval: to it"
            yield Fault((*place, "context"), text)
        if whole:
            yield from _order(arm, number, place)
    if whole and arm.choose is not None:
        yield from _choice(arm, ("arms", name, "choose"))


def cycle_faults(project: Project) -> Iterator[Fault]:
    """Merges that wait for each other."""
    waits = {
        name: {other for stage in arm.weights if stage.merge for other in stage.merge.arms}
        for name, arm in project.arms.items()
    }
    for name, arm in project.arms.items():
        reached: set[str] = set()
        waiting = [other for other in waits[name] if other != name]
        while waiting:
            other = waiting.pop()
            if other not in reached:
                reached.add(other)
                waiting += waits.get(other, ())
        for number, stage in enumerate(arm.weights):
            if stage.merge and name in reached:
                text = "wait for each other in a circle; let one of them merge other arms"
                yield Fault(("arms", name, "weights", number, "merge", "arms"), text)


# ---- one stage --------------------------------------------------------------------------------


def _training(project: Project, arm: Arm, spec: TrainingSpec, place: Location) -> Iterator[Fault]:
    known = learning_rate(spec)
    rate = spec.learning_rate
    if rate is not None and not known.low <= rate <= known.high:
        text = (
            f"must be between {known.low:g} and {known.high:g} for {place[-1]} with "
            f"{spec.method}, got {rate:g}; leave it out for {known.default:g} ({known.source})"
        )
        yield Fault((*place, "learning_rate"), text)
    if isinstance(spec, FinetuneSpec | PreferSpec):
        yield from _file(project, spec.data, (*place, "data"))
    if spec.replay is not None:
        yield from _file(project, spec.replay.data, (*place, "replay", "data"))
    if spec.method == "full":
        for key in ("rslora", "dora"):
            if getattr(spec, key):
                text = "shapes an adapter, and method: full trains none; remove one of the two"
                yield Fault((*place, key), text)
    if spec.checkpoints and arm.choose is None:
        text = (
            f"keeps {spec.checkpoints} states, and nothing chooses among them; add choose: {{}} "
            "to the arm, or remove checkpoints"
        )
        yield Fault((*place, "checkpoints"), text)
    if isinstance(spec, PretrainSpec):
        yield from _pretraining(project, spec, place)
    if isinstance(spec, PreferSpec):
        if spec.replay is not None:
            text = "has no preferences to learn from; remove it, or put a finetune stage with "
            yield Fault((*place, "replay"), text + "replay after this one")
        if spec.pull.kl or spec.pull.l2:
            text = f"is not for preferences; remove it and raise beta (it is {spec.beta:g})"
            yield Fault((*place, "pull"), text)


def _file(project: Project, name: str, place: Location) -> Iterator[Fault]:
    if not os.path.isfile(project.resolve(name)):
        yield Fault(place, f"is a file that doesn't exist: {project.resolve(name)}; mend the path")


def _pretraining(project: Project, spec: PretrainSpec, place: Location) -> Iterator[Fault]:
    for number, entry in enumerate(spec.data):
        if not os.path.exists(project.resolve(entry)):
            text = f"doesn't exist: {project.resolve(entry)}; mend the path"
            yield Fault((*place, "data", number), text)
    if not spec.data and not project.corpus:
        text = "has no text to learn from; set data: [FOLDER], or corpus: of the project"
        yield Fault(place, text)
    if spec.scratch is None:
        return
    if spec.method != "full":
        text = f"needs method: full, got {spec.method}: random weights have nothing to adapt"
        yield Fault((*place, "scratch"), text)
    if spec.window_tokens > spec.scratch.context_tokens:
        text = (
            f"must be at most scratch.context_tokens, {spec.scratch.context_tokens}, got "
            f"{spec.window_tokens}"
        )
        yield Fault((*place, "window_tokens"), text)
    if spec.pull.kl or spec.pull.l2:
        text = "would pull towards random weights; remove it, or scratch"
        yield Fault((*place, "pull"), text)
    yield from _shape(spec.scratch, (*place, "scratch"))


def _shape(spec: ScratchSpec, place: Location) -> Iterator[Fault]:
    if spec.width % (2 * spec.heads):
        text = f"must be a multiple of 2 × heads, {2 * spec.heads}, got {spec.width}"
        yield Fault((*place, "width"), text)


def _merge(
    project: Project,
    name: str,
    spec: MergeSpec,
    place: Location,
    number: int,
    broken: frozenset[Location],
) -> Iterator[Fault]:
    here = (*place, "arms")
    if spec.method not in JOINS:
        if spec.arms:
            text = f"is for {' and '.join(JOINS)}, and method is {spec.method}; remove it"
            yield Fault(here, text)
        return
    if len(set(spec.arms)) < 2 or len(set(spec.arms)) < len(spec.arms):
        got = ", ".join(spec.arms) or "none"
        yield Fault(here, f"must name two or more different arms to join, got {got}")
    if spec.weights and len(spec.weights) != len(spec.arms):
        text = f"must hold a number for each of the {len(spec.arms)} arms, got {len(spec.weights)}"
        yield Fault((*place, "weights"), text)
    first = project.arms[name].weights[:number]
    for position, other in enumerate(spec.arms):
        if any(location[:2] == ("arms", other) for location in broken):
            continue
        yield from _joined(project, name, other, len(first), (*here, position))


def _joined(
    project: Project, name: str, other: str, stages: int, place: Location
) -> Iterator[Fault]:
    """Whether what arm `other` learnt can be joined after the first `stages` of arm `name`."""
    if other == name:
        yield Fault(place, f"is {other}, this arm itself; name others")
        return
    if other not in project.arms:
        yield Fault(place, f"is {other!r}, which is no arm; {nearest(other, tuple(project.arms))}")
        return
    first, found = project.arms[name].weights[:stages], project.arms[other].weights
    if len(found) <= stages or found[:stages] != first or (not first and from_scratch(found)):
        text = f"is {other}, which learns nothing from where this merge begins; "
        yield Fault(place, text + "give both arms the same stages before what is merged")
    elif found[-1].quantise is not None:
        yield Fault(place, f"is {other}, which ends in quantise; name an arm without it")


# ---- stages in their order --------------------------------------------------------------------


def _order(arm: Arm, number: int, place: Location) -> Iterator[Fault]:
    before, spec = arm.weights[:number], arm.weights[number].spec
    if any(stage.quantise for stage in before):
        text = "stands after quantise, whose GGUF file no stage can change; make quantise the last"
        yield Fault(place, text)
    if isinstance(spec, PretrainSpec) and spec.scratch is not None and before:
        text = "would throw away what the stages before it made; make it the first stage"
        yield Fault((*place, "scratch"), text)
    if isinstance(spec, TrainingSpec) and spec.checkpoints and number < len(arm.weights) - 1:
        text = "are chosen from after an arm's last stage only; remove them from this one"
        yield Fault((*place, "checkpoints"), text)
    if isinstance(spec, MergeSpec) and spec.method == "fold" and not _has_adapter(arm, number):
        text = "is fold, and no adapter comes out of the stages before it; remove the merge"
        yield Fault((*place, "method"), text)
    if isinstance(spec, MergeSpec) and spec.method == "wise-ft":
        if not before:
            text = "is wise-ft, and no stage stands before it; put what it should weaken first"
            yield Fault((*place, "method"), text)
        elif len(before) == 1 and from_scratch(arm.weights):
            text = "is wise-ft, and before the stage before it there are only random weights; "
            yield Fault((*place, "method"), text + "remove the merge")


def _has_adapter(arm: Arm, number: int) -> bool:
    """Whether an adapter may have come out of the stages before. wise-ft leaves one, scaled."""
    found = False
    for stage in arm.weights[:number]:
        if isinstance(stage.spec, TrainingSpec):
            found = stage.spec.method != "full"
        elif isinstance(stage.spec, MergeSpec) and stage.spec.method != "wise-ft":
            found = False
    return found


def from_scratch(stages: Sequence[Stage]) -> bool:
    """Whether they begin with random weights and a tokenizer of their own."""
    pretrain = stages[0].pretrain if stages else None
    return pretrain is not None and pretrain.scratch is not None


def _choice(arm: Arm, here: Location) -> Iterator[Fault]:
    choose = arm.choose
    assert choose is not None
    if not choose.alphas:
        yield Fault((*here, "alphas"), "is empty; name one or more, 1.0 being all that was learnt")
    elif set(choose.alphas) == {0.0}:
        text = "must hold one above 0: 0, what was before, is tried for reference and never chosen"
        yield Fault((*here, "alphas"), text)
    for number, alpha in enumerate(choose.alphas):
        if not 0 <= alpha <= 1:
            text = f"must be from 0 (what was before) to 1 (all that was learnt), got {alpha:g}"
            yield Fault((*here, "alphas", number), text)
    if not arm.weights:
        yield Fault(here, "has no weights to choose from; add weights: to the arm, or remove it")
        return
    last = arm.weights[-1]
    if not isinstance(last.spec, TrainingSpec):
        text = f"needs a last stage that trains, and it is {last.kind}; remove one of the two"
        yield Fault(here, text)
        return
    alone = set(choose.alphas) - {0.0} == {1.0}
    if alone and not last.spec.checkpoints:
        text = (
            f"has one state to choose from; set checkpoints in {last.kind}, or alphas such as "
            "[0.25, 0.5, 0.75, 1.0]"
        )
        yield Fault(here, text)
    if not alone and len(arm.weights) == 1 and from_scratch(arm.weights):
        text = "must be [1.0]: below that they go back towards random weights"
        yield Fault((*here, "alphas"), text)
