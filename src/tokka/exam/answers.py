"""Read the key of a row: which option, which texts, which number.

Each function returns the key's part or raises `Wrong` with a sentence that the importer prints.

>>> choice_key("B", None, ("3", "4"), letters_first=False)
1
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tokka.exam.folding import same_text
from tokka.exam.numbers import parse_number, plain

_LETTER = re.compile(r"[（(]?([A-Za-z])[)）.．:：]?")
_KATAKANA = "アイウエオカキクケコ"


class Wrong(Exception):
    """What is wrong with an answer, as a finished sentence."""


@dataclass(frozen=True, slots=True)
class NumberKey:
    """`text` is a plain decimal in `unit`; `tolerance` is absolute, in the same unit. `others`
    are further numbers that count, in that unit too."""

    text: str
    unit: str
    tolerance: float
    others: tuple[str, ...] = ()


def choice_key(answer: Any, index: Any, choices: tuple[str, ...], letters_first: bool) -> int:
    """The place of the right option, from 0.

    A letter (A, b, (C), ウ) or an option's text; a whole number counts from 0, as public exams do,
    unless it is itself the text of another option.
    """
    if index is not None:
        place = _index(index, choices)
        if answer is not None and choice_key(answer, None, choices, letters_first) != place:
            raise Wrong(f"answer {answer!r} and answer_index {index!r} name different options")
        return place
    if isinstance(answer, list):
        if len(answer) != 1:
            raise Wrong(f"a choice question has one right option, got {len(answer)} answers")
        answer = answer[0]
    if isinstance(answer, bool) or not isinstance(answer, str | int):
        raise Wrong(f"answer {str(answer)[:40]!r} is no option; write a letter or an option's text")
    by_text = _by_text(str(answer), choices)
    if isinstance(answer, int) or (by_text is None and re.fullmatch(r"\d{1,2}", answer.strip())):
        return _by_number(int(answer), by_text, choices, letters_first)
    by_letter = _by_letter(answer, choices)
    if by_text is not None and by_letter is not None and by_text != by_letter and not letters_first:
        raise Wrong(
            f"answer {answer!r} is the letter of option {by_letter + 1} and the text of option "
            f'{by_text + 1}; write "answer_index", counted from 0, instead'
        )
    place_of_letter = by_letter if letters_first or by_text is None else by_text
    place_found = by_text if place_of_letter is None else place_of_letter
    if place_found is None:
        last = chr(ord("A") + len(choices) - 1)
        raise Wrong(
            f"answer {answer[:40]!r} is no option (A–{last}); write a letter or an option's text"
        )
    return place_found


def text_targets(answer: Any) -> tuple[str, ...]:
    """The accepted texts, in their order, without repeats. A CSV cell may hold a JSON list."""
    values = answer if isinstance(answer, list) else [answer]
    if isinstance(answer, str) and answer.lstrip().startswith("["):
        import json

        try:
            parsed = json.loads(answer)
            values = parsed if isinstance(parsed, list) else values
        except ValueError:
            pass
    texts = [str(v).strip() for v in values if isinstance(v, str | int | float)]
    if len(texts) != len(values) or not texts or "" in texts:
        raise Wrong(f"answer must be a text or a list of texts, got {str(answer)[:40]!r}")
    return tuple(dict.fromkeys(texts))


def number_key(answer: Any, unit: Any, tolerance: Any) -> NumberKey:
    """The number with its unit; a tolerance of "5%" is that share of the number."""
    if isinstance(answer, list) and answer:
        first, *others = [number_key(one, unit, tolerance) for one in answer]
        if any(other.unit != first.unit for other in others):
            raise Wrong(f"the numbers of answer {answer!r} have different units; write one unit")
        return replace(first, others=tuple(other.text for other in others))
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise Wrong(f"answer must be one number, got {str(answer)[:40]!r}")
    parsed = parse_number(str(answer))
    if parsed is None:
        raise Wrong(f"answer {str(answer)[:40]!r} is no number; write digits, or form: short")
    if not isinstance(unit, str):
        raise Wrong(f"unit must be text, got {unit!r}")
    value = parsed.value
    own_unit = unit.strip()
    if own_unit and parsed.unit:
        converted = parsed.in_unit(own_unit)
        if converted is None:
            raise Wrong(f"answer {answer!r} has a unit that can't be turned into {own_unit!r}")
        value = converted
    return NumberKey(plain(value), own_unit or parsed.unit, _tolerance(tolerance, value))


def _tolerance(tolerance: Any, value: Decimal) -> float:
    text = unicodedata.normalize("NFKC", str(tolerance)).strip()
    relative = text.endswith("%")
    try:
        amount = float(text.rstrip("%"))
    except ValueError as error:
        raise Wrong(f"tolerance must be a number or like 5%, got {tolerance!r}") from error
    if isinstance(tolerance, bool) or not 0 <= amount < float("inf"):
        raise Wrong(f"tolerance must be 0 or more, got {tolerance!r}")
    return amount / 100 * abs(float(value)) if relative else amount


def _index(index: Any, choices: tuple[str, ...]) -> int:
    if isinstance(index, bool) or not re.fullmatch(r"-?\d{1,3}", str(index).strip()):
        raise Wrong(f"answer_index must be a whole number, got {index!r}")
    if not 0 <= int(index) < len(choices):
        raise Wrong(f"answer_index {index} is no option; it counts from 0 to {len(choices) - 1}")
    return int(index)


def _by_number(number: int, by_text: int | None, choices: tuple[str, ...], public: bool) -> int:
    in_range = 0 <= number < len(choices)
    if by_text is not None and (not in_range or by_text == number):
        return by_text
    if by_text is not None and not public:
        raise Wrong(
            f"answer {number} is the text of option {by_text + 1} and the place of option "
            f'{number + 1}; write a letter or "answer_index", counted from 0'
        )
    if not in_range:
        raise Wrong(
            f"answer {number} is no option; numbers count from 0 to {len(choices) - 1}; "
            "write a letter or an option's text"
        )
    return number


def _by_text(answer: str, choices: tuple[str, ...]) -> int | None:
    exact = [index for index, choice in enumerate(choices) if choice == answer.strip()]
    same = [i for i, choice in enumerate(choices) if same_text(choice) == same_text(answer)]
    return next(iter(exact or same), None)


def _by_letter(answer: str, choices: tuple[str, ...]) -> int | None:
    text = unicodedata.normalize("NFKC", answer).strip()
    if text in _KATAKANA and len(text) == 1:
        place = _KATAKANA.index(text)
    elif match := _LETTER.fullmatch(text):
        place = ord(match[1].upper()) - ord("A")
    else:
        return None
    return place if place < len(choices) else None
