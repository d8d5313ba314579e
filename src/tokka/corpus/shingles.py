"""Texts of any script → hashes of their shingles: what near duplicates are found by.

A unit is a word, or one character where the script sets no spaces (Japanese, Chinese, Thai, …); a
shingle is five units in a row, so a mixed text needs no decision about its language. Width, case,
punctuation and invisible characters make no difference. A Python loop takes a microsecond for each
shingle; whole batches go through numpy here, about 50 times as fast.

>>> shingles(["融資は300万円まで。", "融資は３００万円　まで"]).rows()    # 融 資 は 300 万 円 ま で
"""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]

SIZE = 5  # words as in Lee et al. 2022 (section 4.2), and as many characters
_SEPARATOR, _SPACE, _WORD, _SINGLE, _IGNORED = range(5)
_WITHOUT_SPACES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # CJK radicals, kana, bopomofo
    (0x3190, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),  # old kana
    (0x20000, 0x323AF),
)
_VARIATION_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_NUMERALS = "〇一二三四五六七八九十百千万億兆"
_CODES = sys.maxunicode + 1
_LETTERS_END = 0x20000  # beyond: ideographs, marks and what is not assigned
_STEP = np.uint64(0x9E3779B97F4A7C15)
_PIECE = 1 << 16  # units and shingles are hashed in pieces that a processor's cache holds
_LONGEST_WORD = 1 << 12


@dataclass(frozen=True, slots=True)
class Shingles:
    """`hashes[offsets[i]:offsets[i + 1]]` are text i's, in its order and with repetitions; none
    where it has no letter and no digit. `digests[i]`, two numbers, is a hash of the text itself, so
    is `numbers[i]` of the numbers in it, whatever their order."""

    hashes: Hashes
    offsets: Places
    digests: Hashes
    numbers: Hashes

    def rows(self) -> list[Hashes]:
        return [self.hashes[a:b] for a, b in pairwise(self.offsets.tolist())]


def shingles(texts: Sequence[str], size: int = SIZE) -> Shingles:
    """The shingles of each text; a text of fewer than `size` units is one shingle.

    Two different shingles have the same hash once in 2**64. The digest is of the text after NFKC,
    with one space for any white space within it. Needs about 25 bytes for each character of
    `texts`.
    """
    codes, begins = _codes(texts)
    classes = _tables().classes[codes]
    ignored = classes == _IGNORED
    if ignored.any():
        begins = begins - np.concatenate([[0], np.cumsum(ignored)])[begins]
        codes, classes = codes[~ignored], classes[~ignored]
    digests = _digests(codes, classes == _SPACE, begins)
    units, figures, starts = _units(codes, classes)
    first = np.searchsorted(starts, begins)
    sums = np.concatenate([_none(1), np.cumsum(figures, dtype=np.uint64)])
    hashes, offsets = _joined(units, first, size)
    return Shingles(hashes, offsets, digests, sums[first[1:]] - sums[first[:-1]])


def _codes(texts: Sequence[str]) -> tuple[Codes, Places]:
    """Code points of all texts after NFKC, a line feed behind each; where each begins, and the
    end."""
    codes, begins = _plain(texts)
    tables = _tables()
    odd = np.flatnonzero(tables.odd[codes])
    if len(odd):
        texts = list(texts)
        owners = np.searchsorted(begins, odd, side="right") - 1
        for at in np.unique(owners).tolist():
            texts[at] = _normalised(texts[at], (odd[owners == at] - begins[at]).tolist())
        codes, begins = _plain(texts)
    return tables.nfkc[codes], begins


def _normalised(text: str, odd: list[int]) -> str:
    """NFKC where it is more than exchanging single characters: at `odd`, with the character before.

    unicodedata.normalize would take 100 ns for each character of a Japanese law.
    """
    if len(odd) * 8 > len(text):
        return unicodedata.normalize("NFKC", text)
    parts: list[str] = []
    done = at = 0
    while at < len(odd):
        begin = max(odd[at] - 1, done)
        end = odd[at] + 1
        at += 1
        while at < len(odd) and odd[at] <= end:  # also one apart: it may join what this becomes
            end = odd[at] + 1
            at += 1
        parts += (text[done:begin], unicodedata.normalize("NFKC", text[begin:end]))
        done = end
    return "".join([*parts, text[done:]])


def _plain(texts: Sequence[str]) -> tuple[Codes, Places]:
    whole = "\n".join([*texts, ""])
    lengths = np.array([0, *(len(text) + 1 for text in texts)], dtype=np.int64)
    encoded = whole.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(encoded, dtype="<u4"), np.cumsum(lengths)


def _digests(codes: Codes, space: npt.NDArray[np.bool_], begins: Places) -> Hashes:
    keep = ~space
    keep[1:] |= ~space[:-1]  # the first of several spaces; not one that a text begins with
    kept = np.where(space, np.uint32(32), codes)[keep]
    places = np.concatenate([[0], np.cumsum(keep)])[begins]
    found = np.empty((len(begins) - 1, 2), dtype=np.uint64)
    for row, (start, end) in enumerate(pairwise(places.tolist())):
        text = kept[start : end - (end > start and kept[end - 1] == 32)]
        digest = hashlib.blake2b(text.tobytes(), digest_size=16).digest()
        found[row] = np.frombuffer(digest, dtype="<u8")
    return found


def _units(codes: Codes, classes: npt.NDArray[np.uint8]) -> tuple[Hashes, Hashes, Places]:
    """A hash for each unit, the same again where it holds a digit and else 0, where it starts."""
    tables = _tables()
    all_units, all_figures, all_starts = [_none()], [_none()], [np.zeros(0, dtype=np.int64)]
    for begin, end in _pieces(classes):
        some, kinds = codes[begin:end], classes[begin:end]
        word = kinds == _WORD
        first = word.copy()
        first[1:] &= ~word[:-1]
        starts = np.flatnonzero(first | (kinds == _SINGLE))
        units, digit = tables.mixed[some[starts]], tables.digits[some[starts]]
        if first.any():
            letters = some[word]
            begins = np.flatnonzero(first[word])  # of words, among the letters
            within = np.arange(len(letters)) - np.repeat(
                begins, np.diff(np.append(begins, len(letters)))
            )
            # A word's hash is Σ letter_i · STEP^i modulo 2**64 (Karp and Rabin 1987).
            terms = tables.mixed[letters] * _powers()[within & (_LONGEST_WORD - 1)]
            words = first[starts]
            units[words] = _mixed(np.add.reduceat(terms, begins))
            digit[words] = np.logical_or.reduceat(tables.digits[letters], begins)
        all_units.append(units)
        all_figures.append(np.where(digit, units, np.uint64(0)))
        all_starts.append(starts + begin)
    return np.concatenate(all_units), np.concatenate(all_figures), np.concatenate(all_starts)


def _pieces(classes: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Stretches of about `_PIECE` characters that cut no word (unless it is longer than that)."""
    begin = 0
    while begin < len(classes):
        end = begin + _PIECE
        if end < len(classes):
            end += int(np.argmax(classes[end : end + _PIECE] != _WORD))
        yield begin, min(end, len(classes))
        begin = end


def _joined(units: Hashes, first: Places, size: int) -> tuple[Hashes, Places]:
    """Σ unit_i · STEP^i over each `size` units in a row of a text, and where each text's begin.

    Text i has the units from `first[i]` to `first[i + 1]`.
    """
    has = np.diff(first)
    counts = np.where(has > 0, np.maximum(has - size + 1, 1), 0)
    if (has < size).any():  # empty places behind short texts
        short = np.where(has > 0, np.maximum(size - has, 0), 0)
        units = np.insert(units, np.repeat(first[1:], short), np.uint64(0))
        has = has + short
    sums = np.empty(max(0, len(units) - size + 1), dtype=np.uint64)
    for begin in range(0, len(sums), _PIECE):
        piece = sums[begin : begin + _PIECE]
        piece[:] = units[begin + size - 1 : begin + size - 1 + len(piece)]
        for step in reversed(range(size - 1)):
            piece *= _STEP
            piece += units[begin + step : begin + step + len(piece)]
        piece[:] = _mixed(piece)
    # Those that reach from one text into the next are none.
    ends = np.cumsum(has)[has > 0]
    inside = np.ones(len(sums), dtype=np.bool_)
    for step in range(1, size):
        inside[ends[:-1] - step] = False
    return sums[inside], np.concatenate([[0], np.cumsum(counts)])


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the sum reaches every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)


def _none(count: int = 0) -> Hashes:
    return np.zeros(count, dtype=np.uint64)


@cache
def _powers() -> Hashes:
    powers = np.full(_LONGEST_WORD, _STEP, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class _Tables:
    """By code point: what it becomes by NFKC, what it is, a hash of it without its case, whether it
    is a numeral. `odd` are those that become several or join with what stands before them."""

    nfkc: Codes
    odd: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]
    mixed: Hashes
    digits: npt.NDArray[np.bool_]


@cache
def _tables() -> _Tables:
    nfkc = np.arange(_CODES, dtype=np.uint32)
    folded = np.arange(1, _CODES + 1, dtype=np.uint64)
    odd, digits = np.zeros((2, _CODES), dtype=np.bool_)
    classes = np.full(_CODES, _SEPARATOR, dtype=np.uint8)
    marks = [*range(_LETTERS_END), *range(0x2F800, 0x2FA20)]  # with CJK compatibility ideographs
    for code in marks:
        character = chr(code)
        normal = unicodedata.normalize("NFKC", character)
        if len(normal) == 1:
            nfkc[code] = ord(normal)
        # A combining mark, or the vowel or end of a syllable in Korean, joins what is before it.
        joins = any(unicodedata.combining(c) for c in normal) or 0x1160 <= ord(normal[0]) < 0x1200
        odd[code] = len(normal) != 1 or joins
        kind = unicodedata.category(character)
        if character.isspace():
            classes[code] = _SPACE
        elif kind[0] in "LMN":
            classes[code] = _WORD
            digits[code] = kind == "Nd"
            lower = character.casefold()
            folded[code] = ord(lower) + 1 if len(lower) == 1 else code + 1
        elif kind == "Cf":
            classes[code] = _IGNORED
    for begin, end in _WITHOUT_SPACES:
        span = classes[begin : end + 1]
        span[(span == _WORD) | (begin >= _LETTERS_END)] = _SINGLE
    for begin, end in _VARIATION_SELECTORS:
        classes[begin : end + 1] = _IGNORED
    digits[[ord(numeral) for numeral in _NUMERALS]] = True
    return _Tables(nfkc, odd, classes, _mixed(folded * _STEP), digits)
