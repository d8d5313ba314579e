"""Tell an answer from a refusal ("I can't help with that") and from an abstention ("I don't know").

>>> stance_of("資料には記載がありません。")
'abstained'
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Stance = Literal["answered", "refused", "abstained"]

_ABSTAINED = re.compile(
    r"(?:分|わ)かりません|(?:分|わ)からない|存じません|知りません|不明です|^不明[。.]?$"
    r"|(?:お答え|回答|判断|特定|確認)(?:が|は)?(?:でき(?:ません|ない|かねます)|いたしかねます)"
    r"|(?:記載|記述|情報|言及|該当(?:する)?(?:箇所|情報|記載)?)(?:が|は|も)?"
    r"(?:ありません|ない|ございません|見当たりません|見つかりません|存在しません|含まれていません)"
    r"|(?:記載|記述|言及)されていません"
    r"|\b(?:i|we) (?:do not|don't|can ?not|can't) (?:know|tell|say|determine|find)\b"
    r"|\bi(?:'m| am) not (?:sure|certain)\b|\bno idea\b|\b(?:is|are) (?:unknown|not known)\b"
    r"|\bnot (?:enough|sufficient) information\b|\binsufficient information\b"
    r"|\b(?:not|n't) (?:mentioned|stated|specified|given|provided|found) in\b"
    r"|\b(?:does not|doesn't|do not|don't) (?:mention|state|specify|say|contain)\b"
    r"|^(?:unknown|n/?a)\.?$"
)
_REFUSED = re.compile(
    r"申し訳(?:ありません|ございません)(?:が|、|,).*(?:お(?:答え|手伝い)|対応|提供)(?:でき|いたしかね|しかね)"
    r"|(?:お答え|ご回答|回答|お手伝い|対応|提供)(?:は|を|に)?(?:差し控え|控えさせ|お断り)"
    r"|(?:お手伝い|ご?対応|提供)(?:は|が)?(?:でき(?:ません|ない|かねます)|いたしかねます)"
    r"|\b(?:i|we) (?:can ?not|can't|won't|will not|am unable to|'m unable to|must decline to) "
    r"(?:help|assist|answer|provide|comply|discuss|give)\b"
    r"|\bi(?:'m| am) (?:sorry|unable).{0,40}\b(?:can ?not|can't|unable to|not able to) "
    r"(?:help|assist|answer|provide|comply|discuss|give)\b"
)
# What comes after these words is an answer all the same.
_YET = re.compile(r"^[^。.!?\n]{0,12}(?:が|けれど|けど|ものの)[、,]|^[,;]?\s*(?:but|however)\b")


def stance_of(text: str) -> Stance:
    """An empty text abstains. A long text counts by how it opens: its first 200 characters."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").strip()
    if not folded:
        return "abstained"
    opening = folded[:200]
    for stance, pattern in (("refused", _REFUSED), ("abstained", _ABSTAINED)):
        match = pattern.search(opening)
        if match and not _YET.match(opening[match.end() :]):
            return "refused" if stance == "refused" else "abstained"
    return "answered"
