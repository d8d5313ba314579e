"""Law texts → articles, each of which becomes one document.

Three publishers, three shapes: the gold contexts of lawqa_jp (Markdown excerpts, `## law`,
`### 第5条`, `#### 第6項`), the articles of `japanese_articles` (one a row), and the statutes of
`japanese_laws_2013` (whole laws as plain text).

>>> gold, of_question = gold_articles(samples)
>>> of_question["金商法_第2章_選択式_関連法令_問題番号57"]
['金融商品取引法/第5条']
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

SHINGLE = 8  # characters
NEARLY_IDENTICAL = 0.8  # of the shingles of a gold passage stand in the article, or the reverse
OLDER_EDITION = 0.5  # the same, where law and number are those of the gold article
SHORTEST_PASSAGE = 30  # shingles: below, a passage is judged with its whole article

_HEADING = re.compile(r"(#{2,}) *(.+?) *$")
_ARTICLE = re.compile(r"第(\d+)条((?:の\d+)*)$")
_KANJI = "〇一二三四五六七八九十百千"
_KANJI_ARTICLE = re.compile(
    r"(?:^　*（(?P<heading>[^（）\n]{1,60})）\n)?"
    rf"^第(?P<number>[{_KANJI}]+)条(?P<branch>(?:の[{_KANJI}]+)*)[ 　]*$",
    re.MULTILINE,
)
_SUPPLEMENT = re.compile(r"^[ 　]*附[ 　]*則", re.MULTILINE)
_KANA_ITEM = re.compile(r"[イロハニホヘトチリヌルヲワカ]　")
_PARAGRAPH_NUMBER = re.compile(
    r"^([０-９]+|[一二三四五六七八九十]+(?:の[一二三四五六七八九十]+)*)$"
)
_DIGITS = {kanji: value for value, kanji in enumerate(_KANJI[:10])}
_SMALL_KANA = str.maketrans("っゃゅょ", "つやゆよ")  # older statutes write であつて


@dataclass(frozen=True, slots=True)
class Article:
    """`passages` are its paragraphs and items, headings apart; `text` is the whole document."""

    id: str
    title: str
    passages: tuple[str, ...]
    text: str
    source: str
    licence: str
    edition_of: str = ""  # id of the article in force, where this is an older edition


@dataclass(frozen=True, slots=True)
class Near:
    """An article that was left out, the gold article that it repeats, and how much of it."""

    id: str
    gold_id: str
    overlap: float


# ---- the gold contexts -------------------------------------------------------------------------


def gold_articles(
    samples: Sequence[Mapping[str, str]],
) -> tuple[dict[str, Article], dict[str, list[str]]]:
    """Articles by id, and the article ids of each question (by file name), in reading order.

    Contexts quote an article in parts, so the parts that questions quote are merged: one document
    an article. Two editions of a paragraph are both kept where neither contains the other.
    """
    parts: dict[str, dict[tuple[str, ...], str]] = defaultdict(dict)
    names: dict[str, tuple[str, str]] = {}
    laws = {_clean(law) for sample in samples for law in _laws(sample["コンテキスト"])}
    of_question: dict[str, list[str]] = {}
    for sample in samples:
        ids: list[str] = []
        for law, section, path, text in _excerpts(sample["コンテキスト"], laws):
            article_id = f"{law}/{section}" if section else law
            names[article_id] = (law, section)
            parts[article_id][path] = _merged(parts[article_id].get(path, ""), text)
            if article_id not in ids:
                ids.append(article_id)
        of_question[sample["ファイル名"]] = ids
    gold = {}
    for article_id, (law, section) in sorted(names.items()):
        title = law + ("" if _ARTICLE.match(section) else " ") + section
        ordered = sorted(parts[article_id].items(), key=lambda item: _numbers(item[0]))
        gold[article_id] = Article(
            id=article_id,
            title=title.strip(),
            passages=tuple(text for _, text in ordered if text),
            text="\n".join([f"# {title.strip()}", *_with_headings(ordered)]),
            source="lawqa_jp",
            licence="PDL1.0",
        )
    return gold, of_question


def _laws(context: str) -> Iterator[str]:
    for line in context.splitlines():
        match = _HEADING.match(line)
        if match and len(match[1]) == 2:
            yield match[2]


def _excerpts(context: str, laws: set[str]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """(law, section, path below the section, text): one for each heading with text under it."""
    law, section = "", ""
    path: tuple[str, ...] = ()
    lines: list[str] = []
    for line in [*_with_whole_headings(context), "## "]:
        match = _HEADING.match(line) or re.match(r"(##) ()$", line)
        if not match:
            lines.append(line.strip())
            continue
        if text := "\n".join(line for line in lines if line):
            yield law, section, path, text
        level, name, lines = len(match[1]), _clean(match[2]), []
        catalogued = re.match(r"Q\d+$", name) or (not section and _ARTICLE.match(name))
        if level == 2 or (level == 3 and name in laws):
            law, section, path = name, "", ()
        elif level == 3 and name == "答":
            path = (name,)  # the answer belongs to the question above it
        elif level == 3 or (level == 4 and catalogued):
            section, path = _section(name), ()
        else:
            path = (*path[: level - 4], name)


def _with_whole_headings(context: str) -> Iterator[str]:
    """Lines; a heading that breaks off inside a parenthesis gets the lines up to its end back."""
    lines = context.splitlines()
    while lines:
        whole, taken = lines[0], 1
        if _HEADING.match(whole):
            for length in range(1, min(4, len(lines)) + 1):
                joined = "".join(lines[:length])
                if length > 1 and lines[length - 1].startswith("#"):
                    break
                if len(re.findall("[(（]", joined)) <= len(re.findall("[)）]", joined)):
                    whole, taken = joined, length
                    break
        yield whole
        lines = lines[taken:]


def _section(name: str) -> str:
    """第27条の32の2, 問12, or a guideline's heading without spaces and closing remark."""
    return (name.split("(")[0] or name).replace(" ", "")


def _clean(name: str) -> str:
    name = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", name)).strip()
    return re.sub(r"^\((.+)\)$", r"\1", name)


def _merged(old: str, new: str) -> str:
    if _folded(new) in _folded(old):
        return old
    return new if _folded(old) in _folded(new) else f"{old}\n{new}"


def _numbers(path: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Paragraphs and items sort by their numbers; other headings stay in reading order."""
    found = [re.match(r"第(\d+)[項号]((?:の\d+)*)$", name) for name in path]
    if not all(found):
        return ((10_000,),)
    return tuple(
        (int(match[1]), *(int(part) for part in match[2].split("の") if part))
        for match in found
        if match
    )


def _with_headings(parts: Sequence[tuple[tuple[str, ...], str]]) -> Iterator[str]:
    shown: tuple[str, ...] = ()
    for path, text in parts:
        for depth, name in enumerate(path):
            if path[: depth + 1] != shown[: depth + 1]:
                yield f"{'#' * (depth + 2)} {name}"
        shown = path
        yield text


# ---- the distractors ---------------------------------------------------------------------------


def code_articles(rows: Iterable[Mapping[str, str]]) -> Iterator[Article]:
    """`japanese_articles`: rows with law, part (main or supplementary), article and text."""
    for row in rows:
        first, *rest = re.findall(r"\d+", row["article"]) or [""]
        section = f"第{first}条" if first else ""
        if ":" in row["article"]:
            section += f"から第{rest[0]}条まで"
        else:
            section += "".join(f"の{part}" for part in rest)
        if row["part"] != "main":
            act = row["path"].split("/附則/", 1)[-1].removeprefix("改正法/").split("/")[0]
            section = f"附則（{act.removesuffix('.md')}）{section}"
        article_id = f"{row['law']}/{section}"
        lines = [line.strip() for line in row["text"].splitlines() if line.strip()]
        passages = tuple(line for line in lines[1:] if not _PARAGRAPH_NUMBER.match(line))
        title = f"{row['law']}{section}"
        yield Article(
            id=article_id,
            title=title,
            passages=passages or tuple(lines),
            text="\n".join([f"# {title}", *lines]),
            source="japanese_articles",
            licence="MIT",
        )


def statute_articles(title: str, law: str, text: str) -> Iterator[Article]:
    """`japanese_laws_2013`: the main provisions of one statute, article by article.

    Supplementary provisions are left out: those of every amending act start again at article 1.
    The year is part of the id, so that no one takes it for the law in force, which is `law`.
    """
    name = f"{title}（2013年）"
    starts = list(_KANJI_ARTICLE.finditer(text))
    if not starts:
        raise SystemExit(f"{title}: no article found; is this japanese_laws_2013?")
    supplement = _SUPPLEMENT.search(text, starts[0].end())
    end_of_main = supplement.start() if supplement else len(text)
    seen: set[str] = set()
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        if start.start() >= end_of_main:
            break
        end = min(following.start() if following else len(text), end_of_main)
        branch = "".join(f"の{_kanji_number(b)}" for b in start["branch"].split("の") if b)
        section = f"第{_kanji_number(start['number'])}条{branch}"
        passages = tuple(_statute_lines(text[start.end() : end]))
        if not passages or section in seen:
            continue
        seen.add(section)
        heading = f"# {name}{section}" + (f"（{start['heading']}）" if start["heading"] else "")
        yield Article(
            id=f"{name}/{section}",
            title=f"{name}{section}",
            passages=passages,
            text="\n".join([heading, *passages]),
            source="japanese_laws_2013",
            licence="",
            edition_of=f"{law}/{section}",
        )


def _statute_lines(body: str) -> Iterator[str]:
    """Paragraphs in one line each; numbers join their text, chapter headings fall away."""
    number, line = "", ""
    for raw in [*body.splitlines(), ""]:
        piece = raw.strip(" 　")
        if raw.startswith("　") or not piece or _KANA_ITEM.match(raw):
            if line:
                yield line
            line = ""
        if not piece or re.match(rf"第[{_KANJI}]+[編章節款目](?:の|　| |$)", piece):
            continue
        if _PARAGRAPH_NUMBER.match(piece):
            number = piece
        else:
            line = f"{line}{number}{'　' * bool(number)}{piece}"
            number = ""


def _kanji_number(kanji: str) -> int:
    total, digit = 0, 0
    for character in kanji:
        if character in _DIGITS:
            digit = digit * 10 + _DIGITS[character]
        else:
            total += max(digit, 1) * {"十": 10, "百": 100, "千": 1000}[character]
            digit = 0
    return total + digit


# ---- nearly identical to a gold one ------------------------------------------------------------


def leave_out_near(
    articles: Iterable[Article], gold: Mapping[str, Article]
) -> tuple[list[Article], list[Near]]:
    """Articles that don't repeat a gold one, and those that do.

    A distractor that holds the gold passage would answer the question and count as a miss. An
    article repeats a gold one when it holds `NEARLY_IDENTICAL` of the 8-character shingles of one
    of its passages (of the whole, where passages are short), or the gold one holds as many of its.
    """
    owners: dict[str, list[int]] = defaultdict(list)
    passages: list[tuple[str, int]] = []
    wholes = {article_id: _shingles("".join(a.passages)) for article_id, a in gold.items()}
    for article_id, article in sorted(gold.items()):
        long = [s for s in map(_shingles, article.passages) if len(s) >= SHORTEST_PASSAGE]
        for shingles in long or [wholes[article_id]]:
            for shingle in shingles:
                owners[shingle].append(len(passages))
            passages.append((article_id, len(shingles)))
    kept: list[Article] = []
    left: list[Near] = []
    for article in articles:
        own = _shingles("".join(article.passages))
        hits = Counter(index for shingle in own for index in owners.get(shingle, ()))
        best = Near(article.id, "", 0.0)
        for index, count in sorted(hits.items()):
            gold_id, size = passages[index]
            within = len(own & wholes[gold_id]) / len(own)
            overlap = max(count / size, within)
            best = max(best, Near(article.id, gold_id, overlap), key=lambda near: near.overlap)
            if article.edition_of == gold_id and overlap >= OLDER_EDITION:
                best = Near(article.id, gold_id, overlap)
                break
        if best.overlap >= NEARLY_IDENTICAL or (
            best.gold_id == article.edition_of and best.overlap >= OLDER_EDITION
        ):
            left.append(best)
        else:
            kept.append(article)
    return kept, left


def _shingles(text: str) -> frozenset[str]:
    folded = _folded(text)
    return frozenset(folded[i : i + SHINGLE] for i in range(max(1, len(folded) - SHINGLE + 1)))


def _folded(text: str) -> str:
    plain = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text))
    return plain.translate(_SMALL_KANA)
