"""Where people live, down to the house: Japanese and western addresses.

Folded text → findings. A prefecture or city alone is no personal data; one with a block or house
number is, whoever lives there: nothing in the text tells an office from a home.

>>> list(japanese("住所は東京都世田谷区経堂1-2-3です"))
[Finding(kind='address', start=3, end=17, score=0.9)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokka.corpus.personal.findings import Finding

_PREFECTURE = (
    "北海道|東京都|京都府|大阪府|(?:青森|岩手|宮城|秋田|山形|福島|茨城|栃木|群馬|埼玉|千葉|神奈川|新潟|富山|石川|福井|山梨|長野"
    "|岐阜|静岡|愛知|三重|滋賀|兵庫|奈良|和歌山|鳥取|島根|岡山|広島|山口|徳島|香川|愛媛|高知|福岡|佐賀|長崎|熊本|大分|宮崎"
    "|鹿児島|沖縄)県"
)
# Without them a particle before a city would be taken for its beginning.
_KANA_CITIES = (
    "さいたま|つくば(?:みらい)?|いわき|うるま|かすみがうら|みどり|さくら|ひたちなか|あきる野|あわら|いちき串木野|うきは|えびの"
    "|かほく|ふじみ野|みやま|みよし|つがる|にかほ|むつ|いなべ|いすみ|おいらせ|たつの|東かがわ"
)
_PLACE = r"[一-鿿々〆ぁ-ゖァ-ヺー]"
_KANJI = "〇一二三四五六七八九十百"
_POSTCODE = r"〒?\s?\d{3}-\d{4}"
_NUMBERS = (
    rf"(?:(?:\d+|[{_KANJI}]+)(?:丁目|番地|番町?|条)\s?(?:の\s?\d+)?(?:\s?(?:\d+|[{_KANJI}]+)(?:丁目|番地|番|号|[-の]\d+)?)*号?"
    rf"(?:-\d+)*|\d+(?:-\d+){{1,4}}(?:号室?)?)"
)
_BUILDING = (
    r"(?:[ 　]?[一-鿿々ぁ-ゖァ-ヺーA-Za-z・]{2,16}"
    r"(?:[ 　]?[A-Z]?\d{1,4}(?:号室?|階|F)?)(?![0-9年月]))"
)
_JAPANESE = re.compile(
    rf"(?:{_POSTCODE}\s*)?"
    rf"(?:(?:{_PREFECTURE})\s?(?:{_PLACE}{{1,7}}?[市区町村郡]){{1,3}}|(?:{_PREFECTURE})"
    rf"|(?<![一-鿿々ァ-ヺ])(?:[一-鿿々ヶァ-ヺ]{{1,6}}?|{_KANA_CITIES})市(?:{_PLACE}{{1,5}}?区)?"
    r"|(?<![一-鿿々ァ-ヺ])[一-鿿]{1,4}(?<![地学校挙])区)"
    rf"\s?{_PLACE}{{0,12}}?\s?(?:{_NUMBERS})(?:(?!から|まで){_BUILDING})?"
)
_POSTCODE_ALONE = re.compile(r"(?:〒\s?|郵便番号[\s:は]{0,3})(?P<it>\d{3}-?\d{4})(?!\d)")
_LABELLED = re.compile(
    rf"(?:住所|居所|本籍地?|所在地|住まい)(?:[（(][^）)\n]{{1,8}}[）)])?[\s:は]{{1,4}}"
    rf"(?P<it>{_PLACE}{{2,20}}\s?{_NUMBERS}{_BUILDING}?)"
)

_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Place|Pl"
    r"|Square|Sq|Terrace|Close|Crescent|Cres|Highway|Hwy|Parkway|Pkwy|Circle|Trail|Turnpike"
    r"|Gardens|Grove|Mews|Row|Walk|Hill|Streets|Roads|street|avenue|road|lane|drive)"
)
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Unit|Flat|Room|#)\.?\s?[A-Z]?\d{1,5}[A-Z]?"
_WORD = r"[^\W\d_a-z][\w'’.-]*"
_WORDS = rf"(?:{_WORD}|\d{{1,5}}|de|da|do|del|van|la|di|y|and|of|[uú]t|útja)"
_POSTED = r"(?:[A-Z]{1,2}[- ]?)?\d{3,5}(?:[- ]\d{2,4})?(?!\d)"
_TAIL = (
    rf"(?:,?\s*\n?\s*{_UNIT})?"
    rf"(?:[\n,]\s*(?:{_WORD}|[A-Z]{{2}})(?:[ ]{_WORD}){{0,3}}(?:[ ]{_POSTED})?){{0,4}}"
    rf"(?:[\n, ]\s*{_POSTED})?"
)
_WESTERN = (
    re.compile(
        rf"(?<![\w-])\d{{1,6}}[A-Z]?,?(?:\s{_WORDS}){{1,4}}?\s(?:{_STREET}\b\.?|St\.){_TAIL}"
    ),
    re.compile(rf"(?<![\w-])\d{{1,6}}(?:\s{_WORDS}){{1,5}}?,?\s+{_UNIT}{_TAIL}"),
    re.compile(rf"(?<!\w){_WORD}(?:\s{_WORDS}){{0,3}}\s\d{{1,4}}\.?\s(?:street|St\.)"),
    re.compile(r"(?<!\w)(?:Apt|Apartment|Suite|Flat)\.?\s?[A-Z]?\d{1,5}[A-Z]?(?!\w)"),
    re.compile(
        r"(?<!\w)(?:P\.? ?O\.? ?Box|(?:PSC|Unit) \d+,? Box)\s\d+"
        r"(?:\s+(?:[AFD]PO\s)?[A-Z]{2}\s\d{5})?"
    ),
    re.compile(
        r"(?<!\w)(?:\d{1,6}\s)?[^\W\d_a-z]\w*?(?:straße|strasse|straat|gatan|gata|vej|katu|tie|weg"
        rf"|gasse|allee|utca|stræti)\s\d{{1,4}}[a-z]?(?!\w){_TAIL}"
    ),
    re.compile(
        r"(?<!\w)(?:\d{1,6}\s)?(?:Rua|Via|Rue|Calle|Avenida|Av|Avenue|ul|Ulica|Piazza|Plaza|Viale"
        rf"|Largo|Travessa|R)\.?\s(?:[\w'.]+\s){{1,5}}?\d{{1,5}}(?!\w){_TAIL}"
    ),
)
# A number, names and a number again, where words before it say that a place follows.
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b"
_PLACED = re.compile(
    r"(?:\b(?:at|on|to|in|address(?:es)?|are|user)\b:?|:)\s+"
    rf"(?!\d{{1,2}}\s{_MONTH})(?P<it>\d{{1,6}}(?:\s\d{{1,6}})?\s{_WORD}(?:\s{_WORDS}){{0,4}}(?:\s\d{{1,4}}(?!\w)|,\s{_WORD}){_TAIL})",
)
_TALK = re.compile(r"(?:\s+[a-z][\w'’]*)+[\s.,]*$")  # what a sentence says after the place
_ZIP = re.compile(
    r"\b(?i:zip|post(?:al)? ?code)(?: code)?:?\s+(?P<it>[A-Z]{0,2}-?\d{3,5}(?:[- ]\d{2,4})?)(?!\d)"
)
_LONE = re.compile(
    r"(?:^|\n)[ \t]*(?P<it>\d{1,6}[ ]\S[^\n]{3,40}\n(?:[^\n]{2,30}\n\s{0,9}){0,3}"
    r"(?:[^\n\d]{2,24} )?\d{4,5})(?=[ \t]*(?:\n|$))"
)
_WESTERN_LABELLED = re.compile(
    r"(?:(?:address(?: of [^\n]{1,40}?)?(?: is|:)|live[sd]? (?:at|in)|resid(?:es?|ing) at"
    r"|located at|mov(?:ed|ing) to"
    r"|(?:ship|deliver|send|mail)\w*(?: \w+){0,2} to:?|office (?:is )?at)\s+)"
    r"(?P<it>\d[^\n?!;]{4,60}(?:\n[^\n?!;]{2,40}){0,4})",
    re.IGNORECASE,
)


def japanese(text: str) -> Iterator[Finding]:
    for found in _JAPANESE.finditer(text):
        yield Finding("address", *found.span(), 0.9)
    for found in _POSTCODE_ALONE.finditer(text):
        yield Finding("address", *found.span("it"), 0.9)
    for found in _LABELLED.finditer(text):
        yield Finding("address", *found.span("it"), 0.85)


def western(text: str) -> Iterator[Finding]:
    for pattern in _WESTERN:
        for found in pattern.finditer(text):
            yield Finding("address", *found.span(), 0.9)
    for pattern in (_PLACED, _ZIP, _LONE):
        for found in pattern.finditer(text):
            yield Finding("address", *found.span("it"), 0.86)  # above the names that it holds
    for found in _WESTERN_LABELLED.finditer(text):
        place = _first_sentence(found["it"])
        if not place.islower():
            place = _TALK.sub("", place)
        start = found.start("it")
        yield Finding("address", start, start + len(place.rstrip(" .,")), 0.86)


def _first_sentence(text: str) -> str:
    stop = re.search(r"(?<=[a-z\d]{3})\.(?:\s|$)", text)
    return text[: stop.start()] if stop else text
