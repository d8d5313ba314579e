"""What reading one file gave, kept on disk: documents and what was left out, a line each.

The last line counts them, so that a file cut short by a kill is told from a finished one. A file
that failed as a whole is marked to be read again: its disk, network or permission may be back.

>>> write_rows(path, rows, again=lambda: False)
>>> list(read_rows(path)) if is_whole(path) else None
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tokka.records import Document, Dropped


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    document: Document | None = None
    dropped: Dropped | None = None
    end: int | None = None
    again: bool = False


def write_rows(
    path: Path, rows: Iterable[Document | Dropped], again: Callable[[], bool] = lambda: False
) -> None:
    """All or nothing, streamed. `again` is asked at the end whether this is to be read anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for row in rows:
                kind = "document" if isinstance(row, Document) else "dropped"
                file.write(f'{{"{kind}":{row.model_dump_json()}}}\n')
                count += 1
            file.write(json.dumps({"end": count, "again": again()}) + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_rows(path: Path) -> Iterator[Document | Dropped]:
    with path.open("rb") as file:
        for line in file:
            row = _Row.model_validate_json(line)
            if (found := row.document or row.dropped) is not None:
                yield found


def is_whole(path: Path) -> bool:
    """Finished, and not to be read again."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 100))
            last = file.read().splitlines()[-1]
        return json.loads(last).get("again") is False
    except (OSError, ValueError, IndexError, AttributeError):
        return False
