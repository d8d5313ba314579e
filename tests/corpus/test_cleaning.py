"""What a page, a printer or an encoding put in comes out; what an author wrote stays."""

from __future__ import annotations

import hashlib
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokka.corpus.characters import character_edits, plain
from tokka.corpus.cleaning import KINDS, clean
from tokka.corpus.edits import Edit, apply
from tokka.corpus.reading import files, read_file
from tokka.records import Document

EXAMPLES = Path(__file__).parents[2] / "examples"


def _document(*pages: str, paged: bool = True, language: str = "ja", title: str = "") -> Document:
    starts, offset = [], 0
    for page in pages:
        starts.append(offset)
        offset += len(page)
    text = "".join(pages)
    return Document(
        id="a",
        text=text,
        source="a",
        title=title,
        language=language,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        page_starts=tuple(starts) if paged else (),
    )


def _cleaned(text: str) -> str:
    return clean(_document(text, paged=False)).document.text


def _pages(document: Document) -> list[str]:
    return [document.text[a:b] for a, b in pairwise([*document.page_starts, len(document.text)])]


# ---- pages --------------------------------------------------------------------------------------


def test_headers_keep_their_first_copy_and_footers_their_last() -> None:
    pages = [f"あおば信用組合　融資規程\n本文その{n}。\n社外秘　第2版　{n}/4\n" for n in "1234"]
    cleaned = clean(_document(*pages))
    assert _pages(cleaned.document) == [
        "あおば信用組合　融資規程\n本文その1。\n",
        "本文その2。\n",
        "本文その3。\n",
        "本文その4。\n社外秘　第2版　4/4\n",
    ]
    assert cleaned.changes == {"running lines": 6}
    assert cleaned.document.sha256 == hashlib.sha256(cleaned.document.text.encode()).hexdigest()


def test_headers_of_left_and_right_pages_alternate() -> None:
    heads = ["融資規程", "第二章"] * 4
    cleaned = clean(
        _document(*(f"{head}\n本文{'甲乙丙丁戊己庚辛'[n]}。\n" for n, head in enumerate(heads)))
    )
    assert cleaned.document.text.count("融資規程") == 1
    assert cleaned.document.text.count("第二章") == 1
    assert all(f"本文{mark}。" in cleaned.document.text for mark in "甲乙丙丁戊己庚辛")


@pytest.mark.parametrize(
    "numbers",
    [
        ["- 1 -", "- 2 -", "- 3 -"],
        ["1", "2", "3"],
        ["1/3", "2/3", "3/3"],
        ["３頁", "４頁", "５頁"],
        ["Page 1 of 3", "Page 2 of 3", "Page 3 of 3"],
        ["1 / 3 ページ", "2 / 3 ページ", "3 / 3 ページ"],
        ["－１－", "－２－", "－３－"],
        ["iii", "iv", "v"],
        ["第1頁", "第2頁", "第3頁"],
    ],
)
def test_page_numbers_go_from_every_page(numbers: list[str]) -> None:
    bodies = ["本文は甲。\n", "本文は乙。\n", "本文は丙。\n"]
    pages = [body + number + "\n" for body, number in zip(bodies, numbers, strict=True)]
    cleaned = clean(_document(*pages))
    assert _pages(cleaned.document) == bodies
    assert cleaned.changes == {"page numbers": 3}


def test_figures_at_a_pages_end_stay() -> None:
    pages = [
        "甲の表。\n1,200\n",
        "乙の表。\n3\n",
        "丙の表。\n合計 12,000円\n",
        "丁の表。\n合計 9,000円\n",
    ]
    pages += ["戊の表。\n合計 700円\n"]
    assert clean(_document(*pages)).changes == {}


@pytest.mark.parametrize(
    "heading", ["様式 {}", "別紙{}", "問 {}", "Appendix {}", "第{}条", "その{}"]
)
def test_headings_that_count_with_the_pages_stay(heading: str) -> None:
    pages = [f"{heading.format(n)}\n{sign}を書く。\n" for n, sign in enumerate("甲乙丙丁", start=1)]
    assert clean(_document(*pages)).changes == {}


def test_a_line_without_figures_is_not_like_one_with_figures() -> None:
    assert clean(_document("規程 1 頁。\n", "規程 # 頁。\n")).changes == {}


def test_rows_of_a_table_stay_though_its_head_is_on_every_page() -> None:
    pages = [f"区分 | 手数料\n振込{n} | {n}00円\n" for n in range(1, 5)]
    assert clean(_document(*pages)).changes == {}


def test_a_form_printed_on_every_page_is_kept_once() -> None:
    form = "申込書\n氏名を書いてください。\n"
    assert clean(_document(form, form, form)).document.text == form


def test_page_numbers_in_a_text_without_pages_must_count_on() -> None:
    assert _cleaned("甲は申し込む。\n- 1 -\n乙は断る。\n- 2 -\n") == "甲は申し込む。\n乙は断る。\n"
    assert _cleaned("甲は申し込む。\n- 7 -\n乙は断る。\n") == "甲は申し込む。\n- 7 -\n乙は断る。\n"


def test_form_feeds_are_pages_too() -> None:
    text = "規程集\n甲は申し込む。\n\f規程集\n乙は断る。\n\f規程集\n丙は待つ。\n"
    cleaned = _cleaned(text)
    assert cleaned.count("規程集") == 1 and "\f" not in cleaned


# ---- characters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ﾛｰﾝｶﾞｲﾄﾞ｡", "ローンガイド。"),  # half-width katakana, marks composed
        ("第１条　ＡＴＭ", "第1条　ATM"),  # full-width letters and digits
        ("１２，３４５．６７％", "12,345.67％"),  # and what stands between two of them
        ("ａｂｃ＠ｄｅｆ．ｊｐ", "abc@def.jp"),
        ("か\u3099", "が"),  # canonical composition
        ("神\ufa19", "神神"),  # compatibility ideograph
        ("⾦融", "金融"),  # Kangxi radical
        ("ﬁle oﬀer", "file offer"),
        ("𝐀𝑥", "Ax"),
        ("a\u00a0b\u2009c", "a b c"),
        ("融\u200b資\ufeff規\u200e程", "融資規程"),
        ("葛\U000e0100城", "葛城"),
        ("定\U000e0041\U000e0042款", "定款"),  # tag characters
        ("soft\u00adware, in\u00ad\nterest", "software, interest"),
        ("a\x00b\x1b[1mc\x1b[0m\x07", "abc"),
        ("N\x08NA\x08AM\x08ME\x08E", "NAME"),  # overstruck, as manual pages are
        ("甲\u2028乙\x0b丙", "甲\n乙\n丙"),
        ("\uf0b7 項目\n\uf06c項目", "• 項目\n•項目"),
        ("50 \uf06dg\n渡\ue001様", "50 〓g\n渡〓様"),
        ("ホーム \uf015 \nお知らせ", "ホーム\nお知らせ"),
    ],
)
def test_characters_take_their_usual_form(before: str, after: str) -> None:
    assert _cleaned(before) == after


@pytest.mark.parametrize(
    "kept",
    [
        "①②㊤", "㎡", "℃", "½", "m²", "㈱", "Ⅳ", "№", "㍻", "…", "〜", "～",
        "（以下「当金庫」という。）", "はい！？", "甲：乙", "1．総則",
        "　字下げ", "👨\u200d👩\u200d👧", "ن\u200cن", "髙﨑", "々",
    ],
)  # fmt: skip
def test_characters_that_mean_something_of_their_own_stay(kept: str) -> None:
    assert clean(_document(kept, paged=False)).changes == {}


def test_titles_take_the_usual_forms_too() -> None:
    assert clean(_document("本文。", title="ﾛｰﾝ規程\u200b")).document.title == "ローン規程"


@settings(deadline=None)
@given(st.text(max_size=30))
def test_plain_text_is_composed(text: str) -> None:
    assert unicodedata.is_normalized("NFC", plain(text))


@given(
    st.text(alphabet="aeou\u0301\u0323\u0308かは\u3099\u309a가ᄀ\u1161\u11a8Å\ufa19Ω", max_size=12)
)
def test_composing_by_segments_is_composing_the_text(text: str) -> None:
    edits = [edit for _, edit in character_edits(text)]
    if not unicodedata.is_normalized("NFC", text):
        assert apply(text, (), edits)[0] == unicodedata.normalize("NFC", text)


# ---- lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The regu-\nlation holds.", "The regulation holds."),
        ("INFOR-\nMATION", "INFORMATION"),
        ("a well-\nknown case", "a well-known case"),
        ("long-term loans and long-\nterm debts", "long-term loans and long-term debts"),
        ("over-\ndraft; an overdraft", "overdraft; an overdraft"),
        ("cash, flow and cash-\nflow", "cash, flow and cash-flow"),
        ("the Anglo-\nAmerican law", "the Anglo-American law"),
        ("pages 10-\n20", "pages 10-\n20"),
        ("- one\n- two", "- one\n- two"),
    ],
)
def test_hyphens_at_a_lines_end_are_told_apart_by_the_documents_words(
    before: str, after: str
) -> None:
    assert _cleaned(before) == after


def test_hyphens_in_japanese_are_options_and_stay() -> None:
    text = "この機能を使うときは rw-\nuser という名で指定してください。"
    assert _cleaned(text) == text


_WRAPPED = """\
　当組合は、会員から預かった資金を安全に運用するため、次に定める限
度額の範囲内で貸付けを行うものとする。ただし、理事会が特に認めた場
合はこの限りでない。なお、限度額は毎年四月に見直すものとし、その結
果は全ての営業店に文書で通知しなければならない。また、見直しの理由
を記録し、十年間保存する。
　営業店長は、前項の通知を受けたときは、速やかに担当者に周知し、そ
の記録を残さなければならない。

・本人確認書類（運転免許証、個人番号カード、在留カードのいずれか
・印鑑および通帳
"""


def test_lines_broken_inside_japanese_sentences_are_joined_without_a_space() -> None:
    cleaned = clean(_document(_WRAPPED, paged=False))
    lines = cleaned.document.text.splitlines()
    assert lines[0].startswith("　当組合は") and lines[0].endswith("十年間保存する。")
    assert lines[1].startswith("　営業店長は") and lines[1].endswith("残さなければならない。")
    assert lines[3:] == _WRAPPED.splitlines()[-2:]
    assert cleaned.changes == {"joined lines": 5}


def test_a_sentence_is_joined_across_pages_once_their_numbers_are_gone() -> None:
    first = "貸付けの限度額は、会員一人につき三百万円までとし、担保\n- 1 -\n\n"
    cleaned = clean(_document(first, "を要しない。ただし、例外がある。\n- 2 -\n"))
    assert _pages(cleaned.document)[1] == "を要しない。ただし、例外がある。\n"
    assert "担保を要しない。" in cleaned.document.text


@pytest.mark.parametrize(
    "kept",
    [
        "必要書類は\n本人確認書類\n印鑑\n",
        "# 融資に関する規程および細則ならびに事務取扱要領について\n貸付けは次のとおりとする。\n",
        "区分 | 金額 | 備考としてこの欄に長い説明を書くことができる、\n両替 | 無料 | なし\n",
        "次の各号に掲げる書類の写しを添付しなければならないものとして、\n一　住民票\n二　印鑑\n",
        "営業は、平日の午前九時から午後三時までといたしますので、\n　次に、休業日を定めます。\n",
        "```\n設定の値を書く行をここに並べて例として示すことにするので、\nを\n```\n",
        "東京都千代田区丸の内一丁目一番一号\n大阪府大阪市北区中之島一丁目三番二十号\n",
    ],
)
def test_breaks_that_an_author_set_stay(kept: str) -> None:
    assert clean(_document(kept, paged=False)).changes == {}


def test_equally_long_items_of_a_list_are_not_one_sentence() -> None:
    items = [f"貸付けの申込みに関する書類の作成および保管の方法{n}" for n in "一二三四五六七八"]
    assert clean(_document("\n".join(items), paged=False)).changes == {}


# ---- ruby ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("｜青空文庫《あおぞらぶんこ》を｜揶揄《やゆ》する", "青空文庫を揶揄する"),
        ("《》：ルビ\n憤懣《ふんまん》と揶揄《やゆ》", "《》：ルビ\n憤懣と揶揄"),
        ("憤懣（ふんまん）やるかたない", "憤懣やるかたない"),
        ("貸付（かしつけ）と担保（たんぽ）と抵当（ていとう）", "貸付と担保と抵当"),
    ],
)
def test_readings_beside_kanji_go(before: str, after: str) -> None:
    assert _cleaned(before) == after


@pytest.mark.parametrize(
    "kept",
    [
        "あおば信用組合（以下「当金庫」という。）",
        "用紙（はがき）に書く",
        "別表（い）と別表（ろ）と別表（は）と別表（に）",
        "氏名（ふりがな）、住所（ふりがな）、勤務先（かな）、連絡先（よみがな）",
        "担保（あり）、保証（なし）、決議（みなし）、同意（する）",
        "既往歴（あり）、運転免許証（ある）、外国人登録（ない）",
        "映画《ひまわり》を見る",
        "揶揄（やゆする）",
    ],
)
def test_remarks_in_brackets_stay(kept: str) -> None:
    assert _cleaned(kept) == kept


# ---- white space and the whole ------------------------------------------------------------------


def test_blank_lines_and_trailing_blanks_go() -> None:
    assert _cleaned("\n\n甲です。 　\n\n\n\n乙です。\t\n") == "甲です。\n\n乙です。\n"


def test_a_clean_document_is_returned_as_it_is() -> None:
    document = _document("# 規程\n\n本文です。\n", paged=False)
    cleaned = clean(document)
    assert cleaned.document is document and cleaned.changes == {}


def test_the_example_documents_lose_no_words() -> None:
    listed = files([EXAMPLES / name / "documents" for name in ("aoba", "harbor")])
    documents = [one for name, path in listed for one in read_file(path, name)]
    assert len(documents) == 48
    for document in documents:
        before = unicodedata.normalize("NFKC", "".join(document.text.split()))
        after = unicodedata.normalize("NFKC", "".join(clean(document).document.text.split()))
        assert before == after, document.id


_PIECES = st.sampled_from(
    [
        "融資規程", "- 1 -", "- 2 -", "Page 3 of 9", "3/9", "1", "2", "iv", "本文です。",
        "を行うものとし、",
        "貸付けの限度額は、会員一人につき三百万円までとし、担保", "ﾛｰﾝ", "第１条",
        "１．５", "か\u3099",
        "憤懣（ふんまん）", "貸付（かしつけ）", "｜揶揄《やゆ》", "regu-", "lation", "well-",
        "known", "\u200b",
        "\t", "| a |", "・", "```", "\uf0b7", "\ue001", "\x0c", "\r", "\x1b[1m", "a\x08", "#",
        "、", "ﾞ",
        "\xad", "。", " ", "　",
    ]
)  # fmt: skip
_LINE = st.lists(_PIECES, max_size=4).map("".join)
_PAGE = (
    st.lists(_LINE, max_size=7)
    .map("\n".join)
    .flatmap(lambda page: st.sampled_from([page, page + "\n", page + "\n\n"]))
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_PAGE, min_size=1, max_size=5), st.booleans())
def test_cleaning_again_changes_nothing(pages: list[str], paged: bool) -> None:
    once = clean(_document(*pages, paged=paged)).document
    twice = clean(once)
    assert twice.document == once and twice.changes == {}


@settings(max_examples=80, deadline=None)
@given(st.lists(_PAGE, min_size=1, max_size=5))
def test_every_character_stays_on_its_page(pages: list[str]) -> None:
    signs = "甲乙丙丁戊"
    signed = [page + f"\n{sign}{n}の頁。\n" for n, (page, sign) in enumerate(zip(pages, signs))]  # noqa: B905
    document = clean(_document(*signed)).document
    starts = document.page_starts
    assert len(starts) == len(pages) and starts[0] == 0
    assert all(a <= b for a, b in pairwise([*starts, len(document.text)]))
    for number, page in enumerate(_pages(document)):
        assert [sign for sign in signs if sign in page] == [signs[number]]
    assert document.sha256 == hashlib.sha256(document.text.encode()).hexdigest()


@settings(max_examples=40, deadline=None)
@given(st.lists(_PAGE, min_size=1, max_size=4))
def test_changes_are_counted_by_known_kinds(pages: list[str]) -> None:
    assert set(clean(_document(*pages)).changes) <= set(KINDS)


@settings(deadline=None)
@given(st.text(max_size=20), st.data())
def test_edits_move_page_starts_with_their_characters(text: str, data: st.DataObject) -> None:
    places = st.lists(st.integers(0, len(text)), max_size=8).map(sorted)
    starts = data.draw(places)
    cuts = data.draw(places)
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    edits = [Edit(a, b, data.draw(st.sampled_from(["", "x"]))) for a, b in pairs]
    new, moved = apply(text, starts, edits)
    assert len(moved) == len(starts)
    assert all(0 <= a <= b <= len(new) for a, b in pairwise([*moved, len(new)]))
    for before, after in zip(starts, moved, strict=True):
        if all(not (a <= before <= b) for a, b, _ in edits):
            assert new[after : after + 1] == text[before : before + 1]


def test_overlapping_edits_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        apply("abcdef", (), [Edit(0, 3), Edit(2, 4)])
