"""Find exam questions that stand, word for word or nearly, in training examples or documents.

Plain strings in, `Leak`s out. A shared name, term or turn of phrase is no leak: the exam and the
documents speak of the same things. A question leaks into a text when one of these holds, after
NFKC, case folding and removal of spaces and punctuation:

- **verbatim**: the question stands in the text (one under 8 characters or 4 words must be a whole
  line of it);
- **near**: edits worth at most a tenth of the question turn it into some stretch of the text that
  holds the same numbers. A character (word, where words are spaced) weighs 1; a hiragana or an
  English function word weighs ¼, and costs ¼ to add, ½ to change, 1 to leave out: a question whose
  asking part is missing is a statement of the fact, which documents and examples are for;
- **copied**: 80 % of the question's windows of 13 characters (8 words) stand in the text, and so do
  its numbers. Windows that a tenth of the questions share are boilerplate and don't count.

>>> leaks({"q1": "店長の決裁限度額はいくらですか。"}, {"ex9": "問：店長の決裁限度額はいくらですか"})
[Leak(question_id='q1', item_id='ex9', overlap=1.0, kind='verbatim')]
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tokka.records import Dropped, Example

NEAR_SIMILARITY = 0.9
COPIED_SHARE = 0.8
WINDOW_CHARACTERS = 13
WINDOW_WORDS = 8
_SHORT_CHARACTERS, _SHORT_WORDS = 8, 4
_CANDIDATE_SHARE = 0.4  # of short grams: only such pairs are aligned
_MIN_SEGMENT = 240
_LIGHT, _LIGHT_CHANGE = 0.25, 0.5
_CJK = re.compile(r"[\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_HIRAGANA = re.compile(r"[\u3041-\u309f]")
_WORD = re.compile(r"\w+")
_NUMBERS = re.compile(r"\d+|[一二三四五六七八九十百千万億]+")
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an the of in on at to for by with from as is are was were be do does did and or that "
        "which this it its there please"
    )
)

Kind = Literal["verbatim", "near", "copied"]


@dataclass(frozen=True, slots=True)
class Leak:
    """`overlap` is 1 for verbatim, the similarity for near, the share of windows for copied."""

    question_id: str
    item_id: str
    overlap: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Kept:
    """What `refuse_leaks` let through, and what it left out with the reason."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]


def leaks(questions: Mapping[str, str], texts: Mapping[str, str]) -> list[Leak]:
    """Every pair of question and text that leaks, strongest kind first within a pair (one a pair).

    `questions` and `texts` map ids to plain text; options belong to neither. Sorted by question id,
    then item id. Time grows with the length of the texts, hardly with the number of questions.
    """
    found: list[Leak] = []
    for spaced in (False, True):
        group = {key: text for key, text in questions.items() if _is_spaced(text) == spaced}
        found.extend(_leaks_of_one_script(group, texts, spaced))
    return sorted(found, key=lambda leak: (leak.question_id, leak.item_id))


def refuse_leaks(examples: Sequence[Example], question_texts: Mapping[str, str]) -> Kept:
    """Leave out the examples in which an exam question stands, and say which and why.

    `question_texts` maps question ids to what is asked; an example counts with all its messages.
    """
    texts = {example.id: "\n".join(m.content for m in example.messages) for example in examples}
    by_example: dict[str, Leak] = {}
    for leak in leaks(question_texts, texts):
        by_example.setdefault(leak.item_id, leak)
    dropped = tuple(
        Dropped(
            item=f"example {example.id}",
            reason=f"exam question {by_example[example.id].question_id} stands in it "
            f"({by_example[example.id].kind}, overlap {by_example[example.id].overlap:.2f})",
            stage="dataset",
            next_action="reword the example so that it teaches the fact and not the question",
        )
        for example in examples
        if example.id in by_example
    )
    return Kept(tuple(e for e in examples if e.id not in by_example), dropped)


@dataclass(frozen=True, slots=True)
class _Asked:
    id: str
    tokens: tuple[str, ...]
    grams: frozenset[tuple[str, ...]]
    windows: frozenset[tuple[str, ...]]
    short: bool


def _leaks_of_one_script(
    questions: Mapping[str, str], texts: Mapping[str, str], spaced: bool
) -> Iterator[Leak]:
    asked = _prepare(questions, spaced)
    if not asked:
        return
    size, window = (2, WINDOW_WORDS) if spaced else (3, WINDOW_CHARACTERS)
    whole_lines: dict[tuple[str, ...], list[int]] = defaultdict(list)
    by_gram: dict[tuple[str, ...], list[int]] = defaultdict(list)
    by_window: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, question in enumerate(asked):
        if question.short:
            whole_lines[question.tokens].append(index)
            continue
        for gram in question.grams:
            by_gram[gram].append(index)
        for gram in question.windows:
            by_window[gram].append(index)
    longest = max(len(question.tokens) for question in asked)
    for item, text in texts.items():
        best: dict[int, tuple[float, Kind]] = {}
        if whole_lines:
            for line in text.splitlines():
                for index in whole_lines.get(_tokens(line, spaced), ()):
                    best[index] = (1.0, "verbatim")
        tokens = _tokens(text, spaced)
        for segment in _segments(tokens, max(_MIN_SEGMENT, 3 * longest), longest * 6 // 5):
            shared = _shared(segment, size, by_gram)
            for index, count in shared.items():
                question = asked[index]
                if count >= _CANDIDATE_SHARE * len(question.grams):
                    overlap = _similarity(question.tokens, segment, spaced)
                    if overlap > best.get(index, (0.0, ""))[0]:
                        best[index] = (overlap, "verbatim" if overlap == 1.0 else "near")
        for index, count in _shared(tokens, window, by_window).items():
            share = count / len(asked[index].windows)
            if share < COPIED_SHARE or index in best:
                continue
            wanted = Counter(_numbers(asked[index].tokens, spaced))
            if not wanted - Counter(_numbers(tokens, spaced)):
                best[index] = (share, "copied")
        for index, (overlap, kind) in best.items():
            yield Leak(asked[index].id, item, round(overlap, 4), kind)


def _prepare(questions: Mapping[str, str], spaced: bool) -> list[_Asked]:
    size, window, short = (
        (2, WINDOW_WORDS, _SHORT_WORDS) if spaced else (3, WINDOW_CHARACTERS, _SHORT_CHARACTERS)
    )
    tokenised = {
        key: tokens for key, text in questions.items() if (tokens := _tokens(text, spaced))
    }
    spread = Counter(gram for tokens in tokenised.values() for gram in _grams(tokens, window))
    boilerplate = max(3, len(tokenised) // 10)
    return [
        _Asked(
            key,
            tokens,
            _grams(tokens, size),
            frozenset(g for g in _grams(tokens, window) if spread[g] <= boilerplate),
            len(tokens) < short,
        )
        for key, tokens in tokenised.items()
        if tokens
    ]


def _shared(
    tokens: tuple[str, ...], size: int, index: Mapping[tuple[str, ...], list[int]]
) -> Counter[int]:
    shared: Counter[int] = Counter()
    for gram in _grams(tokens, size):
        if gram in index:
            shared.update(index[gram])
    return shared


def _segments(tokens: tuple[str, ...], length: int, overlap: int) -> Iterator[tuple[str, ...]]:
    step = length - overlap
    for start in range(0, max(1, len(tokens) - overlap), step):
        yield tokens[start : start + length]


def _similarity(question: tuple[str, ...], segment: tuple[str, ...], spaced: bool) -> float:
    """1 − cheapest edits ÷ weight of the question, against any stretch of the segment.

    0 below `NEAR_SIMILARITY`, or where the stretch holds other numbers. Edit distance with a free
    start and end: Sellers (1980), The theory and computation of evolutionary distances.
    """
    weights = [_weight(token) for token in question]
    others = [(token, _weight(token)) for token in segment]
    budget = (1.0 - NEAR_SIMILARITY) * sum(weights) + 1e-9
    costs = [0.0] * (len(segment) + 1)
    starts = list(range(len(segment) + 1))  # where the stretch that ends here began
    for token, weight in zip(question, weights, strict=True):
        above, above_starts = costs, starts
        costs, starts = [above[0] + 1.0], [above_starts[0]]
        for column, (other, other_weight) in enumerate(others):
            changed = _LIGHT_CHANGE if weight == other_weight == _LIGHT else 1.0
            replace = above[column] + (0.0 if other == token else changed)
            delete = above[column + 1] + 1.0
            insert = costs[column] + other_weight
            if replace <= delete and replace <= insert:
                costs.append(replace)
                starts.append(above_starts[column])
            elif delete <= insert:
                costs.append(delete)
                starts.append(above_starts[column + 1])
            else:
                costs.append(insert)
                starts.append(starts[column])
        if min(costs) > budget:
            return 0.0
    end = min(range(len(costs)), key=costs.__getitem__)
    if costs[end] > 0 and _numbers(segment[starts[end] : end], spaced) != _numbers(
        question, spaced
    ):
        return 0.0
    return 1.0 - costs[end] / sum(weights)


def _weight(token: str) -> float:
    return _LIGHT if _HIRAGANA.match(token) or token in _FUNCTION_WORDS else 1.0


def _numbers(tokens: tuple[str, ...], spaced: bool) -> list[str]:
    return sorted(_NUMBERS.findall((" " if spaced else "").join(tokens)))


def _grams(tokens: tuple[str, ...], size: int) -> frozenset[tuple[str, ...]]:
    return frozenset(tokens[i : i + size] for i in range(len(tokens) - size + 1))


def _tokens(text: str, spaced: bool) -> tuple[str, ...]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(words) if spaced else tuple("".join(words))


def _is_spaced(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return len(_CJK.findall(text)) * 5 < letters
