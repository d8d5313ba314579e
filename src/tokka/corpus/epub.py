"""EPUB → one `Document`: its chapters in the order of the book's spine, read as HTML.

>>> [document] = read(File(Path("handbook.epub"), "handbook.epub"))
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from tokka.corpus.documents import build
from tokka.corpus.html import page_of
from tokka.corpus.limits import File
from tokka.corpus.zipped import broken, opened, refuse_entities, unpacked
from tokka.errors import ItemError
from tokka.extras import require
from tokka.records import Document, Dropped

_CONTAINER = "META-INF/container.xml"
_FONTS = re.compile(r"\.(?:otf|ttf|woff2?)$", re.I)  # their scrambling hides no text


def read(file: File) -> Iterator[Document | Dropped]:
    """A chapter that can't be read is Dropped. Raises ItemError for a broken or encrypted book."""
    with opened(file, "epub") as archive:
        _refuse_locked(file, archive)
        container = _xml(file, archive, _CONTAINER)
        roots = [node.get("full-path") for node in container.iter() if _is(node, "rootfile")]
        if not roots or not roots[0]:
            raise ItemError(f"epub: {file.id} names no book; save it again or list it under skip")
        book = _xml(file, archive, roots[0])
        folder = posixpath.dirname(roots[0])
        places = {
            node.get("id"): posixpath.normpath(
                posixpath.join(folder, unquote(node.get("href") or ""))
            )
            for node in book.iter()
            if _is(node, "item")
        }
        spine = [places.get(node.get("idref")) for node in book.iter() if _is(node, "itemref")]
        texts = []
        for place in spine:
            file.watch.alive()
            if place is None:
                continue
            try:
                text = page_of(unpacked(file, archive, place), f"{file.id}/{place}").text
            except ItemError as error:
                why, _, action = str(error).partition("; ")
                if not why.endswith(" is empty"):  # covers hold a picture
                    item = f"{file.id}/{place}"
                    yield Dropped(item=item, reason=why, stage="read", next_action=action)
                continue
            if text.strip():
                texts.append(text.strip("\n"))
        facts = {name: _fact(book, name) for name in ("title", "creator", "publisher", "date")}
    yield build(
        "\n\n".join(texts) + "\n",
        file.id,
        title=facts["title"],
        language=file.language,
        metadata={
            "author": facts["creator"],
            "publisher": facts["publisher"],
            "date": facts["date"],
        },
    )


def _xml(file: File, archive: zipfile.ZipFile, name: str) -> Any:
    data = unpacked(file, archive, name)
    refuse_entities(file, "epub", data)
    etree = require("lxml.etree", extra="read")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise broken(file, "epub", error) from error


def _refuse_locked(file: File, archive: zipfile.ZipFile) -> None:
    if "META-INF/encryption.xml" not in archive.namelist():
        return
    locked = _xml(file, archive, "META-INF/encryption.xml")
    places = [node.get("URI") or "" for node in locked.iter() if _is(node, "CipherReference")]
    if any(not _FONTS.search(place) for place in places):
        raise ItemError(
            f"epub: {file.id} is encrypted against copying; get it without, or list it under skip"
        )


def _is(node: Any, name: str) -> bool:
    return isinstance(node.tag, str) and node.tag.rpartition("}")[2] == name


def _fact(book: Any, name: str) -> str:
    return next(("".join(node.itertext()) for node in book.iter() if _is(node, name)), "")
