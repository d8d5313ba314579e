"""`examples/harbor`: counts, keys that agree with the documents, and no exam question in them."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokka.dataset.decontamination import leaks
from tokka.project import load_project

HARBOR = Path(__file__).parents[2] / "examples" / "harbor"
AOBA_RETENTION = HARBOR.parent / "aoba" / "exam" / "retention.jsonl"
NUMBER_WORDS = {"3": "three", "4": "four"}
FUNCTION_WORDS = {"the", "a", "an", "of", "on", "by", "is", "form", "in", "every"}
COMPUTED_IN_EXAMPLES = {"16:00", "11:30", "10:45", "80"}  # from a rule and the case in the question

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@cache
def documents() -> dict[str, str]:
    return {
        path.name: document_text(path)
        for path in sorted((HARBOR / "documents").iterdir())
        if not path.name.startswith(".")
    }


def document_text(path: Path) -> str:
    if path.suffix == ".docx":
        docx = pytest.importorskip("docx", reason="python-docx reads the DOCX document")
        return "\n".join(paragraph.text for paragraph in docx.Document(str(path)).paragraphs)
    if path.suffix == ".pdf":
        pdfium = pytest.importorskip("pypdfium2", reason="pypdfium2 reads the PDF document")
        with pdfium.PdfDocument(path) as pdf:
            return "\n".join(page.get_textpage().get_text_bounded() for page in pdf)
    text = path.read_text("utf-8")
    return re.sub(r"<[^>]+>", " ", text) if path.suffix == ".html" else text


def whole() -> list[Row]:
    return rows(HARBOR / "exam" / "domain.jsonl")


def domain() -> list[Row]:
    """The questions that the documents answer."""
    return [row for row in whole() if "unanswerable" not in row]


def retention() -> list[Row]:
    return rows(HARBOR / "exam" / "retention.jsonl")


def examples() -> list[Row]:
    return rows(HARBOR / "examples.jsonl")


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.:]\d+)?", text))


def bigrams(text: str) -> set[str]:
    letters = "".join(character for character in text.casefold() if character.isalnum())
    return {letters[i : i + 2] for i in range(len(letters) - 1)}


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def test_the_project_file_loads_and_names_the_instruct_model() -> None:
    project = load_project(HARBOR / "tokka.yaml")
    assert project.base_model == "embedded:smollm2-135m-instruct"
    assert list(project.arms) == ["base", "few-shot", "rag", "lora", "lora-rag"]


def test_there_is_a_third_of_what_aoba_has() -> None:
    assert len(documents()) >= 10
    assert {Path(name).suffix for name in documents()} == {
        ".md", ".html", ".txt", ".csv", ".pdf", ".docx",
    }  # fmt: skip
    forms = Counter(row["form"] for row in domain())
    assert forms.total() >= 40
    assert forms["choice"] >= 27
    assert forms["short"] + forms["number"] >= 14
    assert len(retention()) >= 40
    assert len(examples()) >= 100
    assert len({row["fact_id"] for row in examples()}) >= 50


def test_every_fact_is_taught_in_at_least_two_wordings() -> None:
    wordings = defaultdict(set)
    for row in examples():
        wordings[row["fact_id"]].add(row["messages"][0]["content"])
    assert min(len(asked) for asked in wordings.values()) >= 2


def test_ids_are_unique_and_documents_exist() -> None:
    for part in (domain(), retention(), examples()):
        assert len({row["id"] for row in part}) == len(part)
    for row in domain() + examples():
        assert row["document_ids"] and set(row["document_ids"]) <= set(documents()), row["id"]
    assert {name for row in domain() for name in row["document_ids"]} == set(documents())
    assert all(row["document_ids"] == [] for row in retention())


@pytest.mark.parametrize("exam", [domain, retention])
def test_options_are_distinct_hold_the_key_and_vary_its_position(exam: Any) -> None:
    choice = [row for row in exam() if row["form"] == "choice"]
    for row in choice:
        assert len(row["choices"]) == 4
        assert len({text.casefold() for text in row["choices"]}) == 4, row["id"]
        assert row["answer"] in row["choices"], row["id"]
        assert max(map(len, row["choices"])) <= 4 * min(map(len, row["choices"])), row["id"]
    positions = Counter(row["choices"].index(row["answer"]) for row in choice)
    assert max(positions.values()) <= 0.4 * len(choice)


@pytest.mark.parametrize("exam", [domain, retention])
def test_short_and_number_keys_can_be_read(exam: Any) -> None:
    for row in exam():
        if row["form"] == "number":
            assert Decimal(row["answer"]).is_finite() and row["tolerance"] == 0
        elif row["form"] == "short":
            variants = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
            assert variants and all(variants)


def test_topics_and_clusters_are_given() -> None:
    assert len({row["topic"] for row in domain()}) >= 8
    assert len({row["topic"] for row in retention()}) >= 8
    assert all(row["cluster_id"] for row in domain() + retention())
    by_cluster = defaultdict(set)
    for row in domain():
        by_cluster[row["cluster_id"]].update(row["document_ids"])
    assert all(len(found) == 1 for found in by_cluster.values())
    assert len(by_cluster) < len(domain())


def test_every_key_stands_in_its_document() -> None:
    for row in domain():
        text = " ".join(documents()[name] for name in row["document_ids"]).casefold()
        answer = row["answer"][0] if isinstance(row["answer"], list) else row["answer"]
        if row["form"] == "number":
            stands = answer in numbers(text) or NUMBER_WORDS.get(answer, "-") in text.split()
            assert stands, row["id"]
            continue
        words = [w for w in re.findall(r"[\w:'-]+", answer.casefold()) if w not in FUNCTION_WORDS]
        assert words, row["id"]
        assert all(word in text for word in words), (row["id"], words)


def test_every_number_that_is_taught_stands_in_the_document_or_follows_from_it() -> None:
    for row in examples():
        text = " ".join(documents()[name] for name in row["document_ids"])
        asked, answered = (message["content"] for message in row["messages"])
        unknown = numbers(answered) - numbers(text) - numbers(asked) - COMPUTED_IN_EXAMPLES
        assert not unknown, (row["id"], unknown)


def test_the_later_memo_decides_where_two_documents_disagree() -> None:
    keys = {row["question"]: row for row in domain()}
    falls = next(row for asked, row in keys.items() if "repeated" in asked)
    vial = next(row for asked, row in keys.items() if "vial" in asked)
    assert (falls["answer"], vial["answer"]) == ("every 12 hours", "6")
    assert falls["document_ids"] == vial["document_ids"] == ["12-memo-2031.md"]
    assert "every 24 hours" in falls["choices"]
    assert "every 24 hours" in documents()["03-falls.md"]
    assert "after 9 days" in documents()["02-blue-list-medicines.md"]


@pytest.mark.parametrize("exam", [whole, retention])
def test_no_exam_question_stands_in_the_examples_or_documents(exam: Any) -> None:
    questions = {row["id"]: row["question"] for row in exam()}
    texts = dict(documents())
    for row in examples():
        texts[row["id"]] = "\n".join(message["content"] for message in row["messages"])
    assert leaks(questions, texts) == []
    taught = [(row["id"], bigrams(row["messages"][0]["content"])) for row in examples()]
    for key, asked in questions.items():
        for example_id, wording in taught:
            assert jaccard(bigrams(asked), wording) < 0.8, (key, example_id)


# What the questions without an answer ask for; none of the documents says it.
ASKED_IN_VAIN = (
    "park", "beds ", "ventilators are made", "degrees", "vaccin", "committee", "drives", "in 2030",
    "chief of surgery is", "brand",
)  # fmt: skip


def test_some_questions_have_no_answer_and_no_document_speaks_of_them() -> None:
    asked = [row for row in whole() if "unanswerable" in row]
    splits = Counter(row["split"] for row in asked)
    assert splits["dev"] >= 3 and splits["test"] >= 5 and splits.total() >= 8
    assert {row["form"] for row in asked} == {"short"}
    assert len({row["cluster_id"] for row in asked}) == len(asked) == len(ASKED_IN_VAIN)
    assert {row["topic"] for row in asked} <= {row["topic"] for row in domain()}
    everything = " ".join(documents().values()).casefold()
    assert [words for words in ASKED_IN_VAIN if words in everything] == []


def test_the_retention_exam_is_not_the_one_of_aoba() -> None:
    theirs = {row["question"] for row in rows(AOBA_RETENTION)}
    assert not {row["question"] for row in retention()} & theirs
