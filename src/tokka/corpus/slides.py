"""PPTX → one `Document`, a slide a page: title, texts as they stand from the top, tables, notes.

>>> [document] = read(File(Path("training.pptx"), "training.pptx"))
>>> document.text[document.page_starts[1] :]  # slide 2 and what follows
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tokka.corpus.documents import build
from tokka.corpus.encoding import tidy
from tokka.corpus.limits import File
from tokka.corpus.zipped import broken, check_package
from tokka.extras import require
from tokka.records import Document

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
_DIAGRAM_DATA = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/diagramData"
_JAPANESE = re.compile("[ぁ-ヿ一-鿿]")
_ROW = 10  # shapes whose tops lie within a tenth of the slide's height stand beside each other


def read(file: File) -> Iterator[Document]:
    """Raises ItemError for an encrypted, broken or empty file."""
    pptx = require("pptx", extra="read")
    check_package(file, "pptx")
    try:
        deck = pptx.Presentation(str(file.path))
        row_height = max(1, (deck.slide_height or _ROW) // _ROW)
        slides = []
        for slide in deck.slides:
            file.watch.alive()
            slides.append(_slide(slide, row_height))
        facts = deck.core_properties
        metadata = {
            "author": facts.author,
            "subject": facts.subject,
            "date": facts.modified.date() if facts.modified else "",
        }
    except Exception as error:  # zipfile, lxml and python-pptx each raise their own
        raise broken(file, "pptx", error) from error
    starts, offset = [], 0
    for text in slides:
        starts.append(offset)
        offset += len(text)
    yield build(
        "".join(slides),
        file.id,
        language=file.language,
        page_starts=tuple(starts),
        metadata=metadata,
    )


def _slide(slide: Any, row_height: int) -> str:
    title = slide.shapes.title
    lines: list[str] = []
    if title is not None and (heading := " ".join(title.text_frame.text.split())):
        lines += ["# " + heading, ""]
    rest = [s for s in slide.shapes if title is None or s.shape_id != title.shape_id]
    rest.sort(key=lambda shape: ((shape.top or 0) // row_height, shape.left or 0))
    for shape in rest:
        if found := list(_shape(shape, slide, row_height)):
            lines += [*found, ""]
    text = tidy(re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n"))
    notes = _notes(slide)
    if notes:
        label = "ノート" if _JAPANESE.search(text + notes) else "Notes"
        text += f"\n\n{label}: {notes}"
    return text + "\n\n"


def _shape(shape: Any, slide: Any, row_height: int) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        inside = sorted(shape.shapes, key=lambda s: ((s.top or 0) // row_height, s.left or 0))
        for inner in inside:
            yield from _shape(inner, slide, row_height)
    elif getattr(shape, "has_table", False):
        yield from _table(shape.table)
    elif getattr(shape, "has_chart", False):
        yield from _chart(shape.chart)
    elif shape.has_text_frame:
        yield from _paragraphs(shape.text_frame)
    else:
        yield from _diagram(shape, slide)


def _paragraphs(frame: Any) -> Iterator[str]:
    for paragraph in frame.paragraphs:
        text = paragraph.text.replace("\v", "\n").strip()
        if text:
            yield "  " * (paragraph.level or 0) + text if paragraph.level else text


def _table(table: Any) -> Iterator[str]:
    """`a | b` for each row; a merged cell's text stands in every row that it covers."""
    above: dict[int, str] = {}
    for row in table.rows:
        cells = []
        for column, cell in enumerate(row.cells):
            tag = cell._tc
            if tag.get("hMerge") in ("1", "true"):
                continue
            if tag.get("vMerge") in ("1", "true"):
                text = above.get(column, "")
            else:
                text = " ".join(cell.text_frame.text.split())
            above[column] = text
            cells.append(text)
        if any(cells):
            yield " | ".join(cell for cell in cells if cell)


def _chart(chart: Any) -> Iterator[str]:
    """Its title, and its numbers as a table."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield chart.chart_title.text_frame.text
    for plot in chart.plots:
        names = [str(name) for name in plot.categories]
        series = list(plot.series)
        yield " | ".join(["", *(str(one.name) for one in series)]).strip(" |")
        for index, name in enumerate(names):
            values = [one.values[index] if index < len(one.values) else None for one in series]
            yield " | ".join([name, *("" if v is None else f"{v:g}" for v in values)])


def _diagram(shape: Any, slide: Any) -> Iterator[str]:
    """SmartArt keeps its words in a part of its own."""
    ids = [node for node in shape._element.iter() if str(node.tag).startswith("{" + _DIAGRAM)]
    for node in ids:
        for value in node.attrib.values():
            if value in slide.part.rels and slide.part.rels[value].reltype == _DIAGRAM_DATA:
                part = slide.part.rels[value].target_part
                parser = require("lxml.etree", extra="read").XMLParser(resolve_entities=False)
                root = require("lxml.etree", extra="read").fromstring(part.blob, parser)
                for paragraph in root.iter(_A + "p"):
                    text = "".join(run.text or "" for run in paragraph.iter(_A + "t")).strip()
                    if text:
                        yield "- " + text


def _notes(slide: Any) -> str:
    if not slide.has_notes_slide or slide.notes_slide.notes_text_frame is None:
        return ""
    return tidy(slide.notes_slide.notes_text_frame.text.replace("\v", "\n")).strip()
