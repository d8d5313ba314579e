"""Japan's encodings are told apart; what nothing decodes is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.encoding import decode
from tokka.errors import ItemError

RULE = "融資の限度額は、三百万円とする。\nただし、理事長の承認を要する。\n"
LEGACY = ["cp932", "euc_jp", "iso2022_jp"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", *LEGACY]
)
def test_japanese_text_survives_every_encoding(encoding: str) -> None:
    assert decode(RULE.encode(encoding), "rule.txt") == RULE


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp"])
@pytest.mark.parametrize(
    "text", ["普通預金", "手数料", "ローン", "第3条 期限は30日", "山田太郎,部長"]
)
def test_a_few_words_are_enough_to_tell_shift_jis_from_euc(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding), "a.csv") == text


@given(st.text("あいうえおかきくけこ規程融資理事長承認。、アイウ0123\n", min_size=8, max_size=80))
def test_mixed_kana_and_kanji_never_turn_into_mojibake(text: str) -> None:
    if sum("ぁ" <= c <= "ん" for c in text) >= 4:
        for encoding in ("cp932", "euc_jp"):
            assert decode(text.encode(encoding), "a.txt") == text


@given(st.text("あいう規程融資理事長①②㈱髙﨑、。123abc\n", min_size=1, max_size=40))
def test_mails_in_iso_2022_jp_keep_what_only_windows_knows(text: str) -> None:
    def jis(character: str) -> bytes:
        if character.isascii():
            return b"\x1b(B" + character.encode()
        first, second = character.encode("cp932")
        if first >= 0xFA:  # IBM's rows have a twin in NEC's, which mail programs write
            first, second = {"髙": (0xEE, 0xE0), "﨑": (0xED, 0x95)}[character]
        row = (first - (0xC1 if first > 0x9F else 0x81)) * 2 + 0x21
        if second >= 0x9F:
            return b"\x1b$B" + bytes((row + 1, second - 0x7E))
        return b"\x1b$B" + bytes((row, second - 0x1F - (second > 0x7E)))

    data = b"".join(map(jis, text)) + b"\x1b(B"
    assert decode(data, "mail.eml", "iso-2022-jp") == text


def test_half_width_katakana_of_bank_files_is_shift_jis() -> None:
    text = "ｱｵﾊﾞｼﾝｷﾝ ﾎﾝﾃﾝ,ﾌﾂｳ,1234567,ｶ)ﾔﾏﾀﾞｼｮｳｼﾞ\n"
    assert decode(text.encode("cp932"), "zengin.csv") == text


def test_western_text_is_recognised() -> None:
    text = "Le comité décide que la limite de crédit est élevée après un an d'activité.\n" * 4
    assert decode(text.encode("cp1252"), "fr.txt") == text


def test_windows_and_old_mac_newlines_become_one_kind() -> None:
    assert decode("あ\r\nい\rう".encode(), "a.txt") == "あ\nい\nう"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(range(256)) * 8, "binary"),
        (b"\xff\xfe\x00", "mark of utf-16-le"),
        (bytes([0x81, 0xFF, 0xFE, 0x80, 0x9F, 0xA0, 0xFD] * 40), "unknown encoding"),
        (("規程" * 30).encode() + b"\xe3\x81" + "が続く".encode(), "broken at byte 180"),
    ],
)
def test_what_nothing_decodes_is_refused_with_a_next_action(data: bytes, reason: str) -> None:
    with pytest.raises(ItemError, match=rf"x\.txt .*{reason}.*; "):
        decode(data, "x.txt")


def test_a_declared_encoding_comes_first_and_a_wrong_one_is_passed_over() -> None:
    assert decode("価格は£5".encode("shift_jis_2004"), "a.html", "shift_jis_2004") == "価格は£5"
    assert decode(RULE.encode(), "a.html", "ascii") == RULE
    assert decode(RULE.encode(), "a.html", "no-such-charset") == RULE
