"""Rules of quality fault what was never written to be read, and leave laws and tables alone."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest

from tokka.corpus.cleaning import clean
from tokka.corpus.documents import build
from tokka.corpus.quality import RULES, Fault, QualitySettings, faults, summary
from tokka.corpus.reading import files, read_file

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

_PROSE = (
    "当組合の貸付けは、会員の生活の安定に役立つことを目的とし、返済の見込みを調べたうえで行う。"
    "担当者は申込者と面談し、収入と借入れの状況を聞き取って、その内容を記録する。"
    "営業店長は記録を読み、疑問があれば担当者に問い合わせてから、可否を決めなければならない。"
)
_BROKEN = {
    "short": "以上",
    "symbols": "■■★★※ 融資 ●●▲▲ 規程 ◆◆◇◇ 本文 ＠＠♪♪ です" * 4,
    "mojibake": _PROSE.encode().decode("cp932", "replace") * 2,
    "repeated lines": "今すぐこちらからお申し込みください。\n" * 30 + _PROSE,
    "repeated n-grams": _PROSE * 12,
    "ellipses": "\n".join(f"第{n}回の理事会で決まったことについてお知らせ…" for n in range(20)),
    "no sentences": "融資担保保証人の制度を調べる方法とその結果を書いた手引きを読む人が増えた背景"
    * 1,
    "few kana": "",
    "short lines": "\n".join(_PROSE),
    "contents": "\n".join(f"第{n}章　規程の名称その{n} ……………… {n * 3}" for n in range(1, 15)),
    "filler": _PROSE + "この文章はダミーです。文字の大きさ、量、字間、行間等を確認します。",
    "navigation": "ホーム\nログイン\nサイトマップ\nお問い合わせ\n利用規約\n融資のご案内\n",
}
_TOPICS = ["担保", "保証", "審査", "返済", "利息", "延滞", "督促", "償却", "相続", "解約"]
_BROKEN["no sentences"] = "".join(
    f"{a}の{b}を{c}と{d}に分けて調べた手引き"
    for a, b, c, d in itertools.islice(itertools.permutations(_TOPICS, 4), 80)
)
_BROKEN["few kana"] = "".join(
    f"{a}{b}規程{c}管理要領。" for a, b, c in itertools.permutations(_TOPICS, 3)
)


def _rules(text: str, language: str = "ja") -> list[str]:
    return [fault.rule for fault in faults(build(text, "a.txt", language=language))]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_faults_what_it_is_for(rule: str) -> None:
    assert rule in _rules(_BROKEN[rule])


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("mojibake", "The borrowerâ€™s â€œtermsâ€ are Ã©tablished and donâ€™t change. " * 3),
        ("mojibake", _PROSE.encode().decode("latin-1")),
        ("mojibake", _PROSE.encode("euc-jp").decode("cp932", "replace")),
        ("mojibake", "The limit is \ufffd\ufffd\ufffd yen."),
        ("contents", "\n".join(f"{n}. Terms of the loan ........ {n * 4}" for n in range(1, 9))),
        ("filler", "Lorem ipsum dolor sit amet, consectetur adipiscing elit."),
        ("navigation", "404 Not Found"),
        ("navigation", "Please enable JavaScript to view this page."),
        ("navigation", "Home\nLog in\nSearch\nContact us\nPrivacy policy\nThe loan\n"),
        ("navigation", "お探しのページは見つかりませんでした。\nホーム\n"),
        ("repeated n-grams", "buy gold now " * 80),
    ],
)
def test_rules_know_other_shapes_of_the_same_fault(rule: str, text: str) -> None:
    assert rule in _rules(text, "en" if text.isascii() else "ja")


_FEES = """\
区分 | 項目 | 対象 | 金額（税込） | 備考
振込 | 窓口・他行あて3万円以上 | 個人 | 880円 | 会員は132円引き
振込 | 窓口・他行あて3万円以上 | 法人 | 990円 | 会員割引なし
再発行 | 通帳 | 個人・法人 | 1,210円 | 通達第24-08号で改定
再発行 | 証書 | 個人・法人 | 1,210円 | 通達第24-08号で改定
両替 | 窓口 51～500枚 | 個人 | 550円 | －
両替 | 窓口 501枚以上 | 個人 | 1,100円 | －
"""
_LAW = "\n".join(
    f"第{n}条　組合は、前条の規定により理事会の承認を受けた者に、書類の提出を求めることができる。\n"
    f"２　前項の規定は、第{n}項の規定により読み替えて適用する場合について準用する。"
    for n in ("一", "二", "三", "四", "五", "六", "七", "八")
)


@pytest.mark.parametrize(
    "text",
    [
        _PROSE,
        _FEES,
        _LAW,
        "第百三十一条　削除",
        "明日は休業します。",
        "Closed on Monday, 3 May.",
        "- 本人確認書類\n- 印鑑\n- 通帳\n- 申込書\n- 収入を証明する書類\n",
        "国債証券ノ利札ヲ失ヒタル者ハ其ノ旨ヲ届出ヅベシ 前項ノ届出アリタルトキハ之ヲ公告ス " * 3,
        "支店一覧\n" + "\n".join(f"{n}\t中央支店\t東京都千代田区丸の内{n}-1" for n in range(40)),
        "Option | Default | Meaning\n--- | --- | ---\nwidth | 80 | columns\nlines | 25 | rows\n"
        * 2,
        "if (a != b) { return c[i] += d * e; } // see §3\n" + "x = (y + z) / 2;  # mean\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n",
        "取扱店: " + "、".join(f"第{n}支店および{n}号出張所" for n in range(120)),
        "The borrower is Mr M\ufffdller.",
        "カルシウム…200 mg\nビタミンC…50 mg\n",
        "10 µg of Café São Paulo’s “naïve” coöperation — £30 … and Ångström’s § 5.",
    ],
)
def test_laws_tables_lists_and_notices_are_in_order(text: str) -> None:
    assert _rules(text, "en" if text.isascii() else "ja") == []


def test_a_reason_gives_the_figures_and_none_of_the_text() -> None:
    found = faults(build("秘密：山田太郎\n" + _BROKEN["contents"], "a.txt", language="ja"))
    [fault] = [fault for fault in found if fault.rule == "contents"]
    assert fault.reason == ("93.3 % of the lines lead to a page number by dots; less than 50 %")
    for rule, text in _BROKEN.items():
        for other in faults(build(text, "a.txt", language="ja")):
            assert not any(word in other.reason for word in ("組合", "規程", "担保")), rule


def test_thresholds_can_be_set() -> None:
    document = build("明日は休業します。", "a.txt")
    assert [f.rule for f in faults(document, QualitySettings(min_letters=50))] == ["short"]


def test_faults_are_counted_by_rule() -> None:
    found = [Fault("contents", "x"), Fault("short", "y"), Fault("contents", "z")]
    assert summary(found) == {"short": 1, "contents": 2}
    assert summary([]) == {}


def test_no_example_document_is_faulted() -> None:
    listed = files([ROOT / f"examples/{name}/documents" for name in ("aoba", "harbor")])
    documents = [one for name, path in listed for one in read_file(path, name)]
    made = ROOT / "examples/lawqa/documents.jsonl"  # by its prepare.py, where the data is
    if made.exists():
        documents += read_file(made, made.name)[::20]
    assert len(documents) > 20
    assert {d.id: faults(d) for d in documents if faults(d)} == {}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("japanese_laws_2013/laws", "text"),
        ("debian_docs/manpages-ja", "text"),
        ("debian_docs/postgresql-doc-15", "text"),
        ("jaquad/dev", "context"),
    ],
)
def test_real_laws_and_manuals_are_in_order(name: str, field: str) -> None:
    path = DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} isn't here: see the data's README")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line)[field] for line in itertools.islice(file, 7, 400, 60)]
    documents = [clean(build(text, "a.txt")).document for text in rows if text.strip()]
    assert [faults(document) for document in documents] == [[]] * len(documents)
