"""Examples → token ids with a loss mask → batches. No torch here.

Only the answer and its end of turn are learnt. The prompt is rendered by the exam's own renderer,
so a lesson begins with exactly the ids that the exam and the server send. The order of all batches
of all epochs is laid down before training starts: a resumed run goes on in the same order.

    lessons = [lesson(example.id, messages, "blue", renderer, 4096) for ...]
    plan = plan_batches(lessons, spec)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tokka.errors import UsageError
from tokka.models.protocol import Renderer
from tokka.records import FinetuneSpec, Messages


@dataclass(frozen=True, slots=True)
class Lesson:
    """`ids[start:]` is learnt, the rest is read. `start` ≥ 1."""

    example_id: str
    ids: tuple[int, ...]
    start: int

    @property
    def supervised(self) -> int:
        return len(self.ids) - self.start


class TooLong(UsageError):
    """A conversation that doesn't fit the model's context."""


def lesson(
    example_id: str, prompt: Messages, answer: str, renderer: Renderer, context_tokens: int
) -> Lesson:
    """One conversation as ids. Raises UsageError where nothing would be learnt or the end is
    lost."""
    if not answer.strip():
        raise UsageError(f"example {example_id}: the answer is empty, so nothing would be learnt")
    asked = renderer.prompt(prompt)
    before, after = asked.ids, renderer.answer(answer, asked)
    if not renderer.stop_ids.intersection(after):
        raise UsageError(
            f"example {example_id}: its answer ends without EOS, so the model would never stop; "
            "correct the chat template"
        )
    if len(before) + len(after) > context_tokens:
        raise TooLong(
            f"example {example_id}: {len(before) + len(after)} tokens don't fit the context of "
            f"{context_tokens}; shorten the answer, or use a smaller top_k or chunks.max_tokens"
        )
    return Lesson(example_id, before + after, len(before))


def plan_batches(lessons: Sequence[Lesson], spec: FinetuneSpec) -> list[list[int]]:
    """Indices of each step's lessons, over all epochs: shuffled, then similar lengths together.

    Stops at `epochs` or at `max_train_tokens` (real tokens, padding not counted), whichever is
    first.
    """
    if not lessons:
        raise UsageError("finetune: there is no example to learn from; add some to data")
    shuffle = random.Random(spec.seed)
    limit = spec.max_train_tokens
    wanted = max(1, round(spec.epochs * len(lessons)))
    plan: list[list[int]] = []
    taken = tokens = 0
    while taken < wanted:
        order = list(range(len(lessons)))
        shuffle.shuffle(order)
        epoch: list[int] = []
        for index in order[: wanted - taken]:
            if limit is not None and tokens + len(lessons[index].ids) > limit and (plan or epoch):
                wanted = 0
                break
            epoch.append(index)
            tokens += len(lessons[index].ids)
        taken += len(epoch)
        batches = _grouped(epoch, lessons, spec)
        shuffle.shuffle(batches)
        plan += batches
    return plan


def _grouped(order: list[int], lessons: Sequence[Lesson], spec: FinetuneSpec) -> list[list[int]]:
    groups: list[list[int]] = []
    for index in sorted(order, key=lambda i: (len(lessons[i].ids), i)):
        width = len(lessons[index].ids)  # ascending, so this is the widest of its group so far
        group = groups[-1] if groups else []
        if (
            group
            and len(group) < spec.batch_examples
            and width * (len(group) + 1) <= spec.batch_tokens
        ):
            group.append(index)
        else:
            groups.append([index])
    return groups
