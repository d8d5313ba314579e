"""Take out of a document what its pages, its encoding and its printer put in.

Document → the same document in fewer and usual characters, and how many changes of each kind.
Cleaning again changes nothing. Page starts stay exact; nothing is reworded. In order, until no
pass finds anything:

- headers, footers and page numbers (`tokka.corpus.running_lines`);
- forms of characters, invisible ones and control characters (`tokka.corpus.characters`);
- words hyphenated at a line's end (`tokka.corpus.lines`), told from true hyphens by the document's
  own words;
- lines broken inside a Japanese sentence (same place), joined without a space;
- ruby: 揶揄（やゆ） and ｜揶揄《やゆ》 (`tokka.corpus.ruby`);
- white space at the ends of lines, and more than one blank line.

>>> clean(document).changes
{'page numbers': 12, 'joined lines': 118}
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokka.corpus.characters import character_edits, plain
from tokka.corpus.edits import Edit, apply
from tokka.corpus.lines import hyphenation_edits, join_edits
from tokka.corpus.ruby import ruby_edits
from tokka.corpus.running_lines import lone_numbers, running_edits
from tokka.records import Document

KINDS = (
    "running lines", "page numbers", "width", "spaces", "invisible", "control", "private",
    "hyphenation", "joined lines", "ruby", "blank lines",
)  # fmt: skip
_ROUNDS = 50  # a text of three pages or of three thousand settles in two or three
_TRAILING = re.compile(r"[ \t　]+(?=\n|\Z)")
_BLANK = re.compile(r"(?<=\n\n)\n+|\A\n+")

_Pass = Callable[[str, Sequence[int]], Iterable[tuple[str, Edit]]]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`changes`: how many of each of `KINDS`, the absent ones left out."""

    document: Document
    changes: Mapping[str, int]


def clean(document: Document) -> Cleaned:
    """The document with another text, title, page starts and digest where anything changed.

    The text may become empty where a document held nothing but page numbers or control characters;
    `tokka.corpus.quality` says so of it.
    """
    text, starts = document.text, document.page_starts
    changes: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        settled = True
        for edits_of in _PASSES:
            found = list(edits_of(text, starts))
            if found:
                settled = False
                changes.update(kind for kind, _ in found)
                text, starts = apply(text, starts, (edit for _, edit in found))
        if settled:
            break
    title = plain(document.title)
    if text == document.text and title == document.title:
        return Cleaned(document, {})
    cleaned = document.model_copy(
        update={
            "text": text,
            "title": title,
            "page_starts": starts,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    )
    return Cleaned(cleaned, {kind: changes[kind] for kind in KINDS if changes[kind]})


def _printed(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    if page_starts:
        yield from running_edits(text, page_starts)
    elif "\f" in text:  # what pdftotext and line printers write between pages
        yield from running_edits(text, [0, *(mark.end() for mark in re.finditer("\f", text))])
    else:
        yield from (("page numbers", edit) for edit in lone_numbers(text))


def _characters(text: str, page_starts: Sequence[int]) -> Iterable[tuple[str, Edit]]:
    return character_edits(text)


def _hyphenated(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    return (("hyphenation", edit) for edit in hyphenation_edits(text))


def _joined(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    return (("joined lines", edit) for edit in join_edits(text, page_starts))


def _without_ruby(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    return (("ruby", edit) for edit in ruby_edits(text))


def _trailing(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    return (("spaces", Edit(*mark.span())) for mark in _TRAILING.finditer(text))


def _blank(text: str, page_starts: Sequence[int]) -> Iterator[tuple[str, Edit]]:
    return (("blank lines", Edit(*mark.span())) for mark in _BLANK.finditer(text))


_PASSES: tuple[_Pass, ...] = (
    _printed, _characters, _trailing, _blank, _hyphenated, _joined, _without_ruby,
)  # fmt: skip
