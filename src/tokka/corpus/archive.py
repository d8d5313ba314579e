"""A zipped folder → the documents in it, with ids `archive.zip/inner/path`.

>>> [d.id for d in read(File(Path("rules.zip"), "rules.zip"))]
['rules.zip/loans/limits.md']
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tokka.corpus.formats import Member, read_members
from tokka.corpus.limits import File
from tokka.corpus.places import clean
from tokka.corpus.zipped import leads_outside, name_of, opened, unpack_to
from tokka.errors import ItemError
from tokka.records import Document, Dropped


def read(file: File) -> Iterator[Document | Dropped]:
    """Members in the order of their names. Raises ItemError for a broken archive, one with too many
    members, and one without a document."""
    with opened(file, "zip") as archive:
        infos = [(clean(name_of(i)), i) for i in archive.infolist() if not i.is_dir()]
        if not infos:
            raise ItemError(f"zip: {file.id} is empty; fill it or list it under skip")
        members = (
            Member(name.lstrip("/"), partial(_write, file, archive, info))
            for name, info in sorted(infos, key=lambda pair: pair[0])
        )
        yield from read_members(file, members)


def _write(file: File, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    name = name_of(info)
    if leads_outside(name):
        raise ItemError(
            f"zip: {file.id} has a member named {clean(name)}, which leads outside of it; "
            "pack the archive again"
        )
    unpack_to(file, archive, info, target)
