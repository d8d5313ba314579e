"""Split documents into chunks that can be cited.

Document → Chunks. A section is a chunk where it fits; else its 項, tables and lists stay whole
where they fit, then its sentences; only a sentence over the limit is cut. Small neighbours under
one heading share a chunk. `document.text[c.start : c.end] == c.text`, always, and each chunk's
`before` + `text` one after the other are the text again.

The path of headings goes on below an article that had to be divided: 第2章 > 第9条 > 第2項. A table
longer than a chunk is cut between its rows, and the header's cells are the path's last name.

>>> [c.text for c in chunk(document, max_tokens=256, count=renderer.count)]
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tokka.corpus.headings import ARTICLE_LEVEL, Heading, headings
from tokka.corpus.parts import Part, blocks, items
from tokka.corpus.sentences import Span, sentences
from tokka.errors import UsageError
from tokka.records import Chunk, Document

_BREAKABLE = re.compile(r"[、，,;；\s]")
_RULE_TEXT = re.compile(r"第[0-9０-９一二三四五六七八九十百千〇]+条|附則")
# １１ or 三の二 on a line of its own isn't cut off from its sentence.
_MARK = re.compile(r"\s*[（(]?(?:[\d一二三四五六七八九十百の]{1,7}|[①-⑳]|[ア-ン])[)）]?\s*$")
_SAMPLE, _MEMORY = 2000, 8000
_SURELY, _HARDLY, _FULL = 0.8, 1.3, 0.85


class _Section(NamedTuple):
    start: int
    body: int
    end: int
    path: tuple[str, ...]
    rules: bool  # numbered lines are 項 and 号


class _Unit(NamedTuple):
    """What stays whole, with its tokens as estimated; `opens` marks the first of a paragraph."""

    start: int
    end: int
    tokens: float
    opens: bool = True
    label: str = ""
    sentence: bool = False


class _Piece(NamedTuple):
    start: int
    end: int
    path: tuple[str, ...]


class _Meter:
    """Tokens of spans: counted, or estimated by what was counted last in the same document.

    Only what becomes a chunk has to be exact: 880,000 characters of statutes a second this way on
    one core, 460,000 where every sentence was counted (23.8 M characters, Gemma's tokenizer).
    """

    def __init__(self, text: str, limit: int, count: Callable[[str], int]) -> None:
        self._text, self._limit, self._count = text, limit, count
        self._tokens = self._characters = 0.0
        self.count(0, min(len(text), _SAMPLE))

    def count(self, start: int, end: int) -> int:
        tokens = self._count(self._text[start:end])
        kept = max(0.0, 1 - (end - start) / _MEMORY)
        self._tokens = self._tokens * kept + tokens
        self._characters = self._characters * kept + end - start
        return tokens

    def estimate(self, start: int, end: int) -> float:
        return (end - start) * self._tokens / max(1.0, self._characters)

    def may_fit(self, start: int, end: int) -> bool:
        return self.estimate(start, end) <= self._limit * _HARDLY

    def fits(self, start: int, end: int) -> bool:
        """By an estimate where that is clear enough."""
        if self.estimate(start, end) <= self._limit * _SURELY:
            return True
        return self.may_fit(start, end) and self.count(start, end) <= self._limit


def chunk(
    document: Document,
    max_tokens: int,
    count: Callable[[str], int],
    overlap_sentences: int = 0,
) -> list[Chunk]:
    """Chunks in the order of the text; white space at their ends is left out.

    `count` gives the tokens of a text; it sees each character about one and a half times, in
    pieces of a chunk's size, never the whole document. Every chunk has at most `max_tokens` of
    them, except a single character that alone has more. `overlap_sentences` repeats that many last
    sentences of a chunk at the start of the next one of the same section, where they fit. Raises
    UsageError for a limit below 1.
    """
    if max_tokens < 1 or overlap_sentences < 0:
        raise UsageError(
            f"chunk: max_tokens must be at least 1 and overlap_sentences at least 0, got "
            f"{max_tokens} and {overlap_sentences}; correct the settings"
        )
    text = document.text
    meter = _Meter(text, max_tokens, count)
    chunks: list[Chunk] = []
    done = 0
    for section in _sections(text):
        pieces = list(_pieces(text, section, max_tokens, meter, overlap_sentences))
        bare = not text[section.body : section.end].strip()
        for piece in pieces:
            if piece.end <= section.body and not bare:
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
                    headings=section.path + piece.path,
                    access=document.access,
                    before=text[done : piece.start],
                )
            )
            done = piece.end
    return chunks


def _sections(text: str) -> Iterator[_Section]:
    """The text cut at its headings. A heading with nothing under it goes with the section below."""
    marks = headings(text)
    path: list[Heading] = []
    if not marks or text[: marks[0].start].strip():
        yield _Section(0, 0, marks[0].start if marks else len(text), (), rules=False)
    begun: int | None = None
    for mark, following in itertools.zip_longest(marks, marks[1:]):
        path = [outer for outer in path if outer.level < mark.level] + [mark]
        end = following.start if following else len(text)
        begun = mark.start if begun is None else begun
        encloses = following is not None and (
            following.level > mark.level or following.label == mark.label
        )
        if encloses and not text[mark.body : end].strip():
            continue
        rules = mark.level == ARTICLE_LEVEL or bool(_RULE_TEXT.match(mark.label))
        yield _Section(begun, mark.body, end, tuple(outer.label for outer in path), rules)
        begun = None


def _pieces(
    text: str, section: _Section, limit: int, meter: _Meter, overlap: int
) -> Iterator[_Piece]:
    whole = _trimmed(text, section.start, section.end)
    if whole is None:
        return
    if meter.may_fit(*whole) and meter.count(*whole) <= limit:
        yield _Piece(*whole, ())
        return
    parts = items(text, section.start, section.end) if section.rules else []
    part = Part(section.start, section.end, "item", "", tuple(parts))
    yield from _divided(text, part, (), limit, meter, overlap)


def _divided(
    text: str, part: Part, path: tuple[str, ...], limit: int, meter: _Meter, overlap: int
) -> Iterator[_Piece]:
    """Chunks of a part that is too long. What has a name and is too long itself stands alone."""
    run: list[_Unit] = []
    for inner in _flow(text, part, meter):
        if isinstance(inner, _Unit):
            run.append(inner)
            continue
        yield from _pack(text, run, path, limit, meter, overlap)
        run = []
        yield from _divided(text, inner, (*path, inner.label), limit, meter, overlap)
    yield from _pack(text, run, path, limit, meter, overlap)


def _flow(text: str, part: Part, meter: _Meter) -> Iterator[_Unit | Part]:
    """What is inside the part, in order: units, and named parts that are too long for one."""
    first = True
    for inner in part.parts or blocks(text, part.start, part.end):
        # What leads to a list stays with its first item.
        opens = first or part.kind not in ("list", "table", "code")
        first = False
        if inner.kind != "text" and meter.fits(inner.start, inner.end):
            size = meter.estimate(inner.start, inner.end)
            yield _Unit(inner.start, inner.end, size, opens, inner.label)
        elif inner.kind in ("text", "line"):
            yield from _sentences(text, inner, opens, meter)
        elif inner.label:
            yield inner
        else:
            yield from _flow(text, inner, meter)


def _sentences(text: str, part: Part, opens: bool, meter: _Meter) -> Iterator[_Unit]:
    spans = sentences(text[part.start : part.end])
    if len(spans) > 1 and _MARK.match(text, part.start, part.start + spans[0].end):
        spans[:2] = [Span(0, spans[1].end)]
    for span in spans:
        start, end = part.start + span.start, part.start + span.end
        yield _Unit(start, end, meter.estimate(start, end), opens, sentence=True)
        opens = "\n" in text[start + len(text[start:end].rstrip()) : end]


def _pack(
    text: str,
    units: list[_Unit],
    path: tuple[str, ...],
    limit: int,
    meter: _Meter,
    overlap: int,
) -> Iterator[_Piece]:
    first = 0
    while first < len(units):
        last = _reach(units, first, limit)
        begin = _overlapped(units, first, last, limit, overlap)
        piece = _trimmed(text, units[begin].start, units[last].end)
        if piece is None:
            first = last + 1
            continue
        tokens = meter.count(*piece)
        while tokens > limit and begin < last:
            if begin < first:
                begin += 1
            else:
                last = min(
                    last - 1, _reach(units, first, limit, tokens / _size(units, first, last))
                )
            piece = _trimmed(text, units[begin].start, units[last].end) or piece
            tokens = meter.count(*piece)
        if tokens > limit and piece.end - piece.start > 1:
            cut = _split(piece, text, limit, tokens, meter)
            units[first : first + 1] = [unit._replace(label=units[first].label) for unit in cut]
            continue
        if tokens < limit * _FULL and last + 1 < len(units):
            further = _reach(units, first, limit, max(tokens, 1) / _size(units, begin, last))
            longer = _trimmed(text, units[begin].start, units[further].end)
            if further > last and longer and meter.count(*longer) <= limit:
                last, piece = further, longer
        if text[units[first].start : units[last].end].strip():
            labels = [unit.label for unit in units[first : last + 1] if unit.label]
            yield _Piece(*piece, (*path, *_named(labels)))
        first = last + 1


def _named(labels: Sequence[str]) -> tuple[str, ...]:
    return (labels[0] if len(labels) == 1 else f"{labels[0]}〜{labels[-1]}",) if labels else ()


def _size(units: Sequence[_Unit], first: int, last: int) -> float:
    return max(1e-9, sum(unit.tokens for unit in units[first : last + 1]))


def _reach(units: Sequence[_Unit], first: int, limit: int, scale: float = 1.0) -> int:
    """The last unit that fits, at `scale` times its estimate; rather one before a paragraph's
    start, if that keeps at least half of the tokens."""
    last, total = first, units[first].tokens * scale
    while last + 1 < len(units) and total + units[last + 1].tokens * scale <= limit:
        last += 1
        total += units[last].tokens * scale
    if last + 1 == len(units):
        return last
    kept = total
    for index in range(last, first, -1):
        if units[index + 1].opens:
            return index
        kept -= units[index].tokens * scale
        if kept * 2 < total:
            break
    return last


def _overlapped(
    units: Sequence[_Unit], first: int, last: int, limit: int, overlap_sentences: int
) -> int:
    """How far back the chunk may begin: at most `overlap_sentences`, within the limit."""
    total = _size(units, first, last)
    begin = first
    while begin > 0 and first - begin < overlap_sentences and units[begin - 1].sentence:
        total += units[begin - 1].tokens
        if total > limit:
            break
        begin -= 1
    return begin


def _split(span: Span, text: str, limit: int, tokens: int, meter: _Meter) -> Iterator[_Unit]:
    """Cut a sentence that is too long, at a comma or space near the limit where there is one."""
    start = span.start
    characters = max(1, (span.end - span.start) * limit // tokens)
    while start < span.end:
        end = min(span.end, start + characters)
        size = meter.count(start, end)
        while end - start > 1 and size > limit:
            end = start + max(1, (end - start) * 4 // 5)
            size = meter.count(start, end)
        if end < span.end:
            places = [m.end() for m in _BREAKABLE.finditer(text, start + (end - start) // 2, end)]
            end = places[-1] if places else end
        yield _Unit(start, end, meter.estimate(start, end), opens=start == span.start)
        start = end


def _trimmed(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    left = start + len(piece) - len(piece.lstrip())
    return Span(left, left + len(stripped))
