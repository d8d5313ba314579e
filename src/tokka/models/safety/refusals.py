"""The one exception of this folder and the words that most of its messages end with.

>>> raise lies(path, "its tensors overlap")
"""

from __future__ import annotations

from pathlib import Path

from tokka.errors import IntegrityError

FETCH = "download it again"


def lies(path: Path, what: str) -> IntegrityError:
    """A file whose header isn't true, or whose end is missing."""
    return IntegrityError(f"{path}: {what}; {FETCH}")


def oversized(path: Path, size: int, most: int) -> IntegrityError:
    return IntegrityError(
        f"{path}: has {size:,} bytes, of which tokka reads at most {most:,}; use a model whose "
        "file of this name is smaller"
    )
