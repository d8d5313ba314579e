"""Check digits of the numbers that identify people. Digits in → right or wrong.

>>> my_number_digit("12345678901")
'8'
"""

from __future__ import annotations

import re

_NOT_DIGITS = re.compile(r"\D")


def only_digits(text: str) -> str:
    return _NOT_DIGITS.sub("", text)


def my_number_digit(first: str) -> str:
    """The 12th digit of an individual number from the first 11 (Order of the Ministry of Internal
    Affairs and Communications no. 85 of 2014, art. 5): 11 − (Σ PnQn mod 11), 0 where the remainder
    is 0 or 1; P counts from the right, Q is n + 1 up to 6 and n − 5 from 7."""
    total = sum(
        int(digit) * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(reversed(first), 1)
    )
    remainder = total % 11
    return "0" if remainder <= 1 else str(11 - remainder)


def is_my_number(digits: str) -> bool:
    return len(digits) == 12 and digits[11] == my_number_digit(digits[:11])


def driving_licence_digit(first: str) -> str:
    """The 11th digit of a driving licence number from the first ten: the last digit of
    11 − (Σ mod 11) with the weights 5 4 3 2 7 6 5 4 3 2."""
    weights = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    total = sum(int(d) * w for d, w in zip(first, weights, strict=True))
    return str((11 - total % 11) % 10)


def is_driving_licence(digits: str) -> bool:
    """Twelve digits that begin with a public safety commission's code (10 Sapporo … 97 Okinawa)."""
    return (
        len(digits) == 12
        and digits[:2] in _COMMISSIONS
        and digits[10] == driving_licence_digit(digits[:10])
    )


_COMMISSIONS_TEXT = (
    "10 11 12 13 14 20 21 22 23 24 25 30 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 60 61 "
    "62 63 64 65 70 71 72 73 74 80 81 82 83 90 91 92 93 94 95 96 97"
)
_COMMISSIONS = frozenset(_COMMISSIONS_TEXT.split())


def luhn_digit(first: str) -> str:
    """The last digit of a card or an insurer's number from those before it (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(first)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def is_luhn(digits: str) -> bool:
    return len(digits) > 1 and digits[-1] == luhn_digit(digits[:-1])


def is_insurer(digits: str) -> bool:
    """An insurer's number (保険者番号): 8 digits, or 6 of National Health Insurance, with a
    prefecture from 01 to 47 before the last four digits."""
    return len(digits) in (6, 8) and is_luhn(digits) and 1 <= int(digits[-6:-4]) <= 47


def is_card(digits: str) -> bool:
    """A payment card: the length and first digits of a known network, and the check digit."""
    return bool(_NETWORK.fullmatch(digits)) and is_luhn(digits) and len(set(digits)) > 1


_NETWORK = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|35(?:2[89]|[3-8]\d)\d{12}|(?:2131|1800)\d{11}"  # JCB
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|62\d{14,17}"  # Discover, UnionPay
    r"|(?:50|5[6-8]|6[0-9])\d{10,17}"  # Maestro
)
