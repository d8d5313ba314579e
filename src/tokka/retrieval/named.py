"""Documents that a query calls by a title with a number: 金融商品取引法第5条により… wants that one.

The titles of the visible documents → a `Titles`; a query → the documents named in it. Numbers are
what words can't tell apart: 5 stands in every law. What decides is the whole title, in NFKC and
without case and spaces. A title that several documents bear names none of them, and so does one
whose number goes on in the query (第5条 in 第5条の2, Form 1 in Form 12).

>>> titles = Titles([("law/5", "金融商品取引法第5条"), ("law/5-2", "金融商品取引法第5条の2")])
>>> titles.named("金融商品取引法第５条第1項により")
['law/5']
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Generic, TypeVar

Id = TypeVar("Id")

_OPENING = 3
_NUMERAL = "0-9一二三四五六七八九十百千〇"
_NUMBERED = re.compile(rf"[0-9]|第[{_NUMERAL}]")
_NUMBER = re.compile(rf"第?[{_NUMERAL}]+[条項号章節款編表]?(?:の[{_NUMERAL}]+)*")
_WORD = re.compile(r"[^\W\d_]{2,}")
_ENDS_IN_NUMBER = re.compile(rf"[{_NUMERAL}]$")
_BRANCHES = re.compile(rf"[{_NUMERAL}条項号章節款編表式]$")


class Titles(Generic[Id]):
    """Which document bears which title. Those without a number and a word don't take part."""

    def __init__(self, titled: Iterable[tuple[Id, str]]) -> None:
        bearers: dict[str, Id | None] = {}
        for name, title in titled:
            folded = _folded(title)
            if _NUMBERED.search(folded) and _WORD.search(_NUMBER.sub("", folded)):
                bearers[folded] = None if folded in bearers else name
        self._openings: dict[str, list[tuple[str, Id | None]]] = {}
        for folded, bearer in bearers.items():
            self._openings.setdefault(folded[:_OPENING], []).append((folded, bearer))
        for found in self._openings.values():
            found.sort(key=lambda one: -len(one[0]))

    def named(self, query: str) -> list[Id]:
        """The documents named in the query, in its order; where two titles begin at one place, the
        longer one counts."""
        if not self._openings:
            return []
        found: dict[Id, None] = {}
        text, at = _folded(query), 0
        while at < len(text):
            title, bearer = self._at(text, at)
            if bearer is not None:
                found[bearer] = None
            at += max(1, len(title))
        return list(found)

    def _at(self, text: str, at: int) -> tuple[str, Id | None]:
        for title, bearer in self._openings.get(text[at : at + _OPENING], ()):
            if text.startswith(title, at) and _is_whole(text, at, at + len(title)):
                return title, bearer
        return "", None


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no number that text[start:end] begins or ends with goes on beyond it."""
    title, after = text[start:end], text[end : end + 2]
    if title[0].isdigit() and text[max(0, start - 1) : start].isdigit():
        return False
    if _ENDS_IN_NUMBER.search(title) and re.match(rf"[{_NUMERAL}]|\.[0-9]", after):
        return False
    return not (_BRANCHES.search(title) and re.match(rf"の[{_NUMERAL}]", after))
