"""Check digits, against the rules as their authorities write them down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.personal.digits import (
    driving_licence_digit,
    is_card,
    is_driving_licence,
    is_insurer,
    is_luhn,
    is_my_number,
    luhn_digit,
    my_number_digit,
)


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=count, max_size=count)


def ordinance(first: str) -> str:
    """Art. 5 of the ordinance, term by term, n from 1 at the right."""
    total = 0
    for n in range(1, 12):
        p = int(first[11 - n])
        q = n + 1 if n <= 6 else n - 5
        total += p * q
    return "0" if total % 11 <= 1 else str(11 - total % 11)


@given(digits(11))
def test_the_digit_of_an_individual_number_is_the_ordinances(first: str) -> None:
    assert my_number_digit(first) == ordinance(first)
    assert is_my_number(first + ordinance(first))


@given(digits(11), st.integers(1, 9))
def test_another_last_digit_is_no_individual_number(first: str, shift: int) -> None:
    assert not is_my_number(first + str((int(ordinance(first)) + shift) % 10))


def test_an_individual_number_has_twelve_digits() -> None:
    assert is_my_number("123456789018")
    assert not is_my_number("1234567890189")
    assert not is_my_number("12345678901")


@pytest.mark.parametrize("number", ["309012345620", "309212345610"])
def test_published_licence_numbers(number: str) -> None:
    """Two examples from explanations of the number, one of them with a wrong digit."""
    assert (driving_licence_digit(number[:10]) == number[10]) == is_driving_licence(number)


def test_the_licence_digit_by_hand() -> None:
    # 3·5 + 0·4 + 9·3 + 0·2 + 1·7 + 2·6 + 3·5 + 4·4 + 5·3 + 6·2 = 119 = 10·11 + 9; 11 − 9 = 2
    assert driving_licence_digit("3090123456") == "2"
    assert is_driving_licence("309012345620")
    assert not is_driving_licence("309012345630")
    assert not is_driving_licence("159012345620")  # no commission has the code 15


@given(digits(15))
def test_luhn_finds_every_single_wrong_digit(first: str) -> None:
    number = first + luhn_digit(first)
    assert is_luhn(number)
    for place in range(16):
        wrong = str((int(number[place]) + 1) % 10)
        assert not is_luhn(number[:place] + wrong + number[place + 1 :])


@pytest.mark.parametrize(
    "number", ["4111111111111111", "5555555555554444", "378282246310005", "3530111333300000"]
)
def test_the_networks_own_test_cards(number: str) -> None:
    assert is_card(number)
    assert not is_card(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert not is_card("9" + number[1:])


def test_an_insurers_number_names_a_prefecture() -> None:
    assert is_insurer("0613" + "001" + luhn_digit("0613001"))
    assert not is_insurer("0648" + "001" + luhn_digit("0648001"))
    assert is_insurer("13800" + luhn_digit("13800"))
