"""Keep a search to documents with certain facts: language, licence, source, validity, metadata.

{"language": "ja", "source": "loans/*", "valid_on": "2026-04-01", "department": "融資"}: all must
hold. A `*` at the end of a value stands for any ending. `valid_on` takes a day; a document without
`valid_from` always was valid, one without `valid_to` still is. Any other name is one of the
documents' metadata; a document without it doesn't match.

>>> Wanted.read({"source": "loans/*"}).matches(facts)
True
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tokka.errors import UsageError
from tokka.records import DocumentFacts

OF_DOCUMENTS = ("document_id", "language", "licence", "source", "title")
VALID_ON = "valid_on"

_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `where` asks for, read once and held against many documents."""

    values: tuple[tuple[str, str], ...]
    day: datetime.date | None

    @classmethod
    def read(cls, where: Mapping[str, str]) -> Wanted:
        """Raises UsageError for a `valid_on` that is no day."""
        day = None
        if VALID_ON in where:
            try:
                day = datetime.date.fromisoformat(where[VALID_ON])
            except ValueError:
                raise UsageError(
                    f"retrieval: where: valid_on takes a day such as 2026-04-01, got "
                    f"{where[VALID_ON]!r}"
                ) from None
        return cls(tuple((k, v) for k, v in sorted(where.items()) if k != VALID_ON), day)

    def matches(self, facts: DocumentFacts) -> bool:
        return all(_has(facts, name, value) for name, value in self.values) and (
            self.day is None or valid_on(facts, self.day)
        )


def valid_on(facts: DocumentFacts, day: datetime.date) -> bool:
    """Both ends count; a month or a year alone stands for all of its days. A date that can't be
    read is taken as not valid: better no passage than a wrong one."""
    first, last = _span(facts.valid_from), _span(facts.valid_to)
    if (facts.valid_from and first is None) or (facts.valid_to and last is None):
        return False
    return (first is None or first[0] <= day) and (last is None or day <= last[1])


def _has(facts: DocumentFacts, name: str, value: str) -> bool:
    found = getattr(facts, name) if name in OF_DOCUMENTS else facts.metadata.get(name)
    if found is None:
        return False
    return bool(found.startswith(value[:-1]) if value.endswith("*") else found == value)


def _span(text: str | None) -> tuple[datetime.date, datetime.date] | None:
    match = _DATE.fullmatch(text.strip()) if text else None
    if match is None:
        return None
    year, month, day = (int(part) if part else None for part in match.groups())
    assert year is not None  # the pattern's first group always takes part
    try:
        low = datetime.date(year, month or 1, day or 1)
        end = month or 12
        return low, datetime.date(year, end, day or calendar.monthrange(year, end)[1])
    except ValueError:
        return None
