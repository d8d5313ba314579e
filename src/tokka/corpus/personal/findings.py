"""What is found: a kind, a place and a score, never the text itself.

A finding can be logged and reported as it is: whoever wants the text takes it from the document.

>>> settle([Finding("name", 0, 4, 0.8), Finding("email", 0, 20, 1.0)])
[Finding(kind='email', start=0, end=20, score=1.0)]
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

Kind = Literal[
    "name",
    "address",
    "phone",
    "email",
    "birth_date",
    "my_number",
    "driving_licence",
    "passport",
    "residence_card",
    "pension_number",
    "health_insurance",
    "social_security",
    "bank_account",
    "card",
    "ip_address",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What stands in a masked text: in Japanese, in every other language.
MASKS: dict[Kind, tuple[str, str]] = {
    "name": ("〔氏名〕", "[NAME]"),
    "address": ("〔住所〕", "[ADDRESS]"),
    "phone": ("〔電話番号〕", "[PHONE]"),
    "email": ("〔メールアドレス〕", "[EMAIL]"),
    "birth_date": ("〔生年月日〕", "[DATE OF BIRTH]"),
    "my_number": ("〔個人番号〕", "[MY NUMBER]"),
    "driving_licence": ("〔免許証番号〕", "[DRIVING LICENCE]"),
    "passport": ("〔旅券番号〕", "[PASSPORT]"),
    "residence_card": ("〔在留カード番号〕", "[RESIDENCE CARD]"),
    "pension_number": ("〔基礎年金番号〕", "[PENSION NUMBER]"),
    "health_insurance": ("〔保険証番号〕", "[HEALTH INSURANCE]"),
    "social_security": ("〔社会保障番号〕", "[SOCIAL SECURITY]"),
    "bank_account": ("〔口座番号〕", "[BANK ACCOUNT]"),
    "card": ("〔カード番号〕", "[CARD]"),
    "ip_address": ("〔IPアドレス〕", "[IP ADDRESS]"),
}
_DASHES = re.compile("(?<=[0-9)])[‐‑‒–—―−ーｰ─](?=[0-9(])")


@dataclass(frozen=True, slots=True)
class Finding:
    """`text[start:end]` is personal data of this kind; `score` from 0 to 1."""

    kind: Kind
    start: int
    end: int
    score: float


def fold(text: str) -> str:
    """The text with full width made half width and dashes between digits made hyphens, character
    by character: every offset stays what it was."""
    if text.isascii():
        return text
    return _DASHES.sub("-", text.translate(_Folding()))


class _Folding(dict[int, str]):
    def __missing__(self, code: int) -> str:
        return _folded(code)


@lru_cache(maxsize=65536)
def _folded(code: int) -> str:
    character = chr(code)
    form = unicodedata.normalize("NFKC", character)
    return form if len(form) == 1 else character


def settle(findings: Iterable[Finding]) -> list[Finding]:
    """No two overlap: the higher score wins, then the longer, then the earlier. What the winner
    doesn't cover of a loser stays, so that nothing found is left bare. In order of place."""
    kept: list[Finding] = []
    ranked = sorted(findings, key=lambda f: (-f.score, f.start - f.end, f.start, f.kind))
    for finding in ranked:
        rest = [finding]
        for winner in kept:
            rest = [part for piece in rest for part in _without(piece, winner)]
        kept.extend(rest)
    return sorted(kept, key=lambda f: f.start)


def _without(piece: Finding, winner: Finding) -> list[Finding]:
    if winner.end <= piece.start or piece.end <= winner.start:
        return [piece]
    parts = [
        replace(piece, end=min(piece.end, winner.start)),
        replace(piece, start=max(piece.start, winner.end)),
    ]
    return [part for part in parts if part.end > part.start]


def joined(text: str, findings: list[Finding]) -> list[Finding]:
    """Neighbours of one kind with only white space between become one where they make up one
    thing: the lines of an address. Parts of white space and punctuation alone go."""
    result: list[Finding] = []
    for finding in findings:
        if not any(c.isalnum() for c in text[finding.start : finding.end]):
            continue
        if (
            result
            and finding.kind == result[-1].kind == "address"
            and not text[result[-1].end : finding.start].strip(" \t\n,、　")
        ):
            before = result.pop()
            score = max(before.score, finding.score)
            finding = replace(finding, start=before.start, score=score)
        result.append(finding)
    return result
