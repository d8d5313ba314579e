"""Ruby, the small reading beside a kanji: extracted text → edits that cut it.

Aozora Bunko marks it: ｜揶揄《やゆ》. PDFs and HTML leave 揶揄（やゆ） or 揶揄(やゆ), which looks
like any remark in brackets. Most remarks hold something that a reading doesn't, or are of another
length: （以下「当金庫」という。）, （ふりがな）. Some look the same: 用紙（はがき）. So a reading
in brackets is cut only beside a kanji outside the first level of JIS X 0208, or where the document
reads three or more words that way: a remark is worth more than a clean line.

>>> [text[e.start : e.end] for e in ruby_edits(text := "憤懣（ふんまん）と用紙（はがき）")]
['（ふんまん）']
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokka.corpus.edits import Edit

_KANJI = "々〆㐀-\u4dbf一-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKED = re.compile(r"｜([^｜《》\n]{1,30})《([ぁ-ゖァ-ヺー・ゝゞ]{1,30})》")
_LEGEND = re.compile(r"《》\s*[：:]\s*ルビ")
_IMPLICIT = re.compile(rf"(?<=[{_KANJI}])《[ぁ-ゖァ-ヺー・ゝゞ]{{1,30}}》")
_BRACKETED = re.compile(rf"(?<![{_KANJI}])([{_KANJI}]{{1,10}})([（(])([ぁ-ゖー]{{1,40}})[）)]")
_REMARK = re.compile(
    "(?:ふり|よみ)がな|ひらがな|かな|あり|なし|はい|いいえ|する|しない|した|ある|ない|いる|いない|など|ほか"
    "|うち|とも|のみ|だけ|まで|から|より|ほど|くらい|いずれも|みなし|および|または|ただし|すべて|おおむね"
    "|いわゆる|もしくは|ならびに|かつ|こと|もの|とき|ため|.*(?:する|します|ません|です|ください|について|という)"
)
_THROUGHOUT = 3  # words
_SERIES = frozenset("いろはにほへと")  # （い）, （ろ）, … count items


def ruby_edits(text: str) -> Iterator[Edit]:
    """Edits in order, disjoint."""
    if "《" in text:
        marked = list(_MARKED.finditer(text))
        if marked or _LEGEND.search(text):
            edits = [Edit(mark.start(), mark.start() + 1) for mark in marked]
            edits += [Edit(mark.end(1), mark.end()) for mark in marked]
            taken = {edit.start for edit in edits}
            edits += [
                Edit(*mark.span()) for mark in _IMPLICIT.finditer(text) if mark.start() not in taken
            ]
            yield from sorted(edits)
            return  # the brackets are looked at in the next round
    likely = [mark for mark in _BRACKETED.finditer(text) if _may_read(mark[1], mark[3])]
    throughout = len({mark[1] for mark in likely}) >= _THROUGHOUT
    for mark in likely:
        if throughout or any(map(_is_rare, mark[1])):
            yield Edit(mark.end(1), mark.end())


def _may_read(word: str, reading: str) -> bool:
    """Each kanji has one to three kana, a kanji alone up to five (志: こころざし)."""
    if _REMARK.fullmatch(reading) or (len(reading) == 1 and reading in _SERIES):
        return False
    return len(word) <= len(reading) <= max(5, 3 * len(word))


def _is_rare(kanji: str) -> bool:
    try:
        return kanji != "々" and kanji.encode("cp932")[0] >= 0x98  # JIS level 1 ends at 0x9872
    except UnicodeEncodeError:
        return True
