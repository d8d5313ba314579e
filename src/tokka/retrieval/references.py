"""References in a text, and the chunks that they point to.

A chunk's text → `Reference`s, which `reference_table` resolves to rows: 第三条の二第一項, 前条,
同条, 前項, 別表第一, 会社法第八百七十九条, Section 4.2, Article 9.

Measured on 3,931 articles of eight Japanese codes against another extractor, which of a range
names the ends: 99 % of its 3,692 citations are found; 98 % of what is found is among them, 92 %
with what lies inside ranges.

>>> [reference] = references("前条第二項の承認を得る。", here=("第十条",))
>>> reference.kind, reference.relative, reference.paragraph
('条', -1, 2)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tokka.retrieval.places import (
    BRANCHED,
    NUMERAL,
    UNITS,
    Numbers,
    branches_of,
    english_numbers_of,
    folded,
    number_of,
    numbers_of,
    place_of,
)

_ENDS = (
    "契約書|マニュアル|ガイドライン|手引き|ハンドブック|法律|規則|規程|規定|規約|条例|要領|要綱|細則|"
    "契約|約款|定款|基準|指針|協定|条約|憲法|手引|法|令"
)
_LONGEST_TITLE = 60
_JAPANESE = re.compile(
    rf"(?P<number>第{NUMERAL}(?P<unit>[{UNITS}])(?:の{NUMERAL})*)"
    rf"|(?P<same>同)(?P<same_unit>[条項])"
    rf"|(?P<near>[前次])(?P<few>[二三四五六七八九]?)(?P<near_unit>[条項章節])(?![文書])"
    rf"|(?P<paragraph>第{NUMERAL}項)"
    rf"|(?P<table>別表|別記様式|様式)(?:第?(?P<table_number>{BRANCHED}))?"
)
_BELOW = re.compile(rf"\s*(?:第({NUMERAL})項|([前同次])項)?(?:\s*第({BRANCHED})号)?")
_UNTIL = re.compile(
    rf"(?:第{NUMERAL}項)?(?:（[^（）]*）)?\s*から\s*第({NUMERAL})条((?:の{NUMERAL})*)"
)
# Between two members of one enumeration, which the document named first goes on for.
_JOINED = re.compile(
    r"\s*(?:各号|ただし書|本文|前段|後段|柱書|(?:第[0-9０-９一二三四五六七八九十百]+[項号]))*\s*"
    r"(?:（[^（）]*(?:（[^（）]*）[^（）]*)*）)?\s*"
    r"(?:(?:、|，|・|及び|および|並びに|ならびに|又は|または|若しくは|もしくは|から|と|まで)\s*"
    r"|第[0-9０-９一二三四五六七八九十百]+[項号](?:の[一二三四五六七八九十]+)?\s*|各号\s*"
    r"|ただし書\s*|本文\s*|前段\s*|後段\s*|まで\s*|（[^（）]*）\s*)*$"
)
_NAMED = re.compile(rf"(?:{_ENDS})[」』]?\s*(?:（[^（）]*(?:（[^（）]*）[^（）]*)*）)?\s*$")
_SELF_NAMED = re.compile(rf"(?:本|この|当該)(?:{_ENDS}|政令|省令|府令|内閣府令)\s*$")
_ENACTED = re.compile(r"([一-鿿ァ-ヶー、々ぁ-ん]+法)\s*（[^（）]*第[^（）]*号[^（）]*）")
_AMENDING = re.compile("[（(].*[年号]")
_SUPPLEMENT = re.compile(r"附[ 　]*則\s*$")
_ENGLISH = re.compile(
    r"(?<!\w)(?P<word>sections?|sec\.|§{1,2}|articles?|art\.|chapters?|chap\.|ch\.|appendix|annex"
    r"|schedule|part)\s*(?P<first>\d{1,3}(?:\.\d{1,3})*|[IVXLC]{1,7}\b|[A-Z]\b(?:\.\d{1,3})*)"
    r"(?P<more>(?:\s*(?:,|and|or|to|through|&|–|-)\s*(?:and\s+|or\s+)?\d{1,3}(?:\.\d{1,3})*\b)*)"
    r"(?:\s*\([0-9a-z]{1,3}\))*"
    r"(?:\s+of\s+(?P<of>this|the\s+[A-Z][\w-]*(?:\s+(?:of|and|on|for|[A-Z][\w-]*))*"
    r"|[A-Z][\w-]*(?:\s+(?:of|and|on|for|[A-Z][\w-]*))*))?",
    re.IGNORECASE,
)
_ENGLISH_KIND = {
    "sec": "section", "§": "section", "§§": "section", "art": "article", "ch": "chapter",
    "chap": "chapter",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """`text[start:end]` names a place. `kind` is 条, 章, 別表, section, …; `numbers` its number, or
    with `relative` the number of `here` from which it is counted: -1 the one before, 0 the same,
    1 the next. `until` ends a range. `title` is what stands before the number and may name another
    document, "" for this one. `scope` is 附則 where it is one of its articles."""

    start: int
    end: int
    kind: str
    numbers: Numbers = ()
    relative: int | None = None
    until: Numbers = ()
    paragraph: int | None = None
    item: str = ""
    title: str = ""
    scope: str = ""


def references(text: str, here: Sequence[str]) -> list[Reference]:
    """The references in a text whose path of headings is `here`, in order.

    An enumeration goes on with the document that it began with (民法第三条及び第五条); 同条 is the
    article named last. A name before a number is kept as it stands: the table says whether it is a
    document.
    """
    return sorted([*_japanese(text, here), *_english(text)], key=lambda found: found.start)


def _japanese(text: str, here: Sequence[str]) -> Iterator[Reference]:
    place = place_of(tuple(here))
    opening = text[: len(here[-1])] if here else ""
    last: Reference | None = None
    current: Reference | None = None  # this article, as 前条 and 同項 see it
    if place.article:
        first = place.paragraphs[0] if place.paragraphs else None
        current = Reference(0, 0, "条", place.article, paragraph=first, scope=place.scope)
    skipped = 0
    for found in _JAPANESE.finditer(text):
        if found.start() < skipped or _is_own_heading(text, found, opening, here):
            continue
        reference = _read(text, found, last, current)
        if reference is None:
            continue
        if found["unit"]:
            reference = _named(text, reference, last)
            own = not reference.title and not reference.scope
            if own and _AMENDING.search(place.scope) and not _names_itself(text, reference):
                continue  # 第三条 of the law that amended this one
            if reference.scope and not reference.title and place.scope:
                reference = replace(reference, scope=place.scope)
        last = reference if reference.kind == "条" else last
        skipped = reference.end
        yield reference


def _is_own_heading(text: str, found: re.Match[str], opening: str, here: Sequence[str]) -> bool:
    """The article's own number at the beginning of its text, and those of the parts above it."""
    if found["unit"] is None:
        return False
    line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()].strip(" \t　#-")
    if line or text[found.end() : found.end() + 1] not in " \t　\n（(":
        return False
    label = folded(found["number"])
    return any(folded(name).startswith(label) for name in here)


def _read(
    text: str, found: re.Match[str], last: Reference | None, current: Reference | None
) -> Reference | None:
    """The reference without its document's name."""
    start, end = found.span()
    if found["number"]:
        below = _BELOW.match(text, end) if found["unit"] == "条" else None
        reference = Reference(start, end, found["unit"], numbers_of(found["number"]))
        if below and below.end() > end:
            reference = replace(
                reference,
                end=below.end(),
                paragraph=number_of(below[1]) if below[1] else None,
                item=below[3] or "",
            )
        until = _UNTIL.match(text, reference.end) if found["unit"] == "条" else None
        if until:
            numbers = (number_of(until[1]), *branches_of(until[2]))
            reference = replace(reference, end=until.end(), until=numbers)
        return reference
    if found["table"]:
        number = branches_of("の" + found["table_number"]) if found["table_number"] else ()
        return Reference(start, end, found["table"], number)
    if found["paragraph"]:  # alone: of this article
        if current is None:
            return None
        return replace(current, start=start, end=end, paragraph=number_of(found["paragraph"][1:-1]))
    unit = found["same_unit"] or found["near_unit"]
    if unit == "項":
        return _near_paragraph(found, last, current)
    if found["same"]:
        if last is None:
            return None
        reference = replace(last, start=start, end=end, until=(), paragraph=None, item="")
    else:
        if current is None and unit == "条":
            return None
        several = number_of(found["few"]) if found["few"] else 1
        step = -1 if found["near"] == "前" else 1
        numbers = current.numbers if current and unit == "条" else ()
        scope = current.scope if current else ""
        reference = Reference(start, end, unit, numbers, relative=step * several, scope=scope)
    below = _BELOW.match(text, end)
    if unit == "条" and below and below.end() > end:
        paragraph = number_of(below[1]) if below[1] else None
        reference = replace(reference, end=below.end(), paragraph=paragraph, item=below[3] or "")
    return reference


def _near_paragraph(
    found: re.Match[str], last: Reference | None, current: Reference | None
) -> Reference | None:
    """前項 is of this article; 同項 of the one named last."""
    source = last if found["same"] else current
    if source is None:
        return None
    start, end = found.span()
    if found["same"]:
        return replace(source, start=start, end=end)
    if source.paragraph is None:
        return replace(source, start=start, end=end, relative=0)
    several = number_of(found["few"]) if found["few"] else 1
    step = -several if found["near"] == "前" else several
    return replace(
        source, start=start, end=end, relative=0, paragraph=max(1, source.paragraph + step)
    )


def _names_itself(text: str, reference: Reference) -> bool:
    return bool(_SELF_NAMED.search(text, max(0, reference.start - 10), reference.start))


def _named(text: str, reference: Reference, last: Reference | None) -> Reference:
    """With the document that it is in: what stands right before it, or the enumeration's."""
    before = text[max(0, reference.start - 3 * _LONGEST_TITLE) : reference.start]
    if _SUPPLEMENT.search(before):
        return replace(reference, scope="附則")
    if _SELF_NAMED.search(before):
        return reference
    if mark := _NAMED.search(before):
        name = before[: mark.end()]
        name = _without_bracket(name).rstrip(" \n\t　」』")
        if name.endswith("同法") or (name.endswith(("同令", "同規則", "同規程")) and last):
            between = text[last.end if last else 0 : reference.start][-400:]
            mentioned = _ENACTED.findall(between)
            title = mentioned[-1] if mentioned else last.title if last else ""
            return replace(reference, title=title, scope="")
        return replace(reference, title=name[-_LONGEST_TITLE:].lstrip())
    if last and last.end <= reference.start and reference.kind == "条":
        between = text[last.end : reference.start]
        if len(between) < 200 and _JOINED.match(between):
            return replace(reference, title=last.title, scope=last.scope)
    return reference


def _without_bracket(name: str) -> str:
    """会社法（平成十七年法律第八十六号） → 会社法."""
    depth = 0
    name = name.rstrip()
    if not name.endswith("）"):
        return name
    for position in range(len(name) - 1, -1, -1):
        depth += (name[position] == "）") - (name[position] == "（")
        if depth == 0:
            return name[:position]
    return name


def _english(text: str) -> Iterator[Reference]:
    if not re.search("[A-Za-z§]", text):
        return
    for found in _ENGLISH.finditer(text):
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if not line.strip(" \t#"):  # a heading, or its number again
            rest = text[found.end() : found.end() + 80].split("\n", 1)[0]
            if not re.match(r"\s*[a-z,;)]", rest) and not found["more"]:
                continue
        word = found["word"].lower().rstrip(".")
        kind = _ENGLISH_KIND.get(word) or (word[:-1] if word.endswith("s") else word)
        if kind in ("part", "appendix", "annex", "schedule") and found["word"][0].islower():
            continue  # "in part I", "schedule A meeting"
        title = found["of"] or ""
        title = "" if title.lower() == "this" else re.sub(r"^the\s+", "", title, flags=re.I)
        first = english_numbers_of(found["first"])
        yield Reference(found.start(), found.end(), kind, first, title=title)
        more = re.findall(r"\d{1,3}(?:\.\d{1,3})*", found["more"])
        for number in more:
            numbers = english_numbers_of(number)
            yield Reference(found.start(), found.end(), kind, numbers, title=title)
