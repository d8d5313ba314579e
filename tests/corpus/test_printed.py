"""Printed pages: columns one after the other, tables as rows, scans through OCR, limits said."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokka.corpus.layout import Word, arrange
from tokka.corpus.limits import ReadSettings
from tokka.corpus.reading import read_file
from tokka.errors import ItemError
from tokka.records import Document, Dropped

canvas_module = pytest.importorskip("reportlab.pdfgen.canvas", reason="no reportlab")
FONT = "HeiseiMin-W3"
HAS_JAPANESE = shutil.which("tesseract") is not None and any(
    path.exists() for path in Path("/usr/share").glob("tesseract-ocr/*/tessdata/jpn.traineddata")
)


def _pdf(draw: Callable[[Any], None], pages: int = 1) -> bytes:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont(FONT))
    out = io.BytesIO()
    canvas = canvas_module.Canvas(out, invariant=1)
    for _ in range(pages):
        canvas.setFont(FONT, 10)
        draw(canvas)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def _read(tmp_path: Path, data: bytes, **settings: Any) -> Document:
    (tmp_path / "a.pdf").write_bytes(data)
    [document] = read_file(tmp_path / "a.pdf", "a.pdf", "ja", settings=ReadSettings(**settings))
    return document


def test_two_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    left = [f"左の段の第{n}行は上から下へ読まれる文である。" for n in range(8)]
    right = [f"右の段の第{n}行は左の段が終わったあとに読む。" for n in range(8)]

    def draw(canvas: Any) -> None:
        canvas.drawString(
            60, 800, "両方の段にまたがる見出しは段より先に読まれるので、ここに長く長く書いてある"
        )
        for row in range(8):  # as printed line by line: PDFium gives them line by line
            canvas.drawString(60, 770 - 15 * row, left[row])
            canvas.drawString(320, 770 - 15 * row, right[row])
        canvas.drawString(280, 40, "- 1 -")

    lines = _read(tmp_path, _pdf(draw)).text.split("\n")
    assert lines[1:17] == left + right
    assert lines[0].startswith("両方の段にまたがる")
    assert lines[17] == "- 1 -"


def test_three_columns_of_english_whose_lines_are_not_level(tmp_path: Path) -> None:
    texts = [[f"Column {c} line {r} of running words" for r in range(9)] for c in "ABC"]

    def draw(canvas: Any) -> None:
        canvas.setFont("Helvetica", 9)
        for row in range(9):
            for column in range(3):
                canvas.drawString(
                    40 + 180 * column, 760 - 13 * row - 4 * column, texts[column][row]
                )

    lines = _read(tmp_path, _pdf(draw)).text.strip().split("\n")
    assert lines == [line for column in texts for line in column]


def test_a_ruled_table_keeps_its_header_and_repeats_merged_cells(tmp_path: Path) -> None:
    pytest.importorskip("reportlab.platypus")
    from reportlab.platypus import Table, TableStyle

    rows = [
        ["区分", "期限", "手数料"],
        ["窓口", "当日", "330円"],
        ["", "翌日以降の\n扱い", "550円"],
        ["ATM", "", "110円"],
    ]
    table = Table(rows, colWidths=[80, 120, 80])
    table.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.5, "black"),
                ("SPAN", (0, 1), (0, 2)),
                ("FONT", (0, 0), (-1, -1), FONT, 10),
            ]
        )
    )

    def draw(canvas: Any) -> None:
        canvas.drawString(60, 780, "手数料は次の表のとおりとする。")
        table.wrapOn(canvas, 500, 500)
        table.drawOn(canvas, 60, 640)
        canvas.drawString(60, 600, "附則")

    assert _read(tmp_path, _pdf(draw)).text.strip().split("\n") == [
        "手数料は次の表のとおりとする。",
        "区分 | 期限 | 手数料",
        "窓口 | 当日 | 330円",
        "窓口 | 翌日以降の扱い | 550円",
        "ATM |  | 110円",
        "附則",
    ]


def test_cells_under_each_other_are_a_table_without_rules(tmp_path: Path) -> None:
    rows = [["年度", "件数", "金額"], ["2022", "12", "300万円"], ["2023", "8", "1,200万円"]]

    def draw(canvas: Any) -> None:
        canvas.drawString(60, 780, "貸付の実績を示すと次のとおりである。")
        for row, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                canvas.drawString(60 + 120 * column, 750 - 16 * row, cell)

    assert _read(tmp_path, _pdf(draw)).text.strip().split("\n")[1:] == [
        "年度 | 件数 | 金額",
        "2022 | 12 | 300万円",
        "2023 | 8 | 1,200万円",
    ]


def test_wide_cells_of_uneven_length_are_a_table_and_no_columns(tmp_path: Path) -> None:
    terms = ["役員の親族が経営する法人であって総会の承認を得たもの"]
    terms += [f"会員のうち第{n}号に当たる者" for n in range(4)]
    limits = [f"第{n}号に定める限度額のとおり" for n in range(5)]

    def draw(canvas: Any) -> None:
        for row, (term, limit) in enumerate(zip(terms, limits, strict=True)):
            canvas.drawString(60, 780 - 15 * row, term)
            canvas.drawString(350, 780 - 15 * row, limit)

    lines = _read(tmp_path, _pdf(draw)).text.strip().split("\n")
    assert lines == [f"{term} | {limit}" for term, limit in zip(terms, limits, strict=True)]


def test_numbers_before_their_items_are_no_column(tmp_path: Path) -> None:
    items = [f"会員であって滞納のない者のうち理事長が認めた第{n}の者" for n in range(6)]

    def draw(canvas: Any) -> None:
        for row, item in enumerate(items):
            canvas.drawString(60, 780 - 15 * row, f"({row + 1})")
            canvas.drawString(76, 780 - 15 * row, item)

    lines = _read(tmp_path, _pdf(draw)).text.strip().split("\n")
    assert [line.split()[-1] for line in lines] == items
    assert lines[0].startswith("(1)")


def test_labels_beside_their_meanings_are_no_columns(tmp_path: Path) -> None:
    options = [("-c, --check", "checks the syntax"), ("-o, --output=FILE", "output file"),
               ("-n, --name=NAME", "array name"), ("-h, --help", "display this help, exit"),
               ("-v, --version", "output version information")]  # fmt: skip

    def draw(canvas: Any) -> None:
        canvas.setFont("Helvetica", 10)
        canvas.drawString(60, 780, "3.1")
        canvas.drawString(90, 780, "Invoking the program with the following options and no others")
        for row, (label, meaning) in enumerate(options):
            canvas.drawString(80, 760 - 13 * row, label)
            canvas.drawString(180, 760 - 13 * row, meaning)

    lines = _read(tmp_path, _pdf(draw)).text.strip().split("\n")
    assert lines[0].startswith("3.1 Invoking the program")
    assert lines[1:] == [f"{label} | {meaning}" for label, meaning in options]


def test_a_page_of_one_column_is_left_as_it_is() -> None:
    words = [Word("本文の行", 60, 700 - 15 * n, 400, 710 - 15 * n) for n in range(20)]
    assert arrange(words, []) == []
    assert arrange([], []) == []


def test_a_pdf_of_too_many_pages_is_refused_by_its_number_of_pages(tmp_path: Path) -> None:
    data = _pdf(lambda canvas: canvas.drawString(60, 700, "頁"), pages=4)
    assert len(_read(tmp_path, data, max_pages=4).page_starts) == 4
    with pytest.raises(ItemError, match=r"a\.pdf has 4 pages, more than the limit of 3; split it"):
        _read(tmp_path, data, max_pages=3)


def _scan(text: str) -> Any:
    """A page rendered to a picture, as a scanner leaves it."""
    pdfium = pytest.importorskip("pypdfium2")
    pytest.importorskip("PIL.Image")

    def draw(canvas: Any) -> None:
        canvas.setFont(FONT, 20)
        for row, line in enumerate(text.split("\n")):
            canvas.drawString(60, 740 - 40 * row, line)

    page = pdfium.PdfDocument(_pdf(draw))[0]
    return page.render(scale=2).to_pil()


def test_a_scan_says_what_is_missing(tmp_path: Path) -> None:
    picture = _scan("融資規程")
    data = _pdf(lambda canvas: canvas.drawInlineImage(picture, 0, 0, 595, 842))
    with pytest.raises(ItemError, match=r"holds pictures only.*; install tesseract.*ocr: true"):
        _read(tmp_path, data)


@pytest.mark.skipif(not HAS_JAPANESE, reason="tesseract-ocr-jpn is not installed")
def test_a_scan_is_read_by_tesseract_with_its_pages(tmp_path: Path) -> None:
    pictures = iter([_scan("融資規程\n限度額は三百万円とする。"), None])

    def draw(canvas: Any) -> None:
        if (picture := next(pictures)) is not None:
            canvas.drawInlineImage(picture, 0, 0, 595, 842)
        else:
            canvas.drawString(60, 700, "第二条 期限は翌月とする。")

    document = _read(tmp_path, _pdf(draw, pages=2), ocr=True)
    first, second = document.page_starts
    assert "限度額は三百万円" in document.text[first:second].replace(" ", "")
    assert document.text[second:] == "第二条 期限は翌月とする。\n"


def test_a_program_that_is_absent_is_named_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokka.corpus import ocr
    from tokka.errors import MissingExtra

    ocr._tesseract.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    picture = _scan("規程")
    data = _pdf(lambda canvas: canvas.drawInlineImage(picture, 0, 0, 595, 842))
    with pytest.raises(MissingExtra, match="tesseract is not installed; apt install"):
        _read(tmp_path, data, ocr=True)
    ocr._tesseract.cache_clear()


def test_a_damaged_page_costs_its_file_and_says_so(tmp_path: Path) -> None:
    dropped: list[Dropped] = []
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<<>>")
    with pytest.raises(ItemError, match=r"a\.pdf is broken"):
        read_file(tmp_path / "a.pdf", "a.pdf", "", dropped)
