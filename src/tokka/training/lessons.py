"""Examples → token ids with a loss mask → batches. No torch here.

Only the answer and its end of turn are learnt. The prompt is rendered by the exam's own renderer,
so a lesson begins with exactly the ids that the exam and the server send. The order of all batches
of all epochs is laid down before training starts: a resumed run goes on in the same order.

    lessons = [lesson(example.id, messages, "blue", renderer, 4096) for ...]
    plan = plan_batches(lessons, spec)
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokka.errors import UsageError
from tokka.models.protocol import Renderer
from tokka.models.thoughts import opened, split_thought, without_thought
from tokka.records import Message, Messages, TrainingSpec

MIN_KINDRED = 32  # tokens: below that, reading them once saves nothing worth a less mixed batch


@dataclass(frozen=True, slots=True)
class Lesson:
    """The spans `learnt` of `ids` are learnt, the rest is read: in order, apart, each from 1 on."""

    example_id: str
    ids: tuple[int, ...]
    learnt: tuple[tuple[int, int], ...]
    origin: Literal["task", "replay"] = "task"

    @property
    def start(self) -> int:
        """The first learnt place: what stands before is the prompt."""
        return self.learnt[0][0]

    @property
    def supervised(self) -> int:
        return sum(stop - start for start, stop in self.learnt)


class TooLong(UsageError):
    """A conversation that doesn't fit the model's context."""


def lesson(
    example_id: str,
    prompt: Messages,
    answer: str,
    renderer: Renderer,
    context_tokens: int,
    thought: Literal["learn", "read", "drop"] = "learn",
) -> Lesson:
    """One conversation as ids. Raises UsageError where nothing would be learnt or the end is
    lost.

    `thought` is what happens to an answer's <think> part: it is learnt, only read, or taken out of
    the text (then out of earlier turns too).
    """
    try:
        if thought == "drop":
            prompt = tuple(_without_thought(message) for message in prompt)
        asked = renderer.prompt(prompt)
        found = split_thought(answer, opened(asked.text))
        said = answer if found is None else found.answer
        if not said.strip():
            raise UsageError("the answer is empty, so nothing would be learnt; write one")
        if found is None or thought == "drop":
            before, learnt_from = asked, len(asked.ids)
        else:
            before = renderer.thinking(asked, found)
            learnt_from = len(before.ids if thought == "read" else asked.ids)
        ids = before.ids + renderer.answer(said, before)
    except UsageError as error:
        raise UsageError(f"example {example_id}: {error}") from error
    if not renderer.stop_ids.intersection(ids[len(before.ids) :]):
        raise UsageError(
            f"example {example_id}: its answer ends without EOS, so the model would never stop; "
            "correct the chat template"
        )
    if len(ids) > context_tokens:
        raise TooLong(
            f"example {example_id}: {len(ids)} tokens don't fit the context of "
            f"{context_tokens}; shorten the answer, or use a smaller top_k or chunks.max_tokens"
        )
    return Lesson(example_id, ids, ((learnt_from, len(ids)),))


def _without_thought(message: Message) -> Message:
    if message.role != "assistant":
        return message
    return message.model_copy(update={"content": without_thought(message.content)})


def plan_batches(
    lessons: Sequence[Lesson],
    spec: TrainingSpec,
    replay: Sequence[Lesson] = (),
    *,
    packed: bool = True,
) -> list[list[int]]:
    """Places of each batch's lessons in [*lessons, *replay], over all epochs.

    Each epoch is shuffled anew. Packed batches are filled in that order up to `batch_tokens` (and
    `batch_examples`), and with `together` lessons that begin alike follow each other (see
    `kindred`); padded ones hold similar lengths. After each lesson follow as many of replay
    as its share of all tokens asks for. Stops at `epochs` or at `max_train_tokens` (padding not
    counted), whichever is first.
    """
    if not lessons:
        raise UsageError("training: there is nothing to learn from; add some to data")
    shuffle = random.Random(spec.seed)
    general = _endless(len(lessons), replay, spec)
    limit = spec.max_train_tokens
    wanted = max(1, round(spec.epochs * len(lessons)))
    every = [*lessons, *replay]
    families = [[index] for index in range(len(lessons))]
    if packed and spec.together:
        families = kindred(lessons, max(1, _most(spec) // 2), spec.batch_tokens // 2)
    plan: list[list[int]] = []
    taken = tokens = 0
    task_tokens = replay_tokens = 0
    while taken < wanted:
        shuffle.shuffle(families)
        order = [index for family in families for index in family]
        epoch: list[int] = []
        for index in order[: wanted - taken]:
            size = len(every[index].ids)
            if limit is not None and tokens + size > limit and (plan or epoch):
                wanted = 0
                break
            epoch.append(index)
            task_tokens += size
            while general is not None and replay_tokens < _share(spec) * task_tokens:
                drawn = next(general)
                more = len(every[drawn].ids)
                if limit is not None and task_tokens + replay_tokens + more > limit:
                    break
                epoch.append(drawn)
                replay_tokens += more
            tokens = task_tokens + replay_tokens
        taken += sum(index < len(lessons) for index in epoch)
        batches = _filled(epoch, every, spec) if packed else _grouped(epoch, every, spec)
        if not packed:
            shuffle.shuffle(batches)
        plan += batches
    return plan


def kindred(lessons: Sequence[Lesson], most: int, most_tokens: int) -> list[list[int]]:
    """Places of lessons in families of at most `most` that begin alike, questions on one passage
    above all: in one batch, what they share is read once (see `packing`).

    Two neighbours in the order of their ids are joined where they share at least `MIN_KINDRED`
    tokens more than all lessons do, those with the longest shared beginning first. A family fills
    at most half a batch, so that a step still sees several.
    """
    order = sorted(range(len(lessons)), key=lambda i: (lessons[i].ids, i))
    shared = [common(lessons[a].ids, lessons[b].ids) for a, b in itertools.pairwise(order)]
    everybody = common(lessons[order[0]].ids, lessons[order[-1]].ids) if lessons else 0
    family = [[index] for index in order]  # by place in the order; joined ones are one list
    for place in sorted(range(len(shared)), key=lambda p: (-shared[p], p)):
        left, right = family[place], family[place + 1]
        if shared[place] < everybody + MIN_KINDRED:
            break
        tokens = sum(len(lessons[i].ids) for i in (*left, *right))
        if len(left) + len(right) <= most and tokens <= most_tokens:
            left += right
            for index in range(place + 1, place + 1 + len(right)):
                family[index] = left
    found = {id(members): members for members in family}
    return sorted(found.values(), key=min)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts share at their beginning."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return min(len(a), len(b))


def _share(spec: TrainingSpec) -> float:
    """Tokens of replay for each token of the task."""
    return spec.replay.share / (1 - spec.replay.share) if spec.replay else 0.0


def _endless(first: int, replay: Sequence[Lesson], spec: TrainingSpec) -> Iterator[int] | None:
    """Places of replay lessons, every one before any comes again."""
    if not replay or not _share(spec):
        return None

    def draw() -> Iterator[int]:
        shuffle = random.Random(spec.seed + 1)
        while True:
            order = list(range(first, first + len(replay)))
            shuffle.shuffle(order)
            yield from order

    return draw()


def _filled(order: list[int], lessons: Sequence[Lesson], spec: TrainingSpec) -> list[list[int]]:
    groups: list[list[int]] = []
    tokens = 0
    for index in order:
        size = len(lessons[index].ids)
        if not groups or tokens + size > spec.batch_tokens or len(groups[-1]) >= _most(spec):
            groups.append([])
            tokens = 0
        groups[-1].append(index)
        tokens += size
    return groups


def _most(spec: TrainingSpec) -> int:
    return int(getattr(spec, "batch_examples", 2**31))


def _grouped(order: list[int], lessons: Sequence[Lesson], spec: TrainingSpec) -> list[list[int]]:
    groups: list[list[int]] = []
    for index in sorted(order, key=lambda i: (len(lessons[i].ids), i)):
        width = len(lessons[index].ids)  # ascending, so this is the widest of its group so far
        group = groups[-1] if groups else []
        if group and len(group) < _most(spec) and width * (len(group) + 1) <= spec.batch_tokens:
            group.append(index)
        else:
            groups.append([index])
    return groups
