"""Split documents into chunks that can be cited.

Document → Chunks. Boundaries fall on headings (Markdown `#`, 第N章, 第N条, 【…】), then paragraphs,
then sentences; never inside a sentence unless it alone exceeds the limit. Small neighbours under
one heading share a chunk. `document.text[c.start : c.end] == c.text`, always.

>>> [c.text for c in chunk(document, max_tokens=256, count=renderer.count)]
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tokka.corpus.sentences import Span, sentences
from tokka.errors import UsageError
from tokka.records import Chunk, Document

_MARKDOWN = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_NUMERAL = "[0-9０-９一二三四五六七八九十百千〇]+"
_PART = re.compile(rf"[ \t　]*(第{_NUMERAL}([編章節款目])(?:の{_NUMERAL})*)(?:[ \t　]+|$)(.*)$")
_ARTICLE = re.compile(
    rf"[ \t　]*(第{_NUMERAL}条(?:の{_NUMERAL})*)"
    # After a caption the article may begin at once, but 第三条（申請）の規定 is a reference.
    r"(?:[ \t　]*([（(][^）)\n]{1,40}[）)])(?![のにをはがとでや、，及又若並])|(?=$|[ \t　\n]))"
)
_SUPPLEMENT = re.compile(r"[ \t　]*附[ \t　]*則[ \t　]*(?:[（(].*[）)])?$")
_CAPTION = re.compile(r"[ \t　]*([（(][^（()）\n]{1,40}[）)])[ \t　]*$")
_MARKED = re.compile(r"[ \t　]*(?:【(.{1,40})】|[■◆][ \t　]*(.{1,40}))[ \t　]*$")
_NUMBERED = re.compile(r"[ \t　]*(\d{1,2}[.．、 　][ \t　]*[^\s\d|][^。．.、：:|]{0,28})$")
_PART_LEVEL = {"編": 11, "章": 12, "節": 13, "款": 14, "目": 15}
_ARTICLE_LEVEL, _NUMBERED_LEVEL, _MARKED_LEVEL = 16, 18, 20
_BREAKABLE = re.compile(r"[、，,;；\s]")


class Heading(NamedTuple):
    """`start`: where its section begins, a caption line （…） above an article included."""

    start: int
    body: int
    level: int
    label: str


class _Section(NamedTuple):
    start: int
    body: int
    end: int
    path: tuple[str, ...]


class _Unit(NamedTuple):
    """A sentence with its tokens; `opens` marks the first of a paragraph."""

    start: int
    end: int
    tokens: int
    opens: bool


def chunk(
    document: Document,
    max_tokens: int,
    count: Callable[[str], int],
    overlap_sentences: int = 0,
) -> list[Chunk]:
    """Chunks in the order of the text; white space at their ends is left out.

    `count` gives the tokens of a text; it is called on each sentence and on each chunk, never on
    the whole document. Every chunk has at most `max_tokens` of them, except a single character that
    alone has more. `overlap_sentences` repeats that many last sentences of a chunk at the start of
    the next one of the same section, where they fit. Raises UsageError for a limit below 1.
    """
    if max_tokens < 1 or overlap_sentences < 0:
        raise UsageError(
            f"chunk: max_tokens must be at least 1 and overlap_sentences at least 0, got "
            f"{max_tokens} and {overlap_sentences}; correct the settings"
        )
    text = document.text
    chunks = []
    for section in _sections(text):
        units = list(_units(text, section, max_tokens, count))
        pieces = list(_pack(text, units, max_tokens, count, overlap_sentences))
        for piece in pieces:
            if piece.end <= section.body and len(pieces) > 1:
                continue  # a heading alone answers nothing, and goes with the chunks below it
            page = bisect.bisect_right(document.page_starts, piece.start) or None
            chunks.append(
                Chunk(
                    id=f"{document.id}#{piece.start}-{piece.end}",
                    document_id=document.id,
                    text=text[piece.start : piece.end],
                    start=piece.start,
                    end=piece.end,
                    page=page,
                    headings=section.path,
                    access=document.access,
                )
            )
    return chunks


def headings(text: str) -> list[Heading]:
    """Every heading of the text, in order. Lower levels enclose higher ones.

    Code fences are passed over. Short numbered lines ("1. 発動") count only where no Markdown
    heading stands and no second such line follows at once.
    """
    found: list[Heading] = []
    numbered: list[Heading] = []
    fenced = False
    position = 0
    caption: tuple[int, str] | None = None
    for line in text.splitlines(keepends=True):
        bare = line.rstrip()
        start, position = position, position + len(line)
        if _FENCE.match(bare):
            fenced = not fenced
        if fenced or not bare:
            continue
        above, caption = caption, None
        if mark := _MARKDOWN.match(bare):
            found.append(Heading(start, position, len(mark[1]), mark[2].strip()))
        elif mark := _PART.match(bare):
            label = " ".join(f"{mark[1]} {mark[3]}".split())
            if len(label) <= 60 and not label.endswith("。"):
                found.append(Heading(start, position, _PART_LEVEL[mark[2]], label))
        elif _SUPPLEMENT.match(bare):
            found.append(Heading(start, position, _PART_LEVEL["章"], "附則"))
        elif mark := _ARTICLE.match(line):
            first, title = above if above else (start, mark[2] or "")
            body = position if mark.end() >= len(bare) else start + mark.end()
            found.append(Heading(first, body, _ARTICLE_LEVEL, mark[1] + title))
        elif mark := _MARKED.match(bare):
            found.append(Heading(start, position, _MARKED_LEVEL, (mark[1] or mark[2]).strip()))
        elif mark := _CAPTION.match(bare):
            caption = (start, mark[1])
        elif (mark := _NUMBERED.match(bare)) and not _NUMBERED.match(_line_at(text, position)):
            numbered.append(Heading(start, position, _NUMBERED_LEVEL, mark[1].strip()))
    if any(mark.level <= 6 for mark in found):  # there, "1. …" is a list item
        return found
    return sorted(found + numbered)


def _line_at(text: str, position: int) -> str:
    """The next line that isn't blank."""
    return text[position : position + 200].lstrip().split("\n", 1)[0].rstrip()


def _sections(text: str) -> Iterator[_Section]:
    """The text cut at its headings. A heading with nothing under it goes with the section below."""
    marks = headings(text)
    path: list[Heading] = []
    if not marks or text[: marks[0].start].strip():
        yield _Section(0, 0, marks[0].start if marks else len(text), ())
    begun: int | None = None
    for mark, following in itertools.zip_longest(marks, marks[1:]):
        path = [outer for outer in path if outer.level < mark.level] + [mark]
        end = following.start if following else len(text)
        begun = mark.start if begun is None else begun
        encloses = following is not None and following.level > mark.level
        if encloses and not text[mark.body : end].strip():
            continue
        yield _Section(begun, mark.body, end, tuple(outer.label for outer in path))
        begun = None


def _units(
    text: str, section: _Section, max_tokens: int, count: Callable[[str], int]
) -> Iterator[_Unit]:
    opens = True
    for span in sentences(text[section.start : section.end]):
        start, end = section.start + span.start, section.start + span.end
        tokens = count(text[start:end])
        closes = "\n" in text[start + len(text[start:end].rstrip()) : end]
        if tokens <= max_tokens:
            yield _Unit(start, end, tokens, opens)
        else:
            for piece in _split(text, Span(start, end), max_tokens, tokens, count):
                size = count(text[piece.start : piece.end])
                yield _Unit(piece.start, piece.end, size, opens and piece.start == start)
        opens = closes


def _split(
    text: str, span: Span, max_tokens: int, tokens: int, count: Callable[[str], int]
) -> Iterator[Span]:
    """Cut a sentence that is too long, at a comma or space near the limit where there is one."""
    start = span.start
    characters = max(1, (span.end - span.start) * max_tokens // tokens)
    while start < span.end:
        end = min(span.end, start + characters)
        while end - start > 1 and count(text[start:end]) > max_tokens:
            end = start + max(1, (end - start) * 4 // 5)
        if end < span.end:
            places = [m.end() for m in _BREAKABLE.finditer(text, start + (end - start) // 2, end)]
            end = places[-1] if places else end
        yield Span(start, end)
        start = end


def _pack(
    text: str,
    units: Sequence[_Unit],
    max_tokens: int,
    count: Callable[[str], int],
    overlap_sentences: int,
) -> Iterator[Span]:
    first = 0
    while first < len(units):
        last, total = first, units[first].tokens
        while last + 1 < len(units) and total + units[last + 1].tokens <= max_tokens:
            last += 1
            total += units[last].tokens
        if last + 1 < len(units):
            last = _at_paragraph(units, first, last)
        # Tokens of joined texts needn't add up: the chunk itself is counted, and shortened.
        begin = _overlapped(units, first, last, max_tokens, overlap_sentences)
        piece = _trimmed(text, units[begin].start, units[last].end)
        while piece and count(text[piece.start : piece.end]) > max_tokens and begin < last:
            if begin < first:
                begin += 1
            else:
                last -= 1
            piece = _trimmed(text, units[begin].start, units[last].end)
        if piece and not text[units[first].start : units[last].end].isspace():
            yield piece
        first = last + 1


def _at_paragraph(units: Sequence[_Unit], first: int, last: int) -> int:
    """The last unit before a paragraph's start, if that keeps at least half of the tokens."""
    total = sum(unit.tokens for unit in units[first : last + 1])
    kept = total
    for index in range(last, first, -1):
        if units[index + 1].opens:
            return index
        kept -= units[index].tokens
        if kept * 2 < total:
            break
    return last


def _overlapped(
    units: Sequence[_Unit], first: int, last: int, max_tokens: int, overlap_sentences: int
) -> int:
    """How far back the chunk may begin: at most `overlap_sentences`, within the limit."""
    total = sum(unit.tokens for unit in units[first : last + 1])
    begin = first
    while begin > 0 and first - begin < overlap_sentences:
        total += units[begin - 1].tokens
        if total > max_tokens:
            break
        begin -= 1
    return begin


def _trimmed(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    left = start + len(piece) - len(piece.lstrip())
    return Span(left, left + len(stripped))
