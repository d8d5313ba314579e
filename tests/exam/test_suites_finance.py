"""Figures with their scales, and the tasks of japanese-lm-fin-harness, on files of the publishers'
shapes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from tokka.errors import UsageError
from tokka.exam.importing import read_exam
from tokka.exam.scorers import score
from tokka.exam.suites import suite
from tokka.exam.suites.building import Built, build, write_all
from tokka.exam.suites.spreadsheet import first_sheet
from tokka.records import Answer, Decoding


def whole(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def value_of(built: Built, said: str, folder: Path) -> float | None:
    """What `said` is worth as the answer to the first question."""
    write_all(built, folder / "exam.jsonl", None)
    name = built.suite.name
    scorer = built.suite.scorer
    exam, questions, keys = read_exam(folder / "exam.jsonl", name, "domain", scorer=scorer)
    answer = Answer(
        candidate_id="c",
        exam_digest=exam.digest,
        question_id=questions[0].id,
        text=said,
        prompt_sha256="0",
        hash_kind="tokens",
        decoding=Decoding(method="text"),
    )
    return score(answer, keys[0], questions[0], exam).value


# ---- TAT-QA -------------------------------------------------------------------------------------


def tatqa(folder: Path, answer: Any, kind: str, scale: str) -> Built:
    asked = {"uid": "q1", "order": 1, "question": "How much?", "answer": answer}
    block = {
        "table": {"uid": "t1", "table": [["", "2019", "2018"], ["Revenue", "$ 12.6", "$ 9"]]},
        "paragraphs": [
            {"uid": "p2", "order": 2, "text": "Second."},
            {"uid": "p1", "order": 1, "text": "First."},
        ],
        "questions": [{**asked, "answer_type": kind, "scale": scale, "answer_from": "table"}],
    }
    whole(folder / "dataset_raw" / "tatqa_dataset_dev.json", [block])
    return build(suite("tat-qa"), folder, "dev")


@pytest.mark.parametrize(
    ("answer", "kind", "scale", "said", "worth"),
    [
        (-12.6, "arithmetic", "million", "-12.6 million", 1.0),
        (-12.6, "arithmetic", "million", "The answer is -$12,600,000", 1.0),
        (-12.6, "arithmetic", "million", "-12.6", 0.0),  # the scale is part of the answer
        (-12.6, "arithmetic", "million", "12.6 million", 0.0),
        (40.74, "arithmetic", "percent", "40.74%", 1.0),
        (40.74, "arithmetic", "percent", "40.743 percent", 1.0),
        (40.74, "arithmetic", "percent", "40.8%", 0.0),
        (0.15, "arithmetic", "", "0.15", 1.0),
        (2, "count", "", "There are 2.", 1.0),
        (2, "count", "", "2.4", 0.0),
        (["$1,452.4"], "span", "thousand", "$1,452.4 thousand", 1.0),
        (["(44.1)"], "span", "million", "-44.1 million", 1.0),
        (["15.3%"], "span", "percent", "15.3%", 1.0),
        (["(15.3)%"], "span", "", "-15.3%", 1.0),
        (0.00001, "arithmetic", "million", "10", 1.0),
        (["fixed price"], "span", "", "It is fixed price.", 1.0),
        (["fixed price"], "span", "", "It is cost plus.", 0.0),
        (["fixed price", "cost plus"], "multi-span", "", "cost plus, fixed price", 1.0),
        (["fixed price", "cost plus"], "multi-span", "", "fixed price", 0.0),
    ],
)
def test_an_answer_of_tatqa_needs_its_scale_and_all_its_spans(
    answer: Any, kind: str, scale: str, said: str, worth: float, tmp_path: Path
) -> None:
    assert value_of(tatqa(tmp_path, answer, kind, scale), said, tmp_path) == worth


def test_tatqa_shows_the_paragraphs_in_order_and_the_table(tmp_path: Path) -> None:
    built = tatqa(tmp_path, 1, "count", "")
    asked = built.rows[0]["question"]
    assert asked.startswith("First.\nSecond.\n\n|  | 2019 | 2018 |\n| Revenue | $ 12.6 | $ 9 |\n\n")
    assert asked.splitlines()[-2] == "How much?" and built.rows[0]["cluster_id"] == "t1"


def test_what_tatqa_gives_no_usable_key_for_is_left_out(tmp_path: Path) -> None:
    for answer, kind, scale, reason in (
        ("several", "arithmetic", "", "is no number"),
        (["1"], "span", "dozen", "scale is 'dozen'"),
        ([], "span", "", "answer is empty"),
    ):
        with pytest.raises(UsageError, match=reason):
            tatqa(tmp_path, answer, kind, scale)


# ---- FinanceBench -------------------------------------------------------------------------------


def financebench(folder: Path, question: str, answer: str) -> Built:
    row = {
        **{"financebench_id": "id_1", "company": "3M", "doc_name": "3M_2018_10K"},
        **{"question_type": "metrics-generated", "question": question, "answer": answer},
        "evidence": [{"evidence_text": "Purchases (1,577)", "evidence_page_num": 59}],
    }
    path = folder / "data" / "financebench_open_source.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row) + "\n")
    return build(suite("financebench"), folder)


@pytest.mark.parametrize(
    ("question", "answer", "said", "worth"),
    [
        ("What is the amount (in USD millions)?", "$1577.00", "$1577.00", 1.0),
        ("What is the amount (in USD millions)?", "$1577.00", "It is $1,577 million.", 1.0),
        ("What is the amount (in USD millions)?", "$1577.00", "1.577 billion", 1.0),
        ("What is the amount (in USD millions)?", "$1577.00", "$1,578 million", 0.0),
        ("What is it? Answer in USD billions.", "$8.70", "8.704", 1.0),
        ("What is it? Answer in USD billions.", "$8.70", "8.71", 0.0),
        ("What is the margin?", "-3.7%", "-3.72%", 1.0),
        ("What is the margin?", "-3.7%", "3.7%", 0.0),
        ("What is the ratio?", "0.66", "0.66", 1.0),
        ("Which segment?", "The consumer segment", "the consumer segment", 1.0),
        ("Which segment?", "The consumer segment", "the health segment", 0.5),
    ],
)
def test_a_figure_counts_in_the_scale_that_the_question_names(
    question: str, answer: str, said: str, worth: float, tmp_path: Path
) -> None:
    assert value_of(financebench(tmp_path, question, answer), said, tmp_path) == worth


def test_financebench_names_the_document_that_retrieval_should_find(tmp_path: Path) -> None:
    (row,) = financebench(tmp_path, "What is the ratio?", "0.66").rows
    assert row["document_ids"] == ["3M_2018_10K.pdf"] and row["cluster_id"] == "3M_2018_10K"
    assert row["topic"] == "metrics-generated"


# ---- japanese-lm-fin-harness --------------------------------------------------------------------

AUDIT = [
    ["", "question", "ア", "イ", "ウ", "エ", "オ", "カ", *"123456", "a_no", "abnormal_flg"],
    ["0", "正しいものの組合せは？", "監査は要る。", "要らない。", "", "", "", "",
     "アイ", "アウ", "アエ", "イウ", "イエ", "ウエ", "3", "0"],
    ["1", "答えのない問題", "ア文", "", "", "", "", "", *"abcdef", "1", "1"],
]  # fmt: skip


def workbook(path: Path, rows: list[list[str]]) -> None:
    """A small .xlsx: texts shared and numbers plain, as spreadsheet programs write them."""
    texts: list[str] = []
    lines = []
    for number, cells in enumerate(rows, 1):
        written = []
        for place, cell in enumerate(cells):
            at = f"{chr(ord('A') + place)}{number}"
            if cell.isdigit():
                written.append(f'<c r="{at}"><v>{cell}</v></c>')
            elif cell:
                texts.append(cell)
                written.append(f'<c r="{at}" t="s"><v>{len(texts) - 1}</v></c>')
        lines.append(f'<row r="{number}">{"".join(written)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(
        f"<si><r><t>{escape(text[:1])}</t></r><r><t>{escape(text[1:])}</t></r>"
        "<rPh><t>よみ</t></rPh></si>"
        for text in texts
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as book:
        sheet = f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        book.writestr("xl/worksheets/sheet1.xml", sheet)
        book.writestr("xl/sharedStrings.xml", f"<sst {space}>{shared}</sst>")


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    opinions = [
        {
            "target": "売上高",
            "category": "company#sales",
            "polarity": "positive",
            "from": 0,
            "to": 3,
        },
        {"target": "株価", "category": "market#general", "polarity": "neutral", "from": 4, "to": 6},
    ]
    sentence = {
        "sentence_id": 0,
        "sentence": "売上高は増え、株価は横ばいだった。",
        "opinions": opinions,
    }
    chabsa = {"header": {"edi_id": "E00008"}, "sentences": [sentence]}
    whole(tmp_path / "chABSA-dataset" / "e00008_ann.json", chabsa)
    options = [{"id": n, "text": text} for n, text in enumerate(["１", "２", "３", "４"])]
    row = {"id": 476, "question": "最も不適切なものはどれか。", "context": "１．甲\n２．乙"}
    home = tmp_path / "jlm_fin_eval" / "datasets"
    for task in ("fp2", "cma_basics", "security_sales_1"):
        value = {"data": [{**row, "choices": options, "answer": 2, "commnet": ""}]}
        whole(home / task / "data.json", value)
    workbook(home / "cpa" / "CPA_AUDIT.xlsx", AUDIT)
    return tmp_path


def test_the_five_tasks_are_topics(harness: Path) -> None:
    built = build(suite("japanese-lm-fin-harness"), harness)
    tasks = ("chabsa", "cma_basics", "cpa_audit", "fp2", "security_sales_1")
    assert built.topics == dict.fromkeys(tasks, 1)
    rows = {row["topic"]: row for row in built.rows}
    assert rows["chabsa"]["choices"] == ["positive", "negative"]
    assert "「売上高」" in rows["chabsa"]["question"]
    assert rows["fp2"]["question"] == "最も不適切なものはどれか。\n１．甲\n２．乙"
    assert (rows["fp2"]["id"], rows["fp2"]["answer_index"]) == ("fp2-476", 2)
    audit = rows["cpa_audit"]
    assert audit["question"] == "正しいものの組合せは？\nア: 監査は要る。\nイ: 要らない。"
    assert audit["choices"] == ["アイ", "アウ", "アエ", "イウ", "イエ", "ウエ"]
    assert audit["answer_index"] == 2
    reasons = {one.item.split(": ", 1)[1]: one.reason for one in built.dropped}
    assert reasons == {
        "e00008_ann.json, sentence 0, opinion 1": "its polarity is neutral, which the task doesn't "
        "offer",
        "CPA_AUDIT.xlsx:3": "the publisher marks it as abnormal",
    }


def test_tasks_whose_files_are_missing_are_named_and_the_others_built(harness: Path) -> None:
    (harness / "chABSA-dataset" / "e00008_ann.json").unlink()
    built = build(suite("japanese-lm-fin-harness"), harness)
    assert "chabsa" not in built.topics and len(built.topics) == 4
    gone = next(one for one in built.dropped if one.item.endswith(": chabsa"))
    assert "chABSA-dataset/*.json" in gone.reason
    assert gone.next_action == "get it from https://github.com/chakki-works/chABSA-dataset"
    with pytest.raises(UsageError, match="chABSA-dataset"):
        build(suite("japanese-lm-fin-harness"), harness, "chabsa")
    assert set(build(suite("japanese-lm-fin-harness"), harness, "fp2").topics) == {"fp2"}


def test_a_workbook_is_read_without_reading_aids_and_a_broken_one_is_refused(
    tmp_path: Path,
) -> None:
    workbook(tmp_path / "a.xlsx", [["name", "n"], ["監査", "7"], ["", "8"]])
    assert list(first_sheet(tmp_path / "a.xlsx")) == [
        (2, {"name": "監査", "n": "7"}),
        (3, {"n": "8"}),
    ]
    (tmp_path / "b.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(UsageError, match=r"b\.xlsx isn't a readable workbook"):
        list(first_sheet(tmp_path / "b.xlsx"))
