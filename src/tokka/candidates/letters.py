"""Choice exams for endpoints that can't score given options: show letters, read the letter back.

Question → messages; generated text → index of the option. Results by letter are never compared with
results by log-likelihood.

>>> parse_letter("答えはＢです。", 4)
1
"""

from __future__ import annotations

import re
import unicodedata

from tokka.records import Message, Messages, Question

_ASK = {
    "ja": "正しい選択肢の記号（{letters}）を1文字だけ答えてください。",
    "en": "Answer with the letter of the right option only ({letters}).",
}
_CUE = re.compile(
    r"(?:final answer|answer|correct option|option|choice|正解|答え|解答|回答|選択肢|記号)"
    r"(?:\s*(?:is|are|は|が|:|=|option|choice|選択肢|記号|the|番号))*\s*[\"'(\[「『*`]*\s*"
    r"(?P<letter>[a-z])(?![a-z])",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"\W*(?P<letter>[a-z])(?:\s*(?:です|だ|である|が正しい|が正解)|\W)*\s*", re.IGNORECASE
)
_FIRST = re.compile(r"[\"'(\[「『*`\s]*(?P<letter>[A-Z])(?:[)\].:,;」』*`、。]|\s*\n|です|が|$)")
_ALONE = re.compile(r"(?<![A-Za-z\d'’])(?P<letter>[B-HJ-Z])(?![A-Za-z\d'’])")


def letter_messages(question: Question, language: str) -> Messages:
    """The question with its options under letters, asking for the letter alone.

    `language` is that of the request for a letter: "ja", else English. Raises ValueError for a
    question without options.
    """
    if not question.choices:
        raise ValueError(f"question {question.id} has no options to put under letters")
    letters = [letter(index) for index in range(len(question.choices))]
    options = "\n".join(f"{a}. {b}" for a, b in zip(letters, question.choices, strict=True))
    ask = _ASK["ja" if language == "ja" else "en"].format(letters=f"{letters[0]}–{letters[-1]}")
    *before, last = question.messages
    return (*before, Message(role=last.role, content=f"{last.content}\n\n{options}\n\n{ask}"))


def letter(index: int) -> str:
    """0 → A."""
    return chr(ord("A") + index)


def parse_letter(text: str, n_choices: int) -> int | None:
    """Which of the options the text names; None where it names none, or several without saying so.

    In this order: the text is one letter; the letter after the last "answer is", 答えは and the
    like; a letter that opens the text with punctuation after it; the only capital letter that
    stands alone (A and I are left out there: they are words).
    """
    folded = unicodedata.normalize("NFKC", text).strip()
    if whole := _WHOLE.fullmatch(folded):
        return _place(whole["letter"], n_choices)
    for cue in reversed(list(_CUE.finditer(folded))):
        if not _is_article(folded, cue):
            return _place(cue["letter"], n_choices)
    if first := _FIRST.match(folded):
        return _place(first["letter"], n_choices)
    alone = {_place(match["letter"], n_choices) for match in _ALONE.finditer(folded)} - {None}
    return alone.pop() if len(alone) == 1 else None


def _place(character: str, n_choices: int) -> int | None:
    place = ord(character.upper()) - ord("A")
    return place if place < n_choices else None


def _is_article(text: str, cue: re.Match[str]) -> bool:
    """'The answer is a nurse': a small a before a word is no option."""
    return cue["letter"] == "a" and re.match(r"\s[a-z]", text[cue.end() :]) is not None


def with_options(question: Question, language: str) -> Question:
    """The same question with its options listed in the prompt (`show_options`)."""
    if question.form != "choice":
        return question
    head = "選択肢：" if language == "ja" else "Options:"
    listed = "\n".join([head, *(f"- {choice}" for choice in question.choices)])
    *before, last = question.messages
    asked = Message(role=last.role, content=f"{last.content}\n{listed}")
    return question.model_copy(update={"messages": (*before, asked)})
