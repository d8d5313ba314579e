"""Personal data: precision and recall of tokka's recognisers beside Presidio's own, by kind.

Two sets: 1,500 English sentences by the authors of Presidio (presidio-research, MIT), read from the
data folder, and 320 Japanese sentences in pii_ja.jsonl beside this file, written for tokka.

python benchmarks/pii.py [--data FOLDER] [--misses]

A marked text is found when findings of its kind cover at least half of its characters; a finding is
right when at least half of its characters are marked as its kind. `bare` are marked texts of which
some character would stay in a masked document. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import public_data

from tokka.corpus.personal import Finding, Kind, Protector
from tokka.corpus.personal.analysing import MODELS
from tokka.stats.intervals import wilson

JAPANESE = Path(__file__).parent / "pii_ja.jsonl"
# What presidio-research marks and what that is to tokka. The rest it marks (a country, a company, a
# date, an age, a title, a nationality, a web address) identifies nobody by itself: a finding there
# counts neither way.
OF_RESEARCH: dict[str, Kind] = {
    "PERSON": "name",
    "STREET_ADDRESS": "address",
    "ZIP_CODE": "address",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "bank_account",
    "US_SSN": "social_security",
    "US_DRIVER_LICENSE": "driving_licence",
    "IP_ADDRESS": "ip_address",
}
BESIDE_THE_POINT = {
    "GPE": "address",
    "ORGANIZATION": "name",
    "TITLE": "name",
    "NRP": "name",
    "DATE_TIME": "birth_date",
}
# Presidio's own entities; LOCATION is the nearest that it has to an address.
OF_PRESIDIO: dict[str, Kind] = {
    "PERSON": "name",
    "LOCATION": "address",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "bank_account",
    "US_BANK_NUMBER": "bank_account",
    "US_SSN": "social_security",
    "US_ITIN": "social_security",
    "US_DRIVER_LICENSE": "driving_licence",
    "US_PASSPORT": "passport",
    "IP_ADDRESS": "ip_address",
}
_MARK = re.compile(r"\{([a-z_]+)\|([^}]*)\}")


class Span(NamedTuple):
    kind: str
    start: int
    end: int


class Case(NamedTuple):
    """`open_spans` are neither wanted nor wrong."""

    id: str
    split: str
    text: str
    spans: tuple[Span, ...]
    open_spans: tuple[Span, ...] = ()


@dataclass
class Count:
    """`marked` of the set, `found` of those, `bare` of those; `reported`, `right` of those."""

    marked: int = 0
    found: int = 0
    bare: int = 0
    reported: int = 0
    right: int = 0
    misses: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def shares(self) -> dict[str, Any]:
        return {
            "marked": self.marked,
            "reported": self.reported,
            "precision": _share(self.right, self.reported),
            "recall": _share(self.found, self.marked),
            "bare": self.bare,
        }


def japanese(path: Path = JAPANESE) -> list[Case]:
    """The Japanese set: `{kind|text}` marks personal data."""
    return [unmarked(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def unmarked(id: str, split: str, marked: str) -> Case:
    text, spans, position = "", [], 0
    for mark in _MARK.finditer(marked):
        text += marked[position : mark.start()]
        spans.append(Span(mark[1], len(text), len(text) + len(mark[2])))
        text += mark[2]
        position = mark.end()
    return Case(id, split, text + marked[position:], tuple(spans))


def research(folder: Path) -> list[Case]:
    """presidio-research's sentences; those of a template share a split, even ones are dev."""
    rows = json.loads(
        gzip.decompress((folder / "presidio_research/synth_dataset_v2.json.gz").read_bytes())
    )
    cases = []
    for n, row in enumerate(rows):
        marked = [(s["entity_type"], s["start_position"], s["end_position"]) for s in row["spans"]]
        cases.append(
            Case(
                f"research-{n}",
                "dev" if row["template_id"] % 2 == 0 else "test",
                row["full_text"],
                tuple(Span(OF_RESEARCH[k], a, b) for k, a, b in marked if k in OF_RESEARCH),
                tuple(
                    Span(BESIDE_THE_POINT[k], a, b) for k, a, b in marked if k in BESIDE_THE_POINT
                ),
            )
        )
    return cases


def count(cases: Sequence[Case], findings: Sequence[Sequence[Finding]]) -> dict[str, Count]:
    """By kind, and "all" for the sum."""
    counts: dict[str, Count] = {"all": Count()}
    for case, found in zip(cases, findings, strict=True):
        covered = {i for f in found for i in range(f.start, f.end)}
        for span in case.spans:
            places = _places(span)
            ours = {i for f in found if f.kind == span.kind for i in range(f.start, f.end)}
            hit = 2 * len(places & ours) >= len(places)
            solid = {i for i in places if not case.text[i].isspace()}
            for row in (counts["all"], counts.setdefault(span.kind, Count())):
                row.marked += 1
                row.found += hit
                row.bare += not solid <= covered
            if not hit:
                counts[span.kind].misses.append(f"{case.id}: {case.text}")
        for finding in found:
            places = set(range(finding.start, finding.end))
            marked = _all_places(case.spans, finding.kind)
            right = 2 * len(places & marked) >= len(places)
            if not right and places & _all_places(case.open_spans, finding.kind):
                continue
            for row in (counts["all"], counts.setdefault(finding.kind, Count())):
                row.reported += 1
                row.right += right
            if not right:
                what = case.text[finding.start : finding.end]
                counts[finding.kind].wrong.append(f"{case.id}: {what!r} in {case.text}")
    return counts


def _places(span: Span) -> set[int]:
    return set(range(span.start, span.end))


def _all_places(spans: Sequence[Span], kind: str) -> set[int]:
    return {i for span in spans if span.kind == kind for i in _places(span)}


def _share(part: int, whole: int) -> dict[str, float] | None:
    if not whole:
        return None
    interval = wilson(part, whole)
    return {
        "value": round(part / whole, 3),
        "low": round(interval.low, 3),
        "high": round(interval.high, 3),
    }


def plain_presidio(language: str) -> Callable[[Sequence[str]], list[list[Finding]]]:
    """Presidio as its documentation sets it up, with the models that tokka uses."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from spacy.util import is_package

    # Its e-mail recogniser would fetch the list of public suffixes; the one in the package will do.
    tldextract.extract = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    model = next(name for name in MODELS[language] if is_package(name))
    people = {"Person": "PERSON", "City": "LOCATION", "Province": "LOCATION"}
    people |= {"Postal_Address": "LOCATION", "Country": "LOCATION"}
    configuration = None
    if language == "ja":
        configuration = NerModelConfiguration(model_to_presidio_entity_mapping=people)
    nlp = SpacyNlpEngine([{"lang_code": language, "model_name": model}], configuration)
    nlp.load()
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language], nlp_engine=nlp)
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=[language])

    def find(texts: Sequence[str]) -> list[list[Finding]]:
        return [
            [
                Finding(OF_PRESIDIO[r.entity_type], r.start, r.end, r.score)
                for r in engine.analyze(text, language)
                if r.entity_type in OF_PRESIDIO
            ]
            for text in texts
        ]

    return find


def measure(name: str, cases: Sequence[Case], language: str, show: bool) -> dict[str, Any]:
    texts = [case.text for case in cases]
    protector = Protector("report")
    protector.find_all(texts[:1], language)  # loads
    results: dict[str, Any] = {}
    finders = {
        "tokka": lambda given: protector.find_all(given, language),
        "presidio": plain_presidio(language),
    }
    for who, find in finders.items():
        started = time.perf_counter()
        found = find(texts)
        seconds = time.perf_counter() - started
        results[who] = {"characters_per_second": round(sum(map(len, texts)) / seconds)}
        for split in ("dev", "test"):
            chosen = [n for n, case in enumerate(cases) if case.split == split]
            counts = count([cases[n] for n in chosen], [found[n] for n in chosen])
            results[who][split] = {kind: c.shares() for kind, c in sorted(counts.items())}
            _print(f"{name}, {split}, {who} ({len(chosen)} sentences)", counts)
            if show and who == "tokka" and split == "dev":
                for kind, c in counts.items():
                    print(*(f"  missed {kind} {line}" for line in c.misses), sep="\n")
                    print(*(f"  wrong {kind} {line}" for line in c.wrong), sep="\n")
    return results


def _print(title: str, counts: dict[str, Count]) -> None:
    print(f"\n{title}")
    print(f"{'kind':18} {'marked':>6} {'recall':>22} {'reported':>8} {'precision':>22} {'bare':>5}")
    for kind, c in sorted(counts.items()):
        recall, precision = _share(c.found, c.marked), _share(c.right, c.reported)
        print(
            f"{kind:18} {c.marked:6} {_cell(recall):>22} {c.reported:8} {_cell(precision):>22} "
            f"{c.bare:5}"
        )


def _cell(share: dict[str, float] | None) -> str:
    return f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]" if share else "–"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    public_data.add_data_option(options)
    options.add_argument("--misses", action="store_true", help="show what went wrong on dev")
    options.add_argument("--only", choices=("ja", "en"))
    given = options.parse_args()
    results = {}
    if given.only != "en":
        results["japanese"] = measure("Japanese set", japanese(), "ja", given.misses)
    folder = public_data.data_folder(given.data) if given.only != "ja" else None
    if folder and not (folder / "presidio_research").is_dir():
        print(f"\n{folder} holds no presidio_research (github.com/microsoft/presidio-research)")
    elif folder:
        results["presidio_research"] = measure(
            "presidio-research", research(folder), "en", given.misses
        )
    print(json.dumps(results, ensure_ascii=False))


if __name__ == "__main__":
    main()
