"""Bytes of a text file → text, with Japan's encodings told apart.

Byte-order marks and UTF-8 first, then ISO-2022-JP by its escapes, then cp932 (Shift_JIS) against
EUC-JP by what the decoded text looks like, then charset-normalizer for everything else. Text that
nothing decodes is refused: a corpus of mojibake is worse than a missing file.

>>> decode("融資の限度額".encode("cp932"), "loan.txt")
'融資の限度額'
"""

from __future__ import annotations

import codecs
import re

from tokka.errors import ItemError
from tokka.extras import require

_BOMS = (  # UTF-32 before UTF-16: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES = 1 << 18
_ISO2022_ESCAPE = re.compile(rb"\x1b(\$[@B]|\([BIJ])")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAUSIBLE = 0.45


def decode(data: bytes, name: str, declared: str = "") -> str:
    """Decode a whole file; `declared`, the file's own claim (an HTML meta tag), is tried first.

    Newlines become ``\\n``, the byte-order mark goes. Raises ItemError when the bytes are binary,
    UTF-8 broken in the middle, or in no encoding that gives plausible text.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strictly(data[len(mark) :], encoding, name)
    for encoding in (declared, _without_mark(data)):
        text = _attempt(data, encoding) if encoding else None
        if text is not None and not _CONTROL.search(text):
            return tidy(text)
    if b"\x00" in data:
        raise ItemError(f"encoding: {name} is binary, not text; convert it or list it under skip")
    if _ISO2022_ESCAPE.search(data):
        text = _attempt(data, "iso2022_jp_2")
        if text is None:
            text = _iso2022_with_windows_characters(data)
        if text is not None:
            return tidy(text)
    try:
        return tidy(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        # Legacy encodings don't survive 20 multi-byte characters of valid UTF-8 by chance.
        if len(re.findall("[^\x00-\x7f]", data[: error.start].decode("utf-8"))) >= 20:
            raise ItemError(
                f"encoding: {name} is UTF-8 but broken at byte {error.start}; "
                "save it again as UTF-8 or list it under skip"
            ) from error
    return tidy(_japanese(data) or _western(data) or _unknown(name))


def tidy(text: str) -> str:
    """Newlines as ``\\n``; no byte-order mark, NUL or lone surrogate (no file could hold one)."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ")
    return text.encode("utf-8", "replace").decode("utf-8") if _SURROGATE.search(text) else text


def _strictly(data: bytes, encoding: str, name: str) -> str:
    text = _attempt(data, encoding)
    if text is None:
        raise ItemError(
            f"encoding: {name} starts with a mark of {encoding} but doesn't decode as such; "
            "save it again as UTF-8"
        )
    return tidy(text)


def _attempt(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _iso2022_with_windows_characters(data: bytes) -> str | None:
    """ISO-2022-JP as Japanese mail programs write it: with ①, ㈱ and 髙, which only cp932 knows.

    Each JIS pair becomes its Shift_JIS pair (Lunde, CJKV Information Processing, 2009, ch. 4).
    """
    pieces = _ISO2022_ESCAPE.split(data)  # text, escape, text, escape, …
    plain = [pieces[0]]
    for escape, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if escape.startswith(b"$"):
            if len(piece) % 2 or any(not 0x21 <= byte <= 0x7E for byte in piece):
                return None
            plain += [_shifted(*pair) for pair in zip(piece[::2], piece[1::2], strict=True)]
        elif escape == b"(I":
            plain.append(bytes(byte | 0x80 for byte in piece))
        else:
            plain.append(piece)
    return _attempt(b"".join(plain), "cp932")


def _shifted(row: int, cell: int) -> bytes:
    first = ((row - 0x21) >> 1) + 0x81
    second = cell + 0x1F + (cell >= 0x60) if row % 2 else cell + 0x7E
    return bytes((first + 0x40 if first > 0x9F else first, second))


def _without_mark(data: bytes) -> str:
    """UTF-16 without a mark shows as NULs on one side: every ASCII character has one."""
    sample = data[:_SAMPLE_BYTES]
    if len(sample) < 4 or len(data) % 2 or b"\x00" not in sample:
        return ""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > 3 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 3 * odd else ""


def _japanese(data: bytes) -> str | None:
    scored = [
        (_plausibility(text), preference, text)
        for preference, encoding in enumerate(("euc_jis_2004", "euc_jp", "cp932"))
        if (text := _attempt(data, encoding)) is not None
    ]
    if not scored:
        return None
    plausibility, _, text = max(scored)
    return text if plausibility >= _PLAUSIBLE else None


def _plausibility(text: str) -> float:
    """Mean weight of the non-ASCII characters.

    EUC-JP read as cp932 shows as half-width kana and rare kanji.

    Weights were set on cp932 and EUC-JP texts of one word and up; the order is what matters: kana
    above common kanji above half-width kana above everything rare.
    """
    total, count = 0.0, 0
    for character in text[:100_000]:
        if character < "\x80":
            if _CONTROL.match(character):
                return 0.0
            continue
        count += 1
        if "ぁ" <= character <= "ん" or character in "、。「」（）・〜ー　":
            total += 1.0
        elif "ァ" <= character <= "ヶ":
            total += 0.9
        elif character in "､･":  # in EUC-JP the first byte of every kana
            total += 0.0
        elif "｡" <= character <= "ﾟ":
            total += 0.5
        elif "一" <= character <= "鿿":
            total += 0.6 if _is_common_kanji(character) else 0.1
        elif "！" <= character <= "～" or "①" <= character <= "⑳":
            total += 0.7
    return total / count if count else 0.0


def _is_common_kanji(character: str) -> bool:
    try:
        return character.encode("cp932")[0] < 0x98  # JIS level 1 ends at 0x9872
    except UnicodeEncodeError:
        return False


def _western(data: bytes) -> str | None:
    """charset-normalizer's guess on a sample, taken only where it finds no disorder.

    Among guesses that it holds equally good, cp1252 is by far the most common.
    """
    matches = require("charset_normalizer", extra="read").from_bytes(data[:_SAMPLE_BYTES])
    best = matches.best()
    if best is None or best.percent_chaos > 10:
        return None
    equal = set(best.could_be_from_charset)
    equal |= {
        m.encoding for m in matches if m.chaos == best.chaos and m.coherence >= best.coherence
    }
    text = _attempt(data, "cp1252" if "cp1252" in equal else best.encoding)
    if text is None or _CONTROL.search(text):
        return None
    return text if sum(c.isalpha() for c in text) > len(text) / 3 else None


def _unknown(name: str) -> str:
    raise ItemError(
        f"encoding: {name} has an unknown encoding; save it as UTF-8 or list it under skip"
    )
