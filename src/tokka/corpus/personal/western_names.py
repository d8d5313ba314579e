"""Names of people in English text: what the entity model marks as a person, and what titles and
phrases give away.

Folded text and the model's entities → findings. Left alone: authors in citations (Li et al. 2018).

>>> list(western_names("Ask Dr. Ito about it.", []))
[Finding(kind='name', start=8, end=11, score=0.8)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tokka.corpus.personal.findings import Finding

_PART = r"(?:[A-ZÀ-ÞŁŠŽČŘĐĀ-Ž][\w'’-]*\w|[A-Z]\.|[A-Z](?=\s[A-ZÀ-Ž]))"
_FULL = rf"{_PART}(?:[ ](?:(?:van|von|de|da|dos|del|bin|al|la)[ ])*{_PART}){{0,3}}"
_TITLED = re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam)\b\.?[ ](?P<it>{_FULL})")
_SAID = re.compile(
    r"(?i:\b(?:my|his|her|their|last|first|full|middle|maiden) name(?:\?| is|'s|:)"
    r"|\bname on (?:the|my) (?:account|card)\??(?: is)?|\bi am called|\bthis is|(?<!\w)name:"
    r"|\bdear|\bhi,?|\bhello,?|\bsincerely,|\bregards,|\bsigned:?|\bpatient:?|\bdirected by:?"
    rf"|\buser:)\s+(?P<it>{_FULL})"
)
_NOT_TEXT = (
    "I The A An It This That There Team All Sir Madam Customer Everyone Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday Bot User Please Thank What"
)
_NOT = frozenset(_NOT_TEXT.split())
_CITED = re.compile(r"\s(?:et al\.?|and colleagues)|,?\s?\(\d{4}[a-z]?\)|,\s\d{4}[;)]")


def western_names(text: str, people: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Findings of the kind `name`; `people` are the model's persons as offsets."""
    for start, end in people:
        trimmed = _trimmed(text, start, end)
        if trimmed and not _CITED.match(text, trimmed[1]):
            yield Finding("name", *trimmed, 0.85)
    for pattern in (_TITLED, _SAID):
        for found in pattern.finditer(text):
            trimmed = _trimmed(text, *found.span("it"))
            if trimmed and not _CITED.match(text, trimmed[1]):
                yield Finding("name", *trimmed, 0.8)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end].split("\n")[0]
    piece = re.sub(r"(?:['’]s|[^\w.])+$", "", piece)
    lead = len(piece) - len(re.sub(r"^(?:(?:Mr|Mrs|Ms|Dr|Prof)\.? |[^\w])+", "", piece))
    piece = piece[lead:]
    if not piece or any(c.isdigit() for c in piece) or "@" in piece or piece.islower():
        return None
    if piece.split()[0] in _NOT:
        return None
    return start + lead, start + lead + len(piece)
