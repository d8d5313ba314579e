"""The exception tree, and `boundary()`: one item's failure is data, a broken run stops.

Every message says what was wrong, the value, and the next action. Each class carries the exit code
that the CLI returns for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TokkaError(Exception):
    """Anything that tokka says on purpose; the CLI prints it without a traceback."""

    exit_code = 1


class UsageError(TokkaError):
    """A wrong option or project file."""

    exit_code = 2


class Mistakes(UsageError):
    """Several mistakes in one file, reported together. `items` are finished sentences."""

    def __init__(self, title: str, items: list[str]) -> None:
        self.title, self.items = title, list(items)
        super().__init__(title + "\n" + "\n".join(f"  - {item}" for item in items))


class GateRefused(TokkaError):
    exit_code = 3


class WaitingForApproval(TokkaError):
    exit_code = 4


class ItemError(TokkaError):
    """One document, example or question failed; the others go on."""

    exit_code = 5


class ServiceError(TokkaError):
    """An endpoint failed after retries."""

    exit_code = 5


class IntegrityError(TokkaError):
    """A digest, a lock or a record isn't what it should be."""

    exit_code = 6


class MissingExtra(UsageError):
    """A heavy library is not installed."""


@contextmanager
def boundary(failures: list[tuple[str, str]], item: str) -> Iterator[None]:
    """Turn one item's failure into a row of `failures` and go on; a run-wide failure passes
    through.

    >>> failures = []
    >>> with boundary(failures, "a.pdf"):
    ...     raise ItemError("pdf: page 3 of a.pdf is encrypted; decrypt it")
    """
    try:
        yield
    except (IntegrityError, UsageError, MemoryError):
        raise
    except Exception as error:  # one item must never stop the run, whatever a parser throws
        reason = str(error) if isinstance(error, TokkaError) else f"{type(error).__name__}: {error}"
        failures.append((item, reason))
