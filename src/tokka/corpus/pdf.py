"""PDF → one `Document` with the offset at which each page starts.

PDFium breaks a paragraph at every printed line. Lines of Japanese are joined again where a full
line runs on into the next: a sentence cut in two is found and cited badly.

>>> [document] = read(Path("rules.pdf"), "rules.pdf", "")
>>> document.text[document.page_starts[1] :]  # page 2 and what follows
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokka.corpus.documents import build
from tokka.corpus.encoding import tidy
from tokka.errors import ItemError
from tokka.extras import require
from tokka.records import Document, Dropped

_CJK = "぀-ヿ㐀-鿿豈-﫿ｦ-ﾟ、。，．「」『』（）・％"
_RUNS_ON = re.compile(f"[{_CJK}0-9０-９]$")
_STARTS_NEW = re.compile(
    r"\s*(?:[・●○◆■□※*|-]|[(（]?[0-9０-９一二三四五六七八九十]{1,3}(?:[)）、\s]|[.．](?!\d))|第.{1,8}[編章節款条項号])"
)
_FULL_LINE = 0.75
_NO_TEXT = re.compile("[\ue000-\uf8ff\ufffd\\s]")


def read(path: Path, document_id: str, language: str) -> Iterator[Document | Dropped]:
    """Raises ItemError for an encrypted or broken file and for one without a text layer.

    A page that holds pictures and no text in an otherwise readable file is Dropped by number.
    """
    data = path.read_bytes()
    if not data:
        raise ItemError(f"read: {document_id} is empty; fill it or list it under skip")
    pages, pictures = _pages(data, document_id)
    if not any(_NO_TEXT.sub("", page) for page in pages):
        raise ItemError(
            f"pdf: {document_id} has no text layer ({len(pages)} pages); "
            "run OCR over it or list it under skip"
        )
    for number in pictures:
        yield Dropped(
            item=f"{document_id}#page={number}",
            reason=f"pdf: page {number} of {document_id} is a picture without text",
            stage="read",
            next_action="run OCR over it",
        )
    starts, parts, offset = [], [], 0
    for page in pages:
        starts.append(offset)
        parts.append(page + "\n")
        offset += len(page) + 1
    yield build("".join(parts), document_id, language=language, page_starts=tuple(starts))


def _pages(data: bytes, document_id: str) -> tuple[list[str], list[int]]:
    """The text of each page, and the numbers of the pages that only show pictures."""
    pdfium = require("pypdfium2", extra="read")
    try:
        pdf = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise ItemError(
                f"pdf: {document_id} is encrypted; decrypt it or list it under skip"
            ) from error
        raise ItemError(
            f"pdf: {document_id} is broken ({error}); export it again or list it under skip"
        ) from error
    texts, pictures = [], []
    try:
        for number in range(1, len(pdf) + 1):
            try:
                page = pdf[number - 1]
                text = _page_text(page)
                is_picture = not text and _has_picture(page, pdfium.raw.FPDF_PAGEOBJ_IMAGE)
                page.close()
            except pdfium.PdfiumError as error:
                raise ItemError(
                    f"pdf: page {number} of {document_id} is broken ({error}); "
                    "export it again or list it under skip"
                ) from error
            texts.append(text)
            if is_picture:
                pictures.append(number)
    finally:
        pdf.close()
    return texts, pictures


def _page_text(page: Any) -> str:
    text_page = page.get_textpage()
    text = tidy(text_page.get_text_bounded())
    text_page.close()
    # U+FFFE and U+0002 are PDFium's marks for a word hyphenated at the line's end.
    text = re.sub("[\ufffe\x02]\n?", "", text)
    return join_lines(line.rstrip() for line in text.strip("\n").split("\n"))


def join_lines(lines: Iterator[str]) -> str:
    """Join each full line of Japanese with the line that continues it; keep all other breaks."""
    kept = list(lines)
    longest = max(map(len, kept), default=0)
    out = ""
    previous = ""
    for line in kept:
        continues = (
            previous
            and line
            and len(previous) >= _FULL_LINE * longest
            and not previous.endswith(("。", "．", "：", ":"))
            and _RUNS_ON.search(previous)
            and re.match(f"[{_CJK}0-9０-９]", line.lstrip())
            and not _STARTS_NEW.match(line)
        )
        if continues:
            out += line.lstrip()
        else:
            out += ("\n" if out else "") + line
        previous = line
    return out


def _has_picture(page: Any, image_type: int) -> bool:
    return any(item.type == image_type for item in page.get_objects(max_depth=3))
