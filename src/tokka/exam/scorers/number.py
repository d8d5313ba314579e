"""Score a number with its unit: the first in the answer that has a fitting unit, within tolerance.

After "the answer is", 答えは or ####, what stands before isn't looked at. Units are converted
within their kind (300万円 = 3,000,000円, 90分 = 1.5時間); a number without unit is taken to be in
the key's. A number in another kind of unit is wrong, and the explanation says so; a key without
unit asks for none.

>>> number(answer, key, question, exam).explanation
'3000000円 is 300万円 within 0'
"""

from __future__ import annotations

import re
from decimal import Decimal

from tokka.exam.folding import fold
from tokka.exam.numbers import Number, plain, quantities
from tokka.exam.units import UNITS, canonical_unit
from tokka.records import Answer, Exam, Key, Question, Score

_CUE = re.compile(r"####|answer(?: is|:)|答え?は|答え?:|正解は|回答は|回答:")


def number(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 where |given − an accepted number| ≤ tolerance in the key's unit, else 0."""
    accepted = [Decimal(target) for target in key.targets]
    found = _first_fitting(fold(answer.text), key.unit)
    if found is None:
        return _score(key, 0.0, f"no number in {answer.text.strip()[:60]!r}")
    given = found.in_unit(key.unit) if key.unit else found.value
    shown = f"{plain(found.value)}{found.unit}"
    if given is None:
        goal = f"{plain(accepted[0])}{key.unit}"
        return _score(key, 0.0, f"{shown} is in another unit than {goal}")
    wanted = min(accepted, key=lambda number: abs(given - number))
    goal = f"{plain(wanted)}{key.unit}"
    # The shares that a unit is converted by have no last digit: a 10^-12 part is no difference.
    slack = Decimal(str(key.tolerance)) + abs(wanted) * Decimal("1e-12")
    right = abs(given - wanted) <= slack
    verb = "is" if right else "is not"
    return _score(key, float(right), f"{shown} {verb} {goal} within {key.tolerance:g}")


def _first_fitting(folded: str, unit: str) -> Number | None:
    """With a fitting unit, else the first without unit, else the first at all."""
    cues = list(_CUE.finditer(folded))
    found = [_with_unit(folded[cues[-1].end() :], unit)] if cues else []
    numbers = next((n for n in [*found, _with_unit(folded, unit)] if n), [])
    if not numbers:
        return None
    wanted = canonical_unit(unit)
    fitting = [n for n in numbers if n.unit and n.in_unit(unit) is not None]
    bare = [n for n in numbers if not n.unit]
    if not wanted:
        return numbers[0]
    return (fitting or bare or numbers)[0]


def _with_unit(text: str, unit: str) -> list[Number]:
    """All numbers; where the key's unit is in no table, it is recognised by its own spelling."""
    wanted = canonical_unit(unit)
    numbers: list[Number] = []
    for found in quantities(text):
        if wanted and wanted not in UNITS:
            rest = text[found.end :].lstrip()
            if rest.startswith(wanted.rstrip("s")):
                numbers.append(Number(found.number.value, wanted))
                continue
        numbers.append(found.number)
    return numbers


def _score(key: Key, value: float, explanation: str) -> Score:
    return Score(
        question_id=key.question_id,
        scorer="number",
        value=value,
        status="scored",
        explanation=explanation,
    )
