"""One spelling for answers that mean the same: width, case, spaces, punctuation, numbers, dates.

Text → text, and normalising twice changes nothing. What is compared, not what is shown.

>>> normalise_text("「３億５，０００万円」（令和６年４月１日から）")
'350000000円2024-04-01から'
"""

from __future__ import annotations

import re
import unicodedata

from tokka.exam.dates import rewrite_dates
from tokka.exam.folding import fold, join_cjk
from tokka.exam.numbers import Quantity, is_exact, plain, quantities

_PASSES = 12
_UNITS_WRITTEN = frozenset(("%", "円", "ドル"))
_KEPT_BETWEEN_DIGITS = frozenset(".-~/:")
_DIGIT_THEN_LATIN = re.compile(r"(?<![a-z\d.])(\d[\d.]*)(?=[a-z])")
_CLOCK = re.compile(r"(?<![\d.])([01]?\d|2[0-3])時([0-5]?\d)分(?!間)")
_HALF_DAY = re.compile(r"(午前|午後)(1[0-2]|\d)(?=時|:)")
_MONTHS = re.compile(r"(?<=[\d何数])(?:ヶ|ケ|カ|ヵ|箇|か)(月|年)")


def normalise_text(text: str) -> str:
    """NFKC, case and width folded; spaces and punctuation dropped where they carry nothing;
    numbers in digits, shares in %, dates as ISO; idempotent."""
    current = fold(text)
    for _ in range(_PASSES):
        again = _once(current)
        if again == current:
            break
        current = again
    return current


def _once(text: str) -> str:
    dated = rewrite_dates(fold(text))
    numbered = _HALF_DAY.sub(_half_day, _rewrite_numbers(dated))
    clocked = _CLOCK.sub(lambda m: f"{int(m[1])}:{int(m[2]):02d}", numbered)
    months = _MONTHS.sub(r"か\1", clocked)
    return _drop_punctuation(months)


def _rewrite_numbers(text: str) -> str:
    pieces: list[str] = []
    done = 0
    for found in quantities(text):
        if found.start < done or not is_exact(found.number.value) or _is_pronoun(text, found):
            continue
        unit = found.number.unit if found.number.unit in _UNITS_WRITTEN else ""
        pieces.extend((text[done : found.start], _digits(text, found), unit))
        done = found.unit_end if unit else found.end
    pieces.append(text[done:])
    return "".join(pieces)


def _digits(text: str, found: Quantity) -> str:
    """Plain digits keep their leading zeros: 03-1234 and 2024-04-01 are no numbers to shorten."""
    if not found.plain_digits:
        return plain(found.number.value)
    digits = text[found.start : found.end].replace(",", "")
    chained = "." in (text[found.start - 1 : found.start], text[found.end : found.end + 1])
    return digits.rstrip("0").rstrip(".") if "." in digits and not chained else digits


def _is_pronoun(text: str, found: Quantity) -> bool:
    return text[found.start : found.end] == "one"


def _half_day(match: re.Match[str]) -> str:
    hour = int(match[2]) % 12 + (12 if match[1] == "午後" else 0)
    return str(hour)


def _drop_punctuation(text: str) -> str:
    kept: list[str] = []
    for index, character in enumerate(text):
        kept.append(character if _carries(text, index) else " ")
    spaced = _DIGIT_THEN_LATIN.sub(r"\1 ", "".join(kept))
    return join_cjk(spaced)


def _carries(text: str, index: int) -> bool:
    character = text[index]
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if character in _KEPT_BETWEEN_DIGITS and before.isdigit() and after.isdigit():
        return True
    if character == "-" and after.isdigit() and not before.isalnum():
        return True
    category = unicodedata.category(character)
    return category[0] in "LMN" or character in "%‰" or (category == "Sm" and character not in "~|")
