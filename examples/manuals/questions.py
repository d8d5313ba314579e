"""An exam from the structure of manuals: no model writes or answers a question.

Pages → rows of an exam. What is asked stands in lines that a program can read (NAME lines, lists of
options, tables, defaults), and the wrong options are the values of its neighbours. A cluster is a
page; the two languages of a chapter are one.

>>> rows = exam_rows(pages)
>>> rows[0]["question"], rows[0]["answer"]
('次のことをするのは、どのマニュアルページのものですか。…', 'A')
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from pages import SECTION, Page

# How many questions of a kind are kept at most
MOST = {
    "man-name": 90,
    "man-option": 60,
    "postgresql-purpose": 60,
    "postgresql-default": 40,
    "postgresql-column": 40,
    "reference-package": 50,
    "reference-section": 40,
    "unanswerable": 30,
}
SHORTEST, LONGEST = 8, 110  # characters of an option

_JAPANESE = r"[぀-ヿ㐀-鿿、。「」（）]"
_MAN_NAME = re.compile(r"\n(?:名前|名称)\n((?: .*\n)+)")
_MAN_OPTION = re.compile(r"(?m)^ {7}(-\S.{0,40}?)(?:\n| {2,})((?: {10,}.*\n|\S.*\n)+)")
_LONG_OPTION = re.compile(r"(?m)^ {7}.*?(--[a-z][a-z-]{3,})")
_PURPOSE = re.compile(r"\n([\w ./-]{2,40}) — (\S.*)\n")
_PARAMETER = re.compile(r"(?m)^([a-z_]+) \((?:integer|floating point)\)\n\n((?: .*\n\n?)+)")
_DEFAULT = re.compile(
    r"[Tt]he default (?:value |setting )?is (-?\d[\d.]*\d|-?\d)(?: ([a-z]+))?(?: \((\w+)\))?[.,;]"
)
_COLUMN = re.compile(r"(?m)^ ([a-z_]+) (?:[a-z_]\w*(?:\[\])?)(?: \(references .+\))?\n\n (\S.*)\n")
_PACKAGES = re.compile(r"(?m)^ *(?:Table|表) ?\d+\.\d+\.? .*\n\n +(?:package|パッケージ) .*\n\n")

Row = dict[str, Any]
T = TypeVar("T")


def exam_rows(pages: Sequence[Page]) -> list[Row]:
    """Rows in the order of their kinds; the same pages give the same rows."""
    makers: dict[str, Callable[[Sequence[Page]], Iterator[Row]]] = {
        "man-name": _man_names,
        "man-option": _man_options,
        "postgresql-purpose": _purposes,
        "postgresql-default": _defaults,
        "postgresql-column": _columns,
        "reference-package": _packages,
        "reference-section": _sections,
        "unanswerable": _unanswerable,
    }
    rows = []
    for kind, make in makers.items():
        found = sorted(make(pages), key=lambda row: _hash(row["question"]))
        for number, row in enumerate(found[: MOST[kind]], 1):
            rows.append({"id": f"{kind}-{number}", **row, "topic": kind})
    return rows


def flow(text: str) -> str:
    """A justified paragraph as one line."""
    joined = re.sub(r"‐\s+", "", " ".join(text.split()))
    return re.sub(rf"(?<={_JAPANESE}) (?={_JAPANESE})", "", joined).strip()


# ---- manual pages --------------------------------------------------------------------------------


def _man_names(pages: Sequence[Page]) -> Iterator[Row]:
    named = [(page, _name_line(page)) for page in pages if page.manual == "manpages-ja"]
    known = [(page, *found) for page, found in named if found]
    said = Counter(purpose for _, _, purpose in known)
    known = [one for one in known if said[one[2]] == 1]
    for place, (page, name, purpose) in enumerate(known):
        near = [one for one in _around(known, place, 12) if not _alike(one[2], purpose)]
        if int(_hash(page.id)[:8], 16) % 2:
            question = f"「{purpose}」と説明されているのは、どのマニュアルページですか。"
            right, wrong = _shown(page, name), [_shown(p, n) for p, n, _ in near]
        else:
            question = f"{_shown(page, name)} は何のマニュアルページですか。"
            right, wrong = purpose, [p for _, _, p in near]
        yield from _choice(question, right, wrong, page)


def _name_line(page: Page) -> tuple[str, str] | None:
    found = _MAN_NAME.search(page.text)
    name, dash, purpose = flow(found[1]).partition(" - ") if found else ("", "", "")
    purpose = purpose.strip()
    return (name.strip(), purpose) if dash and SHORTEST <= len(purpose) <= LONGEST else None


def _shown(page: Page, name: str) -> str:
    return f"{name.split(',')[0]}({page.title.rpartition('.')[2]})"


def _man_options(pages: Sequence[Page]) -> Iterator[Row]:
    for page in pages:
        if page.manual != "manpages-ja":
            continue
        found = {flow(o): _first_sentence(flow(t)) for o, t in _MAN_OPTION.findall(page.text)}
        said = Counter(found.values())
        usable = [(o, t) for o, t in found.items() if said[t] == 1 and _fits(t) and "。" in t]
        if len(usable) < 4:
            continue
        place = int(_hash(page.id)[:8], 16) % len(usable)
        option, right = usable[place]
        wrong = [t for _, t in _around(usable, place, 8)]
        name = _shown(page, page.title.rpartition(".")[0])
        yield from _choice(f"{name} のオプション {option} の説明はどれですか。", right, wrong, page)


# ---- PostgreSQL ----------------------------------------------------------------------------------


def _purposes(pages: Sequence[Page]) -> Iterator[Row]:
    found = [
        (page, line[1], line[2].strip())
        for page in pages
        if page.manual == "postgresql-doc-15"
        and (line := _PURPOSE.search(page.text[:600]))
        and line[1] == page.title
    ]
    said = Counter(purpose for _, _, purpose in found)
    for place, (page, name, purpose) in enumerate(found):
        if said[purpose] > 1 or not _fits(purpose):
            continue
        near = _around(found, place, 10)
        if int(_hash(page.id)[:8], 16) % 2:
            question = f"In the PostgreSQL manual, what is described as “{purpose}”?"
            yield from _choice(question, name, [n for _, n, _ in near], page)
        else:
            question = f"In the PostgreSQL manual, what is the purpose of {name}?"
            yield from _choice(question, purpose, [p for _, _, p in near], page)


def _defaults(pages: Sequence[Page]) -> Iterator[Row]:
    """Every third as a question without options."""
    known = list(_parameters(pages))
    once = Counter(name for _, name, _ in known)
    for place, (page, name, values) in enumerate(known):
        if once[name] > 1:
            continue
        question = f"What is the default of PostgreSQL's server parameter {name}?"
        if place % 3 == 0 and len(values[0]) > 1:
            yield _row(f"{question} Answer with the value.", page) | {
                "form": "short",
                "answer": list(values),
            }
        else:
            near = [v[0] for _, _, v in _around(known, place, 20) if set(v).isdisjoint(values)]
            yield from _choice(question, values[0], near, page)


def _parameters(pages: Sequence[Page]) -> Iterator[tuple[Page, str, tuple[str, ...]]]:
    for page in pages:
        if page.id.startswith("postgresql/runtime-config-"):
            for name, text in _PARAMETER.findall(page.text):
                if found := _DEFAULT.search(text):
                    long = " ".join(part for part in (found[1], found[2]) if part)
                    yield page, name, tuple(dict.fromkeys(v for v in (long, found[3]) if v))


def _columns(pages: Sequence[Page]) -> Iterator[Row]:
    for page in pages:
        table = page.title.rpartition(" ")[2]
        if page.manual != "postgresql-doc-15" or not table.startswith("pg_"):
            continue
        found = {column: _first_sentence(text) for column, text in _COLUMN.findall(page.text)}
        said = Counter(found.values())
        usable = [(c, t) for c, t in found.items() if said[t] == 1 and _fits(t)]
        if len(usable) < 4:
            continue
        place = int(_hash(page.id)[:8], 16) % len(usable)
        column, right = usable[place]
        question = f"What does the column {column} of PostgreSQL's {table} hold?"
        yield from _choice(question, right, [t for _, t in _around(usable, place, 8)], page)


# ---- Debian Reference ----------------------------------------------------------------------------


def _packages(pages: Sequence[Page]) -> Iterator[Row]:
    """One question for a table; its gold is the chapter of the language that it is asked in."""
    chapters = [page for page in pages if page.manual.startswith("debian-reference")]
    texts = {page.id: page.text for page in chapters}
    for page in chapters:
        other = texts.get(_translation(page.id), "")
        for table in _PACKAGES.finditer(page.text):
            rows = list(_table_rows(page.text[table.end() :]))
            usable = [
                (name, text)
                for name, text in rows
                if _fits(text) and f"   {text}\n" not in other and page.text.count(text) == 1
            ]
            if len(usable) < 4:
                continue
            place = int(_hash(page.id + table[0])[:8], 16) % len(usable)
            name, text = usable[place]
            question = (
                f"Debian リファレンスの表で「{text}」と説明されているパッケージはどれですか。"
                if page.manual.endswith("ja")
                else f"Which package do the tables of the Debian Reference describe as “{text}”?"
            )
            yield from _choice(question, name, [n for n, _ in _around(usable, place, 8)], page)


def _table_rows(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n\n"):
        cells = re.split(r" {3,}", line.strip())
        if not line.startswith("  ") or len(cells) != 4 or "\n" in line:
            return
        yield cells[0], cells[3]


def _sections(pages: Sequence[Page]) -> Iterator[Row]:
    for page in pages:
        if not page.manual.startswith("debian-reference"):
            continue
        blocks = page.text.split("\n\n")
        found = []
        for heading, first in pairwise(blocks):
            if SECTION.match(heading) and not first.startswith(" ") and not SECTION.match(first):
                found.append((heading.split(". ", 1)[1].strip(), _first_sentence(flow(first))))
        names = Counter(name for name, _ in found)
        ja = page.manual.endswith("ja")
        usable = [
            (name, text)
            for name, text in found
            if names[name] == 1 and _fits(text) and bool(re.search("[ぁ-ん]", text)) == ja
        ]
        for place in range(0, len(usable), 4):
            name, text = usable[place]
            if len(usable) < 4 or name.casefold() in text.casefold():
                continue
            question = (
                f"Debian リファレンスで「{text}」で始まる節の表題はどれですか。"
                if ja
                else f"Which section of the Debian Reference begins with “{text}”?"
            )
            yield from _choice(question, name, [n for n, _ in _around(usable, place, 8)], page)


# ---- what no page says ---------------------------------------------------------------------------


def _unanswerable(pages: Sequence[Page]) -> Iterator[Row]:
    """Parameters and options that sound right and stand nowhere; as many in each language."""
    whole = "\n".join(page.text for page in pages)
    names = [name for _, name, _ in _parameters(pages) if name.count("_") > 1]
    half = MOST["unanswerable"] // 2
    made = 0
    for first, second in zip(names, names[3:], strict=False):
        name = first.rpartition("_")[0] + "_" + second.rpartition("_")[2]
        if made < half and name not in whole:
            made += 1
            question = f"What is the default of PostgreSQL's server parameter {name}? Answer with"
            yield {"question": f"{question} the value.", "form": "short", "unanswerable": True}
    listed = [
        (page, page.title.rpartition(".")[0], _LONG_OPTION.findall(page.text))
        for page in pages
        if page.manual == "manpages-ja"
    ]
    listed = sorted((one for one in listed if len(one[2]) > 3), key=lambda one: _hash(one[0].id))
    made = 0
    for (_, name, _), (_, _, others) in pairwise(listed):
        own = "".join(page.text for page, same, _ in listed if same == name)
        missing = [option for option in dict.fromkeys(others) if option not in own]
        if missing and made < half:
            made += 1
            question = f"{name} のオプション {missing[0]} は何をしますか。"
            yield {"question": question, "form": "short", "unanswerable": True}


# ---- rows ----------------------------------------------------------------------------------------


def _choice(question: str, right: str, wrong: Iterable[str], page: Page) -> Iterator[Row]:
    """A row with three wrong options, the nearest first; nothing where there are fewer."""
    other = [text for text in dict.fromkeys(wrong) if text.casefold() != right.casefold()][:3]
    if len(other) < 3:
        return
    options = sorted([right, *other], key=lambda text: _hash(question + text))
    yield _row(question, page) | {
        "form": "choice",
        "choices": options,
        "answer": "ABCD"[options.index(right)],
    }


def _row(question: str, page: Page) -> Row:
    cluster = re.sub(r"(?<=debian-reference/)(en|ja)/", "", page.id)
    return {"question": question, "cluster_id": cluster, "document_ids": [page.id]}


def _around(items: Sequence[T], place: int, most: int) -> list[T]:
    """The neighbours of an item, the nearest first."""
    order = sorted(range(len(items)), key=lambda other: (abs(other - place), other))
    return [items[other] for other in order[1 : most + 1]]


def _alike(one: str, other: str) -> bool:
    return one in other or other in one


def _first_sentence(text: str) -> str:
    found = re.match(r".+?(?:。|\. (?=[A-Z(])|\.$|$)", text.strip())
    return found[0].strip() if found else ""


def _fits(text: str) -> bool:
    return SHORTEST <= len(text) <= LONGEST


def _translation(name: str) -> str:
    return name.replace("/en/", "/ja/") if "/en/" in name else name.replace("/ja/", "/en/")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
