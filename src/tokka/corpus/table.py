"""CSV and TSV → one `Document` whose every line is one row, with the header repeated.

A row alone then says what its numbers mean and can be cited: `区分: 窓口 | 手数料: 330円`.

>>> [document] = read(File(Path("fees.csv"), "fees.csv"))
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from tokka.corpus.documents import build
from tokka.corpus.encoding import decode
from tokka.corpus.limits import File
from tokka.errors import ItemError
from tokka.records import Document

_DELIMITERS = ",\t;"


def read(file: File) -> Iterator[Document]:
    """The first row is the header. Raises ItemError without data rows or with a broken quote."""
    rows = _rows(decode(file.data(), file.id), file.id)
    if len(rows) < 2:
        raise ItemError(
            f"csv: {file.id} has {len(rows)} rows, needs a header and at least one more; "
            "fill it or list it under skip"
        )
    header, *body = rows
    lines = (labelled(header, row) for row in body)
    yield build(
        "\n".join(line for line in lines if line) + "\n",
        file.id,
        title=PurePosixPath(file.id).stem,
        language=file.language,
    )


def _rows(text: str, document_id: str) -> list[list[str]]:
    first_line = text.lstrip().split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=lambda mark: (first_line.count(mark), mark == ","))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ItemError(
            f"csv: line {reader.line_num} of {document_id}: {error}; correct the quotes there"
        ) from error


def labelled(header: list[str], row: list[str]) -> str:
    """`name: cell | name: cell` of a row, without its empty cells."""
    names = [
        " ".join(header[i].split()) if i < len(header) and header[i].strip() else f"column {i + 1}"
        for i in range(len(row))
    ]
    cells = (" ".join(cell.split()) for cell in row)
    return " | ".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True) if cell)
