"""Answers are traced to the sentence that holds their words and numbers, or to nothing."""

from __future__ import annotations

import pytest

from tokka.records import Citation, Passage
from tokka.retrieval.citations import (
    attribute,
    citation_scores,
    cited_text,
    recall_at_k,
)
from tokka.retrieval.numerals import numbers

LOAN = "融資の限度額は300万円とする。理事長の承認を得ること。\n期限は翌月末日とする。"
COST = "経費の限度額は30万円とする。部長の承認を得る。結果は理事長に報告する。"
FEES = "区分: 窓口 | 手数料: 550円\n区分: ATM | 手数料: 330円\n区分: ネット | 手数料: 220円"


def _passage(number: int, document: str, text: str, start: int, title: str = "") -> Passage:
    end = start + len(text)
    return Passage(
        number=number, chunk_id=f"{document}#{start}-{end}", document_id=document, title=title,
        text=text, start=start, end=end, page=number, score=0.0,
    )  # fmt: skip


PASSAGES = [
    _passage(1, "loan.md", LOAN, 100, "融資規程"),
    _passage(2, "cost.md", COST, 0, "経費規程"),
    _passage(3, "fees.csv", FEES, 0, "手数料表"),
]


def _cited(answer: str, question: str = "") -> list[tuple[int, str]]:
    texts = {p.number: (p.start, p.text) for p in PASSAGES}
    found = []
    for citation in attribute(answer, PASSAGES, "ja", question):
        offset, text = texts[citation.passage]
        found.append((citation.passage, text[citation.start - offset : citation.end - offset]))
    return found


@pytest.mark.parametrize("answer", ["30万円", "300,000円です。", "三十万円", "答え：30万円"])
def test_an_amount_cites_the_sentence_with_that_amount(answer: str) -> None:
    assert _cited(answer) == [(2, "経費の限度額は30万円とする。")]


def test_a_title_alone_is_traced_by_the_question() -> None:
    assert _cited("理事長", "経費の結果は誰に報告するか") == [(2, "結果は理事長に報告する。")]
    assert _cited("理事長", "融資は誰の承認を得るか") == [(1, "理事長の承認を得ること。")]


def test_each_sentence_of_an_answer_has_its_own_citation() -> None:
    answer = "期限は翌月末日です。限度額は300万円です。"
    first, second = attribute(answer, PASSAGES, "ja")
    assert answer[first.answer_start : first.answer_end] == "期限は翌月末日です。"
    assert answer[second.answer_start : second.answer_end] == "限度額は300万円です。"
    assert (first.chunk_id, first.page) == ("loan.md#100-140", 1)
    assert LOAN[first.start - 100 : first.end - 100] == "期限は翌月末日とする。"
    assert LOAN[second.start - 100 : second.end - 100] == "融資の限度額は300万円とする。"


def test_one_row_of_a_table_is_cited() -> None:
    assert _cited("ATMの手数料は330円です。") == [(3, "区分: ATM | 手数料: 330円")]


@pytest.mark.parametrize(
    "answer",
    ["猫が好きです。", "31万円", "ATMの手数料は440円です。", "はい", "", "。。。", "第9条"],
)
def test_what_no_passage_holds_is_not_cited(answer: str) -> None:
    assert _cited(answer) == []


def test_a_half_right_answer_is_supported_less_than_a_right_one() -> None:
    [wrong] = attribute("ATMの手数料は550円です。", PASSAGES, "ja")
    [right] = attribute("ATMの手数料は330円です。", PASSAGES, "ja")
    assert wrong.support < 0.7 < right.support == 1.0


def test_without_passages_there_are_no_citations() -> None:
    assert attribute("30万円", [], "ja") == ()


def test_an_answer_over_two_sentences_cites_both() -> None:
    cited = _cited("部長の承認を得て、結果を理事長に報告する。")
    assert cited == [(2, "部長の承認を得る。結果は理事長に報告する。")]


def test_english_answers_are_matched_by_stems() -> None:
    text = "Nurses check the dose twice. The maximum dose is 1,500 mg per day. Call a doctor first."
    [citation] = attribute("The maximal doses are 1500 mg.", [_passage(1, "a", text, 7)], "en")
    assert text[citation.start - 7 : citation.end - 7] == "The maximum dose is 1,500 mg per day."
    assert 0.5 <= citation.support < 1.0


def _citation(document: str) -> Citation:
    return Citation(
        passage=1, chunk_id="c", document_id=document, page=None, start=0, end=1,
        answer_start=0, answer_end=1, support=1.0,
    )  # fmt: skip


def test_citation_precision_and_recall_are_by_gold_documents_in_the_prompt() -> None:
    cited = [_citation("loan.md"), _citation("cost.md"), _citation("loan.md")]
    scores = citation_scores(cited, PASSAGES, ["loan.md", "fees.csv", "absent.md"])
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(1 / 2)  # absent.md wasn't there to be cited
    assert citation_scores([], PASSAGES, ["loan.md"]) == (None, 0.0)
    assert citation_scores(cited, PASSAGES, ["absent.md"]) == (0.0, None)
    assert citation_scores(cited, PASSAGES, []) == (None, None)


def test_recall_counts_gold_documents_not_passages() -> None:
    twice = [*PASSAGES[:1], *PASSAGES[:1], *PASSAGES[1:2]]
    assert recall_at_k(twice, ["loan.md", "fees.csv"]) == 0.5
    assert recall_at_k([], ["loan.md"]) == 0.0
    with pytest.raises(ValueError, match="no gold documents"):
        recall_at_k(PASSAGES, [])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("１億2千万円、三十日以内、0.50％", {"120000000", "30", "0.5"}),
        ("二〇二四年四月一日の一般会員", {"2024", "4", "1"}),
        ("3,000,000円と300万円と三百万円", {"3000000"}),
        ("千円、1万5,000円", {"1000", "15000"}),
        ("唯一の規程", set()),
    ],
)
def test_numbers_are_compared_by_value(text: str, values: set[str]) -> None:
    assert numbers(text) == values


def test_a_date_is_traced_in_any_spelling_and_a_unit_must_agree() -> None:
    text = "規程は2024年4月1日に施行する。猶予は3日とする。督促は3回行う。"
    found = _passage(1, "a", text, 0)

    def traced(answer: str) -> list[str]:
        return [text[c.start : c.end] for c in attribute(answer, [found], "ja")]

    assert traced("令和6年4月1日に施行") == ["規程は2024年4月1日に施行する。"]
    assert traced("三回") == ["督促は3回行う。"]
    assert traced("3日") == ["猶予は3日とする。"]
    assert traced("令和5年4月1日に施行") == []


def test_a_citation_in_a_widened_passage_names_the_chunk_that_holds_it() -> None:
    text = "# 規程\n\n期限は翌月末日とする。\n\n承認は理事長が行う。"
    first, second = text.index("期限"), text.index("承認")
    passage = _passage(1, "a.md", text[first:], first).model_copy(
        update={
            "chunk_id": "a.md#found",
            "parts": (("a.md#1", first, second - 2, 1), ("a.md#2", second, len(text), 2)),
        }
    )
    [one] = attribute("翌月末日です。", [passage], "ja")
    [other] = attribute("理事長が承認を行います。", [passage], "ja")
    assert (one.chunk_id, one.page, text[one.start : one.end]) == (
        "a.md#1", 1, "期限は翌月末日とする。",
    )  # fmt: skip
    assert (other.chunk_id, other.page, text[other.start : other.end]) == (
        "a.md#2", 2, "承認は理事長が行う。",
    )  # fmt: skip
    assert cited_text(other, [passage]) == "承認は理事長が行う。"


def test_gold_words_decide_where_the_exam_gives_them() -> None:
    """The right document isn't enough: the sentence must be the one that holds the answer."""
    right, wrong = (
        attribute(said, PASSAGES, "ja") for said in ("融資の限度額は300万円", "期限は翌月末日")
    )
    gold = ["融資の限度額は３００万円とする"]
    assert citation_scores(right, PASSAGES, ["loan.md"], gold) == (1.0, 1.0)
    assert citation_scores(wrong, PASSAGES, ["loan.md"], gold) == (0.0, 0.0)
    assert citation_scores([], PASSAGES, ["loan.md"], gold) == (None, 0.0)
    assert citation_scores(right, PASSAGES, [], ["どこにもない文"]) == (0.0, None)
