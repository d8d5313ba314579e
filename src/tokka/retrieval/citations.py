"""Which passage an answer rests on: found after answering, among the passages of its prompt.

Answer + passages → `Citation`s. A small base model writes no `[1]`, so each sentence of the answer
is looked up in the sentences of the passages: its words weighted by their rarity there, and every
number of it must occur. Deterministic, no model. Words are what is compared, not meaning: support
1.0 says that the cited words contain the answer's, not that they prove it.

>>> attribute("300万円です。", passages, "ja", question="融資の限度額は？")
(Citation(passage=1, …, start=120, end=148, answer_start=0, answer_end=8, support=1.0),)
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokka.records import Citation, Passage
from tokka.retrieval.claims import Claim, claims, holds
from tokka.retrieval.tokenise import tokens

THRESHOLD = 0.5
_SECOND_SENTENCE_COSTS = 0.15  # a wider span must support clearly more
_TITLE_CHARACTERS = 200
# A sentence or a line. corpus/ splits with more care; here a cut too many only narrows a citation.
_STATEMENT = re.compile(r"[^\n]+?(?:[。！？!?]+[」』）)]*|\.(?=\s)|(?=\n)|$)\s*", re.MULTILINE)
_PREAMBLE = re.compile(
    r"\s*(?:(?:A|Answer|答え|回答|答)\s*[:：]\s*)?(?:[-・*•]\s*|[(（]?\d{1,2}[.)．）]\s+)?", re.I
)
_FILLERS = (
    "a an and are as at be been by for from has have in is it of on or that the this to was were "
    "will with must shall 為る 有る 成る 居る 因る 事 物 此れ 其れ"
)
SAYS_NOTHING = frozenset(_FILLERS.split())


class CitationScores(NamedTuple):
    """None where there is nothing to divide by."""

    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class _Place:
    """One or two neighbouring sentences of a passage; `words` and what `holds` says are in them."""

    passage: Passage
    start: int
    end: int
    sentences: int
    words: frozenset[str]
    holds: Callable[[Claim], bool]


def attribute(
    answer_text: str, passages: Sequence[Passage], language: str, question: str = ""
) -> tuple[Citation, ...]:
    """For each sentence of the answer the span that supports it best, if any reaches 0.5.

    support = Σ weight(words of the sentence that stand in the span) / Σ weight(all its words), with
    weight(w) = ln(1 + N / df(w)), N the passages' sentences, df the number that hold w, and ½ where
    none does. A sentence with a number or a date cites only spans that hold it, in any spelling
    (3,000,000円 = 300万円, 令和6年4月1日 = 2024-04-01; but 3日 is not 3回). One span is one
    sentence, or two where the second adds 0.15. Equal support is decided by the
    words of `question`, then by the passage's number. `start` and `end` are document offsets.
    """
    places = [place for passage in passages for place in _places(passage, language)]
    single = [place for place in places if place.sentences == 1]
    frequency = Counter(word for place in single for word in place.words)
    asked = words_of(question, language)
    wanted_in = {p.number: _share(asked, _whole(p, language), frequency, 1) for p in passages}
    citations = []
    for begin, end in statements(answer_text):
        said = _PREAMBLE.sub("", answer_text[begin:end], count=1)
        claimed = claims(said)
        figures: list[Claim] = [*claimed.dates, *claimed.amounts]
        words = words_of(said, language)
        plain = _plain(said)
        if not plain or not (words or figures):
            continue
        best: tuple[tuple[float, float, int, int], _Place, float] | None = None
        for place in places:
            if not all(map(place.holds, figures)):
                continue
            support = _share(words, place.words, frequency, len(single)) if words else 1.0
            if len(plain) > 1 and plain in _plain(_text(place)):
                support = 1.0
            if support < THRESHOLD:
                continue
            near = _share(asked, place.words, frequency, len(single))
            rank = (
                round(support - _SECOND_SENTENCE_COSTS * (place.sentences - 1), 6),
                round(near + 0.5 * wanted_in[place.passage.number], 6),
                -place.passage.number,
                -place.start,
            )
            if best is None or rank > best[0]:
                best = (rank, place, support)
        if best is not None:
            citations.append(_citation(best[1], begin, end, best[2]))
    return tuple(citations)


def citation_scores(
    citations: Sequence[Citation],
    passages: Sequence[Passage],
    gold_document_ids: Collection[str],
    gold: Collection[str] = (),
) -> CitationScores:
    """Citation precision and recall by what the exam says holds the answer, not by entailment.

    ALCE (Gao et al. 2023) asks a model whether each statement is entailed by its citations (recall)
    and whether each citation is needed (precision). Here the exam names gold documents, or in
    `gold` the very words: precision is the share of citations to one of them, None without
    citations; recall is the share of those among them that stood in the prompt and were cited, None
    where none stood there (that failure is the search's: `recall_at_k`). A citation is to the words
    if the one holds the other, in letters and digits. Both are None without gold.
    """
    if gold:
        return _scores_by_words(citations, passages, gold)
    wanted = set(gold_document_ids)
    if not wanted:
        return CitationScores(None, None)
    cited = [citation.document_id for citation in citations]
    citable = wanted & {passage.document_id for passage in passages}
    precision = sum(document in wanted for document in cited) / len(cited) if cited else None
    recall = len(citable & set(cited)) / len(citable) if citable else None
    return CitationScores(precision, recall)


def cited_text(citation: Citation, passages: Sequence[Passage]) -> str:
    """The words that a citation points to; empty where its passage isn't among `passages`."""
    for passage in passages:
        if passage.number == citation.passage:
            return passage.text[citation.start - passage.start : citation.end - passage.start]
    return ""


def _scores_by_words(
    citations: Sequence[Citation], passages: Sequence[Passage], gold: Collection[str]
) -> CitationScores:
    wanted = {plain for text in gold if (plain := _plain(text))}
    cited = [plain for one in citations if (plain := _plain(cited_text(one, passages)))]
    shown = [_plain(passage.text) for passage in passages]
    citable = {text for text in wanted if any(text in passage for passage in shown)}
    right = [any(text in one or one in text for text in wanted) for one in cited]
    found = {text for text in citable if any(text in one or one in text for one in cited)}
    return CitationScores(
        sum(right) / len(right) if right else None,
        len(found) / len(citable) if citable else None,
    )


def recall_at_k(passages: Sequence[Passage], gold_document_ids: Collection[str]) -> float:
    """The share of the gold documents that the passages come from, k being their number.

    Raises ValueError without gold documents: such a question has no recall.
    """
    gold = set(gold_document_ids)
    if not gold:
        raise ValueError("recall_at_k: the question names no gold documents; leave it out")
    return len(gold & {passage.document_id for passage in passages}) / len(gold)


def _places(passage: Passage, language: str) -> Iterator[_Place]:
    spans = list(statements(passage.text))
    for index, (start, end) in enumerate(spans):
        yield _place(passage, start, end, 1, language)
        if index + 1 < len(spans):
            after = spans[index + 1][1]
            # Rows of a table are facts of their own: two of them support what neither says.
            if " | " not in passage.text[start:after]:
                yield _place(passage, start, after, 2, language)


def _place(passage: Passage, start: int, end: int, count: int, language: str) -> _Place:
    text = passage.text[start:end]
    return _Place(passage, start, end, count, words_of(text, language), holds(text))


def statements(text: str) -> Iterator[tuple[int, int]]:
    """Spans of sentences and lines, without the white space around them."""
    for found in _STATEMENT.finditer(text):
        piece = found[0].strip()
        if piece:
            start = found.start() + len(found[0]) - len(found[0].lstrip())
            yield start, start + len(piece)


@functools.lru_cache(maxsize=8192)
def words_of(text: str, language: str) -> frozenset[str]:
    """Search tokens that say something; numbers are compared by value and left out here."""
    return frozenset(
        word
        for word in tokens(text, language)
        if word not in SAYS_NOTHING and not re.fullmatch(r"[\d.,]+", word)
    )


def _whole(passage: Passage, language: str) -> frozenset[str]:
    return words_of(passage.title[:_TITLE_CHARACTERS], language) | words_of(passage.text, language)


def _share(
    wanted: frozenset[str], held: frozenset[str], frequency: Counter[str], places: int
) -> float:
    weights = {w: math.log(1 + max(places, 1) / (frequency[w] or 0.5)) for w in sorted(wanted)}
    total = sum(weights.values())
    return sum(weight for word, weight in weights.items() if word in held) / total if total else 0.0


def _plain(text: str) -> str:
    """Letters and digits only, in NFKC and lower case."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return "".join(character for character in folded if character.isalnum())


def _text(place: _Place) -> str:
    return place.passage.text[place.start : place.end]


def _citation(place: _Place, begin: int, end: int, support: float) -> Citation:
    first, last = place.passage.start + place.start, place.passage.start + place.end
    chunk_id, page = _chunk_of(place.passage, first, last)
    return Citation(
        passage=place.passage.number,
        chunk_id=chunk_id,
        document_id=place.passage.document_id,
        page=page,
        start=first,
        end=last,
        answer_start=begin,
        answer_end=end,
        support=round(min(support, 1.0), 6),
    )


def _chunk_of(passage: Passage, start: int, end: int) -> tuple[str, int | None]:
    """Id and page of the chunk that holds most of a span; the first of equals."""
    if not passage.parts:
        return passage.chunk_id, passage.page
    held = max(passage.parts, key=lambda part: min(end, part[2]) - max(start, part[1]))
    return held[0], held[3]
