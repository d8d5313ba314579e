"""Which language a document is written in: by its script, then by its commonest words.

Text → an ISO 639-1 code, or "und" where nothing decides. The same text has the same answer on
every machine; no model, no file.

Japanese and Chinese share most of their ideographs. What tells them apart is kana, ideographs that
only one of them writes (円 覧 働; 们 麼 你: by the national standards JIS X 0208, GB 2312 and Big5,
which Python holds as codecs), and a few words (株式会社, 令和). Without any of these, as in 規程 or
本文, the text is undecided.

>>> language_of("融資の限度額は300万円とする。"), language_of("贷款的限额为三百万日元。")
('ja', 'zh')
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter

UNDECIDED = "und"
_SAMPLES, _SAMPLE = 4, 5_000  # characters: a licence in English may come first
_KANA = re.compile("[ぁ-ゖァ-ヺｦ-ﾟゝゞヽヾ]")
_HAN = re.compile("[々〆㐀-\u4dbf一-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_JAPANESE_WORDS = re.compile(
    "株式会社|有限会社|合同会社|令和|平成|昭和|〒|都道府県|代表取締役|取扱|申込|手続"
)
_CHINESE_WORDS = frozenset("的是了在我他她你也就都很和这這们們说說个個")
_CHINESE_SHARE = 0.05  # of the ideographs; in Japanese titles (目的, 個人) below 0.02
_HAN_ONLY = 60  # ideographs in a row of which Japanese would hold kana or a form of its own
_EAST_ASIAN = 0.2  # of the letters: an ideograph says as much as two or three Latin letters
_OTHER = 0.25  # of the letters: manuals in any language are full of English names
_SCRIPTS = {  # by the first word of a character's Unicode name
    "HANGUL": "ko", "GREEK": "el", "HEBREW": "he", "ARABIC": "ar", "THAI": "th",
    "DEVANAGARI": "hi", "BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "GEORGIAN": "ka",
    "ARMENIAN": "hy", "KHMER": "km", "LAO": "lo", "MYANMAR": "my", "CYRILLIC": "ru",
    "LATIN": "en",
}  # fmt: skip
# The commonest words of each language that few of the others have.
_WORDS = {
    "en": "the of and to in is that for it with as was on are by be this from or which not an at a "
    "you your what how he she his her we they i my has have had can will if do does but",
    "de": "der die das und ist nicht mit von den dem des ein eine zu auf für sich werden auch wird",
    "fr": "le la les des et est une dans pour que qui sur pas du au avec par ce il sont cette ou",
    "es": "el los las y es una en que por con para del se no al como más su este son está",
    "it": "il di che è e della per una sono con non nel gli del le questo alla dei si come più",
    "pt": "os as é uma em que não com para do da no na por mais dos das se ao são pelo",
    "nl": "de het een en van is dat op te niet met voor zijn aan wordt door ook bij naar deze",
    "sv": "och att det som en är av för på med den till inte ett om kan från eller har ska",
    "da": "og at det som en er af for på med den til ikke et der kan fra eller har skal",
    "nb": "og å det som en er av for på med den til ikke et kan fra eller har skal ved være",
    "fi": "ja on ei että se tai joka kun ovat myös voi mutta jos kuin oli vain tämä",
    "ro": "și şi de la în este pe cu nu din sau care pentru mai prin sunt fi dacă",
    "id": "yang dan di untuk dengan dari ini adalah pada tidak dalam akan atau oleh itu ke dapat",
}
_OWN_LETTERS = {  # that hardly any other language writes
    "pl": "ąęłńśźż", "cs": "ěřů", "hu": "őű", "tr": "ğış",
    "vi": "ạảấầẩậắằặẹẻếềểệịọỏốồổộớờởợụủứừửữự",
}  # fmt: skip
_OWN_SHARE, _OWN_COUNT = 0.01, 10  # of the characters (0.02 to 0.08 in prose); a name has fewer
_WORD = re.compile(r"[^\W\d_]+")
_LATIN_SHARE, _DISTINCT = (
    0.12,
    3,
)  # of the words; a sixth to a half in prose, almost none in lists of names


def language_of(text: str) -> str:
    """The ISO 639-1 code of the language that most of the text is in, or "und".

    Texts in Latin letters whose words decide nothing (titles, names, code) count as English.
    """
    sample = _sample(text)
    scripts = _scripts(sample)
    letters = scripts.total()
    if not letters:
        return UNDECIDED
    kana, han = len(_KANA.findall(sample)), len(_HAN.findall(sample))
    if kana + han >= _EAST_ASIAN * letters and kana + han > scripts["HANGUL"]:
        return _japanese_or_chinese(sample, kana, han)
    latin = scripts.pop("LATIN", 0)
    script, count = scripts.most_common(1)[0] if scripts else ("LATIN", latin)
    if count < _OTHER * letters:
        script = "LATIN"
    match script:
        case "LATIN":
            return _latin(sample)
        case "CYRILLIC":
            return _cyrillic(sample)
        case "ARABIC":
            return "fa" if len(re.findall("[پچژگک]", sample)) > 0.02 * letters else "ar"
    return _SCRIPTS.get(script, UNDECIDED)


def _sample(text: str) -> str:
    if len(text) <= _SAMPLES * _SAMPLE:
        return text
    step = (len(text) - _SAMPLE) // (_SAMPLES - 1)
    return "\n".join(text[n * step : n * step + _SAMPLE] for n in range(_SAMPLES))


def _scripts(sample: str) -> Counter[str]:
    scripts: Counter[str] = Counter()
    for character, count in Counter(sample).items():
        if character.isalpha():
            scripts[_script(character)] += count
    return scripts


@functools.lru_cache(maxsize=20_000)
def _script(character: str) -> str:
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    return re.split("[ -]", name, maxsplit=1)[0]


def _japanese_or_chinese(sample: str, kana: int, han: int) -> str:
    ideographs = Counter(_HAN.findall(sample))
    homes = Counter[str]()
    for character, count in ideographs.items():
        homes[_home(character)] += count
    japanese = kana + homes["ja"] + 2 * len(_JAPANESE_WORDS.findall(sample))
    chinese = homes["zh"]
    function_words = sum(ideographs[character] for character in _CHINESE_WORDS)
    if han >= 20 and function_words >= _CHINESE_SHARE * han:
        chinese += function_words
    if japanese != chinese:
        return "ja" if japanese > chinese else "zh"
    return "zh" if han >= _HAN_ONLY else UNDECIDED


@functools.lru_cache(maxsize=30_000)
def _home(character: str) -> str:
    """ "ja" or "zh" for an ideograph that the other one's standards don't hold, else ""."""
    japan = _encodes(character, "cp932")
    china = _encodes(character, "gb2312") or _encodes(character, "big5")
    return "" if japan == china else "ja" if japan else "zh"


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _latin(sample: str) -> str:
    words = Counter(word.lower() for word in _WORD.findall(sample))
    scores = {code: sum(words[word] for word in common) for code, common in _common_words().items()}
    # A Polish name in an English sentence has few such letters, a Polish sentence no English words.
    fewest = _OWN_COUNT if scores["en"] >= _LATIN_SHARE * words.total() else 3
    letters = Counter(sample.lower())
    for code, own in _OWN_LETTERS.items():
        if sum(letters[letter] for letter in own) >= max(fewest, _OWN_SHARE * len(sample)):
            return code
    best = max(scores, key=lambda code: (scores[code], code == "en"))
    # A borrowed name or a street (rue de la Paix) isn't a language.
    sure = scores[best] >= _LATIN_SHARE * words.total()
    distinct = sum(word in words for word in _common_words()[best])
    return best if sure and distinct >= _DISTINCT else "en"


@functools.cache
def _common_words() -> dict[str, frozenset[str]]:
    return {code: frozenset(words.split()) for code, words in _WORDS.items()}


def _cyrillic(sample: str) -> str:
    letters = Counter(sample.lower())
    if letters["і"] + letters["ї"] + letters["є"] + letters["ґ"] > letters["ы"] + letters["э"]:
        return "be" if letters["ў"] else "uk"
    if letters["ђ"] + letters["ј"] + letters["љ"] + letters["њ"]:
        return "sr"
    return "ru" if letters["ы"] + letters["э"] else "bg" if letters["ъ"] else "ru"
