"""`examples/aoba`: counts, keys that agree with the documents, and no exam question in them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tokka.dataset.decontamination import leaks
from tokka.project import load_project

AOBA = Path(__file__).parents[2] / "examples" / "aoba"
DOCUMENTS = AOBA / "documents"
SHIFT_JIS = DOCUMENTS / "30-counterfeit.txt"
# What an example works out from a rule and the case in its own question.
COMPUTED = {"85万", "20万", "750万", "110万"}
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"
FIGURE = re.compile(rf"{NUMBER}(?:[万億]{NUMBER}?)*")
AMOUNT = re.compile(rf"{FIGURE.pattern}[^\W\d]?")

Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (AOBA / name).read_text("utf-8").splitlines()]


def domain(name: str = "exam/domain.jsonl") -> list[Row]:
    """The questions that the documents answer."""
    return [row for row in rows(name) if "unanswerable" not in row]


def unanswerable(name: str = "exam/domain.jsonl") -> list[Row]:
    return [row for row in rows(name) if "unanswerable" in row]


def examples() -> list[Row]:
    return rows("examples.jsonl")


def plain(text: str) -> str:
    """NFKC without white space: PDF lines and table cells don't break a value."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def document_text(path: Path) -> str:
    if path.suffix == ".pdf":
        pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 reads the PDF documents")
        with pdfium.PdfDocument(path) as pdf:
            return "\n".join(page.get_textpage().get_text_bounded() for page in pdf)
    if path.suffix == ".docx":
        docx = pytest.importorskip("docx", reason="python-docx reads the DOCX documents")
        document = docx.Document(str(path))
        cells = [c.text for table in document.tables for row in table.rows for c in row.cells]
        return "\n".join([*(paragraph.text for paragraph in document.paragraphs), *cells])
    text = path.read_text("cp932" if path == SHIFT_JIS else "utf-8")
    return re.sub(r"<[^>]+>", " ", text) if path.suffix == ".html" else text


@cache
def documents() -> dict[str, str]:
    return {path.name: document_text(path) for path in sorted(DOCUMENTS.iterdir())}


def gold(row: Row) -> str:
    return plain(" ".join(documents()[name] for name in row["document_ids"]))


def accepted(row: Row) -> list[str]:
    return [row["answer"]] if isinstance(row["answer"], str) else row["answer"]


def amounts(text: str) -> set[str]:
    """`3,600万円` → `3,600万円`; `4か月後` → `4か`: numbers with a letter of unit."""
    return set(AMOUNT.findall(plain(text)))


def figures(text: str) -> set[str]:
    """As `amounts`, without the unit: `甲種5、乙種8営業日` gives it once for two numbers."""
    return set(FIGURE.findall(plain(text)))


def bigrams(text: str) -> frozenset[str]:
    letters = "".join(c for c in plain(text) if c.isalnum())
    return frozenset(a + b for a, b in pairwise(letters))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.mark.parametrize(
    ("file", "exam"), [("tokka.yaml", "domain.jsonl"), ("demo.yaml", "demo-domain.jsonl")]
)
def test_a_project_file_loads_and_names_its_exam(file: str, exam: str) -> None:
    project = load_project(AOBA / file)
    assert project.name == "aoba-shinkin"
    assert project.base_model == "embedded:gemma-3-270m"
    assert project.exams["domain"].path == f"exam/{exam}"
    assert list(project.arms) == ["base", "few-shot", "rag", "lora", "lora-rag"]


def test_the_demo_differs_from_the_project_by_its_exams_alone() -> None:
    full, demo = (
        load_project(AOBA / name).model_dump(exclude={"file", "exams"})
        for name in ("tokka.yaml", "demo.yaml")
    )
    assert demo == full


def test_documents_come_in_all_formats() -> None:
    formats = Counter(path.suffix for path in DOCUMENTS.iterdir())
    assert formats.total() >= 30
    assert formats[".html"] >= 3
    assert formats[".txt"] >= 4
    assert min(formats[suffix] for suffix in (".csv", ".pdf", ".docx")) >= 2
    assert formats[".md"] == max(formats.values())


def test_every_document_holds_a_page_of_japanese_text() -> None:
    for name, text in documents().items():
        assert 300 <= len(plain(text)) <= 1200, name
        assert len(re.findall(r"[ぁ-んァ-ヶ一-龠]", text)) > 150, name
        assert "�" not in text, name


def test_one_document_is_shift_jis_and_no_utf_8() -> None:
    content = SHIFT_JIS.read_bytes()
    assert "みやぶり2型" in content.decode("cp932")
    with pytest.raises(UnicodeDecodeError):
        content.decode("utf-8")


def test_a_pdf_has_two_pages_with_their_own_text() -> None:
    pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 reads the PDF documents")
    with pdfium.PdfDocument(DOCUMENTS / "14-bcp.pdf") as pdf:
        first, second = (plain(page.get_textpage().get_text_bounded()) for page in pdf)
    assert "震度5強以上" in first and "震度5強以上" not in second
    assert "60時間分" in second and "60時間分" not in first


def test_counts_of_questions_facts_and_examples() -> None:
    forms = Counter(row["form"] for row in domain())
    facts = Counter(row["fact_id"] for row in examples())
    assert forms["choice"] >= 85
    assert forms["short"] + forms["number"] >= 45
    assert len(facts) >= 150
    assert facts.total() >= 330
    assert min(facts.values()) >= 2


def test_ids_and_questions_are_unique() -> None:
    for table in (rows("exam/domain.jsonl"), examples()):
        assert len({row["id"] for row in table}) == len(table)
    assert len({plain(row["question"]) for row in domain()}) == len(domain())
    asked = [plain(row["messages"][0]["content"]) for row in examples()]
    assert len(set(asked)) == len(asked)


def test_the_demo_exam_is_whole_clusters_of_the_full_one() -> None:
    full, demo = domain(), domain("exam/demo-domain.jsonl")
    clusters = {row["cluster_id"] for row in demo}
    assert demo == [row for row in full if row["cluster_id"] in clusters]
    assert 60 <= len(demo) <= 80
    assert sum(row["form"] == "choice" for row in demo) >= 40
    assert sum(row["form"] != "choice" for row in demo) >= 20


def test_every_row_names_existing_documents_and_every_document_is_used() -> None:
    for table in (domain(), examples()):
        assert {name for row in table for name in row["document_ids"]} == set(documents())


def test_a_cluster_stays_within_one_document() -> None:
    places = defaultdict(set)
    for row in domain():
        places[row["cluster_id"]].update(row["document_ids"])
    assert all(len(names) == 1 for names in places.values())


@pytest.mark.parametrize("name", ["exam/domain.jsonl", "exam/demo-domain.jsonl"])
def test_four_distinct_options_with_the_right_one_in_balanced_places(name: str) -> None:
    choice = [row for row in domain(name) if row["form"] == "choice"]
    for row in choice:
        assert len({plain(option) for option in row["choices"]}) == 4, row["id"]
    places = Counter(row["choices"].index(row["answer"]) for row in choice)
    assert min(places.values()) >= 0.15 * len(choice)
    assert max(places.values()) <= 0.35 * len(choice)


def test_length_does_not_give_the_answer_away() -> None:
    choice = [row for row in domain() if row["form"] == "choice"]
    longest = sum(
        len(row["answer"]) > max(len(c) for c in row["choices"] if c != row["answer"])
        for row in choice
    )
    shortest = sum(
        len(row["answer"]) < min(len(c) for c in row["choices"] if c != row["answer"])
        for row in choice
    )
    assert longest <= len(choice) / 4
    assert shortest <= len(choice) / 4


def test_the_order_of_numbers_does_not_give_the_answer_away() -> None:
    ranks: Counter[int] = Counter()
    for row in domain():
        values = [re.findall(r"[\d.]+", plain(c).replace(",", "")) for c in row.get("choices", [])]
        units = {re.sub(r"[\d.,]+", "", plain(c)) for c in row.get("choices", [])}
        if len(units) == 1 and all(len(v) == 1 for v in values):
            ordered = sorted(float(v[0]) for v in values)
            answer = re.findall(r"[\d.]+", plain(row["answer"]).replace(",", ""))[0]
            ranks[ordered.index(float(answer))] += 1
    assert ranks.total() >= 40
    assert max(ranks.values()) <= 0.45 * ranks.total()


def test_every_key_stands_in_a_gold_document() -> None:
    for row in domain():
        text = gold(row)
        if row["form"] == "number":
            written = f"{int(row['answer']):,}{row['unit']}"
            assert plain(written) in text, (row["id"], written)
        elif any(character.isdigit() for character in plain(accepted(row)[0])):
            assert amounts(accepted(row)[0]) <= amounts(text), (row["id"], row["answer"])
        else:
            assert plain(accepted(row)[0]) in text, (row["id"], row["answer"])


def test_every_figure_in_an_example_answer_stands_in_a_gold_document() -> None:
    for row in examples():
        answer = row["messages"][-1]["content"]
        known = figures(gold(row)) | figures(row["messages"][0]["content"]) | COMPUTED
        assert figures(answer) <= known, (row["id"], answer)


def test_every_name_in_an_example_answer_stands_in_a_gold_document() -> None:
    for row in examples():
        for name in re.findall(r"「(.+?)」", row["messages"][-1]["content"]):
            assert plain(name) in gold(row), (row["id"], name)


def test_every_key_is_taught_by_an_example_on_the_same_document() -> None:
    taught: dict[str, str] = defaultdict(str)
    for row in examples():
        for name in row["document_ids"]:
            taught[name] += plain(" ".join(m["content"] for m in row["messages"])) + " "
    for row in domain():
        text = " ".join(taught[name] for name in row["document_ids"])
        key = plain(accepted(row)[0] + row.get("unit", "")).replace(",", "")
        known = figures(key) and figures(key) <= figures(text.replace(",", ""))
        assert known or key in text, (row["id"], key)


def test_examples_are_short_conversations_of_question_and_answer() -> None:
    for row in examples():
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"], row["id"]
        assert len(row["messages"][1]["content"]) <= 60, row["id"]


def test_no_exam_question_stands_in_the_examples_or_in_the_documents() -> None:
    questions = {row["id"]: row["question"] for row in rows("exam/domain.jsonl")}
    texts = {
        row["id"]: "\n".join(m["content"] for m in row["messages"]) for row in examples()
    } | documents()
    assert leaks(questions, texts) == []


def test_no_exam_question_is_nearly_an_example_question() -> None:
    asked = {row["id"]: bigrams(row["messages"][0]["content"]) for row in examples()}
    for row in rows("exam/domain.jsonl"):
        grams = bigrams(row["question"])
        near = {key: round(jaccard(grams, other), 2) for key, other in asked.items()}
        worst = max(near, key=near.__getitem__)
        assert near[worst] < 0.8, (row["id"], worst, near[worst])


def test_keys_follow_the_notices_that_replace_a_rule() -> None:
    replaced = {
        "31-notice-loan-authority.md": ("3,000万円", "3,600万円"),
        "32-notice-fees.md": ("1,210円", "1,650円"),
        "33-notice-elderly-transfer.md": ("120万円", "15万円"),
        "34-notice-safe-deposit.txt": ("営業店の大金庫", "本部の「銀杏庫」"),
    }
    for name, (old, new) in replaced.items():
        asked = [r for r in domain() if old in r.get("choices", ()) and name in r["document_ids"]]
        assert any(row["answer"] == new for row in asked), name
        assert all(row["answer"] != old for row in asked), name


# What the questions without an answer ask for; none of the documents says it.
ASKED_IN_VAIN = (
    "普通預金の利率", "議長", "印紙", "保証料", "製造", "駅前に置", "満期より前",
    "内寸", "出資一口", "食料の費用",
)  # fmt: skip


def test_some_questions_have_no_answer_and_both_splits_hold_some() -> None:
    asked = unanswerable()
    assert asked == unanswerable("exam/demo-domain.jsonl")
    splits = Counter(row["split"] for row in asked)
    assert splits["dev"] >= 3 and splits["test"] >= 5 and splits.total() >= 8
    assert {row["form"] for row in asked} == {"short"}
    assert len({row["cluster_id"] for row in asked}) == len(asked)
    assert {row["topic"] for row in asked} <= {row["topic"] for row in domain()}


def test_no_document_speaks_of_what_has_no_answer() -> None:
    everything = plain(" ".join(documents().values()))
    assert len(ASKED_IN_VAIN) == len(unanswerable())
    assert [words for words in ASKED_IN_VAIN if words in everything] == []
