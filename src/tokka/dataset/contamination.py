"""Exam questions in documents and training examples, in whatever way they got there.

Questions and a stream of texts → `Overlap`s, at most one for a pair, the strongest kind first:

- **verbatim, near, copied**: as in `tokka.dataset.decontamination`; these spoil an exam
  (`LEAVES_OUT`);
- **words-13**: runs of 13 words of the question stand in the text (Brown et al. 2020, appendix C),
  here 30 % of them; **words-8**: 70 % of its runs of 8 words do (Chowdhery et al. 2022, section 8);
- **characters-25**: 30 % of the runs of 25 characters, where words aren't spaced. Debian's
  Reference has 1.9 characters in Japanese for each word of its English, so that is as much text as
  13 words. Any one run, as in that appendix, would be the long name of a statute;
- **paraphrase**: something that asks in the text means the same (needs an embedder).

The last four are for a person to look at: a question on a statute quotes it, and a question near in
meaning may be another question. `overlap` is the share of the question's runs, or the cosine. Runs
that more than a tenth of the questions share (and more than three) are boilerplate.

    for found in contamination(questions, ((d.id, d.text) for d in documents)):
        if found.kind in LEAVES_OUT: …
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tokka.dataset.asked import Asked, Numbers, tokens_of
from tokka.dataset.decontamination import Standing, by_script, standing
from tokka.models.protocol import Embedder

Kind = Literal["verbatim", "near", "copied", "words-13", "words-8", "characters-25", "paraphrase"]
LEAVES_OUT: frozenset[Kind] = frozenset({"verbatim", "near", "copied"})
LONG_RUNS_SHARE = 0.3
EIGHT_WORDS_SHARE = 0.7
PARAPHRASE_COSINE = 0.96
_EXCERPT = 120
_BATCH = 256  # askings embedded in one go
_LONGEST_ASKING = 400
_SENTENCE = re.compile(r"[^。．？！?!\n]*(?:[。．？！!\n]|\?(?!\w))?")
_ASKS = re.compile(
    r"[?？]|(?:か|なさい|ください|下さい|せよ|述べよ|答えよ|どれ|何|いくら)[。．」\s]*$"
    r"|^\W*(?:what|which|who|whom|whose|when|where|why|how|name|list|state|explain|describe|give|"
    r"is|are|was|were|do|does|did|can|could|may|must|should|will|would)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """`excerpt` is what stands in the text, at most about 120 characters of it."""

    question_id: str
    item_id: str
    kind: Kind
    overlap: float
    excerpt: str


def contamination(
    questions: Mapping[str, str],
    texts: Iterable[tuple[str, str]],
    *,
    embedder: Embedder | None = None,
) -> Iterator[Overlap]:
    """Every pair of a question and a text that overlap.

    `questions` maps ids to what is asked, without options; `texts` are ids and plain text, read
    once. Text by text in their order, questions by id within each; with an embedder, paraphrases
    follow a few texts later. 20 million characters against 1,000 questions take about a minute
    without embeddings.
    """
    scripts = by_script(questions)
    asking = _Paraphrases(questions, embedder) if embedder and questions else None
    for item, text in texts:
        found: dict[str, Overlap] = {}
        for asked in scripts:
            tokens = tokens_of(text, asked.spaced)
            encoded = asked.encoded(tokens)
            excerpts = _Excerpts(text, asked.spaced)
            for one in standing(asked, text, tokens, encoded):
                name = asked.ids[one.question]
                said = excerpts.of(one.span) if one.span else _short_line(text, asked, one)
                found[name] = Overlap(name, item, one.kind, one.overlap, said)
            for overlap in _runs(asked, item, encoded, excerpts):
                found.setdefault(overlap.question_id, overlap)
        yield from (found[name] for name in sorted(found))
        if asking:
            yield from asking.add(item, text, frozenset(found))
    if asking:
        yield from asking.finish()


def _runs(asked: Asked, item: str, encoded: Numbers, excerpts: _Excerpts) -> Iterator[Overlap]:
    measures: tuple[tuple[Kind, int, float], ...] = (
        (("words-13", 13, LONG_RUNS_SHARE), ("words-8", 8, EIGHT_WORDS_SHARE))
        if asked.spaced
        else (("characters-25", 25, LONG_RUNS_SHARE),)
    )
    for kind, size, least in measures:
        totals = asked.runs(size, boilerplate=False).totals
        for run in asked.runs_in(encoded, size):
            share = run.count / int(totals[run.question])
            if share >= least:
                said = excerpts.of((run.first, run.first + size))
                name = asked.ids[run.question]
                yield Overlap(name, item, kind, round(share, 4), said)


def _short_line(text: str, asked: Asked, one: Standing) -> str:
    """The line of a text that is a short question."""
    wanted = asked.tokens[one.question]
    lines = (line for line in text.splitlines() if tokens_of(line, asked.spaced) == wanted)
    return next(lines, "").strip()[:_EXCERPT]


class _Excerpts:
    """Places among the tokens of a text → what stands there as written."""

    def __init__(self, text: str, spaced: bool) -> None:
        self._text, self._spaced = text, spaced
        self._begins: npt.NDArray[np.int64] | None = None

    def of(self, span: tuple[int, int]) -> str:
        if self._begins is None:
            self._begins = self._token_begins()
        if not len(self._begins):
            return ""
        last = len(self._begins) - 1
        begin = int(self._begins[min(span[0], last)])
        end = int(self._begins[min(span[1] - 1, last)]) + 1
        while self._spaced and end < len(self._text) and self._text[end].isalnum():
            end += 1
        said = " ".join(self._text[begin:end].split())
        return said if len(said) <= _EXCERPT else said[: _EXCERPT - 1] + "…"

    def _token_begins(self) -> npt.NDArray[np.int64]:
        if self._spaced:
            return np.array([word.start() for word in re.finditer(r"\w+", self._text)], np.int64)
        each = [len(tokens_of(c, False)) for c in self._text]
        return np.repeat(np.arange(len(each)), each)


# ---- the same meaning in other words -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asking:
    item: str
    text: str
    known: frozenset[str]  # questions already found in that text


class _Paraphrases:
    """What asks in the texts, compared with the questions a batch at a time. Both sides are
    embedded as queries: the task is symmetric (Wang et al. 2024, Multilingual E5, section 3)."""

    def __init__(self, questions: Mapping[str, str], embedder: Embedder) -> None:
        self._embedder = embedder
        self._ids = sorted(questions)
        self._numbers = [_numbers(questions[name]) for name in self._ids]
        self._vectors = embedder.queries([questions[name] for name in self._ids])
        self._waiting: list[_Asking] = []

    def add(self, item: str, text: str, known: frozenset[str]) -> Iterator[Overlap]:
        self._waiting += [_Asking(item, asking, known) for asking in askings(text)]
        if len(self._waiting) >= _BATCH:
            yield from self.finish()

    def finish(self) -> Iterator[Overlap]:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        cosines = self._embedder.queries([one.text for one in waiting]) @ self._vectors.T
        best: dict[tuple[str, str], Overlap] = {}
        for row, column in np.argwhere(cosines >= PARAPHRASE_COSINE):
            one, name = waiting[row], self._ids[column]
            if name in one.known or _numbers(one.text) != self._numbers[column]:
                continue
            found = Overlap(
                name, one.item, "paraphrase", round(float(cosines[row, column]), 4), one.text
            )
            earlier = best.get((one.item, name))
            if earlier is None or earlier.overlap < found.overlap:
                best[one.item, name] = found
        yield from best.values()


def askings(text: str) -> list[str]:
    """The sentences of a text that ask something, and the lines that hold more than that."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        sentences = [s.strip() for s in _SENTENCE.findall(line) if s.strip()]
        asking = [s for s in sentences if _ASKS.search(s) and len(s) <= _LONGEST_ASKING]
        if asking:
            found.update(dict.fromkeys(asking))
            if len(line) <= _LONGEST_ASKING:
                found[line.strip()] = None
    return list(found)


def _numbers(text: str) -> Sequence[str]:
    return sorted(_NUMBER.findall(unicodedata.normalize("NFKC", text)))
