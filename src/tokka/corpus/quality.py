"""What is wrong with a document's text, by rules of what was written to be read.

Document → `Fault`s, each with its rule and the figure that broke it. Nothing is dropped here, and
no reason quotes the text.

The rules come from Gopher (Rae et al. 2021, table A1), C4 (Raffel et al. 2020), FineWeb (Penedo et
al. 2024), Swallow (Okazaki et al. 2024), uzushio (Works Applications) and HojiChar, which sift the
web. An office's files are another matter: a law repeats itself, a list of fees has neither
sentences nor hiragana, a notice may be 80 characters long, and none of them is waste. So thresholds
are wider than the sources' where laws, manuals and tables are beyond them, and rules about
sentences hold for running text only.

>>> faults(document)
[Fault(rule='contents', reason='91 % of the lines lead to a page number by dots; from 50 % on …')]
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tokka.records import Document


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """Shares are of 1. Behind each: where the rule comes from and what it asks there."""

    min_letters: int = 5  # Gopher 50 words, Swallow 400 letters; 第百三十一条　削除 is an article
    max_symbols: float = 0.3  # Gopher 0.1 "#" or "…" a word; program listings have up to 0.25
    max_mojibake: float = 0.005  # ours: a wrong decoding shows in every second letter
    max_repeated_lines: float = 0.5  # of the characters; Gopher 0.2, forms up to 0.4
    max_repeated_ngrams: float = 0.8  # Gopher 0.1 by 10 words; laws up to 0.7 by 20 characters
    max_one_ngram: float = 0.4  # of the characters; Gopher 0.16 by 4 words, tables up to 0.31
    max_ellipsis_lines: float = 0.3  # Gopher 0.3; Swallow 0.2 of the sentences
    min_kana: float = 0.05  # of the Japanese letters; uzushio 0.05, Swallow 0.2 of hiragana alone
    min_line_letters: float = 3.0  # ours: vertical text comes out as one letter a line
    max_contents_lines: float = 0.5  # ours, as Gopher's share of bullets (0.9) is a list's
    max_navigation: float = 0.5  # of the lines; C4 drops the line, and a page below 3 sentences
    min_prose: int = 1000  # letters without a sentence's end; C4 asks one of every line


@dataclass(frozen=True, slots=True)
class Fault:
    """`rule` is one of `RULES`; `reason` a sentence with the figure found and the one allowed."""

    rule: str
    reason: str


_LEADER = re.compile(
    r"(?:\.{4,}|(?:\. ){4,}|…{2,}|‥{2,}|・{4,}|．{4,}|_{5,})\s*[-(（]?[0-9０-９ivx]+"
)
_ELLIPSIS = re.compile(r"(?:…|\.\.\.|。。。)[」』）)\]]*$")
_SENTENCE_END = re.compile(r"[。．！？｡]|[.!?](?=[\s\"'”’()\[\]]|$)", re.MULTILINE)
_JAPANESE = re.compile("[ぁ-ゖァ-ヺｦ-ﾟ々㐀-\u4dbf一-\u9fff]")
_HIRAGANA, _KATAKANA = re.compile("[ぁ-ゖ]"), re.compile("[ァ-ヺ]")
_KANA = re.compile("[ぁ-ゖァ-ヺー]")
_TABLE_LINE = re.compile(r"[|\t│┃]|\S(?:[ 　]{2,}\S+){2,}")
_MARKED_LINE = re.compile(
    r"\s*(?:[-*+•・●○◎◆◇■□※→]|[(（]?[0-9０-９一二三四五六七八九十]{1,3}[)）．.、\s]|第.{1,8}[編章節条項号])"
)
_ENUMERATED = re.compile(r" [-–•] |[・、,;；]")
_MOJIBAKE = re.compile(
    "[\ufffd〓]"
    "|[縺繧繝][^\\sぁ-ん]|[譁蜿邨莉螟譛荳][^\\sぁ-んァ-ヶ一-龠、。]"  # UTF-8 read as Shift_JIS
    "|[ÃÂ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€|ï¼|ã[\u0080-\u0083€‚ƒ]"  # as Latin-1
    "|[､･][ｱ-ﾝ][､･]"  # EUC-JP as Shift_JIS
    "|[¤¥][\u00a1-\u00fe][¤¥][\u00a1-\u00fe]"  # EUC-JP as Latin-1
)
_FILLER = re.compile(
    r"(?i)lorem ipsum dolor|この文章はダミーです|ダミーテキストです"
    r"|(?:ここに|サンプル)テキスト(?:を入力|が入り)"
)
_NAVIGATION = re.compile(
    r"""(?ix)^\W*(?:
      home | log\s?in | log\s?out | sign\s?(?:in|up) | register | search | menu | contact(?:\s+us)?
      | about(?:\s+us)? | site\s?map | privacy(?:\s+policy)? | terms(?:\s+of\s+(?:use|service))?
      | share | tweet | print | next | prev(?:ious)? | back(?:\s+to\s+top)? | read\s+more
      | subscribe | follow\s+us | all\s+rights\s+reserved.* | (?:copyright|©).* | skip\s+to\s.*
      | accept(?:\s+all)?(?:\s+cookies)? | .*\buses?\s+cookies\b.* | .*enable\s+javascript.*
      | .*javascript\s+(?:is|must|to\s+be).* | 404.* | page\s+not\s+found.*
      | ホーム | トップ(?:ページ)? | ログイン | ログアウト | 会員登録 | 新規登録 | 検索 | メニュー
      | サイトマップ | お?問い?合わせ(?:はこちら)? | よくある(?:ご)?質問 | 会社概要 | 採用情報
      | プライバシーポリシー | 個人情報保護方針 | 利用規約 | 印刷(?:する)? | 次へ | 前へ | 戻る
      | (?:ページの?)?(?:トップ|先頭|上)[へに]戻る | 続きを読む | もっと見る | シェア(?:する)?
      | ツイート | 文字サイズ.{0,12} | 大 | 中 | 小 | 本文へ.* | 無断転載.* | .*JavaScriptを有効.*
      | .*ページ(?:が|は)(?:見つかりません|存在しません).* | .*クッキー.*(?:使用|同意).*
    )\W*$"""
)
_SHORT_PAGE = 300  # characters: on it one line such as "enable JavaScript" is the whole message
_MESSAGE = re.compile(r"(?i)javascript|404|not found|見つかりません|存在しません")
_NGRAM, _ONE_NGRAM = 20, 10  # characters: 8 or 4 words of English, of Japanese about as many
_LONG_ENOUGH = 500  # characters for a share of repetitions
_LONG_LINE = 10  # characters: shorter lines repeat in every table
_MEASURED = 200_000  # characters: repetitions of a longer text are counted in its first part


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    language: str
    lines: Sequence[str]  # stripped, none empty
    letters: int

    @property
    def is_table(self) -> bool:
        rows = sum(bool(_TABLE_LINE.search(line)) for line in self.lines)
        return 2 * rows >= len(self.lines)

    @property
    def is_prose(self) -> bool:
        """Running text: fewer than half of the lines are rows, items or headings, and it isn't one
        long enumeration either."""
        marked = sum(
            bool(_TABLE_LINE.search(line) or _MARKED_LINE.match(line)) for line in self.lines
        )
        enumerated = len(_ENUMERATED.findall(self.text))
        return 2 * marked < len(self.lines) and 60 * enumerated < len(self.text)


def faults(document: Document, settings: QualitySettings | None = None) -> list[Fault]:
    """Every fault of the document, in the order of `RULES`; [] for a document in order."""
    settings = settings or QualitySettings()
    text = document.text
    measured = _Text(
        text,
        document.language,
        [stripped for line in text.split("\n") if (stripped := line.strip())],
        sum(map(str.isalnum, text)),
    )
    found = ((rule, check(measured, settings)) for rule, check in RULES.items())
    return [Fault(rule, reason) for rule, reason in found if reason]


def summary(found: Iterable[Fault]) -> dict[str, int]:
    """How many faults of each rule, in the order of `RULES`, the absent ones left out."""
    counts = Counter(fault.rule for fault in found)
    return {rule: counts[rule] for rule in RULES if counts[rule]}


def _short(text: _Text, settings: QualitySettings) -> str:
    if text.letters >= settings.min_letters:
        return ""
    return f"{text.letters} letters and digits; a document has at least {settings.min_letters}"


def _symbols(text: _Text, settings: QualitySettings) -> str:
    counts = Counter(text.text)
    visible = sum(n for character, n in counts.items() if not character.isspace())
    symbols = sum(
        n
        for character, n in counts.items()
        # A table's rules and bars, arithmetic and money are no noise.
        if character not in "|-=+_<>~^$%¥￥％＋＝─│┃━"
        and (unicodedata.category(character)[0] == "S" or character in "#*…•■□●○◆◇★☆▲▼")
    )
    return _above("the characters are symbols", symbols, visible, settings.max_symbols)


def _mojibake(text: _Text, settings: QualitySettings) -> str:
    broken = sum(1 for _ in _MOJIBAKE.finditer(text.text))
    if broken < 3:
        return ""
    what = "the letters are a wrong decoding's"
    return _above(what, broken, max(text.letters, broken), settings.max_mojibake)


def _repeated_lines(text: _Text, settings: QualitySettings) -> str:
    counts = Counter(line for line in text.lines if len(line) >= _LONG_LINE)
    total = sum(map(len, text.lines))
    again = sum(len(line) * (n - 1) for line, n in counts.items())
    if total < _LONG_ENOUGH // 2:
        return ""
    return _above("the text repeats lines above", again, total, settings.max_repeated_lines)


def _repeated_ngrams(text: _Text, settings: QualitySettings) -> str:
    letters = "".join(text.text[:_MEASURED].split())
    if len(letters) < _LONG_ENOUGH or text.is_table:  # columns repeat
        return ""
    grams = len(letters) - _NGRAM + 1
    again = grams - len({letters[place : place + _NGRAM] for place in range(grams)})
    what = f"the strings of {_NGRAM} characters stand above already"
    if reason := _above(what, again, grams, settings.max_repeated_ngrams):
        return reason
    # Every tenth place: a string that fills a fifth of the text stands at some of them.
    commonest = Counter(
        letters[place : place + _ONE_NGRAM] for place in range(0, len(letters), _ONE_NGRAM)
    ).most_common(1)[0][0]
    if len(set(commonest)) == 1 and not commonest.isalnum():
        return ""  # a ruled line
    filled = letters.count(commonest) * len(commonest)
    what = f"the text is one string of {_ONE_NGRAM} characters"
    return _above(what, filled, len(letters), settings.max_one_ngram)


def _ellipses(text: _Text, settings: QualitySettings) -> str:
    if len(text.lines) < 10:
        return ""
    cut = sum(bool(_ELLIPSIS.search(line)) for line in text.lines)
    return _above("the lines break off in …", cut, len(text.lines), settings.max_ellipsis_lines)


def _no_sentences(text: _Text, settings: QualitySettings) -> str:
    if text.letters < settings.min_prose or _SENTENCE_END.search(text.text) or not text.is_prose:
        return ""
    if len(_KATAKANA.findall(text.text)) > len(_HIRAGANA.findall(text.text)):
        return ""  # before 1945 laws were written in katakana and without full stops
    return (
        f"no sentence ends in {text.letters} letters of running text; one does in "
        f"{settings.min_prose}"
    )


def _few_kana(text: _Text, settings: QualitySettings) -> str:
    if text.language != "ja" or not text.is_prose:
        return ""
    japanese = len(_JAPANESE.findall(text.text))
    kana = len(_KANA.findall(text.text))
    if japanese < _LONG_ENOUGH or kana >= settings.min_kana * japanese:
        return ""
    return (
        f"{_percent(kana / japanese)} kana in Japanese prose; {_percent(settings.min_kana)} or more"
    )


def _short_lines(text: _Text, settings: QualitySettings) -> str:
    if len(text.lines) < 20:
        return ""
    mean = sum(map(len, text.lines)) / len(text.lines)
    if mean >= settings.min_line_letters:
        return ""
    return (
        f"{mean:.1f} characters a line, as of vertical text read wrongly; "
        f"{settings.min_line_letters:g} or more"
    )


def _contents(text: _Text, settings: QualitySettings) -> str:
    if len(text.lines) < 5:
        return ""
    leaders = sum(bool(_LEADER.search(line)) for line in text.lines)
    what = "the lines lead to a page number by dots"
    return _above(what, leaders, len(text.lines), settings.max_contents_lines)


def _filler(text: _Text, settings: QualitySettings) -> str:
    return "text that stands in for a text to come" if _FILLER.search(text.text) else ""


def _navigation(text: _Text, settings: QualitySettings) -> str:
    if not text.lines:
        return ""
    if len(text.text) < _SHORT_PAGE and any(
        _NAVIGATION.match(line) and _MESSAGE.search(line) for line in text.lines
    ):
        return "a page that only says that it can't be shown"
    links = sum(bool(_NAVIGATION.match(line)) for line in text.lines if len(line) < 80)
    if links < 4:
        return ""
    what = "the lines are a page's links and buttons"
    return _above(what, links, len(text.lines), settings.max_navigation)


def _above(what: str, part: int, whole: int, most: float) -> str:
    if not whole or part / whole < most:
        return ""
    return f"{_percent(part / whole)} of {what}; less than {_percent(most)}"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


RULES: dict[str, Callable[[_Text, QualitySettings], str]] = {
    "short": _short,
    "symbols": _symbols,
    "mojibake": _mojibake,
    "repeated lines": _repeated_lines,
    "repeated n-grams": _repeated_ngrams,
    "ellipses": _ellipses,
    "no sentences": _no_sentences,
    "few kana": _few_kana,
    "short lines": _short_lines,
    "contents": _contents,
    "filler": _filler,
    "navigation": _navigation,
}
