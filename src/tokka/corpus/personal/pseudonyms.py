"""Replacements that say as much as the text needs and nothing of the person.

A secret key, a kind and what was found → another value of the same kind: the same person has the
same pseudonym in every document, and another key gives other ones. HMAC-SHA256 (RFC 2104) chooses;
without the key nobody can try names until one fits.

>>> pseudonym(b"k" * 32, "phone", "03-1234-5678", "ja")
'03-0119-7631'
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from dataclasses import dataclass

from tokka.corpus.personal.digits import driving_licence_digit, my_number_digit, only_digits
from tokka.corpus.personal.findings import MASKS, Kind

_SURNAMES = (
    "青木 赤井 浅野 池上 石井 泉 市川 上野 内田 梅原 江川 大島 岡本 小川 奥村 片山 "
    "加納 川口 菊地 岸本 北川 木下 黒田 小林 近藤 坂本 桜井 沢田 塩田 島田 白石 "
    "杉山 関口 高木 竹内 田村 土屋 寺田 富田 中川 永井 西田 野口 橋本 浜田 原田 東 "
    "平田 福島 藤井 古川 星野 堀田 前川 松井 丸田 水谷 宮本 村田 森田 安田 柳 山下 "
    "横山 吉村 若林 渡部"
)
_GIVEN = (
    "明 茜 葵 歩 泉 一樹 恵 香 薫 和也 克己 京子 圭 健 光 紗英 幸 静 忍 純 "
    "翔太 晶 進 澄 節 大輔 千尋 司 翼 徹 直 夏希 望 春 秀樹 弘 史 真 誠 昌子 "
    "操 実 光子 緑 稔 武 恵子 康 裕 優 洋 良 瑠美 渉"
)
_FIRST = (
    "Alex Avery Blair Cameron Casey Dana Drew Emery Erin Frances Gale Harper Jamie Jean Jesse "
    "Jordan Kelly Kim Lane Lee Leslie Logan Lynn Marion Morgan Noel Pat Quinn Reese Riley Robin "
    "Rowan Sage Sam Shannon Shay Sidney Taylor Terry Tracy"
)
_LAST = (
    "Abbott Barker Barton Brewer Carver Chandler Cole Cooper Dalton Draper Ellis Farmer Fisher "
    "Fletcher Forest Gardner Glover Hale Harding Hooper Hunt Keller Lowe Marsh Mason Meadows "
    "Mercer Miller Moss Page Parker Porter Reed Rivers Sawyer Shepherd Slater Stone Thatcher "
    "Turner Walker Weaver Wells Woods"
)
SURNAMES, GIVEN = _SURNAMES.split(), _GIVEN.split()
FIRST, LAST = _FIRST.split(), _LAST.split()


@dataclass(frozen=True, slots=True)
class _Draw:
    """Numbers that key, kind and value decide, as many as are wanted."""

    key: bytes
    label: str

    def digest(self, turn: int) -> bytes:
        return hmac.digest(self.key, f"{turn}\x1f{self.label}".encode(), "sha256")

    def below(self, limit: int, turn: int = 0) -> int:
        return int.from_bytes(self.digest(turn)[:16], "big") % limit

    def digits(self, count: int) -> str:
        whole = b"".join(self.digest(turn) for turn in range(1 + count // 32))
        return "".join(str(byte % 10) for byte in whole)[:count]

    def code(self) -> str:
        return self.digest(0).hex()[:8]


def pseudonym(key: bytes, kind: Kind, value: str, language: str) -> str:
    """What stands for `value` in every document. Spellings that differ in width, spaces, hyphens
    and case alone are one value. A surname alone and the full name are two: nothing says that they
    are one person's."""
    draw = _Draw(key, f"{kind}\x1f{_canonical(kind, value)}")
    if kind == "name":
        return _name(key, value, language)
    if kind == "phone":
        return _phone(draw, value)
    if kind == "email":
        return f"user-{draw.code()}@example.com"
    if kind == "ip_address":
        # 198.18.0.0/15 (RFC 2544) and 2001:db8::/32 (RFC 3849) lead nowhere.
        code = draw.code()
        if ":" in value:
            return f"2001:db8::{code[:4]}:{code[4:]}"
        return f"198.{18 + draw.below(2)}.{draw.below(256, 1)}.{draw.below(256, 2)}"
    if kind in ("address", "birth_date"):
        mask = MASKS[kind][0 if language == "ja" else 1]
        return f"{mask[:-1]} {draw.code()}{mask[-1]}"
    return _number(draw, kind, value)


def _canonical(kind: Kind, value: str) -> str:
    text = unicodedata.normalize("NFKC", value).casefold()
    if kind in ("phone", "my_number", "driving_licence", "card", "social_security"):
        digits = only_digits(text)
        return "0" + digits[2:].removeprefix("0") if text.startswith("+81") else digits
    return re.sub(r"[\s\-‐–—−ー_]+" if kind != "name" else r"\s+", "", text)


def _name(key: bytes, value: str, language: str) -> str:
    draw = _Draw(key, f"name\x1f{_canonical('name', value)}")
    parts = value.split()
    if all(c < "\u3000" for c in value):
        last, first = LAST[draw.below(len(LAST))], FIRST[draw.below(len(FIRST), 1)]
        # A number keeps people apart that the short lists would make one.
        chosen = f"{first} {last}" if len(parts) > 1 else last
        return f"{chosen}-{draw.below(1000, 2):03d}"
    last, first = SURNAMES[draw.below(len(SURNAMES))], GIVEN[draw.below(len(GIVEN), 1)]
    whole = len(parts) > 1 or len(value) > 3
    return f"{last}{first if whole else ''}{draw.below(1000, 2):03d}"


def _phone(draw: _Draw, value: str) -> str:
    """A number of the same form that nobody has: Japanese local numbers don't begin with 0, and
    555-01xx is kept for fiction in North America."""
    digits = only_digits(unicodedata.normalize("NFKC", value))
    fresh = draw.digits(len(digits))
    groups = re.findall(r"\d+", unicodedata.normalize("NFKC", value))
    plus = value.lstrip().startswith(("+", "＋"))
    if not plus and digits.startswith("0") and len(digits) in (10, 11):
        area = len(groups[0]) if 1 < len(groups[0]) < 6 else 3
        return _filled(value, digits[:area] + "0" + fresh[: len(digits) - area - 1])
    if not plus and len(digits) == 10:
        return _filled(value, digits[:3] + "55501" + fresh[:2])
    country = len(groups[0]) if plus and len(groups[0]) <= 3 else 0
    return _filled(value, digits[:country] + "0" + fresh[: len(digits) - country - 1])


def _number(draw: _Draw, kind: Kind, value: str) -> str:
    """As many digits, in the same groups; letters stay. A check digit is always wrong, so that the
    number can be nobody's."""
    text = unicodedata.normalize("NFKC", value)
    digits = draw.digits(len(only_digits(text)))
    if kind == "my_number" and len(digits) == 12:
        digits = digits[:11] + str((int(my_number_digit(digits[:11])) + 1) % 10)
    elif kind == "driving_licence" and len(digits) == 12:
        wrong = str((int(driving_licence_digit(digits[:10])) + 1) % 10)
        digits = digits[:10] + wrong + digits[11]
    elif kind == "card" and digits:
        # 9 is no network's first digit.
        digits = "9" + digits[1:]
    elif kind == "social_security" and len(digits) == 9:
        digits = "000" + digits[3:]  # no number begins so
    return _filled(value, digits)


def _filled(form: str, digits: str) -> str:
    """The form with other digits in the places of its own; full width stays full width."""
    fresh = iter(digits)
    return "".join(_like(c, next(fresh, "0")) if c.isdecimal() else c for c in form)


def _like(old: str, new: str) -> str:
    return chr(ord("０") + int(new)) if "０" <= old <= "９" else new
