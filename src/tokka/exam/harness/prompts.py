"""The prompts of a task's rows, word for word as the harness makes them.

Rows + settings → `Item`s: the whole prompt with its description and shots, the options and the key.
Text is joined by the harness's rules: a question and its answer by the target delimiter, two shots
by the few-shot delimiter, a prefix of the answer with a delimiter only where no space stands there.

>>> made = items_of(task, settings, rows, pool, notices)
>>> made.items[0].completion
'Q: 1+1?\\nA: 2\\n\\nQ: 2+2?\\nA:'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokka.errors import UsageError
from tokka.exam.harness.settings import TaskSettings, TurnSettings
from tokka.exam.harness.shots import drawn
from tokka.exam.harness.task_file import TaskFile
from tokka.exam.harness.templates import Asked, Renderings, literal

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One asked row. `gold` indexes `choices`; `targets` are the accepted texts. `shots` are places
    in the pool."""

    place: int
    question: str
    completion: str
    choices: tuple[str, ...]
    gold: int | None
    targets: tuple[str, ...]
    shots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """`shot_texts` by place in the pool; `mistakes` are (place of the row, what is wrong)."""

    items: list[Item]
    shot_texts: dict[int, str]
    mistakes: list[tuple[int, str]]


class _Wrong(Exception):
    """What is wrong with one row, as a finished sentence."""


@dataclass(frozen=True, slots=True)
class _Turn:
    text: Asked
    target: Asked
    choices: Asked | None
    prefix: Asked


def items_of(
    task: TaskFile,
    settings: TaskSettings,
    rows: Sequence[Row],
    pool: Sequence[Row],
    notices: list[str],
) -> Items:
    """An item for each row; rows that can't be asked are mistakes. Raises Mistakes for templates
    that fail, UsageError for tasks that ask one option after several prompts."""
    leave_out_asked = settings.shots.split == settings.test_split  # also where both are missing
    places = drawn(pool, rows, settings.shots.count, settings.shots.sampler, leave_out_asked)
    own = sum(rows[i] == pool[p] for i, of in enumerate(places) for p in of)
    if own:
        notices.append(
            f"{own} questions stand among their own shots with their answers, as in lm_eval; name "
            "a fewshot_split of other rows"
        )
    fields = list(rows[0]) if rows else []
    renderings = Renderings(fields)
    asked = [
        _asked(renderings, settings.turn, row, f"row {place + 1} of {settings.asked_split}", "")
        for place, row in enumerate(rows)
    ]
    descriptions = [
        renderings.resolve("description", settings.description, row, f"row {place + 1}")
        for place, row in enumerate(rows)
    ]
    used = sorted({p for of in places for p in of})
    shots = {
        p: _asked(renderings, settings.shots.turn, pool[p], f"shot {p + 1}", "fewshot_config.")
        for p in used
    }
    renderings.fulfil(task)
    return _joined(settings, renderings, asked, descriptions, shots, places)


def _asked(renderings: Renderings, turn: TurnSettings, row: Row, where: str, prefix: str) -> _Turn:
    def ask(name: str, specification: Any) -> Asked:
        return renderings.ask(prefix + name, specification, row, where)

    choices = turn.doc_to_choice
    return _Turn(
        text=ask("doc_to_text", turn.doc_to_text),
        target=ask("doc_to_target", turn.doc_to_target),
        choices=ask("doc_to_choice", choices) if choices else None,
        prefix=renderings.resolve(prefix + "gen_prefix", turn.gen_prefix, row, where),
    )


def _joined(
    settings: TaskSettings,
    renderings: Renderings,
    asked: Sequence[_Turn],
    descriptions: Sequence[Asked],
    shots: Mapping[int, _Turn],
    places: Sequence[Sequence[int]],
) -> Items:
    made = Items([], {}, [])
    with_choices = bool(settings.turn.doc_to_choice)
    broken: dict[int, str] = {}
    for place, turn in shots.items():
        try:
            made.shot_texts[place] = _shot_text(renderings, turn, settings.shots.turn, with_choices)
        except _Wrong as error:
            broken[place] = f"its shot {place + 1}: {error}"
    several = None
    for place, turn in enumerate(asked):
        try:
            bad = next((broken[p] for p in places[place] if p in broken), "")
            if bad:
                raise _Wrong(bad)
            text = _text(renderings, turn.text, with_choices)
            if several is None:
                value, templated = renderings.raw(turn.target)
                several = isinstance(_target(value, templated, with_choices), list)
            prefix = _string(renderings, turn.prefix, "gen_prefix")
            completion = (
                _string(renderings, descriptions[place], "description")
                + "".join(made.shot_texts[p] for p in places[place])
                + _with_prefix(text, prefix, settings.turn.target_delimiter)
            )
            choices = _choices(renderings, turn.choices) if turn.choices is not None else ()
            gold, targets = _key(settings, renderings, turn.target, choices, with_choices, several)
            if not completion.strip():
                raise _Wrong("the prompt is empty; doc_to_text must say something")
        except _Wrong as error:
            made.mistakes.append((place, str(error)))
            continue
        made.items.append(
            Item(
                place=place,
                question=text,
                completion=completion,
                choices=choices if settings.multiple_choice else (),
                gold=gold,
                targets=targets,
                shots=tuple(places[place]),
            )
        )
    return made


# ---- texts ------------------------------------------------------------------------------------


def _shot_text(
    renderings: Renderings, turn: _Turn, settings: TurnSettings, with_choices: bool
) -> str:
    """Question, answer and what follows it; without an answer the question alone."""
    text = _text(renderings, turn.text, with_choices)
    value, templated = renderings.raw(turn.target)
    answer = _target(value, templated, with_choices)
    prefix = _string(renderings, turn.prefix, "gen_prefix")
    if answer is None or answer == "":
        return _with_prefix(text, prefix, settings.target_delimiter)
    choices = _choices(renderings, turn.choices) if turn.choices is not None else ()
    if choices and isinstance(answer, int):
        if not -len(choices) <= answer < len(choices):
            raise _Wrong(f"answer {answer} is no option of {len(choices)}")
        answer = choices[answer]
    elif isinstance(answer, list):
        answer = answer[0] if answer else None
    if not isinstance(answer, str):
        raise _Wrong(f"the answer of an example must be a text, got {answer!r}")
    if not prefix:
        return text + settings.target_delimiter + answer + settings.fewshot_delimiter
    between = "" if prefix[-1].isspace() or answer[:1].isspace() else " "
    opening = _with_prefix(text, prefix, settings.target_delimiter)
    return opening + between + answer + settings.fewshot_delimiter


def _with_prefix(text: str, prefix: str, delimiter: str) -> str:
    if not prefix or not text:
        return text + prefix
    return text + ("" if text[-1].isspace() or prefix[0].isspace() else delimiter) + prefix


def _text(renderings: Renderings, asked: Asked, with_choices: bool) -> str:
    value, templated = renderings.raw(asked)
    if isinstance(value, int) or (templated and value.isdigit() and with_choices):
        raise UsageError(
            "doc_to_text: makes a number, by which lm_eval asks one answer after several prompts; "
            "tokka asks several options after one prompt"
        )
    if not isinstance(value, str):
        raise _Wrong(f"doc_to_text must make a text, got {value!r}")
    return value


def _string(renderings: Renderings, asked: Asked, name: str) -> str:
    value, _ = renderings.raw(asked)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Wrong(f"{name} must make a text, got {value!r}")
    return value


# ---- keys -------------------------------------------------------------------------------------


def _choices(renderings: Renderings, asked: Asked) -> tuple[str, ...]:
    value, templated = renderings.raw(asked)
    if templated:
        try:
            value = literal(value)
        except ValueError as error:
            raise _Wrong(f"doc_to_choice must make a list: {error}") from error
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise _Wrong(f"doc_to_choice must make a list of texts, got {str(value)[:60]}")
    return tuple(value)


def _target(value: Any, templated: bool, with_choices: bool) -> Any:
    """A number where the text is one and there are options, a list where it is written as one."""
    if not templated:
        return value
    if value.isdigit() and with_choices:
        try:
            return literal(value)
        except ValueError as error:
            raise _Wrong(f"doc_to_target makes {value!r}, which is no number") from error
    if len(value) >= 2 and value[0] == "[" and value[-1] == "]":
        try:
            return literal(value)
        except ValueError:
            return value
    return value


def _key(
    settings: TaskSettings,
    renderings: Renderings,
    asked: Asked,
    choices: tuple[str, ...],
    with_choices: bool,
    several: bool,
) -> tuple[int | None, tuple[str, ...]]:
    value, templated = renderings.raw(asked)
    target = _target(value, templated, with_choices)
    if settings.multiple_choice or with_choices:
        gold = _gold(target, choices)
        return (gold, ()) if settings.multiple_choice else (None, (choices[gold],))
    if not several:
        return None, (str(target),)
    listed = target if isinstance(target, list) else [target]
    if not listed or not all(isinstance(one, str) for one in listed):
        raise _Wrong(f"targets in a list must be texts, got {str(target)[:60]}")
    return None, tuple(dict.fromkeys(listed))


def _gold(target: Any, choices: tuple[str, ...]) -> int:
    if isinstance(target, list):
        raise _Wrong("has several right options, and tokka marks one; name one in doc_to_target")
    if isinstance(target, str) and target in choices:
        return choices.index(target)
    if isinstance(target, int | float) and int(target) == target and 0 <= target < len(choices):
        return int(target)
    raise _Wrong(f"the key {str(target)[:40]!r} is none of the {len(choices)} options")
