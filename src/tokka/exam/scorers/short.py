"""Score a short answer against the accepted texts: exact, contained, or F1.

All three compare after `normalise_text`. `contained` is the usual one: models answer in sentences.
So that it can't be had by saying everything, an accepted text counts as contained only where

- it isn't cut out of a number or a word: 10 is not in 100, 30万円 not in 130万円, 部長 not in
  副部長;
- it isn't denied: 必要 not in 必要ありません, nor approval in "no approval";
- the answer isn't longer than four times the accepted text plus 60 characters;
- the answer doesn't offer it among others: "AまたはB", "A or B", "A、B、C".

>>> contained(answer, key, question, exam).explanation
"contains '理事長'; F1 0.67"
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tokka.exam.folding import CJK, fold
from tokka.exam.normalise import normalise_text
from tokka.records import Answer, Exam, Key, Question, Score

LONGEST_FACTOR, LONGEST_EXTRA = 4, 60
_LABEL = re.compile(r"^\s*(?:the |final )*(?:answer|答え?|正解|回答)\s*[:=]")
_FRAME_BEFORE = re.compile(r"^(?:(?:the )?(?:final )?answer is|it is|答え?は|正解は|回答は)\s*")
_FRAME_AFTER = re.compile(r"(?:です|である|だ|となります|になります|となる|になる|でございます)$")
_ARTICLE = re.compile(r"^(?:the|an?) (?=\S)")
# Prefixes that turn a Japanese noun into another one, or into its opposite.
_OTHER_NOUN = frozenset("副非不未無準前元次反")
_DENIED_AFTER = re.compile(
    r"(?:で|じゃ|に|は|が|も)*(?:ない(?!し)|なく|なかっ|ありません|ございません|ません|以外|不要)"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:not|never|non|without|except|other than|instead of|\w+n t)(?: (?:a|an|the))? $"
)
_NO_BEFORE = re.compile(r"\bno $")  # "no approval", but not "form no 12"
_OR = r"(?:または|又は|もしくは|若しくは|あるいは|或いは|\bor\b)"
_OR_BEFORE = re.compile(rf"(?:{_OR}\s*(?:the |an? )?|(?<=[\d%々一-鿿ァ-ヺ])(?<![確誰何])か)$")
_OR_AFTER = re.compile(rf"\s*{_OR}|か(?=[\d々一-鿿ァ-ヺ])(?![月年所国])")
_FULL_DATE = re.compile(r"(?<!\d)\d{4}-(\d\d)-(\d\d)")
_LIST = re.compile(r"[、,;・\n]")
_SENTENCE_END = re.compile(r"[\u3041-\u309f]$")
_TOKENS = re.compile(rf"[{CJK}]|[^\W_]+(?:[.\-:/][^\W_]+)*|[^\w\s]")


def exact(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 where the answer, without "the answer is" or です around it, is an accepted text."""
    said = _unframed(answer.text)
    right = [target for target in key.targets if _unframed(target) == said and said]
    reason = f"is {right[0]!r}" if right else f"is none of {_shown(key)}"
    return _score(key, "exact", float(bool(right)), f"{reason}; F1 {best_f1(answer.text, key):.2f}")


def contained(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """1 where the answer is or holds an accepted text under the rules above."""
    reasons: list[str] = []
    value = 0.0
    for target in key.targets:
        reason = why_not_contained(answer.text, target)
        if not reason:
            value, reasons = 1.0, [f"contains {target!r}"]
            break
        reasons.append(reason)
    secondary = f"; F1 {best_f1(answer.text, key):.2f}"
    return _score(key, "contained", value, "; ".join(dict.fromkeys(reasons)) + secondary)


def f1(answer: Answer, key: Key, question: Question, exam: Exam) -> Score:
    """Token F1 with the nearest accepted text (Rajpurkar et al. 2016): words, and single characters
    of Japanese."""
    value = best_f1(answer.text, key)
    return _score(key, "f1", value, f"F1 {value:.2f} with the nearest of {_shown(key)}")


def best_f1(text: str, key: Key) -> float:
    """The highest F1 of the text with an accepted text, in [0, 1]."""
    return max(_f1(_unframed(text), _unframed(target)) for target in key.targets)


def why_not_contained(text: str, target: str, beside: Sequence[str] = ()) -> str:
    """Empty where the text holds the accepted text, else the reason why it doesn't count.

    `beside` are the texts that the answer must hold too: naming them is no hedging.
    """
    said, wanted = normalise_text(text), _ARTICLE.sub("", normalise_text(target))
    if not wanted:
        wanted, said = fold(target).strip(), fold(text).strip()  # a target of signs alone
    if said == wanted or _unframed(text) == _unframed(target):
        return ""
    if wanted not in said:
        said = _FULL_DATE.sub(lambda m: f"{int(m[1])}月{int(m[2])}日", said)
    places = [m.start() for m in re.finditer(re.escape(wanted), said)]
    if not places:
        return f"doesn't contain {target!r}"
    whole = [place for place in places if _stands_alone(said, place, place + len(wanted))]
    if not whole:
        return f"{target!r} is only part of a number or word, or denied"
    longest = len(wanted) + sum(map(len, beside))
    if len(said) > LONGEST_FACTOR * longest + LONGEST_EXTRA:
        return f"contains {target!r}, but {len(said)} characters are too long an answer"
    if not beside and _among_others(text, target, said, wanted, whole):
        return f"offers {target!r} among other answers"
    return ""


def _stands_alone(said: str, start: int, end: int) -> bool:
    before, after = said[:start], said[end:]
    first, last = said[start], said[end - 1]
    if _is_word(first) and before and _is_word(before[-1]):
        return False
    if _is_word(last) and after and (_is_word(after[0]) or after[0] == "+"):
        return False
    if first.isdigit() and re.search(r"\d[.,:/~]$|(?<!\w)-$", before):
        return False
    if last.isdigit() and re.match(r"[.,:/]\d|[十百千万億兆]", after):
        return False
    if before and before[-1] in _OTHER_NOUN and not first.isascii():
        return False
    if not first.isdigit() and _NO_BEFORE.search(before):
        return False
    return not (_DENIED_AFTER.match(after) or _DENIED_BEFORE.search(before))


def _is_word(character: str) -> bool:
    """Latin letters and digits run on into words and numbers; Japanese has no such border."""
    return character.isalnum() and not re.match(rf"[{CJK}]", character)


def _among_others(text: str, target: str, said: str, wanted: str, places: list[int]) -> bool:
    if any(
        _OR_BEFORE.search(said[:place]) or _OR_AFTER.match(said[place + len(wanted) :])
        for place in places
    ) and not re.search(_OR, wanted):
        return True
    if "/" not in target and _unframed(target) in map(_unframed, fold(text).split("/")):
        return True
    items = [_unframed(item) for item in _LIST.split(fold(text)) if item.strip()]
    listed = len(items) >= 3 and not _LIST.search(fold(target))
    nouns = all(len(i) <= 20 + len(wanted) and not _SENTENCE_END.search(i) for i in items)
    few_words = all(len(item.split()) <= 4 for item in items)
    return listed and nouns and few_words and _unframed(target) in items


def _unframed(text: str) -> str:
    whole = normalise_text(_LABEL.sub("", fold(text)))
    said = _FRAME_AFTER.sub("", _FRAME_BEFORE.sub("", whole))
    return _ARTICLE.sub("", said) or whole or fold(text).strip()


def _f1(said: str, wanted: str) -> float:
    said_tokens, wanted_tokens = Counter(_TOKENS.findall(said)), Counter(_TOKENS.findall(wanted))
    shared = sum((said_tokens & wanted_tokens).values())
    if not shared:
        return float(said == wanted and bool(said))
    precision, recall = shared / said_tokens.total(), shared / wanted_tokens.total()
    return 2 * precision * recall / (precision + recall)


def _shown(key: Key) -> str:
    return ", ".join(repr(target) for target in key.targets[:3])


def _score(key: Key, scorer: str, value: float, explanation: str) -> Score:
    return Score(
        question_id=key.question_id,
        scorer=scorer,
        value=value,
        status="scored",
        explanation=explanation,
    )
