"""One usual form for each character, and none that nobody sees: text → edits by kind of change.

NFKC as a whole would ruin documents: ① becomes 1 (the first of a list reads as a figure), ㎡ m2, ½
1⁄2, m² m2, ㈱ (株), … three full stops, and every （） of Japanese typography a half-width one. So
only those forms change that are the same character in another width or encoding:

- half-width katakana (ﾛｰﾝ → ローン), full-width Latin letters and digits (第１条 → 第1条), and
  full-width punctuation between two of them (１．５ → 1.5); elsewhere 、。（）：！？％ stay;
- canonical equivalents (NFC: か+◌゙ → が, compatibility ideographs, Å), Kangxi radicals that PDFs
  hold in place of ideographs (⾦ → 金), Latin ligatures (ﬁ), letters of the mathematical alphabets;
- no-break and typographic spaces; the ideographic space stays, since it indents paragraphs.

Zero-width characters, direction marks, variation selectors of kanji, soft hyphens, tag characters
(a known hiding place for instructions to language models), escape sequences and control characters
go. A glyph of the private use area is a bullet before a line's text, nothing where it stands alone,
and else 〓, which tells the reader that a glyph is missing: "50 〓g" must not become "50 g".

>>> [(kind, edit.text) for kind, edit in character_edits("ﾛｰﾝの第１条")]
[('width', 'ローン'), ('width', '1')]
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

from tokka.corpus.edits import Edit

_ALNUM = "0-9A-Za-z０-９Ａ-Ｚａ-ｚ"
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_NARROW = "\u0000-\u058f\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"  # scripts that never join
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
_ODD = re.compile(
    rf"""
    (?P<hyphenation>\u00ad[ \t]*\n[ \t]*)
  | (?P<width>[０-９Ａ-Ｚａ-ｚ]+|[｡-ﾟ]+|[ﬀ-ﬆ]+|[⺀-⿕]+|[\U0001d400-\U0001d7ff]+
      |(?<=[{_ALNUM}])[．，－＠／：＿＆＃＋＝](?=[{_ALNUM}]))
  | (?P<spaces>[\u00a0\u2000-\u200a\u202f\u205f])
  | (?P<invisible>
        [\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]+
      | (?<=[{_NARROW}])[\u200c\u200d]|[\u200c\u200d](?=[{_NARROW}]))
  | (?P<lines>\r\n?|[\x0b\x0c\x85\u2028\u2029])
  | (?P<control>\x1b\[[0-9;?]*[@-~]|[^\n]\x08|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]+
        |[\ufdd0-\ufdef\ufffe\uffff])
  | (?P<private>[{_PRIVATE}]+)
    """,
    re.VERBOSE,
)
_BULLETS = "\uf06c\uf06e\uf075\uf076\uf0a7\uf0b2\uf0b7\uf0d8\uf0fc"  # of Symbol and Wingdings
_KIND = {"lines": "control"}


def character_edits(text: str) -> Iterator[tuple[str, Edit]]:
    """(kind, edit) in order, disjoint. Kinds: width, spaces, invisible, control, hyphenation (a
    soft hyphen with its line break) and private use. Applied again until nothing is found, they
    lead to a text in NFC."""
    if not unicodedata.is_normalized("NFC", text):
        yield from _composed(text)  # alone: its matches and the others' could overlap
        return
    for found in _ODD.finditer(text):
        group = found.lastgroup or ""
        new = _replacement(group, found, text)
        if new != found[0]:
            yield _KIND.get(group, group), Edit(found.start(), found.end(), new)


def plain(text: str) -> str:
    """A short text, such as a title, in the usual forms."""
    for _ in range(4):
        parts: list[str] = []
        done = 0
        for _, (start, end, new) in character_edits(text):
            parts += (text[done:start], new)
            done = end
        if not done:
            break
        text = "".join([*parts, text[done:]])
    return text


def _replacement(group: str, found: re.Match[str], text: str) -> str:
    match group:
        case "width":
            if "！" <= found[0][0] <= "～":
                return found[0].translate(_FULL_WIDTH)
            return unicodedata.normalize("NFKC", found[0])
        case "spaces":
            return " "
        case "lines":
            return "\n"
        case "private":
            before = text[found.start() - 1 : found.start()] or "\n"
            after = text[found.end() : found.end() + 1] or "\n"
            opens = not text[text.rfind("\n", 0, found.start()) + 1 : found.start()].strip()
            if opens and after != "\n" and (after.isspace() or found[0] in _BULLETS):
                return "•"
            return "" if before.isspace() and after.isspace() else "〓"
    return ""


def _composed(text: str) -> Iterator[tuple[str, Edit]]:
    for found in _segments().finditer(text):
        new = unicodedata.normalize("NFC", found[0])
        if new != found[0]:
            yield "width", Edit(found.start(), found.end(), new)


@functools.cache
def _segments() -> re.Pattern[str]:
    """A character that may change alone or with the marks after it. Normalising such segments one
    by one is normalising the text: nothing composes across a character that isn't a mark (Unicode
    Standard Annex 15, section 9; vowels and finals of Hangul count as marks here)."""
    marks = "".join(
        re.escape(chr(code))
        for code in range(0x300, 0x1F000)
        if unicodedata.combining(chr(code)) or unicodedata.category(chr(code)) in ("Mn", "Mc")
    )
    marks += "\u1160-\u11ff"
    return re.compile(f"(?s).[{marks}]+|[^\x00-\u02ff]")
