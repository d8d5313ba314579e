"""The weights stages of an arm, each a step folder, chained in the order that the arm lists them.

    base model → pretrain | finetune | prefer | merge | quantise → … → choose → Candidate

`Weights` walks along: a whole model (the project's own, or a step's) and the adapters that are
folded into it. A stage's step is named by the digest of the state that it began with, its settings
and its data, so two arms that begin alike share the steps. `choosing.chosen_weights` comes after
the last stage where the arm says `choose`.

    weights = weights_of(build, arm)      # None where the arm leaves the weights as they are
    weights.parts                         # {"weights": folder, "adapter": folder, …}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokka.documents_steps import documents_of
from tokka.errors import UsageError
from tokka.index_steps import index_of
from tokka.learning_rates import chosen_learning_rate
from tokka.models.opening import (
    adapted_digest,
    context_tokens_of,
    digest_of,
    open_renderer,
)
from tokka.pipeline import (
    DTYPE,
    Build,
    embedder_of,
    files_with,
    preferences_of,
    training_examples,
)
from tokka.project_stages import from_scratch
from tokka.records import (
    Arm,
    Document,
    FinetuneSpec,
    MergeSpec,
    Preference,
    PreferSpec,
    PretrainSpec,
    PromptSpec,
    QuantiseSpec,
    ScratchSpec,
    StageSpec,
    TrainingSpec,
)
from tokka.store import read_records, sha256_file, write_records
from tokka.training.lessons import Lesson
from tokka.training.start import Start

TRAINING_CONTEXT_TOKENS = 4096
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Weights:
    """`adapters` are folded into `base`, in this order. `digest` covers both, as
    `models.opening.open_model` computes it; `before` is the state that the last stage began with;
    `steps` are the folders of all steps that led here, also of those whose files are no longer part
    of the state."""

    base: Path
    digest: str
    adapters: tuple[Path, ...] = ()
    before: Weights | None = None
    steps: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def start(self) -> Start:
        """This state as the beginning of the next stage."""
        return Start(self.base, self.digest, self.adapters)

    @property
    def states(self) -> tuple[Weights, ...]:
        """The state before the first stage, then the one after each."""
        return (*self.before.states, self) if self.before is not None else (self,)

    @property
    def whole(self) -> Path | None:
        """The step folder that stands in place of the project's base model, if one does."""
        return self.base if self.base in self.steps else None

    @property
    def parts(self) -> dict[str, Path]:
        """Artifact names → step folders, as a candidate lists them."""
        found = {"weights": self.whole} if self.whole else {}
        for number, folder in enumerate(self.adapters, 1):
            found["adapter" if number == 1 else f"adapter-{number}"] = folder
        return found


def following(
    build: Build, before: Weights, folder: Path, *passed: Path, under: Weights | None = None
) -> Weights:
    """The state after a step, told by the files in its folder: a whole model, or an adapter on
    `under`, which is `before` unless the step took away from that. `passed` are steps that led here
    without being part of it, such as the stage from whose states `choose` picked one."""
    steps = (*before.steps, *passed, folder)
    if (folder / ADAPTER).exists():
        below = under or before
        digest = adapted_digest(below.digest, folder)
        return Weights(below.base, digest, (*below.adapters, folder), before, steps)
    return Weights(folder, digest_of(folder, build.project.language), (), before, steps)


def weights_of(build: Build, arm: Arm) -> Weights | None:
    """Run those of the arm's stages that aren't done yet; None where it has none.

    The arms that a merge names are built first. Raises UsageError where the base model has no
    weights that can be trained.
    """
    if not arm.weights:
        return None
    if arm.name not in build.weights:
        if build.base is None or not build.base.is_dir():
            raise UsageError(
                f"arm {arm.name}: weights are trained from safetensors, and base_model is "
                f"{build.project.base_model}; use embedded:NAME, hub:OWNER/NAME or a folder"
            )
        weights = Weights(build.base, build.base_digest)
        for stage in arm.weights:
            weights = _after(build, arm, stage.spec, weights)
        if arm.choose is not None:
            from tokka.choosing import chosen_weights

            weights = chosen_weights(build, arm, weights)
        build.weights[arm.name] = weights
    return build.weights[arm.name]


def _after(build: Build, arm: Arm, spec: StageSpec, weights: Weights) -> Weights:
    if isinstance(spec, FinetuneSpec):
        return _finetuned(build, arm, spec, weights)
    if isinstance(spec, PretrainSpec):
        return _pretrained(build, arm, spec, weights)
    if isinstance(spec, PreferSpec):
        return _preferred(build, arm, spec, weights)
    if isinstance(spec, MergeSpec):
        return _merged(build, arm, spec, weights)
    return _quantised(build, arm, spec, weights)


# ---- stages that train ------------------------------------------------------------------------


def _finetuned(build: Build, arm: Arm, spec: FinetuneSpec, weights: Weights) -> Weights:
    from tokka.arms.building import lessons_of, training_retrieval

    examples = build.examples[spec.data]
    retrieved = spec.context == "retrieved"
    retrieval = training_retrieval(arm)
    index = index_of(build, retrieval) if retrieved else None

    def make(folder: Path) -> None:
        from tokka.candidates.opening import synonyms_of
        from tokka.retrieval.hybrid import open_index

        found = training_examples(examples)
        if not found:
            raise UsageError(
                f"arm {arm.name}: {spec.data} holds no example to train on (split: train); add some"
            )
        renderer = _renderer(build, weights)
        retriever = None
        if index is not None:
            embedder = embedder_of(build) if retrieval.dense else None
            retriever = open_index(index, embedder, synonyms_of(retrieval, build.project.root))
        with build.observer.task(f"{arm.name}: prepare examples", len(found)) as task:
            lessons, too_long = lessons_of(
                found,
                arm,
                spec,
                renderer,
                build.project.language,
                _context_tokens(weights),
                retriever,
                lambda n: task.advance(n),
                build.project.resolve(spec.data),
            )
        write_records(folder / "dropped.jsonl", too_long)
        _train(build, arm, "finetune", folder, weights, lessons, spec)

    inputs = {
        **_training_inputs(build, spec, weights),
        "examples": build.workspace.digest(examples),
        "system": arm.prompt.system,
        "format": arm.prompt.format,
        "index": build.workspace.digest(index) if index is not None else "",
        "retrieval": retrieval.model_dump(mode="json") if retrieved else "",
    }
    if retrieved and retrieval.synonyms:
        inputs["synonyms"] = files_with(build, arm)["synonyms"]
    folder = build.step("finetune", inputs, make, arm.name)
    build.drop(folder / "dropped.jsonl")
    return following(build, weights, folder)


def _pretrained(build: Build, arm: Arm, spec: PretrainSpec, weights: Weights) -> Weights:
    texts = documents_of(build, spec.data or build.project.corpus, learnt=True)
    if spec.scratch is not None:
        weights = _from_scratch(build, arm, spec.scratch, spec.seed, texts)

    def make(folder: Path) -> None:
        from tokka.training.texts import windows

        documents = read_records(texts / "documents.jsonl", Document)
        if not documents:
            raise UsageError(
                f"arm {arm.name}: pretrain found no readable document under "
                f"{', '.join(spec.data or build.project.corpus)}; correct data"
            )
        width = min(spec.window_tokens, _context_tokens(weights))
        lessons = windows(documents, _renderer(build, weights), width)
        _train(build, arm, "pretrain", folder, weights, lessons, spec)

    inputs = {
        **_training_inputs(build, spec, weights),
        "documents": build.workspace.digest(texts),
    }
    return following(build, weights, build.step("pretrain", inputs, make, arm.name))


def _from_scratch(build: Build, arm: Arm, spec: ScratchSpec, seed: int, texts: Path) -> Weights:
    """Random weights and their tokenizer: a state without a state before it."""

    def make(folder: Path) -> None:
        from tokka.training.scratch import make as make_model

        documents = read_records(texts / "documents.jsonl", Document)
        with build.observer.task(f"{arm.name}: make a tokenizer and random weights", None):
            make_model(folder, [document.text for document in documents], spec, seed)

    inputs = {
        "documents": build.workspace.digest(texts),
        "spec": spec.model_dump(mode="json"),
        "seed": seed,
    }
    folder = build.step("scratch", inputs, make, arm.name)
    return Weights(folder, digest_of(folder, build.project.language), steps=(folder,))


def _preferred(build: Build, arm: Arm, spec: PreferSpec, weights: Weights) -> Weights:
    preferences = preferences_of(build, spec)

    def make(folder: Path) -> None:
        from tokka.models.prompting import compose
        from tokka.training.fitting import refuse_unfit
        from tokka.training.prefer import prefer

        prompt = PromptSpec(system=arm.prompt.system, format=arm.prompt.format)
        language = build.project.language
        pairs = [
            row.model_copy(
                update={"messages": compose(row.messages, spec=prompt, language=language)}
            )
            for row in read_records(preferences / "preferences.jsonl", Preference)
        ]
        refuse_unfit(f"arm {arm.name}: prefer", weights.base, spec)
        if not pairs:
            raise UsageError(f"arm {arm.name}: {spec.data} holds no preference; add some")
        with build.observer.task(f"{arm.name}: prefer ({len(pairs)} rows)", None) as task:
            prefer(
                folder, weights.start, pairs, spec, _renderer(build, weights), task.advance, DTYPE
            )

    inputs = {
        **_training_inputs(build, spec, weights),
        "preferences": build.workspace.digest(preferences),
        "system": arm.prompt.system,
        "format": arm.prompt.format,
    }
    return following(build, weights, build.step("prefer", inputs, make, arm.name))


def _training_inputs(build: Build, spec: TrainingSpec, weights: Weights) -> dict[str, Any]:
    """What decides the outcome of every stage that trains; the paths of its data don't."""
    replay = spec.replay
    return {
        "weights": weights.digest,
        "spec": spec.model_dump(
            mode="json", exclude={"data": True, "replay": {"data"}, "leave_out_mistakes": True}
        ),
        "learning_rate": chosen_learning_rate(spec),
        "replay": sha256_file(build.project.resolve(replay.data)) if replay else "",
        "dtype": DTYPE,
    }


def _train(
    build: Build,
    arm: Arm,
    place: str,
    folder: Path,
    weights: Weights,
    lessons: Sequence[Lesson],
    spec: FinetuneSpec | PretrainSpec,
) -> None:
    from tokka.training.fitting import refuse_unfit
    from tokka.training.texts import replay_lessons
    from tokka.training.training import train

    replay: Sequence[Lesson] = ()
    if spec.replay is not None:
        context = _context_tokens(weights)
        window = spec.window_tokens if isinstance(spec, PretrainSpec) else context
        replay = replay_lessons(
            build.project.resolve(spec.replay.data),
            _renderer(build, weights),
            build.project.language,
            min(window, context),
            context,
            spec.thought if isinstance(spec, FinetuneSpec) else "learn",
        )
    refuse_unfit(f"arm {arm.name}: {place}", weights.base, spec, [*lessons, *replay])
    tokens = _expected_tokens(lessons, spec)
    with build.observer.task(f"{arm.name}: {place} ({tokens:,} tokens)", tokens) as task:
        train(
            folder,
            weights.start,
            lessons,
            spec,
            replay=replay,
            progress=task.advance,
            dtype=DTYPE,
            place=place,
        )


def _expected_tokens(lessons: Sequence[Lesson], spec: TrainingSpec) -> int:
    """How far the progress bar goes."""
    tokens = spec.epochs * sum(len(lesson.ids) for lesson in lessons)
    if spec.replay is not None:
        tokens /= 1 - spec.replay.share
    return round(min(tokens, spec.max_train_tokens or tokens))


def _renderer(build: Build, weights: Weights) -> Any:
    """Of the state's own tokenizer: a model made from scratch brings one."""
    return open_renderer(weights.base, build.project.language)


def _context_tokens(weights: Weights) -> int:
    return training_context_tokens(weights.base)


def training_context_tokens(base: Path) -> int:
    """How long a training example may be."""
    return min(TRAINING_CONTEXT_TOKENS, context_tokens_of(base))


# ---- stages that compute ----------------------------------------------------------------------


def _merged(build: Build, arm: Arm, spec: MergeSpec, weights: Weights) -> Weights:
    others: list[Weights] = []
    if spec.method in ("ties", "dare"):
        others = [_branch(build, arm, name, weights) for name in spec.arms]
    # Random weights are no model to go back towards: what came of them is.
    origin = weights.states[1 if from_scratch(arm.weights) else 0]

    def make(folder: Path) -> None:
        from tokka.training import merge

        with build.observer.task(f"{arm.name}: merge ({spec.method})", None):
            if spec.method == "fold":
                merge.fold(folder, weights.start)
            elif spec.method == "wise-ft":
                merge.interpolate(folder, weights.start, origin.start, spec.alpha)
            else:
                merge.join(
                    folder,
                    weights.start,
                    [other.start for other in others],
                    spec.method,
                    spec.weights or (1.0,) * len(others),
                    spec.density,
                    spec.seed,
                )

    inputs = {
        "weights": weights.digest,
        "spec": spec.model_dump(mode="json", exclude={"arms"}),
        "origin": origin.digest if spec.method == "wise-ft" else "",
        "others": [other.digest for other in others],
        "dtype": DTYPE,
    }
    folder = build.step("merge", inputs, make, arm.name)
    passed = [step for other in others for step in other.steps]
    # wise-ft scales the one adapter on the origin where that is all there is to scale.
    return following(build, weights, folder, *passed, under=origin)


def _branch(build: Build, arm: Arm, name: str, weights: Weights) -> Weights:
    """The weights of another arm, which must have passed through `weights`."""
    other = weights_of(build, build.project.arms[name])
    passed = other.states if other is not None else ()
    if other is None or weights.digest not in [state.digest for state in passed]:
        raise UsageError(
            f"arm {arm.name}: merge joins what arms learnt from the same weights, and arm {name} "
            f"didn't begin with {weights.digest}; give both the same first stages"
        )
    return other


def _quantised(build: Build, arm: Arm, spec: QuantiseSpec, weights: Weights) -> Weights:
    def make(folder: Path) -> None:
        from tokka.training.quantise import quantise

        with build.observer.task(f"{arm.name}: quantise ({spec.type})", None):
            quantise(folder, weights.start, spec.type)

    inputs = {
        "weights": weights.digest,
        "spec": spec.model_dump(mode="json"),
        "dtype": DTYPE,
    }
    return following(build, weights, build.step("quantise", inputs, make, arm.name))
