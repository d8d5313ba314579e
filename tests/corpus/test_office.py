"""Slides, sheets, books and mails keep what is citable: titles, rows, chapters, attachments."""

from __future__ import annotations

import base64
import datetime
import io
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tokka.corpus.reading import read_file
from tokka.errors import ItemError
from tokka.records import Document, Dropped


def _read(path: Path, dropped: list[Dropped] | None = None) -> list[Document]:
    return read_file(path, path.name, "", dropped)


def _lines(document: Document) -> list[str]:
    return [line for line in document.text.split("\n") if line]


# ---- slides ---------------------------------------------------------------------------------


def test_a_slide_is_a_page_with_its_texts_from_the_top_its_table_and_its_notes(
    tmp_path: Path,
) -> None:
    pptx = pytest.importorskip("pptx", reason="python-pptx is not installed")
    from pptx.util import Inches

    deck = pptx.Presentation()
    deck.core_properties.author = "総務課"
    first = deck.slides.add_slide(deck.slide_layouts[5])
    low = first.shapes.add_textbox(Inches(1), Inches(5), Inches(3), Inches(1))
    low.text_frame.text = "下の文。"
    high = first.shapes.add_textbox(Inches(1), Inches(2), Inches(3), Inches(1))
    high.text_frame.text = "上の文。"
    first.shapes.title.text = "融資研修"
    first.notes_slide.notes_text_frame.text = "時間は10分。"
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "手数料"
    table = second.shapes.add_table(3, 2, 0, Inches(2), Inches(4), Inches(2)).table
    for row, cells in enumerate([("区分", "額"), ("窓口", "330円"), ("", "550円")]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    deck.save(str(tmp_path / "a.pptx"))
    [document] = _read(tmp_path / "a.pptx")
    assert document.title == "融資研修"
    assert document.metadata["author"] == "総務課"
    start = document.page_starts[1]
    assert [x for x in document.text[:start].split("\n") if x] == [
        "# 融資研修",
        "上の文。",
        "下の文。",
        "ノート: 時間は10分。",
    ]
    assert [x for x in document.text[start:].split("\n") if x] == [
        "# 手数料",
        "区分 | 額",
        "窓口 | 330円",
        "窓口 | 550円",
    ]


# ---- sheets ---------------------------------------------------------------------------------


def _book(tmp_path: Path, fill: Any) -> Path:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    fill(book)
    book.save(tmp_path / "a.xlsx")
    return tmp_path / "a.xlsx"


def test_every_row_of_a_sheet_repeats_its_header_and_merged_cells(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        sheet = book.active
        sheet.title = "手数料"
        sheet["A1"] = "令和六年度 手数料一覧"
        sheet.merge_cells("A1:D1")
        for row in (
            ["区分", "施行日", "率", "額"],
            ["窓口", datetime.date(2024, 4, 1), 0.055, 1100],
            [None, datetime.datetime(2024, 10, 1, 9, 30), 0.1, 330.5],
        ):
            sheet.append(row)
        sheet.merge_cells("A3:A4")
        sheet["C3"].number_format = "0.0%"
        sheet["C4"].number_format = "0%"
        sheet["D3"].number_format = "#,##0"
        other = book.create_sheet("連絡先")
        other.append(["部署", "内線"])
        other.append(["融資課", "0123"])
        book.create_sheet("作業用").sheet_state = "hidden"

    dropped: list[Dropped] = []
    [document] = _read(_book(tmp_path, fill), dropped)
    assert _lines(document) == [
        "# 手数料",
        "令和六年度 手数料一覧",
        "区分: 窓口 | 施行日: 2024-04-01 | 率: 5.5% | 額: 1,100",
        "区分: 窓口 | 施行日: 2024-10-01 09:30 | 率: 10% | 額: 330.5",
        "# 連絡先",
        "部署: 融資課 | 内線: 0123",
    ]
    assert document.metadata["sheet"] == "手数料, 連絡先"
    assert [row.item for row in dropped] == ["a.xlsx#作業用"]


def test_a_header_of_two_rows_is_read_as_one(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        sheet = book.active
        sheet.append(["区分", "手数料", None])
        sheet.append([None, "窓口", "ATM"])
        sheet.append(["会員", 330, 110])
        sheet.merge_cells("A1:A2")
        sheet.merge_cells("B1:C1")

    [document] = _read(_book(tmp_path, fill))
    assert _lines(document)[1:] == ["区分: 会員 | 手数料 窓口: 330 | 手数料 ATM: 110"]


def test_a_formula_is_read_as_the_value_that_was_computed(tmp_path: Path) -> None:
    path = _book(tmp_path, lambda book: [book.active.append(r) for r in (["計"], ["=1+2"])])
    data = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data[name] = archive.read(name)
    sheet = "xl/worksheets/sheet1.xml"
    assert b"<v />" in data[sheet] or b"<v></v>" in data[sheet]
    data[sheet] = data[sheet].replace(b"<v />", b"<v>3</v>").replace(b"<v></v>", b"<v>3</v>")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in data.items():
            archive.writestr(name, content)
    [document] = _read(path)
    assert "3" in _lines(document) and "=1+2" not in document.text


def test_a_sheet_of_empty_rows_to_its_end_is_given_up_and_says_so(tmp_path: Path) -> None:
    path = _book(tmp_path, lambda book: [book.active.append(r) for r in (["a", "b"], ["1", "2"])])
    sheet = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(path) as archive:
        data = {name: archive.read(name) for name in archive.namelist()}
    rows = b"".join(b'<row r="%d"/>' % n for n in range(3, 30_000)) + b'<row r="1048576"/>'
    data[sheet] = data[sheet].replace(b"</sheetData>", rows + b"</sheetData>")
    data[sheet] = data[sheet].replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"')
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in data.items():
            archive.writestr(name, content)
    dropped: list[Dropped] = []
    [document] = _read(path, dropped)
    assert _lines(document)[1:] == ["a: 1 | b: 2"]
    assert "more than 10,000 empty rows from row 3 on" in dropped[0].reason


@pytest.mark.parametrize("suffix", [".xlsx", ".pptx", ".docx"])
def test_office_files_that_declare_entities_or_are_broken_are_refused(
    tmp_path: Path, suffix: str
) -> None:
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with zipfile.ZipFile(tmp_path / f"bomb{suffix}", "w") as archive:
        archive.writestr("[Content_Types].xml", bomb)
    (tmp_path / f"cut{suffix}").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / f"locked{suffix}").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    for name, reason in {"bomb": "XML entities", "cut": "broken", "locked": "encrypted"}.items():
        with pytest.raises(ItemError, match=f"{name}{suffix} .*{reason}.*; "):
            _read(tmp_path / f"{name}{suffix}")


# ---- books ----------------------------------------------------------------------------------


def _epub(chapters: dict[str, str], spine: list[str], more: dict[str, str] | None = None) -> bytes:
    items = "".join(f'<item id="{name}" href="text/{name}.xhtml"/>' for name in chapters)
    order = "".join(f'<itemref idref="{name}"/>' for name in spine)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>事務の手引</dc:title>'
        f"<dc:creator>青葉</dc:creator></metadata><manifest>{items}</manifest>"
        f"<spine>{order}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OPS/book.opf", package)
        for name, text in chapters.items():
            page = f"<!DOCTYPE html><html><body><h1>{name}</h1><p>{text}</p></body></html>"
            archive.writestr(f"OPS/text/{name}.xhtml", page)
        for name, text in (more or {}).items():
            archive.writestr(name, text)
    return out.getvalue()


def test_chapters_of_a_book_stand_in_the_order_of_its_spine(tmp_path: Path) -> None:
    chapters = {"second": "二の文。", "first": "一の文。", "unused": "栞"}
    (tmp_path / "a.epub").write_bytes(_epub(chapters, ["first", "second"]))
    [document] = _read(tmp_path / "a.epub")
    assert _lines(document) == ["# first", "一の文。", "# second", "二の文。"]
    assert document.title == "事務の手引"
    assert document.metadata == {"author": "青葉"}


def test_a_locked_book_says_so_and_scrambled_fonts_lock_nothing(tmp_path: Path) -> None:
    def locked(place: str) -> bytes:
        note = f'<encryption><CipherData><CipherReference URI="{place}"/></CipherData></encryption>'
        return _epub({"a": "文。"}, ["a"], {"META-INF/encryption.xml": note})

    (tmp_path / "a.epub").write_bytes(locked("OPS/fonts/mincho.otf"))
    assert "文。" in _read(tmp_path / "a.epub")[0].text
    (tmp_path / "a.epub").write_bytes(locked("OPS/text/a.xhtml"))
    with pytest.raises(ItemError, match=r"a\.epub is encrypted"):
        _read(tmp_path / "a.epub")


# ---- mails ----------------------------------------------------------------------------------


def _mail(subject: str = "融資の件", text: str = "本文です。") -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "山田 <y@example.jp>", "a@example.jp"
    mail["Date"] = "Mon, 01 Apr 2024 09:30:00 +0900"
    mail.set_content(text)
    return mail


def test_a_mail_keeps_headers_and_plain_text_and_attachments_are_documents(tmp_path: Path) -> None:
    mail = _mail()
    mail.add_alternative("<p>HTMLの<b>本文</b></p>", subtype="html")
    mail.add_attachment("規程の本文。".encode("cp932"), maintype="text", subtype="plain",
                        filename="規程.txt")  # fmt: skip
    mail.add_attachment(b"?", maintype="application", subtype="x-any", filename="../../x.bin")
    (tmp_path / "a.eml").write_bytes(mail.as_bytes())
    dropped: list[Dropped] = []
    document, attachment = _read(tmp_path / "a.eml", dropped)
    assert _lines(document) == [
        "# 融資の件",
        "From: 山田 <y@example.jp>",
        "To: a@example.jp",
        "Date: Mon, 01 Apr 2024 09:30:00 +0900",
        "本文です。",
    ]
    assert document.metadata["date"] == "2024-04-01T09:30:00+09:00"
    assert (attachment.id, attachment.text) == ("a.eml/規程.txt", "規程の本文。")
    assert [row.item for row in dropped] == ["a.eml/x.bin"]


def test_japanese_mails_of_old_programs_are_read_with_their_circled_numbers(tmp_path: Path) -> None:
    jis = b"\x1b$B-!%F%9%H\x1b(B"  # ① in row 13, which ISO-2022-JP doesn't have
    subject = b"=?ISO-2022-JP?B?" + base64.b64encode(jis) + b"?="
    (tmp_path / "a.eml").write_bytes(
        b"Subject: " + subject + b"\r\nFrom: a@example.jp\r\n"
        b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + jis + b"\r\n"
    )
    [document] = _read(tmp_path / "a.eml")
    assert document.title == "①テスト"
    assert document.text.endswith("①テスト\n")


def test_html_is_read_where_a_mail_has_no_plain_text(tmp_path: Path) -> None:
    mail = EmailMessage()
    mail["Subject"] = "通知"
    mail.set_content("<h2>休業</h2><p>五月一日</p>", subtype="html", charset="cp932")
    (tmp_path / "a.eml").write_bytes(mail.as_bytes())
    assert _lines(_read(tmp_path / "a.eml")[0]) == ["# 通知", "## 休業", "五月一日"]


def test_mails_within_mails_are_read_to_a_depth_and_no_deeper(tmp_path: Path) -> None:
    mail = _mail("0", "最も深い文。")
    for level in range(1, 6):
        outer = _mail(str(level), f"{level}の文。")
        outer.add_attachment(mail, filename="inner.eml")
        mail = outer
    (tmp_path / "a.eml").write_bytes(mail.as_bytes())
    dropped: list[Dropped] = []
    documents = _read(tmp_path / "a.eml", dropped)
    assert [d.title for d in documents] == ["5", "4", "3", "2"]
    assert documents[3].id == "a.eml/inner.eml/inner.eml/inner.eml"
    [row] = dropped
    assert "lies in 3 others already" in row.reason


def test_an_encrypted_mail_and_a_file_that_is_none_say_so(tmp_path: Path) -> None:
    locked = b"Subject: x\nContent-Type: application/pkcs7-mime; name=smime.p7m\n\nAAAA\n"
    for data, reason in ((locked, "is encrypted"), (b"\n\nno headers", "has no headers")):
        (tmp_path / "a.eml").write_bytes(data)
        with pytest.raises(ItemError, match=f"a.eml {reason}.*; "):
            _read(tmp_path / "a.eml")
