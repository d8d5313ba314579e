"""HTML, PDF, DOCX and CSV keep what is citable: headings, tables, pages, rows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tokka.corpus.pdf import join_lines
from tokka.corpus.reading import read_file
from tokka.errors import ItemError
from tokka.records import Document, Dropped

PAGE = """<!DOCTYPE html><html><head><meta charset="Shift_JIS"><title>青葉</title>
<style>p {{}}</style></head><body><nav><a href="/">ホーム</a></nav>
<h1>振込<br>手数料</h1><p>この規程は
手数料を<b>定め</b>る。</p><h2>第1条</h2>
<table><caption>料金表</caption><tr><th>区分</th><th>額</th></tr>
<tr><td rowspan="2">窓口</td><td>330円</td></tr><tr><td>550円</td></tr></table>
<ul><li>会員は免除</li><li><p>理事長が認めた者</p></li></ul>
<p>附則<br>四月一日<ruby>施行<rt>しこう</rt></ruby></p><script>var x;</script>{more}</body>"""


def _read(path: Path, data: bytes) -> Document:
    path.write_bytes(data)
    [document] = read_file(path, path.name)
    return document


def test_html_keeps_headings_lists_and_table_rows(tmp_path: Path) -> None:
    document = _read(tmp_path / "a.html", PAGE.format(more="").encode("cp932"))
    assert document.title == "振込 手数料"
    assert [line for line in document.text.split("\n") if line] == [
        "# 振込 手数料",
        "この規程は 手数料を定める。",
        "## 第1条",
        "料金表",
        "区分 | 額",
        "窓口 | 330円",
        "窓口 | 550円",
        "- 会員は免除",
        "- 理事長が認めた者",
        "附則",
        "四月一日施行",
    ]


def test_a_table_used_for_layout_is_read_as_text(tmp_path: Path) -> None:
    inner = "<table><tr><td>中</td></tr></table>"
    more = f"<table><tr><td><h3>左</h3></td><td>右の文。{inner}</td></tr></table>"
    text = _read(tmp_path / "a.html", PAGE.format(more=more).encode("cp932")).text
    assert text.endswith("### 左\n\n右の文。\n\n中\n")


@pytest.mark.parametrize("page", [b"<html><body></body></html>", b"<!-- x -->", b"   "])
def test_a_page_without_text_is_an_error(tmp_path: Path, page: bytes) -> None:
    (tmp_path / "a.html").write_bytes(page)
    with pytest.raises(ItemError, match=r"a\.html.*; "):
        read_file(tmp_path / "a.html", "a.html")


def test_docx_keeps_the_order_of_paragraphs_and_tables(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx", reason="python-docx is not installed")
    word = docx.Document()
    word.add_heading("経費規程", 0)
    word.add_heading("第1章 総則", 1)
    word.add_paragraph("表の前の文。")
    table = word.add_table(rows=3, cols=2)
    for row, cells in enumerate([("区分", "上限"), ("宿泊", "1万円"), ("", "2万円")]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    paragraph = word.add_paragraph("表の後の")
    inserted = docx.oxml.OxmlElement("w:ins")
    run = docx.oxml.OxmlElement("w:r")
    text = docx.oxml.OxmlElement("w:t")
    text.text = "挿入された文。"
    run.append(text)
    inserted.append(run)
    paragraph._p.append(inserted)
    word.save(str(tmp_path / "a.docx"))
    [document] = read_file(tmp_path / "a.docx", "a.docx")
    assert document.title == "経費規程"
    assert [line for line in document.text.split("\n") if line] == [
        "# 経費規程",
        "# 第1章 総則",
        "表の前の文。",
        "区分 | 上限",
        "宿泊 | 1万円",
        "宿泊 | 2万円",
        "表の後の挿入された文。",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp932"])
@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_each_csv_row_repeats_the_header(tmp_path: Path, mark: str, encoding: str) -> None:
    rows = [
        ["区分", "手数料", ""],
        ["窓口", '"1,100円\n税込"'],
        ["", ""],
        ["ATM", "330円", "夜間", "x"],
    ]
    if mark != ",":
        rows[1][1] = '"1100円\n税込"'
    data = "\r\n".join(mark.join(row) for row in rows).encode(encoding)
    document = _read(tmp_path / "fees.csv", data)
    first = "1,100円 税込" if mark == "," else "1100円 税込"
    assert document.text == (
        f"区分: 窓口 | 手数料: {first}\n区分: ATM | 手数料: 330円 | column 3: 夜間 | column 4: x\n"
    )
    assert document.title == "fees"


@pytest.mark.parametrize(("data", "reason"), [(b"a,b\n", "1 rows"), (b'a\n"x"y\n', "line 2")])
def test_a_csv_without_rows_or_with_a_broken_quote_is_an_error(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ItemError, match=reason):
        read_file(tmp_path / "a.csv", "a.csv")


def _pdf(pages: list[list[str]], password: str = "", picture_page: bool = False) -> bytes:
    canvas_module = pytest.importorskip("reportlab.pdfgen.canvas", reason="no reportlab")
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiMin-W3"))
    out = io.BytesIO()
    canvas = canvas_module.Canvas(
        out, encrypt=StandardEncryption(password) if password else None, invariant=1
    )
    for lines in pages:
        canvas.setFont("HeiseiMin-W3", 12)
        for row, line in enumerate(lines):
            canvas.drawString(72, 760 - 20 * row, line)
        canvas.showPage()
    if picture_page:
        image = pytest.importorskip("PIL.Image", reason="no Pillow").new("RGB", (8, 8))
        canvas.drawInlineImage(image, 72, 700)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def test_pdf_pages_keep_their_offsets_and_picture_pages_are_reported(tmp_path: Path) -> None:
    pages = [["融資規程", "第1条 上限は300万円。"], ["第2条 期限は30日。"]]
    path = tmp_path / "a.pdf"
    path.write_bytes(_pdf(pages, picture_page=True))
    dropped: list[Dropped] = []
    [document] = read_file(path, "a.pdf", "", dropped)
    starts = [*document.page_starts, len(document.text)]
    assert document.text[starts[0] : starts[1]] == "融資規程\n第1条 上限は300万円。\n"
    assert document.text[starts[1] : starts[2]] == "第2条 期限は30日。\n"
    assert document.title == "融資規程"
    assert [row.item for row in dropped] == ["a.pdf#page=3"]


def test_pdfs_that_give_no_text_say_why(tmp_path: Path) -> None:
    cases = {
        "locked.pdf": (_pdf([["秘密"]], password="x"), "is encrypted"),
        "scan.pdf": (_pdf([[]], picture_page=True), "holds pictures only, no text"),
        "cut.pdf": (_pdf([["あ"]])[:200], "is broken"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ItemError, match=f"{name} .*{reason}|{name} {reason}"):
            read_file(tmp_path / name, name)


def test_printed_lines_of_a_japanese_paragraph_are_joined_and_list_items_are_not() -> None:
    lines = [
        "第1条 当金庫の融資の限度額は、会員一人につき300",
        "万円とし、理事長の承認を得て、年利率が最も低い",
        "4.8％になるまで、500万円を限度に増額できる。",
        "(1) 会員であること。",
        "(2) 滞納のないこと。",
    ]
    assert join_lines(iter(lines)).split("\n") == ["".join(lines[:3]), *lines[3:]]
