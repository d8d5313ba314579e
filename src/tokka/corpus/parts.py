"""What a section consists of, for the case that it doesn't fit into one chunk.

Text → `Part`s that lie side by side: the 項, 号 and イロハ of an article, each in the other; tables
with their header, lists with the line that leads to them, code fences, and the text between them.

>>> text = "第九条　組合員は、\\n一　甲\\n二　乙\\n２　前項の規定による。"
>>> [(part.label, [inner.label for inner in part.parts]) for part in items(text, 0, len(text))]
[('第1項', ['', '第一号', '第二号']), ('第2項', [])]
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from tokka.corpus.sentences import breaks

Kind = Literal["text", "item", "list", "table", "code", "line"]


class Part(NamedTuple):
    """`text[start:end]`. `label` joins the path of headings of the chunks that a part is divided
    into; `parts` tile it. A `text` is so many sentences; a `line` (of a table, list or code) stays
    whole where it fits, and so does every other part."""

    start: int
    end: int
    kind: Kind = "text"
    label: str = ""
    parts: tuple[Part, ...] = ()


_KANJI = "〇一二三四五六七八九"
_IROHA = (
    "イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス"
)
_LONGEST_HEADER = 160
_LONGEST_LEAD = 6  # lines
_MARK = re.compile(
    r"[ \t　]*(?:[-*・][ \t]*|\#{1,6}[ \t]*)?(?:"
    r"(?P<number>[0-9０-９]{1,3})(?:[.．、]|(?=[ \t　\n]|$))"
    r"|(?P<circled>[①-⑳])"
    r"|(?P<kanji>[一二三四五六七八九十百]{1,5})(?P<branch>(?:の[一二三四五六七八九十]{1,3})*)"
    r"(?:[.．、]|(?=[ \t　\n]|$))"
    r"|[（(](?P<bracketed>[0-9０-９]{1,3})[）)]"
    r"|(?P<iroha>[ア-ンヰヱ])(?:[.．、]|(?=[ \t　\n]|$))"
    r")"
)
_MAY_MARK = re.compile(r"[ \t　]*[-*・#0-9０-９①-⑳一二三四五六七八九十百（(ア-ンヰヱ]")
_ITEM = re.compile(
    r"[ \t　]*(?:[-*+][ \t]|[•・●○◦▪※][ \t　]*\S|\d{1,3}[.．)）、][ \t　]*\S|[（(]\d{1,3}[)）]"
    r"|[①-⑳]|[a-zA-Zア-ン][.)）．、][ \t　]|[一二三四五六七八九十]{1,3}[、．　])"
)
_LEADS = re.compile(r"[:：]$|(?:次の|以下の|下記の|following|below)[^。\n]*[。.]?$", re.IGNORECASE)
_CAPTION = re.compile(r"[ \t　]*(?:表|図表|table\b|[（(]単位|【)", re.IGNORECASE)
_ROW = re.compile(r"[ \t　]*\||[^|\n]*[^|\s][ \t]\|[ \t]")
_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)*\|?[ \t]*$")
_NAMED_CELL = re.compile(r"[^|:：]{1,40}[:：][ \t　]*\S")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class _Mark(NamedTuple):
    start: int
    level: int  # 0 項, 1 号, 2 イ, 3 below
    label: str


class _Line(NamedTuple):
    start: int
    end: int
    bare: str


def items(text: str, start: int, end: int) -> list[Part]:
    """The 項, 号 and イロハ of an article; [] where it has none. What stands before the first 項 is
    第1項. Numbers count only in their order: a number in a table begins no 項."""
    marks = _in_order(_marks(text, start, end))
    return list(_nested(marks, start, end)) if marks else []


def _marks(text: str, start: int, end: int) -> Iterator[tuple[int, str, int, str]]:
    """Where a mark stands, its kind, its number and what it is called."""
    for line in _lines(text, start, end):
        found = _MARK.match(line.bare) if _MAY_MARK.match(line.bare) else None
        if found is None:
            continue
        kind = str(found.lastgroup) if found.lastgroup != "branch" else "kanji"
        if kind in ("number", "bracketed"):
            value = int(unicodedata.normalize("NFKC", found[kind]))
            yield line.start, kind, value, str(value)
        elif kind == "circled":
            value = ord(found["circled"]) - ord("①") + 1
            yield line.start, kind, value, str(value)
        elif kind == "kanji":
            branch = found["branch"]
            yield (
                line.start,
                "branch" if branch else kind,
                _value(found[kind]),
                found[kind] + branch,
            )
        elif found["iroha"] in _IROHA:
            yield line.start, kind, _IROHA.index(found["iroha"]) + 1, found["iroha"]


def _value(kanji: str) -> int:
    total, current = 0, 0
    for character in kanji:
        if character in _KANJI:
            current = _KANJI.index(character)
        else:
            total += (current or 1) * {"十": 10, "百": 100}[character]
            current = 0
    return total + current


def _in_order(found: Iterator[tuple[int, str, int, str]]) -> list[_Mark]:
    """Marks that count up, each at its level; a deeper level begins anew under the next mark."""
    marks: list[_Mark] = []
    levels: dict[str, int] = {}
    last: dict[int, int] = {}
    for start, kind, value, name in found:
        family = "kanji" if kind == "branch" else kind
        level = levels.get(family)
        if level is None:
            level = _level(family, set(levels.values()))
        before = last.get(level, 0)
        follows = value == before if kind == "branch" else value == before + 1
        opens_second = level == 0 and before == 0 and value == 2  # 第1項 has no number of its own
        if not (follows or opens_second):
            continue
        levels[family] = level
        last[level] = value
        for deeper in [other for other in last if other > level]:
            del last[deeper]
        marks.append(_Mark(start, level, _label(level, name)))
    return marks


def _level(kind: str, taken: set[int]) -> int:
    """Statutes: ２ for 項, 一 for 号, イ, （１）. House rules also (1) or ① for 号."""
    wanted = {"number": 0, "circled": 0, "kanji": 1, "bracketed": 1, "iroha": 2}[kind]
    while wanted in taken:
        wanted += 1
    return wanted


def _label(level: int, name: str) -> str:
    if level > 1:
        return name
    return f"第{name}項" if level == 0 else f"第{name}号"


def _nested(marks: Sequence[_Mark], start: int, end: int) -> Iterator[Part]:
    top = min(mark.level for mark in marks)
    heads = [i for i, mark in enumerate(marks) if mark.level == top]
    first = marks[heads[0]]
    if first.start > start:
        named = top == 0 and not first.label.startswith("第1項")
        yield _item(marks[: heads[0]], start, first.start, "第1項" if named else "")
    for index, following in itertools.zip_longest(heads, heads[1:]):
        until = end if following is None else marks[following].start
        yield _item(marks[index + 1 : following], marks[index].start, until, marks[index].label)


def _item(inner: Sequence[_Mark], start: int, end: int, label: str) -> Part:
    return Part(start, end, "item", label, tuple(_nested(inner, start, end)) if inner else ())


# ---- tables, lists, code ----------------------------------------------------------------------


def blocks(text: str, start: int, end: int) -> list[Part]:
    """Tables, lists, code fences and the text between them, in order and side by side."""
    lines = list(_lines(text, start, end))
    found: list[tuple[int, int, Kind]] = []  # first line, line behind the last
    position = 0
    while position < len(lines):
        kind, after = _block(lines, position)
        if kind != "text":
            found.append((position, after, kind))
        position = after
    parts: list[Part] = []
    done = 0
    for first, after, kind in found:
        lead = first if kind == "code" else _lead(lines, done, first, kind)
        if lead > done:
            parts.append(Part(lines[done].start, lines[lead].start))
        parts.append(_build(lines, lead, first, after, kind))
        done = after
    if done < len(lines):
        parts.append(Part(lines[done].start, end))
    return parts


def _lines(text: str, start: int, end: int) -> Iterator[_Line]:
    position = start
    for line in text[start:end].splitlines(keepends=True):
        yield _Line(position, position + len(line), line.rstrip())
        position += len(line)


def _block(lines: Sequence[_Line], position: int) -> tuple[Kind, int]:
    """What begins at this line, and the line behind its end and the blank lines after it."""
    line = lines[position].bare
    after = position + 1
    if mark := _FENCE.match(line):
        while after < len(lines) and not lines[after].bare.lstrip().startswith(mark[1]):
            after += 1
        return "code", _past_blank(lines, min(after + 1, len(lines)))
    if _ROW.match(line):
        while after < len(lines) and (
            _ROW.match(lines[after].bare) or _RULE.match(lines[after].bare)
        ):
            after += 1
        if after - position > 1:
            return "table", _past_blank(lines, after)
    elif _ITEM.match(line):
        after = _list_end(lines, position)
        if sum(bool(_ITEM.match(each.bare)) for each in lines[position:after]) > 1:
            return "list", _past_blank(lines, after)
    return "text", position + 1


def _list_end(lines: Sequence[_Line], position: int) -> int:
    """Items, what is indented under them, and blank lines between; until a line of another kind."""
    after = position + 1
    while after < len(lines):
        line = lines[after]
        blank_above = not lines[after - 1].bare
        if not line.bare:
            after += 1
        elif _FENCE.match(line.bare) or _ROW.match(line.bare):
            break
        elif _ITEM.match(line.bare) or line.bare.startswith(("  ", "\t", "　")) or not blank_above:
            after += 1
        else:
            break
    while not lines[after - 1].bare:
        after -= 1
    return after


def _past_blank(lines: Sequence[_Line], after: int) -> int:
    while after < len(lines) and not lines[after].bare:
        after += 1
    return after


def _lead(lines: Sequence[_Line], done: int, first: int, kind: Kind) -> int:
    """Where the sentence begins that leads to a list or names a table: right above, or over
    a blank line with ：."""
    above = first - 1
    while above >= done and not lines[above].bare:
        above -= 1
    if above < done:
        return first
    line = lines[above].bare
    touches = above == first - 1
    if kind == "table":
        leads = bool(_LEADS.search(line[-200:]) or _CAPTION.match(line)) or (
            touches and len(line) <= 60 and not line.endswith(("。", "."))
        )
    else:
        leads = touches or bool(_LEADS.search(line[-200:]))
    if not leads:
        return first
    while above > done and not breaks(lines[above - 1].bare, lines[above].bare):
        above -= 1  # a wrapped sentence isn't torn
    return above if first - above <= _LONGEST_LEAD else first


def _build(lines: Sequence[_Line], lead: int, first: int, after: int, kind: Kind) -> Part:
    start, end = lines[lead].start, lines[after - 1].end
    if kind == "code":
        inner = [Part(line.start, line.end, "line") for line in lines[first:after]]
        return Part(start, end, kind, "", tuple(inner))
    begins: Callable[[str], object] = _ITEM.match if kind == "list" else bool
    starts = [line.start for line in lines[first:after] if begins(line.bare)]
    label = ""
    if kind == "table":
        label, body = _header([line.bare for line in lines[first:after]])
        starts = [line.start for line in lines[first + body : after] if line.bare]
        if body and starts:  # the header goes with the first row below it
            starts[0] = lines[first].start
    if not starts or starts[0] > start:
        starts.insert(0, start)
    edges = itertools.pairwise([*starts, end])
    inner = [Part(begin, until, "line") for begin, until in edges]
    return Part(start, end, kind, label, tuple(inner))


def _header(rows: Sequence[str]) -> tuple[str, int]:
    """The header's cells, and how many lines it takes; "" for rows that name their cells."""
    rule = next((i for i, row in enumerate(rows[:4]) if i and _RULE.match(row)), None)
    lines = 1 if rule is None else rule + 1
    cells = _cells(rows[lines - 1 if rule is None else rule - 1])
    named = sum(bool(_NAMED_CELL.match(cell)) for cell in cells)
    if rule is None and named * 2 > len(cells):
        return "", 0
    return " | ".join(cells)[:_LONGEST_HEADER], lines


def _cells(row: str) -> list[str]:
    return [
        cell for cell in (" ".join(each.split()) for each in row.strip(" \t|　").split("|")) if cell
    ]
