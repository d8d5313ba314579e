"""Documents without the personal data in them, or with a report of where it is.

Document → Protected. `report` leaves the text as it is, `mask` writes the kind in its place,
`pseudonymise` a stand-in that is the same in all documents. Offsets of pages follow.

>>> protector = Protector("pseudonymise", key=b"32 random bytes from your vault.")
>>> for protected in protector.protect_all(documents): ...
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokka.corpus.personal.analysing import Analysis
from tokka.corpus.personal.findings import MASKS, Finding
from tokka.corpus.personal.pseudonyms import pseudonym
from tokka.errors import UsageError
from tokka.records import Document

Mode = Literal["report", "mask", "pseudonymise"]
_SHORTEST_KEY = 16  # bytes
_TOGETHER = 16  # documents read by the models at once


@dataclass(frozen=True, slots=True)
class Protected:
    """The document as it goes on, and what was found in the one that came: offsets are those of
    the text before. Findings hold no text."""

    document: Document
    findings: tuple[Finding, ...]

    def pages(self, before: Document) -> tuple[int | None, ...]:
        """The page of each finding, from 1; None where the format has no pages."""
        starts = before.page_starts
        return tuple(
            bisect.bisect_right(starts, f.start) if starts else None for f in self.findings
        )


class Protector:
    """Finds personal data in documents and does with it what `mode` says. `key` is the secret that
    pseudonyms depend on, at least 16 bytes; the models are loaded at the first document. Raises
    UsageError for a mode without its key, MissingExtra without the extra `pii`."""

    def __init__(
        self, mode: Mode, key: bytes | None = None, languages: Sequence[str] = ("ja", "en")
    ) -> None:
        if mode == "pseudonymise" and (key is None or len(key) < _SHORTEST_KEY):
            given = "no key" if key is None else f"a key of {len(key)} bytes"
            raise UsageError(
                f"personal data: pseudonymise needs a key of at least {_SHORTEST_KEY} bytes, got "
                f"{given}; set the environment variable that documents.pseudonym_key_env names"
            )
        if not languages:
            raise UsageError("personal data: languages is empty; name ja, en or both")
        self._mode, self._key = mode, key
        self._analysis = Analysis(languages)

    def __repr__(self) -> str:
        return f"Protector(mode={self._mode!r})"

    def find(self, text: str, language: str) -> list[Finding]:
        """What is found in the text, in order of place; no two overlap."""
        return self._analysis.of([text], language)[0]

    def find_all(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        """The same for many texts, which the models read together."""
        return self._analysis.of(texts, language)

    def protect(self, document: Document) -> Protected:
        """The document by the mode, and what was found in it."""
        return next(self.protect_all([document]))

    def protect_all(self, documents: Iterable[Document]) -> Iterator[Protected]:
        """The same for many, in their order, a few at a time in memory."""
        stream = iter(documents)
        while together := list(itertools.islice(stream, _TOGETHER)):
            found: dict[int, list[Finding]] = {}
            by_language: dict[str, list[int]] = {}
            for n, document in enumerate(together):
                by_language.setdefault(_reads(document), []).append(n)
            for language, places in by_language.items():
                texts = [together[n].text for n in places]
                found |= dict(zip(places, self.find_all(texts, language), strict=True))
            for n, document in enumerate(together):
                yield self._protected(document, found[n])

    def _protected(self, document: Document, findings: list[Finding]) -> Protected:
        if self._mode == "report":
            return Protected(document, tuple(findings))
        language = _reads(document)
        replacements = [self._replacement(document.text, f, language) for f in findings]
        text, starts = replaced(document.text, findings, replacements, document.page_starts)
        in_title = self.find(document.title, language)  # it is shown with every citation
        stand_ins = [self._replacement(document.title, f, language) for f in in_title]
        changes = {
            "text": text,
            "page_starts": starts,
            "title": replaced(document.title, in_title, stand_ins)[0],
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        return Protected(document.model_copy(update=changes), tuple(findings))

    def _replacement(self, text: str, finding: Finding, language: str) -> str:
        if self._mode == "mask":
            return MASKS[finding.kind][0 if language == "ja" else 1]
        assert self._key is not None
        value = text[finding.start : finding.end]
        return pseudonym(self._key, finding.kind, value, language)


def replaced(
    text: str,
    findings: Sequence[Finding],
    replacements: Sequence[str],
    page_starts: Sequence[int] = (),
) -> tuple[str, tuple[int, ...]]:
    """The text with each finding replaced, and where its pages begin now. A page that begins
    inside a finding begins after the replacement."""
    parts: list[str] = []
    ends, shifts = [0], [0]  # from `ends[i]` on, offsets move by `shifts[i]`
    position = 0
    for finding, replacement in zip(findings, replacements, strict=True):
        parts += [text[position : finding.start], replacement]
        position = finding.end
        ends.append(finding.end)
        shifts.append(shifts[-1] + len(replacement) - (finding.end - finding.start))
    parts.append(text[position:])
    starts = []
    inside = {f.start: f.end for f in findings}
    begins = sorted(inside)
    for start in page_starts:
        at = bisect.bisect_left(begins, start) - 1
        moved = inside[begins[at]] if at >= 0 and start < inside[begins[at]] else start
        starts.append(moved + shifts[bisect.bisect_right(ends, moved) - 1])
    return "".join(parts), tuple(starts)


def _reads(document: Document) -> str:
    if document.language:
        return document.language.partition("-")[0].lower()
    kana = sum("ぁ" <= c <= "ヺ" for c in document.text[:2000])
    return "ja" if kana else "en"
