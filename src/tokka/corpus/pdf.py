"""PDF → one `Document` with the offset at which each page starts.

Columns and tables are put in order by `layout`; PDFium's own text is taken where there are none. It
breaks a paragraph at every printed line. Lines of Japanese are joined again where a full
line runs on into the next: a sentence cut in two is found and cited badly.

>>> [document] = read(File(Path("rules.pdf"), "rules.pdf"))
>>> document.text[document.page_starts[1] :]  # page 2 and what follows
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tokka.corpus import ocr
from tokka.corpus.documents import build
from tokka.corpus.encoding import tidy
from tokka.corpus.limits import File
from tokka.corpus.printed import arrange_page, has_picture
from tokka.errors import ItemError
from tokka.extras import require
from tokka.records import Document, Dropped

_CJK = "぀-ヿ㐀-鿿豈-﫿ｦ-ﾟ、。，．「」『』（）・％"
_RUNS_ON = re.compile(f"[{_CJK}0-9０-９]$")
_STARTS_NEW = re.compile(
    r"\s*(?:[・●○◆■□※*|-]|[(（]?[0-9０-９一二三四五六七八九十]{1,3}(?:[)）、\s]|[.．](?!\d))|第.{1,8}[編章節款条項号])"
)
_FULL_LINE = 0.75
_HYPHEN = re.compile("[\ufffe\x02]\n?")
_NO_TEXT = re.compile("[\ue000-\uf8ff\ufffd\\s]")


def read(file: File) -> Iterator[Document | Dropped]:
    """Raises ItemError for an encrypted or broken file, one of too many pages, and one without a
    text layer that isn't to be read by OCR.

    A page that holds pictures and no text in an otherwise readable file is Dropped by number.
    """
    pages, pictures, facts = _pages(file)
    if not any(_NO_TEXT.sub("", page) for page in pages):
        raise ItemError(
            f"pdf: {file.id} holds pictures only, no text ({len(pages)} pages)"
            + (
                "; scan it again, or list it under skip"
                if file.settings.ocr
                else f"; install tesseract and set documents: {{ocr: true}} ({ocr.HOW}), or list "
                "it under skip"
            )
        )
    for number in pictures:
        yield Dropped(
            item=f"{file.id}#page={number}",
            reason=f"pdf: page {number} of {file.id} is a picture without text",
            stage="read",
            next_action="" if file.settings.ocr else "set documents: {ocr: true}",
        )
    starts, parts, offset = [], [], 0
    for page in pages:
        starts.append(offset)
        parts.append(page + "\n")
        offset += len(page) + 1
    yield build(
        "".join(parts),
        file.id,
        language=file.language,
        page_starts=tuple(starts),
        metadata={
            "author": facts.get("Author"),
            "subject": facts.get("Subject"),
            "date": _date(facts.get("ModDate") or facts.get("CreationDate") or ""),
        },
    )


def _pages(file: File) -> tuple[list[str], list[int], dict[str, str]]:
    """The text of each page, the numbers of the pages that only show pictures, and what the file
    says of itself."""
    pdfium = require("pypdfium2", extra="read")
    if not file.path.stat().st_size:
        raise ItemError(f"read: {file.id} is empty; fill it or list it under skip")
    try:
        pdf = pdfium.PdfDocument(file.path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise ItemError(
                f"pdf: {file.id} is encrypted; decrypt it or list it under skip"
            ) from error
        raise ItemError(
            f"pdf: {file.id} is broken ({error}); export it again or list it under skip"
        ) from error
    texts, pictures = [], []
    try:
        if len(pdf) > file.settings.max_pages:
            raise ItemError(
                f"pdf: {file.id} has {len(pdf):,} pages, more than the limit of "
                f"{file.settings.max_pages:,}; split it, or raise documents: max_pages"
            )
        facts = pdf.get_metadata_dict(skip_empty=True)
        for number in range(1, len(pdf) + 1):
            file.watch.alive()
            try:
                page = pdf[number - 1]
                text = _page_text(page)
                if not _NO_TEXT.sub("", text) and has_picture(page):
                    text = ocr.read_page(page, file) if file.settings.ocr else text
                    if not text:
                        pictures.append(number)
                page.close()
            except pdfium.PdfiumError as error:
                raise ItemError(
                    f"pdf: page {number} of {file.id} is broken ({error}); "
                    "export it again or list it under skip"
                ) from error
            texts.append(text)
    finally:
        pdf.close()
    return texts, pictures, facts


def _date(text: str) -> str:
    """ISO, of D:20240401093000+09'00'."""
    found = re.match(r"(?:D:)?(\d{4})(\d\d)(\d\d)", text)
    return "-".join(found.groups()) if found else ""


def _page_text(page: Any) -> str:
    text_page = page.get_textpage()
    text = tidy(text_page.get_text_bounded())
    blocks = arrange_page(page, text_page) if text.strip() else []
    text_page.close()
    # U+FFFE and U+0002 are PDFium's marks for a word hyphenated at the line's end.
    if not blocks:
        text = _HYPHEN.sub("", text)
        return join_lines(line.rstrip() for line in text.strip("\n").split("\n"))
    parts = []
    for block in blocks:
        whole = _HYPHEN.sub("", tidy("\n".join(block.lines)))
        parts.append(whole if block.table else join_lines(iter(whole.split("\n"))))
    return "\n".join(parts)


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
