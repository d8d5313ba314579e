"""Article text → training conversations, by rule; the exam is never read here.

A fact is one sentence of an article. It is asked about in several wordings: what the article says,
which article says so, which number, authority or verb stands in a blank, who is meant, and whether
a statement with one changed detail is right. All choices are made by hash, so that two runs agree.

>>> next(iter(lessons([article], every_wording={article.id})))["messages"][0]["content"]
'借地借家法第3条は、何を定めていますか。'
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Set
from typing import Any

from articles import Article

LONGEST_ANSWER = 110  # characters, about 80 tokens of a Japanese vocabulary
LONGEST_SENTENCE = 180
SHORTEST_SENTENCE = 18

_QUANTITY = re.compile(
    r"(?<![昭平令明第和成治〇一二三四五六七八九十百千万億])"
    r"([一二三四五六七八九十百千万億]+)(日|箇月|か月|月|年|円|分の|人|倍|週間)(?!法律|政令|第|前年)"
)
_SUMS = ("一万", "五万", "十万", "三十万", "五十万", "百万", "三百万", "一億", "五億")
_NUMBERS = ("一", "二", "三", "五", "六", "七", "十", "十五", "二十", "三十", "六十", "百")
_AUTHORITIES = (
    *("内閣総理大臣", "厚生労働大臣", "都道府県知事", "金融庁長官", "裁判所", "内閣府令"),
    *("厚生労働省令", "政令", "取締役会", "株主総会", "公正取引委員会", "法務大臣"),
)
_AUTHORITY = re.compile("|".join(sorted(_AUTHORITIES, key=len, reverse=True)))
_DUTIES = {
    "しなければならない": "義務",
    "してはならない": "禁止",
    "することができる": "できること",
    "することができない": "できないこと",
}
_DUTY = re.compile(f"(?:{'|'.join(_DUTIES)})$")
_SUBJECT = re.compile(r"([^、。「」（）]{2,24})は、(.{12,})$")
_NUMBERED = re.compile(r"^[０-９一二三四五六七八九十イロハニホヘト]+(?:の[一二三四五])?　")
_ARTICLE = re.compile(r"第\d+条(?:の\d+)*$")
_VAGUE = re.compile(r"^(前|次|同|当該|この|その|これ|第|法第|ただし|場合)|(場合|とき|おいて|時)$")

Lesson = tuple[str, str]


def lessons(articles: Iterable[Article], every_wording: Set[str]) -> Iterator[dict[str, Any]]:
    """Rows with id, messages, fact_id and document_ids, in an order that mixes the articles.

    Articles named in `every_wording` get all wordings of each sentence, the others one wording of
    their first usable sentence. A question that two facts share is asked once.
    """
    rows: list[dict[str, Any]] = []
    asked: set[str] = set()
    for article in articles:
        whole = article.id in every_wording
        sentences = list(_sentences(article))
        for number, sentence in enumerate(sentences if whole else sentences[:1], start=1):
            fact = f"{article.id}#{number}"
            found = list(_wordings(article, sentence, first=number == 1))
            if not whole and found:
                found = [found[_pick(fact, len(found))]]
            for wording, (question, answer) in enumerate(found, start=1):
                if question in asked:
                    continue
                asked.add(question)
                rows.append(
                    {
                        "id": f"{fact}-{wording}",
                        "messages": [
                            {"role": "user", "content": question},
                            {"role": "assistant", "content": answer},
                        ],
                        "fact_id": fact,
                        "document_ids": [article.id],
                    }
                )
    return iter(sorted(rows, key=lambda row: _hash(row["id"])))


def _sentences(article: Article) -> Iterator[str]:
    """Whole sentences without their parentheses, short enough to be an answer."""
    for passage in article.passages:
        for sentence in _without_parentheses(passage).replace("\n", "").split("。"):
            sentence = re.sub(
                r"^[０-９一二三四五六七八九十イロハニホヘト]+(?:の[一二三四五])?　", "", sentence
            )
            sentence = sentence.strip(" 　-")
            if SHORTEST_SENTENCE <= len(sentence) <= LONGEST_SENTENCE and "」" not in sentence:
                yield sentence


def _without_parentheses(text: str) -> str:
    shorter = re.sub(r"[（(][^（()）]*[)）]", "", text)
    return shorter if shorter == text else _without_parentheses(shorter)


def _wordings(article: Article, sentence: str, first: bool) -> Iterator[Lesson]:
    said = f"{sentence}。" if re.search(r"[るいずうたきむぶ]$", sentence) else sentence
    aside = sentence.startswith(("ただし", "この場合", "前"))
    if first and not aside and len(sentence) <= LONGEST_ANSWER:
        yield f"{article.title}は、何を定めていますか。", said
    if len(sentence) >= 30 and not _VAGUE.match(sentence):
        where = "どの法令の第何条" if _ARTICLE.search(article.title) else "何のどの部分"
        yield f"「{said}」と定めているのは、{where}ですか。", article.title
    for make in (_quantity, _authority, _duty, _subject):
        yield from make(article, sentence)


def _quantity(article: Article, sentence: str) -> Iterator[Lesson]:
    match = _QUANTITY.search(sentence)
    if not match:
        return
    right = "".join(match.groups())
    pool = _SUMS if match[2] == "円" else _NUMBERS
    wrong = _other(pool, match[1], sentence) + match[2]
    others = [wrong, _other(pool, match[1], sentence + wrong) + match[2]]
    yield _blank(article, sentence, match.span(), "期間や数", right)
    yield _choice(article, sentence, match.span(), right, others)
    yield from _judged(article, sentence, match.span(), right, wrong)


def _authority(article: Article, sentence: str) -> Iterator[Lesson]:
    match = _AUTHORITY.search(sentence)
    if not match or sentence.count(match[0]) > 1:  # the blank would be answered beside it
        return
    wrong = _other(_AUTHORITIES, match[0], sentence)
    yield _blank(article, sentence, match.span(), "機関や命令の名", match[0])
    if _pick(sentence, 2):
        yield from _judged(article, sentence, match.span(), match[0], wrong)


def _duty(article: Article, sentence: str) -> Iterator[Lesson]:
    match = _DUTY.search(sentence)
    if not match:
        return
    wrong = _other(tuple(_DUTIES), match[0], sentence)
    kinds = "、".join(sorted(set(_DUTIES.values())))
    yield (
        f"{article.title}の次の規定は、{kinds}のどれを定めていますか。\n{sentence}。",
        f"{_DUTIES[match[0]]}（{match[0]}）",
    )
    if _pick(sentence, 2) == 0:
        yield from _judged(article, sentence, match.span(), match[0], wrong)


def _subject(article: Article, sentence: str) -> Iterator[Lesson]:
    match = _SUBJECT.match(sentence)
    if match and not _VAGUE.match(match[1]):
        yield f"{article.title}で、「{match[2]}」とされているのは、だれ又は何ですか。", match[1]


def _blank(article: Article, sentence: str, span: tuple[int, int], kind: str, right: str) -> Lesson:
    holed = f"{sentence[: span[0]]}〔　〕{sentence[span[1] :]}"
    return f"{article.title}の次の空欄に入る{kind}は何ですか。\n{holed}", right


def _choice(
    article: Article, sentence: str, span: tuple[int, int], right: str, wrong: list[str]
) -> Lesson:
    options = sorted({right, *wrong}, key=lambda option: _hash(sentence + option))
    holed = f"{sentence[: span[0]]}〔　〕{sentence[span[1] :]}"
    return f"{article.title}の空欄に入るのは、{'、'.join(options)}のどれですか。\n{holed}", right


def _judged(
    article: Article, sentence: str, span: tuple[int, int], right: str, wrong: str
) -> Iterator[Lesson]:
    """The sentence as it stands or with one detail changed, half of each."""
    changed = f"{sentence[: span[0]]}{wrong}{sentence[span[1] :]}"
    if _pick(sentence + wrong, 2):
        yield f"次の記述は{article.title}に照らして正しいですか。\n{sentence}。", "正しい。"
    else:
        yield (
            f"次の記述は{article.title}に照らして正しいですか。\n{changed}。",
            f"誤り。「{wrong}」ではなく「{right}」です。",
        )


def _other(pool: tuple[str, ...], right: str, salt: str) -> str:
    rest = [word for word in pool if word != right and word not in salt]
    return rest[_pick(right + salt, len(rest))]


def _pick(text: str, choices: int) -> int:
    return int(_hash(text)[:8], 16) % choices


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def exam_wording(questions: Iterable[str], law_texts: Iterable[str], size: int) -> frozenset[str]:
    """Character n-grams that only the exam has: those of its questions and options, less those of
    the law itself, which exam and lessons share because both quote it."""
    own = {gram for text in questions for gram in _grams(text, size)}
    for text in law_texts:
        own -= _grams(text, size)
    return frozenset(own)


def repeats(row: dict[str, Any], wording: frozenset[str], size: int) -> bool:
    """Does a lesson say anything in the exam's own words?"""
    return any(
        not wording.isdisjoint(_grams(message["content"], size)) for message in row["messages"]
    )


def _grams(text: str, size: int) -> set[str]:
    plain = re.sub(r"[\W_]+", "", text)
    return {plain[i : i + size] for i in range(len(plain) - size + 1)}
