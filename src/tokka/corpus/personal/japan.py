"""Numbers that identify people in Japan, and what is written alike everywhere.

Folded text (`findings.fold`) → findings. A number with a check digit is believed for it; one
without needs words beside it that say what it is.

>>> list(numbers("個人番号は123456789018です"))
[Finding(kind='my_number', start=5, end=17, score=1.0)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokka.corpus.personal.digits import (
    is_card,
    is_driving_licence,
    is_insurer,
    is_my_number,
    only_digits,
)
from tokka.corpus.personal.findings import Finding, Kind

_EDGE = r"(?<![0-9A-Za-z])(?<![0-9][-.])"
_END = r"(?![0-9A-Za-z]|[-.][0-9])"
_IS = r"[\s:：=はがを]{0,4}"  # between a label and its value
_NUMBER_IS = rf"(?:の?(?:番号|No\.?|№))?{_IS}(?:第\s?)?"

_TWELVE = re.compile(rf"{_EDGE}\d{{4}}([- ]?)\d{{4}}\1\d{{4}}{_END}")
_OTHERS_TWELVE = re.compile(
    r"(?:注文|受付|伝票|追跡|問い?合わ?せ|管理|会員|顧客|お客様|契約|納付書|領収証?|請求書?|商品|製造|申請"
    r"|取引|整理|登録|order|tracking|invoice)\S{0,6}?(?:番号|No\.?|ID|コード)?\S{0,6}[\s:：はが]*$",
    re.IGNORECASE,
)
_MY_NUMBER = re.compile(r"個人番号|マイナンバー|my ?number", re.IGNORECASE)
_LICENCE = re.compile(r"免許", re.IGNORECASE)
_CARD = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]-)\d{4}(?:[- ]?\d{4}){2}[- ]?\d{1,7}(?![0-9A-Za-z]|-\d)"
    r"|(?<![0-9A-Za-z])(?<![0-9]-)\d{4}[- ]\d{6}[- ]\d{4,5}(?![0-9A-Za-z]|-\d)"
    r"|(?<![0-9A-Za-z-])\d{12,19}(?![0-9A-Za-z-])"
)
_CARD_WORDS = re.compile(
    r"card|\bcc\b|カード|visa|master|amex|jcb|クレジット|デビット", re.IGNORECASE
)
_DATE = (
    r"(?:(?:明治|大正|昭和|平成|令和|西暦|[MTSHR](?=\d))\s?)?"
    r"(?:\d{1,4}|元|[〇一二三四五六七八九十百千]{1,5})\s?[年./-]\s?"
    r"(?:\d{1,2}|[一二三四五六七八九十]{1,3})\s?[月./-]\s?"
    r"(?:\d{1,2}|[一二三四五六七八九十]{1,3})日?"
)
_ENGLISH_DATE = (
    r"(?:\d{1,2}(?:st|nd|rd|th)?\s(?:of\s)?)?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
    r"[a-z]*\.?\s(?:\d{1,2}(?:st|nd|rd|th)?,?\s)?\d{4}"
)
_MONTH_DAY = r"(?:\d{1,2}月\d{1,2}日|\d{1,2}/\d{1,2}(?!\d|/))"

# One pattern for each kind; the group `it` is the finding.
_PATTERNS: tuple[tuple[Kind, float, re.Pattern[str]], ...] = (
    (
        "email",
        1.0,
        re.compile(
            r"(?<![A-Za-z0-9._%+-])(?P<it>[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z])"
        ),
    ),
    ("residence_card", 0.9, re.compile(rf"{_EDGE}(?P<it>[A-Z]{{2}}\d{{8}}[A-Z]{{2}}){_END}")),
    (
        "passport",
        0.9,
        re.compile(
            rf"(?:旅券|パスポート|passport)(?:[^\n。]{{0,12}}?)(?<![A-Za-z])(?P<it>[A-Z]{{1,2}}\d{{7}}){_END}",
            re.IGNORECASE,
        ),
    ),
    (
        "pension_number",
        0.9,
        re.compile(rf"年金(?:[^\n。0-9]{{0,14}}?){_EDGE}(?P<it>\d{{4}}-?\d{{6}}){_END}"),
    ),
    (
        "health_insurance",
        0.9,
        re.compile(
            rf"(?:被保険者|保険証|資格確認書)[^\n。0-9]{{0,14}}?番号{_IS}(?P<it>[0-9]{{2,10}}){_END}"
        ),
    ),
    (
        "health_insurance",
        0.9,
        re.compile(
            rf"(?:被保険者|保険証)[^\n。0-9]{{0,10}}?記号[・/]番号{_IS}"
            r"(?P<it>[^\W\d_]?\d{1,8}[-・ /]\d{1,8})"
        ),
    ),
    (
        "health_insurance",
        0.9,
        re.compile(rf"保険(?:証|者)[^\n。]{{0,30}}?記号{_IS}(?P<it>[^\W\d_]{{0,2}}[0-9-]{{1,8}})"),
    ),
    (
        "health_insurance",
        0.9,
        re.compile(
            rf"保険(?:証|者)[^\n。]{{0,30}}?記号[^\n。]{{1,12}}?番号{_IS}(?P<it>[0-9-]{{1,10}}){_END}"
        ),
    ),
    (
        "bank_account",
        0.95,
        re.compile(
            rf"(?:普通|当座|貯蓄|総合)(?:預金|口座)*(?:口座)?{_NUMBER_IS}(?<!\d)(?P<it>\d{{7}}){_END}(?!円|人|件|株|口)"
        ),
    ),
    (
        "bank_account",
        0.95,
        re.compile(rf"口座番号{_IS}(?:(?:普通|当座)\s?)?(?P<it>\d[\d-]{{4,10}}\d)(?!\d)"),
    ),
    (
        "bank_account",
        0.95,
        re.compile(
            rf"(?:ゆうちょ|郵便貯金|貯金)[^\n。]{{0,16}}?記号{_IS}(?P<it>1\d{{4}}(?:-\d)?)(?!\d)"
        ),
    ),
    (
        "bank_account",
        0.95,
        re.compile(
            rf"(?:ゆうちょ|郵便貯金|貯金)[^\n。]{{0,16}}?記号[^\n。]{{5,14}}?番号{_IS}(?P<it>\d{{2,8}})(?!\d)"
        ),
    ),
    (
        "birth_date",
        0.9,
        re.compile(
            r"(?:生年月日|誕生日|出生日?|生まれた日"
            r"|date of birth|DOB|birth ?date|birthday|born(?: on)?)"
            r"(?:[（(][^）)\n]{1,8}[）)])?(?:[\s:：=、,は]|is|was|on){0,6}"
            rf"(?P<it>{_DATE}|{_ENGLISH_DATE}|{_MONTH_DAY})",
            re.IGNORECASE,
        ),
    ),
    (
        "birth_date",
        0.9,
        re.compile(
            rf"(?<![0-9])(?P<it>{_DATE})(?=\s?(?:生(?![産徒活])|[にの]?\s?(?:出生|誕生|生まれ)))"
        ),
    ),
    (
        "birth_date",
        0.8,
        re.compile(r"(?<![0-9A-Za-z])(?P<it>[MTSHR]\d{1,2}[./]\d{1,2}[./]\d{1,2})(?=\s?生)"),
    ),
)
_PHONES = (
    (0.9, r"0[5789]0[-(). ]{0,2}\d{4}[-(). ]{0,2}\d{4}"),
    (0.9, r"(?:0120|0800|0570|0990|0180)[-() ]{1,2}\d{2,3}[-() ]{1,2}\d{3,4}"),
    (0.9, r"\+81[-() ]{0,2}(?:\(?0\)?)?\d{1,4}[-() ]{1,2}\d{1,4}[-() ]{0,2}\d{3,4}"),
    (0.85, r"\(0\d{1,4}\)\s?\d{1,4}[- ]?\d{4}|0\d{1,4}\(\d{1,4}\)\d{4}|0\d{1,4}-\d{1,4}-\d{4}"),
)
_PHONE = [
    (score, re.compile(rf"(?<![0-9A-Za-z+])(?<![0-9]-)(?P<it>{pattern})(?![0-9A-Za-z]|-[0-9])"))
    for score, pattern in _PHONES
]
_PHONE_WORD = re.compile(r"電話|携帯|TEL|FAX|ファックス|連絡先|℡|☎", re.IGNORECASE)
_PHONE_WORDS = re.compile(
    rf"(?:{_PHONE_WORD.pattern})(?:番号)?{_IS}(?P<it>0[\d -]{{8,12}}\d)(?!\d)",
    re.IGNORECASE,
)
_IP4 = re.compile(
    r"(?<![0-9A-Za-z.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![0-9]|\.[0-9])"
)
_IP6 = re.compile(
    r"(?<![0-9A-Za-z:])(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}"
    r"|(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}|(?:[0-9A-Fa-f]{1,4}:){2,7}:)(?![0-9A-Za-z:])"
)
_VERSION = re.compile(r"(?:ver(?:sion)?\.?|バージョン|版|\bv|第)\s?$", re.IGNORECASE)


_WESTERN_PHONE = re.compile(
    r"\b(?:phone|tel|telephone|mobile|cell|desk|fax|registered|answering at|messages to|text me at"
    r"|call (?:me|us|him|her|them)?(?: at| on)?|reach \w+ (?:at|on)"
    r"|(?:phone|telephone|contact) number(?: is)?)[\s:.]{1,4}"
    r"(?P<it>\+?\(?\d[\d ()./-]{5,17}\d(?:\s?(?:x|ext\.?)\s?\d{1,6})?)(?!\d)",
    re.IGNORECASE,
)


def numbers(text: str) -> Iterator[Finding]:
    """Every kind but names and addresses, on folded text; findings may overlap."""
    yield from _twelve_digits(text)
    yield from _cards(text)
    yield from _insurers(text)
    yield from _phones(text)
    yield from _internet(text)
    for kind, score, pattern in _PATTERNS:
        for found in pattern.finditer(text):
            yield Finding(kind, *found.span("it"), score)


def _before(text: str, at: int, width: int) -> str:
    return text[max(0, at - width) : at].rpartition("\n")[2]


def _twelve_digits(text: str) -> Iterator[Finding]:
    """My Number and driving licence: one in eleven other numbers has a check digit by chance, so
    a label that names something else outweighs it; its own label outweighs a wrong one."""
    for found in _TWELVE.finditer(text):
        digits = only_digits(found[0])
        before = _before(text, found.start(), 24)
        if _MY_NUMBER.search(before):
            yield Finding("my_number", *found.span(), 1.0 if is_my_number(digits) else 0.8)
        elif _LICENCE.search(before):
            score = 1.0 if is_driving_licence(digits) else 0.8
            yield Finding("driving_licence", *found.span(), score)
        elif _OTHERS_TWELVE.search(before) or _CARD_WORDS.search(before):
            continue
        elif is_driving_licence(digits) and not found[1]:
            yield Finding("driving_licence", *found.span(), 0.6)
        elif is_my_number(digits):
            yield Finding("my_number", *found.span(), 0.7)


def _cards(text: str) -> Iterator[Finding]:
    for found in _CARD.finditer(text):
        digits = only_digits(found[0])
        before = _before(text, found.start(), 40)
        named = _CARD_WORDS.search(before) or _CARD_WORDS.search(text[found.end() :][:20])
        if is_card(digits) and (named or len(digits) >= 14) and not _OTHERS_TWELVE.search(before):
            yield Finding("card", *found.span(), 1.0 if named else 0.8)
        elif named and len(digits) >= 12:
            yield Finding("card", *found.span(), 0.6)


def _insurers(text: str) -> Iterator[Finding]:
    for found in re.finditer(rf"保険者番号{_IS}(?P<it>\d{{6}}(?:\d{{2}})?)(?!\d)", text):
        if text[found.start() - 1 : found.start()] == "被":
            continue
        yield Finding(
            "health_insurance", *found.span("it"), 1.0 if is_insurer(found["it"]) else 0.8
        )


def _phones(text: str) -> Iterator[Finding]:
    for score, pattern in _PHONE:
        for found in pattern.finditer(text):
            if found["it"].startswith("+81") or len(only_digits(found["it"])) in (10, 11):
                before = _before(text, found.start("it"), 16)
                if _PHONE_WORD.search(before) or not _OTHERS_TWELVE.search(before):
                    yield Finding("phone", *found.span("it"), score)
    for found in _WESTERN_PHONE.finditer(text):
        if 7 <= len(only_digits(found["it"])) <= 20:
            yield Finding("phone", *found.span("it"), 0.85)
    for found in _PHONE_WORDS.finditer(text):
        if len(only_digits(found["it"])) in (10, 11):
            yield Finding("phone", *found.span("it"), 0.85)


def _internet(text: str) -> Iterator[Finding]:
    for found in _IP4.finditer(text):
        if not _VERSION.search(_before(text, found.start(), 10)):
            yield Finding("ip_address", *found.span(), 0.9)
    for found in _IP6.finditer(text):
        if sum(c.isdigit() for c in found[0]) >= 3:
            yield Finding("ip_address", *found.span(), 0.9)
