"""examples/lawqa: the publishers' files become a project, the same one every time."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tokka.dataset.decontamination import leaks

ROOT = Path(__file__).parents[2]
LAWQA = ROOT / "examples" / "lawqa"
PLACES = (os.environ.get("TOKKA_DATA", "data"), ROOT / "shared/data", ROOT.parent / "shared/data")
DATA = next((p for p in map(Path, PLACES) if (p / "lawqa_jp/selection.json").is_file()), None)
NEEDS_DATA = pytest.mark.skipif(
    DATA is None, reason="the publishers' files are not here; set TOKKA_DATA to their folder"
)

sys.path.insert(0, str(LAWQA))
articles = importlib.import_module("articles")
lessons = importlib.import_module("lessons")
prepare = importlib.import_module("prepare")


def sample(name, context):
    return {"ファイル名": name, "コンテキスト": context}


STATUTE = """
見本法
（平成三年十月四日法律第一号）

　第一章　総則（第一条・第十条の二）

　附則

（期間）
第一条

　契約の期間は、三十年とする。
ただし、別に定めたときは、この限りでない。

２

　前項の期間は、更新することができる。
一

　更新の請求があつた場合

　　　第二章　雑則

第十条の二

　大臣は、省令を定める。

　　　附　則

第一条

　この法律は、公布の日から施行する。
"""


def test_parts_of_one_article_that_several_questions_quote_become_one_document():
    first = "## 見本法\n### 第５条の２\n#### 第２項\n二つ目。\n## 見本令\n### 第1条\n令の規定。"
    second = "## 見本法\n### 第5条の2\n#### 第1項\n一つ目。\n#### 第2項\n二つ目。"
    gold, gold_of = articles.gold_articles([sample("a", first), sample("b", second)])
    assert gold_of == {"a": ["見本法/第5条の2", "見本令/第1条"], "b": ["見本法/第5条の2"]}
    whole = "# 見本法第5条の2\n## 第1項\n一つ目。\n## 第2項\n二つ目。"
    assert gold["見本法/第5条の2"].text == whole


def test_a_guidelines_question_and_its_answer_are_one_document():
    context = "## 見本Q&A\n### （問１）\nなぜですか。\n### (答)\n理由です。\n### (問2)\n次は。"
    gold, gold_of = articles.gold_articles([sample("a", context)])
    assert gold_of["a"] == ["見本Q&A/問1", "見本Q&A/問2"]
    assert gold["見本Q&A/問1"].passages == ("なぜですか。", "理由です。")


def test_a_heading_that_breaks_off_in_a_parenthesis_is_put_together():
    context = "## 見本指針\n### 第2 体制（法第１条及び第\n２条関係）\n体制を整える。"
    gold, _ = articles.gold_articles([sample("a", context)])
    assert gold["見本指針/第2体制"].passages == ("体制を整える。",)
    unclosed = context.replace("２条関係）", "２条関係＿")
    gold, _ = articles.gold_articles([sample("a", unclosed)])
    assert gold["見本指針/第2体制"].passages == ("２条関係＿\n体制を整える。",)


def test_a_statute_gives_its_main_articles_and_not_those_of_amending_acts():
    found = list(articles.statute_articles("見本法", "新見本法", STATUTE))
    assert [article.id for article in found] == [
        "見本法（2013年）/第1条",
        "見本法（2013年）/第10条の2",
    ]
    assert found[0].passages == (
        "契約の期間は、三十年とする。ただし、別に定めたときは、この限りでない。",
        "２　前項の期間は、更新することができる。",
        "一　更新の請求があつた場合",
    )
    assert found[0].edition_of == "新見本法/第1条"
    assert found[0].text.startswith("# 見本法（2013年）第1条（期間）\n")


@pytest.mark.parametrize(
    ("kanji", "number"), [("一", 1), ("十", 10), ("百六十七", 167), ("二十", 20), ("千二", 1002)]
)
def test_kanji_numbers_are_read(kanji, number):
    assert articles._kanji_number(kanji) == number


def article(article_id, text, edition_of=""):
    return articles.Article(article_id, article_id, (text,), text, "", "", edition_of)


def test_a_distractor_that_holds_a_gold_passage_is_left_out():
    rule = (
        "借地権の存続期間が満了した後、借地権者が土地の使用を継続するときも、"
        "建物がある場合に限り、前項と同様とする。"
    )
    gold = {"法/第1条": article("法/第1条", rule)}
    older = rule.replace("建物がある場合に限り、前項と同様", "同項の規定と同じもの")
    given = [
        article("旧法/第3条", "前条の規定による。" * 9 + rule.replace("った", "つた")),
        article("旧法/第1条", older, edition_of="法/第1条"),
        article("旧法/第2条", older, edition_of="法/第2条"),
        article(
            "旧法/第4条", "賃貸人は、修繕をする義務を負う。賃借人は、これを拒むことができない。"
        ),
    ]
    kept, near = articles.leave_out_near(given, gold)
    assert [a.id for a in kept] == ["旧法/第2条", "旧法/第4条"]
    assert {n.id: n.gold_id for n in near} == {"旧法/第3条": "法/第1条", "旧法/第1条": "法/第1条"}


def test_lessons_teach_one_sentence_in_several_wordings():
    rule = article(
        "見本法第1条",
        "賃貸人は、解約の申入れの日から三月以内に、その旨を裁判所に届け出なければならない。",
    )
    made = list(lessons.lessons([rule], every_wording={rule.id}))
    assert {row["fact_id"] for row in made} == {"見本法第1条#1"}
    answers = {row["messages"][1]["content"] for row in made}
    assert {"三月", "裁判所", "賃貸人", "見本法第1条"} <= answers
    assert len(list(lessons.lessons([rule], every_wording=set()))) == 1
    for row in made:
        if row["messages"][1]["content"] in ("三月", "裁判所"):
            assert "〔　〕" in row["messages"][0]["content"]


def test_a_lesson_in_the_exams_own_words_is_dropped_and_one_in_the_laws_is_not():
    law = "賃貸人は、その期間の満了の六月前までに通知をする。"
    asked = ["田中さんが大家に伝えるべき時期はいつですか。", f"選択肢：{law}"]
    wording = lessons.exam_wording(asked, [law], 13)

    def row(text):
        return {"messages": [{"role": "user", "content": text}]}

    assert lessons.repeats(row("では、田中さんが大家に伝えるべき時期は？"), wording, 13)
    assert not lessons.repeats(row(law), wording, 13)


def test_questions_linked_by_shared_documents_form_one_cluster():
    clusters = prepare.linked({"a": ["1"], "b": ["2"], "c": ["2", "1"], "d": ["3"]})
    assert clusters["a"] == clusters["b"] == clusters["c"] != clusters["d"]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"selection\.json.*README"):
        prepare.prepare(tmp_path, tmp_path)


def run(out, seed):
    command = [sys.executable, str(LAWQA / "prepare.py"), "--source", str(DATA), "--out", str(out)]
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("lawqa")
    return out, run(out, seed="1")


@NEEDS_DATA
def test_two_runs_give_the_same_bytes(made, tmp_path):
    out, said = made
    assert run(tmp_path, seed="2") == said
    written = sorted(path.relative_to(out) for path in out.rglob("*.jsonl"))
    assert len(written) == 4
    for path in written:
        assert (out / path).read_bytes() == (tmp_path / path).read_bytes()


@NEEDS_DATA
def test_every_question_has_its_key_and_gold_documents(made):
    out, _ = made
    documents = {row["id"] for row in rows(out / "documents.jsonl")}
    domain = rows(out / "exam/domain.jsonl")
    assert len(domain) == len({row["id"] for row in domain}) == 140
    assert {row["topic"] for row in domain} == {"金商法", "薬機法", "借地借家法"}
    assert Counter(row["answer"] for row in domain) == {"A": 23, "B": 37, "C": 48, "D": 32}
    for row in domain:
        assert len(row["choices"]) == 4 and all(row["choices"])
        assert 1 <= len(row["document_ids"]) <= 7
        assert documents.issuperset(row["document_ids"])
    retention = rows(out / "exam/retention.jsonl")
    assert len(retention) == 200 and all(len(row["choices"]) == 5 for row in retention)


@NEEDS_DATA
def test_gold_articles_stand_among_distractors_that_do_not_repeat_them(made):
    out, said = made
    documents = rows(out / "documents.jsonl")
    assert len(documents) == len({row["id"] for row in documents})
    sources = Counter(row["source"] for row in documents)
    assert sources["japanese_articles"] == 4608 and sources["lawqa_jp"] == 180
    assert sources["japanese_laws_2013"] > 1000 and "106 nearly identical" in said
    assert all(row["text"].strip() and row["title"] for row in documents)
    assert "借地借家法（2013年）/第3条" not in {row["id"] for row in documents}  # unchanged since


@NEEDS_DATA
def test_lessons_are_many_short_and_free_of_the_exam(made):
    out, _ = made
    examples = rows(out / "examples.jsonl")
    assert len(examples) >= 1500
    assert len(examples) == len({row["messages"][0]["content"] for row in examples})
    assert max(len(row["messages"][-1]["content"]) for row in examples) <= 120
    texts = {row["id"]: "\n".join(m["content"] for m in row["messages"]) for row in examples}
    domain = rows(out / "exam/domain.jsonl")
    assert leaks({row["id"]: row["question"] for row in domain}, texts) == []
    documents = {row["id"]: row["text"] for row in rows(out / "documents.jsonl")}
    for row in examples:
        (source,) = row["document_ids"]
        for quoted in re.findall(r"^「(.{30,})」と定めて", row["messages"][0]["content"]):
            document = lessons._without_parentheses(documents[source])
            assert re.sub(r"\W", "", quoted) in re.sub(r"\W", "", document)
