"""Where a passage says what was searched for: spans to be shown in another colour, and the part of
a long passage that holds most of them.

Words are compared as the index compares them: 貸し付け marks 貸付, 融資 marks ﾕｳｼ no more than the
search finds it.

>>> marks("上限は３００万円。融資の上限は別に定める。", ["融資の上限"], "ja")
((0, 2), (9, 11), (12, 14))
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from tokka.retrieval.citations import SAYS_NOTHING
from tokka.retrieval.tokenise import places, tokens

Span = tuple[int, int]

_SENTENCE, _WORD = re.compile(r"[。．.!?！？\n]+\s*"), re.compile(r"[、，,\s]\s*")
# A character with what NFKC joins to it: combining marks, and the half-width voiced sound marks.
_CLUSTER = re.compile(
    "[^\u0300-\u036f\u3099\u309a\uff9e\uff9f]?[\u0300-\u036f\u3099\u309a\uff9e\uff9f]*"
)


def marks(text: str, queries: Sequence[str], language: str) -> tuple[Span, ...]:
    """(start, end) in `text` of the words that one of the queries holds, in order, without overlap;
    neighbours are joined. Words that say nothing by themselves (the, of, ある) aren't marked."""
    wanted = {token for query in queries for token in tokens(query, language)} - SAYS_NOTHING
    if not wanted:
        return ()
    folded, starts = _folded(text)
    found = [(begin, end) for token, begin, end in places(folded, language) if token in wanted]
    return tuple(_joined([(starts[b], _end(starts, e, len(text))) for b, e in found], text))


def window(text: str, spans: Sequence[Span], characters: int) -> Span:
    """The part of `text`, about so long, in which most marked characters stand; the first such
    part. It begins behind a sentence or a word where one ends near."""
    if len(text) <= characters:
        return 0, len(text)
    begins = [max(0, begin - characters // 8) for begin, _ in spans] or [0]

    def held(begin: int) -> int:
        return sum(end - start for start, end in spans if begin <= start < begin + characters)

    begin = max(begins, key=lambda at: (held(at), -at))
    begin = max(0, min(begin, len(text) - characters))
    end = min(len(text), begin + characters)
    if begin:  # not in the middle of a word, and never behind the first mark
        first = min((start for start, _ in spans if start >= begin), default=end)
        cuts = (cut for rule in (_SENTENCE, _WORD) for cut in rule.finditer(text, begin, first))
        begin = next((cut.end() for cut in cuts), begin)
    return begin, end


def _folded(text: str) -> tuple[str, list[int]]:
    """NFKC, and for each of its characters where in `text` it comes from."""
    if unicodedata.is_normalized("NFKC", text):
        return text, list(range(len(text)))
    folded: list[str] = []
    starts: list[int] = []
    for cluster in _CLUSTER.finditer(text):
        for character in unicodedata.normalize("NFKC", cluster[0]):
            folded.append(character)
            starts.append(cluster.start())
    return "".join(folded), starts


def _end(starts: Sequence[int], end: int, length: int) -> int:
    """Where in the text the folded character before `end` is over: where the next one begins that
    doesn't come from the same place."""
    last = starts[end - 1]
    return next((start for start in starts[end:] if start > last), length)


def _joined(spans: Sequence[Span], text: str) -> list[Span]:
    joined: list[Span] = []
    for begin, end in spans:
        if joined and not text[joined[-1][1] : begin].strip(" "):
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
