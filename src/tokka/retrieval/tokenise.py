"""Text → search tokens: SudachiPy words for Japanese, stemmed Unicode words for the rest.

White-space tokens are useless for Japanese: such an index matches nothing and still returns hits.

>>> tokens("附属の規程を確認しなければならない。", "ja")
['付属', '規程', '確認', '為る', '成る']
>>> tokens("The limits were raised", "en")
['the', 'limit', 'were', 'rais']
"""

from __future__ import annotations

import importlib.metadata
import re
import threading
import unicodedata
from collections.abc import Iterator
from typing import Any

from tokka.extras import require

_LATIN_STEMMERS = {
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "tr": "turkish",
}
# Scripts written without spaces: thai, lao, kana, han; hangul stays in words.
_UNSPACED = "฀-๿຀-໿぀-ヿ㐀-鿿豈-﫿"
_WORD = re.compile(rf"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])\w)+(?:[.,]\d+)*")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]")
_SILENT = ("助詞", "助動詞")
# What a question is made of, whatever it asks. Without these words more of JaQuAD's passages come
# first (0.3 points of 100), and the longest postings needn't be read.
OF_QUESTIONS = {
    "ja": frozenset((
        "何", "誰", "いつ", "何時", "どこ", "何処", "どれ", "何れ", "どの", "どちら", "幾ら",
        "どう", "どんな", "どのような", "何故", "為る", "居る", "有る", "成る", "言う", "こと",
        "事", "物",
    )),
}  # fmt: skip
# SudachiPy takes at most 49,149 bytes: 12,000 characters of at most 4 bytes.
_PIECE_CHARACTERS = 12_000
_LONGEST_TOKEN = 80

_of_thread = threading.local()


def tokeniser_version(language: str) -> str:
    """What decides the tokens of a language: an index is only searched with what built it."""
    packages = ("sudachipy", "sudachidict-core") if language == "ja" else ("snowballstemmer",)
    return " ".join(f"{name}=={importlib.metadata.version(name)}" for name in packages)


def tokens(text: str, language: str) -> list[str]:
    """Tokens in order, repeats kept, without white space in them. `language`: "ja", "en", "de", …

    Text is brought to NFKC and lower case first. For Japanese: mode A (shortest) units in
    normalized form without particles, auxiliaries and punctuation. Elsewhere: words, stemmed where
    Snowball knows the language; runs of kana or kanji among them become character pairs.
    """
    text = unicodedata.normalize("NFKC", text)
    found = _japanese(text) if language == "ja" else _words(text.lower(), language)
    return ["_".join(token.split())[:_LONGEST_TOKEN] for token in found if token.strip()]


def places(text: str, language: str) -> Iterator[tuple[str, int, int]]:
    """The tokens of a text that is in NFKC already, each with its place: text[start:end] is the
    word that became the token."""
    if language == "ja":
        first = 0
        for piece in _pieces(text):
            for morpheme in _sudachi().tokenize(piece):
                if morpheme.part_of_speech()[0] not in _SILENT:
                    form = morpheme.normalized_form().lower()
                    yield form, first + morpheme.begin(), first + morpheme.end()
            first += len(piece)
        return
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)  # İ would grow
    for match in _WORD.finditer(lower):
        if _UNSPACED_RUN.match(match[0]):
            for start in range(match.start(), max(match.start() + 1, match.end() - 1)):
                yield lower[start : min(start + 2, match.end())], start, min(start + 2, match.end())
        else:
            yield from ((form, *match.span()) for form in _words(match[0], language))


def _japanese(text: str) -> Iterator[str]:
    tokenizer = _sudachi()
    for piece in _pieces(text):
        for morpheme in tokenizer.tokenize(piece):
            if morpheme.part_of_speech()[0] in _SILENT:
                continue
            form = morpheme.normalized_form().lower()
            if any(character.isalnum() for character in form):
                yield form


def _sudachi() -> Any:
    """One tokenizer per thread: SudachiPy's can't be shared."""
    if not hasattr(_of_thread, "tokenizer"):
        sudachi = require("sudachipy", extra="retrieval")
        require("sudachidict_core", extra="retrieval")
        dictionary = sudachi.Dictionary(dict="core")
        _of_thread.tokenizer = dictionary.create(mode=sudachi.SplitMode.A)
    return _of_thread.tokenizer


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = max(text.rfind(mark, start + _PIECE_CHARACTERS // 2, end) for mark in "\n。、 ")
        end = cut + 1 if cut >= 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _words(text: str, language: str) -> Iterator[str]:
    stem = _stemmer(language)
    for word in _WORD.findall(text):
        if _UNSPACED_RUN.match(word):
            yield from (word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            word = re.sub(r"(?<=\d),(?=\d)", "", word)
            yield stem(word) if stem else word


def _stemmer(language: str) -> Any:
    """Snowball's stemmer, one per thread and language; None where there is none."""
    if language not in _LATIN_STEMMERS:
        return None
    stemmers: dict[str, Any] = _of_thread.__dict__.setdefault("stemmers", {})
    if language not in stemmers:
        library = require("snowballstemmer", extra="retrieval")
        stemmers[language] = library.stemmer(_LATIN_STEMMERS[language]).stemWord
    return stemmers[language]
