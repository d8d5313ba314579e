"""The headings of a text: what its sections are called, and where they begin.

Text → `Heading`s in order. Markdown (`#`, underlined), HTML (`<h2>`), Japanese rules (第N編, 章,
節, 款, 目, 条 with 枝番, 附則, 別表), English ones (Chapter 3, Section 4.2, Article 9, 4.2 Title),
【…】 and ■ …, and the plain sections of manual pages.

>>> [(mark.label, mark.level) for mark in headings("第一章　総則\\n第三条の二　申請は書面による。")]
[('第一章 総則', 12), ('第三条の二', 16)]
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

NUMERAL = "[0-9０-９一二三四五六七八九十百千〇]+"
ARTICLE_LEVEL = 16
_SUPPLEMENT_LEVEL, _SECTION_LEVEL, _INNER_SECTION_LEVEL = 12, 13, 17
_NUMBERED_LEVEL, _MARKED_LEVEL = 18, 26
_PART_LEVEL = {"編": 11, "章": 12, "節": 13, "款": 14, "目": 15}
_ENGLISH_LEVEL = {
    "part": 11, "chapter": 12, "appendix": 12, "annex": 12, "schedule": 12,
    "section": _SECTION_LEVEL, "article": ARTICLE_LEVEL,
}  # fmt: skip
_LONGEST = 80

_MARKDOWN = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=|-)\1{2,}[ \t]*$")
_HTML = re.compile(r"[ \t]*<h([1-6])\b[^>]*>(.+?)</h\1>[ \t]*$", re.IGNORECASE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_PART = re.compile(rf"[ \t　]*(第{NUMERAL}([編章節款目])(?:の{NUMERAL})*)(?:[ \t　]+|$)(.*)$")
_ARTICLE = re.compile(
    rf"[ \t　]*(第{NUMERAL}条(?:の{NUMERAL})*)"
    # After a caption the article may begin at once, but 第三条（申請）の規定 is a reference.
    r"(?:[ \t　]*([（(][^）)\n]{1,40}[）)])(?![のにをはがとでや、，及又若並])|(?=$|[ \t　\n]))"
)
_REPEALED = re.compile(
    rf"[ \t　]*(第{NUMERAL}条(?:の{NUMERAL})*"
    rf"(?:から第{NUMERAL}条(?:の{NUMERAL})*まで|(?:及び|、)第{NUMERAL}条(?:の{NUMERAL})*))"
    r"[ \t　]*(?:$|削[ 　]*除)"
)
_GOES_ON = "のにをはがとでや、，及又若並各"  # 第三条 at a line's end, and this below: a reference
_SUPPLEMENT = re.compile(r"[ \t　]*附[ \t　]*則[ \t　]*([（(].*[）)])?[ \t　]*抄?[ \t　]*$")
_TABLE = re.compile(
    rf"[ \t　]*((?:別表|別記|別紙|様式|別記様式)(?:第?{NUMERAL}(?:の{NUMERAL})*(?:号様式|号)?)?)"
    r"[ \t　]*([（(].*[）)])?[ \t　]*$"
)
_CAPTION = re.compile(r"[ \t　]*([（(][^（()）\n]{1,40}[）)])[ \t　]*$")
_MARKED = re.compile(r"[ \t　]*(?:【(.{1,40})】|[■◆][ \t　]*(.{1,40}))[ \t　]*$")
_NUMBERED = re.compile(r"[ \t　]*(\d{1,2}[.．、 　][ \t　]*[^\s\d|][^。．.、：:|]{0,28})$")
_DEEP = re.compile(r"[ \t　]*((?:\d{1,3}|[A-Z])(?:\.\d{1,3}){1,4})\.?[ \t　\xa0]+([^\s|].{0,70})$")
_ENGLISH = re.compile(
    r"(part|chapter|appendix|annex|schedule|section|article)[ \t\xa0]+"
    r"((?:\d{1,3}|[IVXLC]{1,7}|[A-Z])(?:\.\d{1,3})*)"
    r"(?:[ \t]*[.:—–-]?[ \t\xa0]+(\S.{0,70}))?[.:]?[ \t]*$",
    re.IGNORECASE,
)
_MANUAL = re.compile(r"\s*(\S+\(\w+\))(?:\s.*)?\1[ \t]*\n")
_MANUAL_NAME = re.compile(r"[^\W\d_][^.,;:。、|()]{0,40}$")
_RANGE = re.compile(rf"[（(]第{NUMERAL}条.*[）)]$")
_CONTENTS = re.compile(r"[ \t　]*(?:#+[ \t]*)?目[ \t　]*次[ \t　]*$")
_MAY_BEGIN = re.compile(r"[ \t　]*[#<=\-`~第附別様【■◆（(\dA-Za-z]")


class Heading(NamedTuple):
    """`start`: where its section begins, a caption line （…） above an article included; `body`:
    where its own text begins. Lower levels enclose higher ones."""

    start: int
    body: int
    level: int
    label: str


class _Line(NamedTuple):
    start: int
    end: int
    above: str  # the line above without white space at its end; "" at the text's beginning
    bare: str


def headings(text: str) -> list[Heading]:
    """Every heading of the text, in order.

    Code fences are passed over, and so is a table of contents. Short numbered lines ("1. 発動")
    count only where no Markdown heading and no article stands, and no second such line follows at
    once; "4.2 Title" where 4.1 stands before it.
    """
    found: list[Heading] = []
    numbered: list[Heading] = []
    deep: list[Heading] = []
    seen: set[str] = set()
    caption: tuple[int, str] | None = None
    manual = bool(_MANUAL.match(text[:400]))
    for line in _lines(text):
        bare, start, body = line.bare, line.start, line.end
        if not bare:
            continue
        above, caption = caption, None
        if not _MAY_BEGIN.match(bare):
            if manual and _is_manual(text, line):
                found.append(Heading(start, body, 1, bare))
        elif mark := _MARKDOWN.match(bare):
            found.append(Heading(start, body, len(mark[1]), mark[2].strip()))
        elif mark := _HTML.match(bare):
            found.append(Heading(start, body, int(mark[1]), re.sub("<[^>]*>", "", mark[2]).strip()))
        elif (mark := _UNDERLINE.match(bare)) and (title := _title(text, line)):
            first = start - len(line.above) - 1
            found = [other for other in found if other.start < first]
            found.append(Heading(first, body, 1 if mark[1] == "=" else 2, title))
        elif mark := _PART.match(bare):
            label = " ".join(f"{mark[1]} {mark[3]}".split())
            if len(label) <= 60 and not label.endswith("。"):
                found.append(Heading(start, body, _PART_LEVEL[mark[2]], label))
        elif mark := _SUPPLEMENT.match(bare):
            found.append(Heading(start, body, _SUPPLEMENT_LEVEL, "附則" + (mark[1] or "")))
        elif mark := _REPEALED.match(bare):
            found.append(Heading(above[0] if above else start, body, ARTICLE_LEVEL, mark[1]))
        elif mark := _ARTICLE.match(text, start, body):
            if mark[2] or mark.end() < start + len(bare) or not _continues(text, line):
                first, title = above if above else (start, mark[2] or "")
                below = body if mark.end() >= start + len(bare) else mark.end()
                found.append(Heading(first, below, ARTICLE_LEVEL, mark[1] + title))
        elif mark := _TABLE.match(bare):
            found.append(Heading(start, body, _SUPPLEMENT_LEVEL, mark[1] + (mark[2] or "")))
        elif mark := _MARKED.match(bare):
            found.append(Heading(start, body, _MARKED_LEVEL, (mark[1] or mark[2]).strip()))
        elif mark := _CAPTION.match(bare):
            caption = (start, mark[1])
        elif mark := _DEEP.match(bare):
            if _is_next(mark[1], seen) and _stands_alone(text, line):
                seen.add(mark[1])
                level = _NUMBERED_LEVEL + mark[1].count(".")
                deep.append(Heading(start, body, level, " ".join(bare.split())))
        elif mark := _NUMBERED.match(bare):
            if not _NUMBERED.match(_below(text, body)):
                numbered.append(Heading(start, body, _NUMBERED_LEVEL, mark[1].strip()))
        elif (mark := _ENGLISH.match(bare)) and _stands_alone(text, line):
            found.append(
                Heading(start, body, _ENGLISH_LEVEL[mark[1].lower()], " ".join(bare.split()))
            )
        elif manual and _is_manual(text, line):
            found.append(Heading(start, body, 1, bare))
    found = list(_without_contents(text, _sections_in_articles(found)))
    if any(mark.level <= 6 or mark.level == ARTICLE_LEVEL for mark in found):
        numbered = []  # there, "1. …" is a list item, or a 項
    later = {mark.label: mark for mark in deep}  # the first of two is an entry of contents
    return sorted([*found, *numbered, *later.values()])


def _lines(text: str) -> Iterator[_Line]:
    """Lines outside code fences."""
    fence = ""
    position = 0
    above = ""
    for line in text.splitlines(keepends=True):
        bare = line.rstrip()
        start, position = position, position + len(line)
        mark = _FENCE.match(bare) if bare[:4].lstrip()[:1] in ("`", "~") else None
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence:
            yield _Line(start, position, above, bare)
        above = bare


def _below(text: str, position: int) -> str:
    """The next line that isn't blank."""
    return text[position : position + 200].lstrip().split("\n", 1)[0].rstrip()


def _continues(text: str, line: _Line) -> bool:
    """第三条 alone on its line, in the middle of a sentence: a link's text on a line of its own."""
    following = text[line.end : line.end + 1]
    return following != "" and following in _GOES_ON


def _title(text: str, line: _Line) -> str:
    """The one line above an underline, if it can be a title."""
    title = line.above.strip()
    first = line.start - len(line.above) - 1
    alone = first >= 0 and text[first : first + len(line.above)] == line.above
    before = text[max(0, first - 2) : max(0, first)]
    if not alone or len(title) > _LONGEST or "|" in title or title.startswith(("#", "-", ">")):
        return ""
    return title if first == 0 or before in ("\n\n", "\n") else ""


def _stands_alone(text: str, line: _Line) -> bool:
    """Between other lines, not wrapped into them, and no entry of a list of such lines."""
    if line.above or line.bare.endswith(("。", ".", "、", ",", ";")):
        return False
    above = text[max(0, line.start - 200) : line.start].rstrip().rsplit("\n", 1)[-1]
    below = _below(text, line.end)
    return bool(below) and not _beside(line.bare, above) and not _beside(line.bare, below)


def _beside(line: str, other: str) -> bool:
    """Entries of one list: 4.1 and 4.2, Section 3 and Section 4. 4.1.1 is below 4.1."""
    if line.split() == other.split():
        return False
    one, two = _DEEP.match(line), _DEEP.match(other)
    if one and two:
        return not (one[1].startswith(two[1] + ".") or two[1].startswith(one[1] + "."))
    first, second = _ENGLISH.match(line.strip()), _ENGLISH.match(other.strip())
    return bool(first and second) and line.split()[0].lower() == other.split()[0].lower()


def _is_next(number: str, seen: set[str]) -> bool:
    parent, last = number.rsplit(".", 1)
    return int(last) == 1 or not seen or f"{parent}.{int(last) - 1}" in seen


def _is_manual(text: str, line: _Line) -> bool:
    """A name at the left margin, its text below indented: NAME, SYNOPSIS, オプション."""
    indented = text.startswith("   ", line.end)
    return not line.above and indented and bool(_MANUAL_NAME.match(line.bare))


def _sections_in_articles(found: list[Heading]) -> list[Heading]:
    """Statutes put articles into sections, contracts sections into articles."""

    def begins(word: str) -> Callable[[Heading], bool]:
        return lambda mark: mark.label.lower().startswith(word)

    first_article = next(filter(begins("article "), found), None)
    first_section = next(filter(begins("section "), found), None)
    if first_article is None or first_section is None or first_section < first_article:
        return found
    return [
        mark._replace(level=_INNER_SECTION_LEVEL)
        if mark.level == _SECTION_LEVEL and mark.label.lower().startswith("section ")
        else mark
        for mark in found
    ]


def _without_contents(text: str, found: list[Heading]) -> Iterator[Heading]:
    """Leave out a table of contents: parts one below the other, with （第一条―第九条） behind them
    or 目次 above them, up to where the first of them stands again."""
    run: list[Heading] = []
    for mark, following in itertools.zip_longest(found, found[1:]):
        run.append(mark)
        if following is None or text[mark.body : following.start].strip():
            yield from run[_entries(text, run) :]
            run = []


def _entries(text: str, run: list[Heading]) -> int:
    """How many headings of the run are entries of a table of contents."""
    if len(run) < 2:
        return 0
    above = text[max(0, run[0].start - 100) : run[0].start].rstrip()
    titled = _CONTENTS.match(above.rsplit("\n", 1)[-1])
    first = 1 if _CONTENTS.match("".join(run[0].label.split())) else 0
    ranged = [i for i, mark in enumerate(run) if _RANGE.search(mark.label)]
    if not (titled or first or ranged):
        return 0
    opening = run[first].label.split(" ", 1)[0]
    again = [i for i in range(first + 1, len(run)) if run[i].label.split(" ", 1)[0] == opening]
    if again:
        return again[0]
    ends = ranged + [i for i, mark in enumerate(run) if mark.label == "附則"]
    return max(ends, default=-1) + 1
