"""A pseudonym is the same wherever the same is meant, keeps its form, and can be nobody's."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.personal.digits import (
    is_card,
    is_driving_licence,
    is_my_number,
    only_digits,
)
from tokka.corpus.personal.findings import KINDS, Kind
from tokka.corpus.personal.pseudonyms import pseudonym

KEY, OTHER = b"k" * 32, b"o" * 32


@given(st.sampled_from(KINDS), st.text(min_size=1, max_size=20))
def test_one_key_gives_one_pseudonym(kind: Kind, value: str) -> None:
    assert pseudonym(KEY, kind, value, "ja") == pseudonym(KEY, kind, value, "ja")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("name", "高橋 美咲"),
        ("name", "Ada Lovelace"),
        ("phone", "090-4417-2286"),
        ("email", "a@example.jp"),
        ("my_number", "123456789018"),
        ("address", "東京都港区1-2-3"),
        ("ip_address", "203.0.113.45"),
        ("birth_date", "1987/05/30"),
    ],
)
def test_another_key_gives_another(kind: Kind, value: str) -> None:
    assert pseudonym(KEY, kind, value, "ja") != pseudonym(OTHER, kind, value, "ja")
    assert value not in pseudonym(KEY, kind, value, "ja")


def test_spellings_of_one_value_have_one_pseudonym() -> None:
    def digits_of(value: str) -> str:
        made = pseudonym(KEY, "phone", value, "ja")
        return only_digits(unicodedata.normalize("NFKC", made))

    assert digits_of("０９０ー７７１２ー３３０８") == digits_of("090-7712-3308")
    assert pseudonym(KEY, "name", "高橋　美咲", "ja") == pseudonym(KEY, "name", "高橋 美咲", "ja")
    assert pseudonym(KEY, "email", "A@X.jp", "ja") == pseudonym(KEY, "email", "a@x.jp", "ja")
    assert pseudonym(KEY, "my_number", "1234-5678-9018", "ja").replace("-", "") == pseudonym(
        KEY, "my_number", "123456789018", "ja"
    )


@given(st.text("0123456789", min_size=12, max_size=12))
def test_numbers_keep_their_length_and_lose_their_validity(digits: str) -> None:
    mine = pseudonym(KEY, "my_number", digits, "ja")
    assert re.fullmatch(r"\d{12}", mine)
    assert not is_my_number(mine)
    licence = pseudonym(KEY, "driving_licence", digits, "ja")
    assert re.fullmatch(r"\d{12}", licence)
    assert not is_driving_licence(licence)
    card = pseudonym(KEY, "card", digits + "1234", "en")
    assert re.fullmatch(r"\d{16}", card)
    assert not is_card(card)


def test_a_number_keeps_its_form() -> None:
    assert re.fullmatch(r"\d{4}-\d{4}-\d{4}", pseudonym(KEY, "my_number", "1234-5678-9018", "ja"))
    assert re.fullmatch(r"TK[0-9]{7}", pseudonym(KEY, "passport", "TK4829173", "ja"))
    assert re.fullmatch(r"[０-９]{4}", pseudonym(KEY, "health_insurance", "１２０３", "ja"))


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("03-6271-4458", r"03-0\d{3}-\d{4}"),
        ("090 8812 3047", r"090 0\d{3} \d{4}"),
        ("(03)5981-4472", r"\(03\)0\d{3}-\d{4}"),
        ("07013578642", r"0700\d{7}"),
        ("541-714-1388", r"541-555-01\d\d"),
        ("+81-90-2277-5813", r"\+81-0\d-\d{4}-\d{4}"),
    ],
)
def test_a_phone_number_stays_one_that_reaches_nobody(value: str, form: str) -> None:
    assert re.fullmatch(form, pseudonym(KEY, "phone", value, "ja"))


def test_addresses_on_the_net_lead_nowhere() -> None:
    assert re.fullmatch(r"user-[0-9a-f]{8}@example\.com", pseudonym(KEY, "email", "a@b.jp", "ja"))
    assert re.fullmatch(r"198\.1[89]\.\d+\.\d+", pseudonym(KEY, "ip_address", "8.8.8.8", "en"))
    assert pseudonym(KEY, "ip_address", "2a00::1", "en").startswith("2001:db8::")


def test_people_stay_apart() -> None:
    made = {pseudonym(KEY, "name", f"人物{n}号", "ja") for n in range(2000)}
    assert len(made) == 2000
