"""Preferences → rows of token ids → batches, laid down before training starts. No torch here.

The ids are those of the exam's renderer: prompt, then answer with its end of turn. Rows hold the
columns that TRL's collators read, so none of its templates is asked.

    rows = rows_of(preferences, spec, renderer, context_tokens)
    plan = plan_batches(rows, spec)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokka.errors import Mistakes, UsageError
from tokka.models.protocol import Renderer
from tokka.records import Preference, PreferSpec
from tokka.training.lessons import Lesson, lesson

Plan = list[list[int]]  # each batch's rows, over all epochs


@dataclass(frozen=True, slots=True)
class Row:
    """One step's smallest part: a pair (dpo, orpo) or one judged answer (kto).

    `columns` is what TRL's collator reads; `width` its longest sequence, `sequences` how many.
    """

    preference_id: str
    columns: Mapping[str, Any]
    sequences: int
    width: int
    tokens: int
    supervised: int


def rows_of(
    preferences: Sequence[Preference], spec: PreferSpec, renderer: Renderer, context_tokens: int
) -> list[Row]:
    """Rows with the ids of the exam's renderer: prompt, then answer with its end of turn.

    Raises Mistakes naming every preference that doesn't fit the context or the objective.
    """
    rows: list[Row] = []
    mistakes: list[str] = []
    for one in preferences:
        try:
            chosen, rejected = (
                lesson(one.id, one.messages, answer, renderer, context_tokens) if answer else None
                for answer in (one.chosen, one.rejected)
            )
            if spec.objective == "kto":
                judged = ((chosen, True), (rejected, False))
                rows += [_judged(taught, wanted) for taught, wanted in judged if taught]
            elif chosen is None or rejected is None:
                raise UsageError(
                    f"example {one.id}: {spec.objective} needs chosen and rejected; write both, or "
                    "use objective kto"
                )
            else:
                rows.append((_dpo if spec.objective == "dpo" else _orpo)(chosen, rejected))
        except UsageError as error:
            mistakes.append(str(error).replace("example", "preference", 1))
    if mistakes:
        raise Mistakes(f"prefer: {len(mistakes)} mistakes in {spec.data}", mistakes)
    if not rows:
        raise UsageError("prefer: there is no preference to learn from; add some to data")
    return rows


def plan_batches(rows: Sequence[Row], spec: PreferSpec) -> Plan:
    """Each batch's rows, over all epochs: shuffled, then pairs of similar widths together.

    Stops at `epochs` or at `max_train_tokens` (real tokens, padding not counted), whichever is
    first. KTO estimates its KL term from the answers of the neighbours, so its batches hold two
    rows at least, beyond `batch_tokens` if need be, and stay as shuffled.
    """
    shuffle = random.Random(spec.seed)
    limit = spec.max_train_tokens
    wanted = max(1, round(spec.epochs * len(rows)))
    plan: Plan = []
    taken = tokens = 0
    while taken < wanted:
        order = list(range(len(rows)))
        shuffle.shuffle(order)
        epoch: list[int] = []
        for index in order[: wanted - taken]:
            if limit is not None and tokens + rows[index].tokens > limit and (plan or epoch):
                wanted = 0
                break
            epoch.append(index)
            tokens += rows[index].tokens
        taken += len(epoch)
        batches = _grouped(epoch, rows, spec)
        shuffle.shuffle(batches)
        plan += batches
    return plan


def _grouped(order: list[int], rows: Sequence[Row], spec: PreferSpec) -> Plan:
    kto = spec.objective == "kto"
    least = 2 if kto else 1
    # Wanted and unwanted answers often differ in length: sorted, KTO's batches would hold one kind.
    ordered = order if kto else sorted(order, key=lambda i: (rows[i].width, i))
    groups: Plan = []
    for index in ordered:
        group = groups[-1] if groups else []
        wider = [*group, index]
        padded = sum(rows[i].sequences for i in wider) * max(rows[i].width for i in wider)
        fits = len(wider) <= spec.batch_examples and padded <= spec.batch_tokens
        if group and (len(group) < least or fits):
            group.append(index)
        else:
            groups.append([index])
    if len(groups) > 1 and len(groups[-1]) < least:
        alone = groups.pop()
        groups[-1] += alone
    return groups


def _dpo(chosen: Lesson, rejected: Lesson) -> Row:
    columns = {
        "prompt_ids": _prompt(chosen),
        "chosen_ids": _said(chosen),
        "rejected_ids": _said(rejected),
    }
    return _pair(chosen, rejected, columns)


def _orpo(chosen: Lesson, rejected: Lesson) -> Row:
    columns: dict[str, Any] = {}
    for name, taught in (("chosen", chosen), ("rejected", rejected)):
        columns[f"{name}_input_ids"] = list(taught.ids)
        columns[f"{name}_attention_mask"] = [1] * len(taught.ids)
        columns[f"{name}_labels"] = [-100] * taught.start + _said(taught)
    return _pair(chosen, rejected, columns)


def _pair(chosen: Lesson, rejected: Lesson, columns: Mapping[str, Any]) -> Row:
    lengths = (len(chosen.ids), len(rejected.ids))
    supervised = chosen.supervised + rejected.supervised
    return Row(chosen.example_id, columns, 2, max(lengths), sum(lengths), supervised)


def _judged(taught: Lesson, wanted: bool) -> Row:
    columns = {
        "prompt_ids": _prompt(taught),
        "completion_ids": _said(taught),
        "label": wanted,
    }
    length = len(taught.ids)
    return Row(taught.example_id, columns, 1, length, length, taught.supervised)


def _prompt(taught: Lesson) -> list[int]:
    return list(taught.ids[: taught.start])


def _said(taught: Lesson) -> list[int]:
    return list(taught.ids[taught.start :])
