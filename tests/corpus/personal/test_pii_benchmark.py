"""The Japanese set that `make bench-pii` measures on, and how it counts."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tokka.corpus.personal.digits import (
    is_card,
    is_driving_licence,
    is_insurer,
    is_my_number,
    only_digits,
)
from tokka.corpus.personal.findings import KINDS, Finding, fold

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def pii() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))  # it imports its neighbours
    try:
        spec = importlib.util.spec_from_file_location("pii", BENCHMARKS / "pii.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["pii"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_the_set_is_large_halved_and_a_quarter_of_it_holds_nothing(pii: ModuleType) -> None:
    cases = pii.japanese()
    assert len({case.id for case in cases}) == len({case.text for case in cases}) == len(cases)
    assert len(cases) >= 300
    assert Counter(case.split for case in cases) == {"dev": 160, "test": 160}
    assert sum(not case.spans for case in cases) >= len(cases) / 4
    assert {span.kind for case in cases for span in case.spans} == set(KINDS) - {"social_security"}
    assert not any(sign in case.text for case in cases for sign in "{|}")


def test_its_numbers_have_the_check_digits_of_real_ones(pii: ModuleType) -> None:
    valid = {"my_number": is_my_number, "driving_licence": is_driving_licence, "card": is_card}
    seen: Counter[str] = Counter()
    for case in pii.japanese():
        for span in case.spans:
            digits = only_digits(fold(case.text[span.start : span.end]))
            if span.kind in valid:
                assert valid[span.kind](digits), case.id
                seen[span.kind] += 1
            if span.kind == "health_insurance" and "保険者番号" in case.text.split(digits)[0][-9:]:
                seen["insurer"] += "被" not in case.text and is_insurer(digits)
    assert seen["my_number"] >= 6 and seen["card"] >= 5 and seen["driving_licence"] >= 5
    assert seen["insurer"] >= 2


def test_half_of_the_characters_decide_and_a_single_one_left_is_bare(pii: ModuleType) -> None:
    case = pii.unmarked("a", "dev", "宛先は{name|山田太郎}、{phone|03-1234-5678}です")
    name, phone = case.spans
    half = Finding("name", name.start, name.start + 2, 0.8)
    less = Finding("phone", phone.start, phone.start + 5, 0.8)
    wrong = Finding("email", 0, 3, 0.8)
    counts = pii.count([case], [[wrong, half, less]])
    assert (counts["name"].found, counts["name"].bare) == (1, 1)
    assert (counts["phone"].found, counts["phone"].bare) == (0, 1)
    assert (counts["all"].marked, counts["all"].reported, counts["all"].right) == (2, 3, 2)


def test_what_neither_set_judges_counts_neither_way(pii: ModuleType) -> None:
    case = pii.Case("a", "dev", "Paris", (), (pii.Span("address", 0, 5),))
    counts = pii.count([case], [[Finding("address", 0, 5, 0.9)]])
    assert counts["all"].reported == 0
