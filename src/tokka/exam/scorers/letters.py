"""Score a question with several right options by the set of letters that was answered.

A key's target is one accepted set ("b,e"), the digits of a question without options ("1.2"), or
"*" where every answer is right. Order and repeats don't matter; one letter too many or too few is
wrong.

>>> letters(answer, key, question, exam).explanation
'answered b, e, the key is b, e'
"""

from __future__ import annotations

import re
import unicodedata

from tokka.records import Answer, Exam, Key, Question, Score

ANYTHING = "*"
_LETTER = r"[(\[「『*`]*[a-z](?![a-z])[)\]」』*`]*"
_AND = r"(?:\s*(?:,|、|・|;|/|&|と|および|及び|and)\s*|\s+)"
_SET = rf"{_LETTER}(?:{_AND}{_LETTER})*"
_WHOLE = re.compile(rf"(?P<set>{_SET})\s*(?:です|である|だ|が正しい|が正解)?[。.]?")
_CUE = re.compile(
    r"(?:final answer|answer|correct options?|options?|正解|答え|解答|回答|選択肢|記号)"
    r"(?:\s*(?:is|are|は|が|:|=))+\s*(?P<set>" + _SET + r")"
)
_OPENS = re.compile(rf"(?P<set>{_SET})\s*(?:[.:。]|\n|です|が|$)")
_PLACES = re.compile(r"[①-⑳]")  # "解答：①.②" names the places to fill
_DIGITS = re.compile(r"\d[\d.,]*")


def letters(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 where the set of letters is exactly an accepted one, else 0; a prohibited letter is
    named."""
    given = said_letters(answer.text)
    digits = said_digits(answer.text)
    right = any(is_right(target, given, digits) for target in key.targets)
    found = digits if _is_number(key) else ", ".join(sorted(given))
    shown = f"answered {found}" if found else f"named no letter: {answer.text.strip()[:60]!r}"
    prohibited = sorted(given & set(key.prohibited))
    reason = f"; {', '.join(prohibited)} is prohibited" if prohibited else ""
    return Score(
        question_id=key.question_id,
        scorer="letters",
        value=float(right),
        status="scored",
        explanation=f"{shown}, the key is {' or '.join(map(_shown, key.targets))}{reason}",
    )


def is_right(target: str, given: frozenset[str], digits: str) -> bool:
    """Whether a set of letters, or the digits of a number, are what the target asks for."""
    if target == ANYTHING:
        return True
    if any(character.isdigit() for character in target):
        return bool(digits) and digits == _only_digits(target)
    return bool(given) and given == letter_set(target)


def letter_set(text: str) -> frozenset[str]:
    """The letters between commas; empty where anything else stands there.

    >>> sorted(letter_set("b, E")), letter_set("none of them")
    (['b', 'e'], frozenset())
    """
    parts = [part.strip() for part in re.split(r"[,、]", _folded(text))]
    one = all(re.fullmatch("[a-z]", part) for part in parts)
    return frozenset(parts) if one else frozenset()


def said_letters(text: str) -> frozenset[str]:
    """The letters that a written answer names, empty where it names none.

    In this order: the text is letters and nothing else; the letters after the last "answer is",
    答えは and the like; letters that open the text.
    """
    folded = _folded(text)
    cues = [cue for cue in _CUE.finditer(folded) if not _is_article(folded, cue)]
    match = _WHOLE.fullmatch(folded) or (cues[-1] if cues else _OPENS.match(folded))
    return frozenset(re.findall(r"(?<![a-z])[a-z](?![a-z])", match["set"]) if match else ())


def said_digits(text: str) -> str:
    """The digits of the first number in a text, in their order: 1.2 is the marks 1 and 2."""
    match = _DIGITS.search(_folded(_PLACES.sub("", text)))
    return _only_digits(match[0]) if match else ""


def _is_article(text: str, cue: re.Match[str]) -> bool:
    """ "The answer is a nurse" names no option."""
    return cue["set"] == "a" and re.match(r"\s[a-z]{2}", text[cue.end() :]) is not None


def _only_digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _is_number(key: Key) -> bool:
    return any(character.isdigit() for target in key.targets for character in target)


def _shown(target: str) -> str:
    return "whatever was answered" if target == ANYTHING else target.replace(",", ", ")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()
