"""How many tokens a stage will train on, without preparing all of them.

    amount = amount_of(build, arm, stage)     # Amount(tokens=30_120, supervised=2_410, …)

Examples and documents are tokenised as the training does it, up to `SAMPLED` of them, evenly taken
and with the longest among them; the rest is scaled by characters. Passages that a search would add
are counted at their most, `top_k` chunks, so a plan never comes out too small for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tokka.models.opening import context_tokens_of
from tokka.models.prompting import compose
from tokka.models.protocol import Renderer
from tokka.records import (
    Arm,
    Document,
    FinetuneSpec,
    Messages,
    Preference,
    PreferSpec,
    PretrainSpec,
    PromptSpec,
    Stage,
    TrainingSpec,
)
from tokka.store import read_records
from tokka.training.memory import batch_tokens
from tokka.training.pace import Amount

if TYPE_CHECKING:
    from tokka.pipeline import Build

SAMPLED = 300
LONGEST = 20  # of them, the longest of all
T = TypeVar("T")
# (tokens of each lesson, learnt tokens of each lesson)
Counts = tuple[Sequence[int], Sequence[int]]


def amount_of(build: Build, arm: Arm, stage: Stage) -> Amount:
    """The tokens of all epochs of a stage that trains."""
    if stage.finetune is not None:
        return _of_examples(build, arm, stage.finetune)
    if stage.pretrain is not None:
        return _of_texts(build, stage.pretrain)
    assert stage.prefer is not None
    return _of_preferences(build, arm, stage.prefer)


def _of_examples(build: Build, arm: Arm, spec: FinetuneSpec) -> Amount:
    from tokka.arms.building import lessons_of, training_retrieval
    from tokka.pipeline import renderer_of, training_examples

    assert build.base is not None
    found = training_examples(build.examples[spec.data])
    context = context_tokens_of(build.base)
    more = 0
    if spec.context == "retrieved":
        more = training_retrieval(arm).top_k * build.project.chunks.max_tokens
    renderer = renderer_of(build)
    chosen, scale = _sample(found, lambda one: sum(len(m.content) for m in one.messages))
    language = build.project.language
    lessons, _ = lessons_of(chosen, arm, spec, renderer, language, context)
    lengths = [min(context, len(lesson.ids) + more) for lesson in lessons]
    return amount((lengths, [lesson.supervised for lesson in lessons]), scale, spec)


def _of_texts(build: Build, spec: PretrainSpec) -> Amount:
    """A text made into windows learns all but the first token of each. A tokenizer that isn't there
    yet (`scratch`) is taken to cut as finely as the base model's."""
    from tokka.documents_steps import documents_of
    from tokka.pipeline import renderer_of

    step = documents_of(build, spec.data or build.project.corpus, learnt=True)
    found = read_records(step / "documents.jsonl", Document)
    chosen, scale = _sample(found, lambda one: len(one.text))
    count = renderer_of(build).count
    lengths: list[int] = []
    for document in chosen:
        tokens = count(document.text)
        full, rest = divmod(tokens, spec.window_tokens - 1)
        lengths += [spec.window_tokens] * full + ([rest + 1] if rest else [])
    return amount((lengths, [length - 1 for length in lengths]), scale, spec)


def _of_preferences(build: Build, arm: Arm, spec: PreferSpec) -> Amount:
    """Every answer is read with its prompt."""
    from tokka.pipeline import preferences_of, renderer_of

    found = read_records(preferences_of(build, spec) / "preferences.jsonl", Preference)
    chosen, scale = _sample(found, lambda one: len(one.chosen) + len(one.rejected))
    renderer = renderer_of(build)
    prompt = PromptSpec(system=arm.prompt.system, format=arm.prompt.format)
    lengths: list[int] = []
    learnt: list[int] = []
    for one in chosen:
        messages = compose(one.messages, spec=prompt, language=build.project.language)
        for answer in filter(None, (one.chosen, one.rejected)):
            asked, said = _ids(renderer, messages, answer)
            lengths.append(asked + said)
            learnt.append(said)
    return amount((lengths, learnt), scale, spec)


def _ids(renderer: Renderer, messages: Messages, answer: str) -> tuple[int, int]:
    asked = renderer.prompt(messages)
    return len(asked.ids), len(renderer.answer(answer, asked))


def amount(counts: Counts, scale: float, spec: TrainingSpec) -> Amount:
    """From the lengths of a sample to the whole training: `scale` is all of it over the sample.
    Replayed tokens come on top: `share` of all of them, learnt throughout."""
    lengths, learnt = counts
    epoch = scale * sum(lengths)
    tokens = spec.epochs * epoch
    replayed = 0.0
    if spec.replay is not None:
        replayed = tokens * spec.replay.share / (1 - spec.replay.share)
    total = tokens + replayed
    if spec.max_train_tokens is not None:
        cut = min(1.0, spec.max_train_tokens / total) if total else 1.0
        total, tokens, replayed = total * cut, tokens * cut, replayed * cut
    supervised = replayed + (tokens * sum(learnt) / sum(lengths) if lengths else 0.0)
    longest = max(lengths, default=0)
    batches = math.ceil(total / max(1, batch_tokens(spec, longest)))
    return Amount(
        tokens=round(total),
        supervised=round(supervised),
        steps=math.ceil(batches / spec.accumulate),
        mean=sum(lengths) / len(lengths) if lengths else 0.0,
        longest=longest,
    )


def _sample(found: Sequence[T], characters: Callable[[T], int]) -> tuple[list[T], float]:
    """Some of them, and how many times their characters all have."""
    if len(found) <= SAMPLED:
        return list(found), 1.0
    order = sorted(range(len(found)), key=lambda place: -characters(found[place]))
    evenly = range(0, len(found), math.ceil(len(found) / (SAMPLED - LONGEST)))
    chosen = [found[place] for place in sorted({*order[:LONGEST], *evenly})]
    whole = sum(characters(one) for one in found)
    return chosen, whole / max(1, sum(characters(one) for one in chosen))
