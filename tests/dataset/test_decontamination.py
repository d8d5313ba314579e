"""An exam question in the training data is found, and shared words alone are not taken for one."""

from __future__ import annotations

import pytest

from tokka.dataset.decontamination import leaks, refuse_leaks
from tokka.records import Example, Message

JA = "営業店長が単独で決裁できる無担保融資の上限額はいくらですか。"
EN = "What is the highest dose of aspirin that a nurse may give without calling a doctor?"


def kinds(question: str, text: str) -> list[str]:
    return [leak.kind for leak in leaks({"q": question}, {"t": text})]


@pytest.mark.parametrize(
    ("question", "text", "kind"),
    [
        (JA, f"問：{JA}\n答：300万円", "verbatim"),
        (JA, "営業店長が、単独で決裁できる　無担保融資の上限額は、いくらですか？", "verbatim"),
        (JA, "営業店長が単独で決裁できる無担保融資の上限額はいくらでしょうか", "near"),
        (JA, "営業店長が単独で決裁できる無担保の融資の上限額はいくらですか", "near"),
        (EN, "Q: " + EN.upper(), "verbatim"),
        (EN, EN.replace("the highest", "highest"), "near"),
        (
            "借地権の存続期間について契約で三十年より長い期間を定めることはできますか。建物が滅失した"
            "ときに借地権者が残存期間を超える建物を築造した場合の期間はどうなりますか。",
            "建物が滅失したときに借地権者が残存期間を超える建物を築造した場合の期間はどうなりますか。"
            "借地権の存続期間について契約で三十年より長い期間を定めることはできますか。",
            "copied",
        ),
        ("動物は？", "動物は?\n犬", "verbatim"),
    ],
)
def test_a_question_that_stands_in_a_text_is_found(question: str, text: str, kind: str) -> None:
    assert kinds(question, text) == [kind]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (JA, "営業店長が単独で決裁できる無担保融資の上限額は、300万円とする。"),
        (JA, "青葉信用金庫の営業店長は、無担保融資を決裁する。"),
        (JA, "営業店長の無担保融資の枠を教えてください。"),
        ("青葉信用金庫の定款は何条ありますか", "青葉信用金庫の本店はどこですか"),
        ("第5条は何を定めていますか", "第6条は何を定めていますか"),
        (
            "第五条は何を定めていますか、要点を述べてください",
            "第六条は何を定めていますか、要点を述べてください",
        ),
        (EN, "A nurse may give 325 mg of aspirin without calling a doctor."),
        ("What is the capital of France?", "What is the capital of Greece?"),
        ("動物は？", "この動物は犬です"),
        ("", "何か"),
        ("何か", ""),
    ],
)
def test_shared_words_facts_and_names_are_no_leak(question: str, text: str) -> None:
    assert kinds(question, text) == []


def test_a_question_deep_inside_a_long_document_is_found() -> None:
    filler = "預金口座の開設には本人確認書類の提示を求めるものとする。" * 200
    found = leaks({"q": JA}, {"d": filler + JA.replace("です", "でしょう") + filler})
    assert [(leak.kind, leak.overlap > 0.9) for leak in found] == [("near", True)]


def test_leaks_come_in_a_stable_order_and_one_a_pair() -> None:
    questions = {"q2": JA, "q1": EN}
    texts = {"b": JA + JA, "a": JA + "\n" + EN}
    found = [(leak.question_id, leak.item_id) for leak in leaks(questions, texts)]
    assert found == [("q1", "a"), ("q2", "a"), ("q2", "b")]


def test_wording_that_many_questions_share_is_boilerplate() -> None:
    stem = "次の記述のうち、社内規程に照らして最も適切なものを一つ選んでください。"
    questions = {f"q{i}": f"{stem}{name}について" for i, name in enumerate("甲乙丙丁戊己庚辛")}
    assert leaks(questions, {"t": stem + "全般"}) == []


def test_an_example_that_repeats_a_question_is_left_out_and_named() -> None:
    def example(name: str, asked: str) -> Example:
        messages = (Message(role="user", content=asked), Message(role="assistant", content="答"))
        return Example(id=name, messages=messages)

    kept = refuse_leaks([example("e1", JA), example("e2", "上限額の例外はありますか")], {"q": JA})
    assert [e.id for e in kept.examples] == ["e2"]
    assert kept.dropped[0].item == "example e1"
    assert "exam question q" in kept.dropped[0].reason
