"""Names of people in Japanese text: what GiNZA marks as a person, and what labels, titles and the
dictionary's surnames give away.

Tokens with part of speech (Sudachi) and entity → findings. Left alone: companies and places that
bear a surname, and people as authors and namesakes (夏目漱石『こころ』, ニュートンの法則).

>>> cued("鈴木様はお元気ですか。", surnames=False)   # worth the entity model's time
True
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokka.corpus.personal.findings import Finding

_TITLES = "様|さま|さん|ちゃん|くん|君|氏|殿|先生|先輩|選手|容疑者|被告"
_POSTS = (
    "会長|副社長|社長|専務|常務|取締役|監査役|部長|次長|課長|係長|主任|主査|主事|室長|所長|支店長|店長|院長"
    "|医師|医長|看護師|弁護士|司法書士|税理士|准教授|教授|講師|教諭|校長|理事|委員|主治医|代表取締役"
)
_TITLE = re.compile(rf"\s?(?:{_TITLES}|{_POSTS})")
_TITLE_END = re.compile(rf"(?:\s?(?:{_TITLES}|{_POSTS}))+$")
# Posts that statutes are full of (委員, 取締役) are none: they would have every article read.
_CUE = re.compile(rf"{_TITLES}|[部課係社室店]長|専務|常務|主任|医師")
_POST = re.compile(_POSTS)
_PLAIN_TITLE = re.compile(rf"\s?(?:{_TITLES})(?![一-鿿])")
_LABELS = (
    "氏\\s?名|お?名\\s?前|フリガナ|ふりがな|署\\s?名|(?:口座)?名義人?|契約者名?|被保険者名?|患者名?|保護者|世帯主|届出人"
    "|担当者?名?|ご担当者名?|代表者名?|代表取締役|売\\s?主|買\\s?主|借\\s?主|貸\\s?主|賃借人|賃貸人|連帯保証人|受取人|申請者|申込者"
    "|請求者|推薦者|滞納者|納税者|被相続人|相続人|代理人|弁護士|司法書士|税理士|差出人|宛先|来訪者|議長|書記|監査役|担任|送り主"
    "|受任者|所有者|退職者|返納者|出席者|欠席"
)
_GIVEN = "(?:[一-鿿々]{1,4}|[ぁ-ゖ]{2,5}子?|[ァ-ヺー]{2,6})"
_NAME = (
    rf"(?:[一-鿿々ヶ]{{1,4}}[ \t]?{_GIVEN}|[ァ-ヺー]{{2,8}}[ \t・][ァ-ヺー]{{2,8}}"
    r"|[A-Z][A-Za-z'’-]+(?:[ \t][A-Z][A-Za-z'’-]+){1,3})"
)
_LABELLED = re.compile(
    rf"(?:{_LABELS})(?:\([^)\n]{{1,8}}\))?(?:\s?[::]\s?|[ \t]+)"
    rf"(?!(?:{_LABELS}|{_POSTS}))(?P<it>{_NAME})(?![一-鿿ァ-ヺ]|\s?[::])"
)
# 代表取締役深山 剛志: without a separator only a name written in two parts is clear.
_POSTED = re.compile(
    rf"(?:{_POSTS}|主任|担当|世帯主|連帯保証人)(?P<it>[一-鿿々ヶ]{{1,3}} {_GIVEN})(?![一-鿿ァ-ヺ])"
)
_ADDRESSED = re.compile(
    r"(?<![一-鿿々ァ-ヺーおご])(?P<it>[一-鿿々ヶ]{1,4}(?: [一-鿿々ぁ-ゖァ-ヺ]{1,4})?)"
    r"(?=\s?(?:様(?![子々式相態変])|さま|くん|ちゃん))"
)
_NOBODY = re.compile(
    r".*(?:客|皆|神|仏|王|奥|方|者|員|人|主|社|店|部|課|先|生|家|族|親|父|母|兄|姉|弟|妹|子供|各位|同|多|一|何|貴|模|仕|有|今|外"
    r"|患者|坊|嬢|赤|孫|娘|息子|伯|叔)$"
)
_ACCOUNT_HOLDER = re.compile(
    r"(?:口座|振込|名義|普通|当座|カナ)[^\n]{0,24}?"
    r"(?<![ァ-ヺー])(?P<it>[ァ-ヺー]{2,6} [ァ-ヺー]{2,6})(?![ァ-ヺー])"
)
_LATIN_PAIR = re.compile(r"(?<![A-Za-z])[A-Z][a-z]+(?: [A-Z][A-Za-z'’-]+){1,2}(?![A-Za-z])")
_NO_NAME = re.compile(
    r".*(?:部|課|係|局|社|店|銀行|法人|組合|病院|クリニック|学校|大学|センター|事務所|委員会|協会|番号|年|月|日|円"
    r"|です|ます|する|した|様|さん)$"
)
_LATIN = re.compile(
    rf"(?<![A-Za-z])(?P<it>[A-Z][A-Za-z'’-]+(?: [A-Z][A-Za-z'’-]+){{0,3}})(?=\s?(?:{_TITLES}))"
)
_FOREIGN = re.compile(
    rf"(?<![ァ-ヺー・])(?P<it>[ァ-ヺー]{{2,10}}(?:[・=][ァ-ヺー]{{1,10}}){{0,3}})(?=\s?(?:{_TITLES})(?![一-鿿]))"
)
_KANA_COMMON_TEXT = (
    "オーナー ドライバー スタッフ メンバー ユーザー ナース ヘルパー ファン サポーター パート"
)
_KANA_COMMON = frozenset(_KANA_COMMON_TEXT.split())
_FULL_FOREIGN = re.compile(r"[ァ-ヺー]{2,10}[・=][ァ-ヺー]{2,10}")
_AS_AUTHOR = re.compile(
    r"(?:の)?『|の?「[^」]{1,30}」(?:\(|を|に)"
    r"|の[^\s。、]{0,6}(?:法則|定理|理論|方程式|原理|効果|公式|肖像|小説|作品|著書|学説|相対性|作曲)"
    r"|\(\d{3,4}(?:年)?(?:[-~〜]\d{0,4}年?)?\)|(?:ら|et al\.?),?\s?\(?\d{4}"
    r"|型|式(?!典)|病|症候群|反応|染色"
)
_AS_COMPANY = re.compile(
    r"\s?(?:建設|商事|商店|工業|製作所|組(?![みま])|銀行|証券|生命|電機|電器|自動車|運輸|不動産|病院|医院|クリニック|歯科|内科"
    r"|薬局|ホールディングス|グループ|株式会社|有限会社|大学|高校|記念|財団|屋|市|町|村|区|県|駅|城|川|山|駐車場|技研)"
)
_COMPANY_END = re.compile(
    r"(?:建設|商事|商店|工業|製作所|銀行|証券|生命|電機|電器|自動車|運輸|不動産|病院|医院|クリニック|薬局|大学|高校|社|帝国)$"
)
_OF_COMPANY = re.compile(r"(?:株式会社|有限会社|合同会社|財団法人|㈱|\(株\))\s?$")
_ERA = re.compile(r"(?:明治|大正|昭和|平成|令和)(?:[\d元一二三四五六七八九十]|$)")
_PLACES = "地名"


@dataclass(frozen=True, slots=True)
class Token:
    """`part_of_speech` as Sudachi writes it (名詞-固有名詞-人名-姓); `entity` the label of the
    entity that it is in, "" for none."""

    text: str
    start: int
    part_of_speech: str
    entity: str = ""

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Entity:
    label: str
    start: int
    end: int


def cued(sentence: str, surnames: bool) -> bool:
    """Whether a sentence may hold a name: the entity model, by far the slowest part, reads no
    other. `surnames`: the dictionary knows a token of it as somebody's name."""
    return surnames or bool(
        _CUE.search(sentence)
        or _FULL_FOREIGN.search(sentence)
        or _LATIN_PAIR.search(sentence)
        or _LABELLED.search(sentence)
    )


def japanese_names(
    text: str, tokens: Sequence[Token], entities: Sequence[Entity]
) -> Iterator[Finding]:
    """Findings of the kind `name` on folded text; they may overlap."""
    for start, end, score in _candidates(text, tokens, entities):
        trimmed = _trimmed(text, start, end)
        if trimmed and _is_person(text, *trimmed):
            yield Finding("name", *trimmed, score)


def _candidates(
    text: str, tokens: Sequence[Token], entities: Sequence[Entity]
) -> Iterator[tuple[int, int, float]]:
    for entity in entities:
        if entity.label == "Person":
            yield entity.start, entity.end, 0.85
    for found in _LABELLED.finditer(text):
        if not _NO_NAME.match(found["it"]):
            yield *found.span("it"), 0.8
    for found in _ADDRESSED.finditer(text):
        if not _NOBODY.match(found["it"]):
            yield *found.span("it"), 0.75
    for pattern in (_POSTED, _ACCOUNT_HOLDER, _LATIN):
        for found in pattern.finditer(text):
            yield *found.span("it"), 0.8
    known = {n for t in tokens if "人名" in t.part_of_speech for n in range(t.start, t.end)}
    for found in _LATIN_PAIR.finditer(text):
        if not known.isdisjoint(range(*found.span())):
            yield *found.span(), 0.7
    for found in _FOREIGN.finditer(text):
        if found["it"] not in _KANA_COMMON:
            yield *found.span("it"), 0.75
    yield from _by_dictionary(text, tokens)


def _by_dictionary(text: str, tokens: Sequence[Token]) -> Iterator[tuple[int, int, float]]:
    """Surname with given name, and anything like a name before a title."""
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if not _is_name(token):
            position += 1
            continue
        last = position
        while last + 1 < len(tokens) and _goes_on(text, tokens, last):
            last += 1
        start, end = token.start, tokens[last].end
        personal = any("人名" in t.part_of_speech for t in tokens[position : last + 1])
        full = (
            last > position
            and "人名-姓" in token.part_of_speech
            and any("人名-名" in t.part_of_speech for t in tokens[position + 1 : last + 1])
        )
        if full:
            yield start, end, 0.8
        elif _PLAIN_TITLE.match(text, end) or (personal and _TITLE.match(text, end)):
            yield start, end, 0.75
        position = last + 1


def _is_name(token: Token) -> bool:
    return "固有名詞" in token.part_of_speech and token.entity not in ("Company", "Book", "School")


def _goes_on(text: str, tokens: Sequence[Token], last: int) -> bool:
    """The next token belongs to the same name: "人名" right after, or after one space."""
    here, after = tokens[last], tokens[last + 1]
    if after.text.isspace() and last + 2 < len(tokens):
        return "人名" in tokens[last + 2].part_of_speech and "人名-姓" in here.part_of_speech
    if here.text.isspace():
        return "人名" in after.part_of_speech
    return "人名" in after.part_of_speech and here.end == after.start


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Without titles, brackets and white space at its ends; cut at a line's end."""
    piece = text[start:end].split("\n")[0].rstrip(" )]」』）")
    if title := _TITLE_END.search(piece):
        piece = piece[: title.start()] or piece
    # 吉岡部|長: the model cuts inside a title.
    if len(piece) > 1 and _POST.match(text, start + len(piece) - 1):
        piece = piece[:-1]
    while piece and not (piece[-1].isalnum() or piece[-1] in "々ー"):
        piece = piece[:-1]
    lead = len(piece) - len(piece.lstrip(" \t\u3000「『（()[]<>・、。:,-"))
    piece = piece[lead:]
    return (start + lead, start + lead + len(piece)) if piece else None


def _is_person(text: str, start: int, end: int) -> bool:
    name = text[start:end]
    if any(c.isdigit() for c in name) or _ERA.match(name) or re.fullmatch("[ぁ-ゖ]", name):
        return False
    if name.isascii() and not all(word[0].isupper() for word in name.split()):
        return False
    if _COMPANY_END.search(name) or _OF_COMPANY.search(text[max(0, start - 6) : start]):
        return False
    if _TITLE.match(text, end):
        return True
    return not (_AS_AUTHOR.match(text, end) or _AS_COMPANY.match(text, end))
