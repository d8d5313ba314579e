"""Search, citations and support of one answer."""

from __future__ import annotations

from typing import Any

import pytest

from tokka.candidates.evidence import Evidence, cite, evidence_of, support_of
from tokka.records import Answer, Decoding, Message, Passage, Question

pytest.importorskip("sudachipy")

TEXT = "2024年4月1日から、審査部長が300万円まで決裁する。期限は5営業日とする。"


def passage(text: str = TEXT, title: str = "決裁規程") -> Passage:
    return Passage(
        number=1, chunk_id="c", document_id="loan.md", title=title, text=text, start=50,
        end=50 + len(text),
    )  # fmt: skip


def ask(text: str = "誰がいくらまで決裁するか", **fields: Any) -> Question:
    asked = (Message(role="user", content=text),)
    return Question(id="q", messages=asked, form="short", document_ids=("loan.md",), **fields)


def answer(text: str, question: Question, found: Passage, **fields: Any) -> Answer:
    return Answer(
        candidate_id="c", exam_digest="d", question_id="q", text=text, passages=(found,),
        citations=cite(question, text, [found], "ja"), prompt_sha256="p", hash_kind="tokens",
        decoding=Decoding(method="text"), **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "support"),
    [
        ("審査部長が三百万円まで決裁する。", 1.0),
        ("令和6年4月1日から、審査部長が300万円まで決裁する。", 1.0),
        ("審査部長ではなく理事長が決裁する。", 0.5),  # the one name stands there
        ("700万円です。", 0.0),  # rests on nothing
        ("はい。", None),
        ("期限は5営業日です。900円かかります。", 2 / 3),
    ],
)
def test_support_is_the_share_of_figures_and_names_in_what_is_cited(
    said: str, support: float | None
) -> None:
    question = ask()
    assert support_of(answer(said, question, passage()), question) == support


def test_what_the_question_says_is_no_claim_of_the_answer() -> None:
    question = ask("融資で審査部長が決裁できるのはいくらまでか")
    assert (
        support_of(answer("審査部長は300万円まで決裁する。", question, passage()), question) == 1.0
    )
    assert support_of(answer("審査部長です。", question, passage()), question) is None


def test_a_name_in_the_title_of_what_is_cited_is_supported() -> None:
    question = ask()
    said = answer("決裁規程により審査部長が決裁する。", question, passage())
    assert support_of(said, question) == 1.0


def test_silence_has_no_citations_to_judge() -> None:
    question = ask()
    silent = answer("", question, passage(), status="abstained")
    assert evidence_of(silent, question) == Evidence(recall_at_k=1.0)


def test_a_question_without_gold_has_support_alone() -> None:
    question = ask().model_copy(update={"document_ids": ()})
    found = evidence_of(answer("審査部長", question, passage()), question)
    assert found == Evidence(support=1.0)
