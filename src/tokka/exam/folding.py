"""Fold away how a text is typed: width, case, the many dashes.

Text → text. `fold` is for comparing answers, `same_text` for telling whether two texts are one.

>>> fold("ＡＢＣ－１"), same_text("x² は 4") == same_text("x2は4")
('abc-1', False)
"""

from __future__ import annotations

import re
import unicodedata

CJK = r"\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff"
_SPACE_AT_CJK = re.compile(rf"(?<=[{CJK}]) | (?=[{CJK}])")
_MINUS_SIGNS = "\u2212\u2010\u2011\u2012\u2013\u2014\u2015\ufe63\uff0d"
_WAVES = "\u301c\uff5e\u223c"
_SIGNS = {ord(c): "-" for c in _MINUS_SIGNS} | {ord(c): "~" for c in _WAVES}


def fold(text: str) -> str:
    """NFKC and case folding until stable, one sign for each of minus and wave."""
    folded = text
    for _ in range(4):
        again = unicodedata.normalize("NFKC", folded.translate(_SIGNS)).casefold()
        if again == folded:
            break
        folded = again
    return folded


def join_cjk(text: str) -> str:
    """One space between words, none beside a Japanese character."""
    return _SPACE_AT_CJK.sub("", " ".join(text.split()))


def same_text(text: str) -> str:
    """Equal for two writings of one text: width is folded, and spaces that part no words.

    Superscripts stay, so that x² and x2 differ, and so does "a ab" from "aab". It
    tells repeated questions and options apart.
    """
    folded = (
        c
        if unicodedata.decomposition(c).startswith(("<super>", "<sub>", "<fraction>"))
        else unicodedata.normalize("NFKC", c)
        for c in unicodedata.normalize("NFC", text)
    )
    return join_cjk("".join(folded))
