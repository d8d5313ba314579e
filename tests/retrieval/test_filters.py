"""A search keeps to documents with the wanted facts, and still finds as many as there are."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import UsageError
from tokka.records import Caller, DocumentFacts, RetrievalSpec
from tokka.retrieval.filters import Wanted, valid_on


def _facts(**more: Any) -> DocumentFacts:
    plain = {"document_id": "a.md", "source": "loans/a.md", "title": "融資規程", "language": "ja"}
    return DocumentFacts(**(plain | more))


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ({}, True),
        ({"language": "ja"}, True),
        ({"language": "en"}, False),
        ({"source": "loans/*"}, True),
        ({"source": "loans/"}, False),
        ({"source": "costs/*"}, False),
        ({"document_id": "a.md", "language": "ja"}, True),
        ({"document_id": "a.md", "language": "en"}, False),
        ({"licence": "CC-BY-4.0"}, True),
        ({"department": "融資"}, True),
        ({"department": "融*"}, True),
        ({"department": "総務"}, False),
        ({"branch": "*"}, False),
    ],
)
def test_all_wanted_facts_must_hold(where: dict[str, str], matches: bool) -> None:
    facts = _facts(licence="CC-BY-4.0", metadata={"department": "融資"})
    assert Wanted.read(where).matches(facts) is matches


@pytest.mark.parametrize(
    ("valid_from", "valid_to", "holds"),
    [
        (None, None, True),
        ("2026-04-01", None, True),
        ("2026-04-02", None, False),
        (None, "2026-04-01", True),
        (None, "2026-03-31", False),
        ("2026-04", "2026-04", True),
        ("2026", "2026", True),
        (None, "2026-03", False),
        ("2027", None, False),
        ("soon", None, False),
        (None, "2026-02-30", False),
    ],
)
def test_both_ends_of_validity_count_and_a_month_means_all_its_days(
    valid_from: str | None, valid_to: str | None, holds: bool
) -> None:
    facts = _facts(valid_from=valid_from, valid_to=valid_to)
    assert valid_on(facts, datetime.date(2026, 4, 1)) is holds


def test_a_day_that_cant_be_read_is_named() -> None:
    with pytest.raises(UsageError, match="valid_on takes a day such as 2026-04-01, got '4/1'"):
        Wanted.read({"valid_on": "4/1"})


@pytest.fixture
def index(built: Any, new_piece: Any, new_facts: Any, tmp_path: Path) -> Any:
    chunks = [new_piece(f"d{i:02d}", f"融資の規程。第{i}号") for i in range(40)]
    facts = new_facts(chunks)
    for i, name in enumerate(facts):
        facts[name] = facts[name].model_copy(
            update={
                "language": "ja" if i % 4 else "en",
                "valid_from": f"{2000 + i}-01-01",
                "access": ("board",) if i % 2 else (),
            }
        )
    return built(tmp_path / "i", chunks, documents=facts)


@pytest.mark.parametrize("spec", [RetrievalSpec(dense=False), RetrievalSpec(lexical=False)])
def test_as_many_are_found_as_there_are(index: Any, spec: RetrievalSpec) -> None:
    spec = spec.model_copy(update={"candidates": 1})
    english = spec.model_copy(update={"where": {"language": "en"}})
    found = index.search("融資", 10, english)
    assert sorted(p.document_id for p in found) == [f"d{i:02d}" for i in range(0, 40, 4)]
    early = spec.model_copy(update={"where": {"valid_on": "2002-06-30"}})
    assert sorted(p.document_id for p in index.search("融資", 9, early)) == ["d00", "d01", "d02"]
    assert index.search("融資", 9, spec.model_copy(update={"where": {"licence": "MIT"}})) == []


def test_filters_and_access_hold_together(index: Any) -> None:
    early = RetrievalSpec(where={"valid_on": "2003-06-30"})
    found = index.search("融資", 9, early, Caller(labels=()))
    assert sorted(p.document_id for p in found) == ["d00", "d02"]


def test_a_filter_leaves_the_scores_as_they_are(index: Any) -> None:
    spec = RetrievalSpec(pairs=0)  # which are counted among what was found
    plain = {p.chunk_id: p.lexical for p in index.search("融資の第8号", 40, spec)}
    english = spec.model_copy(update={"where": {"language": "en"}})
    some = index.search("融資の第8号", 40, english)
    assert some
    assert all(p.lexical == plain[p.chunk_id] for p in some)
