"""Synonyms from a file of the project: other words for what is asked, at a lower weight.

    # one line, one meaning: each finds the others
    融資, 貸付, ローン
    借換 => 借り換え, リファイナンス      # only from left to right

A query's tokens → `Asked`s. Synonyms are tokenised as the texts are; one of several tokens is
looked for as a phrase. The index holds no synonyms: a changed file needs no new index.

>>> read_synonyms("融資, 貸付", "ja").asked(["融資", "限度"])
[Asked(('融資',), 1.0), Asked(('限度',), 1.0), Asked(('貸付',), 0.5)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokka.errors import Mistakes
from tokka.retrieval.lexical import Asked
from tokka.retrieval.tokenise import tokens

Words = tuple[str, ...]

WEIGHT = 0.5
_ARROW = "=>"
_COMMAS = str.maketrans({"、": ",", "，": ",", "､": ","})


@dataclass(frozen=True, slots=True)
class Synonyms:
    """`others` by the tokens of a word: the tokens of its synonyms."""

    others: Mapping[Words, tuple[Words, ...]] = field(default_factory=dict)
    language: str = ""

    def asked(self, words: Sequence[str]) -> list[Asked]:
        """Each token of a query once, then the synonyms of what stands in it."""
        found = dict.fromkeys((word,) for word in words)
        longest = max(map(len, self.others), default=0)
        added: dict[Words, None] = {}
        at = 0
        while at < len(words):
            for size in range(min(longest, len(words) - at), 0, -1):
                others = self.others.get(tuple(words[at : at + size]))
                if others:
                    added.update(dict.fromkeys(others))
                    at += size - 1
                    break
            at += 1
        asked = [Asked(one) for one in found]
        return asked + [Asked(one, WEIGHT) for one in added if one not in found]


def read_synonyms(text: str, language: str, name: str = "synonyms") -> Synonyms:
    """Read the file's text. Raises Mistakes with every line that can't be used."""
    others: dict[Words, dict[Words, None]] = {}
    mistakes = []
    for number, line in enumerate(text.split("\n"), start=1):
        said = line.partition("#")[0].strip().translate(_COMMAS).replace("＝＞", _ARROW)
        if not said:
            continue
        sides = [[one.strip() for one in side.split(",")] for side in said.split(_ARROW)]
        if (problem := _problem(sides)) is None:
            words = [[tuple(tokens(one, language)) for one in side] for side in sides]
            flat = [
                one
                for side, found in zip(sides, words, strict=True)
                for one, known in zip(side, found, strict=True)
                if not known
            ]
            problem = f"{flat[0]!r} holds no word that is searched for" if flat else None
        if problem is not None:
            mistakes.append(f"{name}:{number}: {problem}; got {line.strip()!r}")
            continue
        for left in words[0]:
            for right in words[-1]:
                if right != left:
                    others.setdefault(left, {})[right] = None
    if mistakes:
        raise Mistakes(f"{name}: {len(mistakes)} lines can't be read", mistakes)
    return Synonyms({left: tuple(right) for left, right in others.items()}, language)


def _problem(sides: Sequence[Sequence[str]]) -> str | None:
    if len(sides) > 2:
        return f"a line has at most one {_ARROW}"
    if not all(one for side in sides for one in side):
        return "a word is missing beside a comma or an arrow"
    if len(sides) == 1 and len(sides[0]) < 2:
        return "a line names at least two words, with commas between them"
    return None
