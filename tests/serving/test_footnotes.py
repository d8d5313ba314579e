"""Citations as a reader sees them, and off again in a chat's history."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.records import Answer, Citation, Decoding, Passage
from tokka.serving.footnotes import annotations_of, citations_of, footnotes, without_footnotes


def answer(*cited: tuple[int, int | None], title: str = "規程") -> Answer:
    passages = tuple(
        Passage(number=n, chunk_id=f"c{n}", document_id=f"d{n}", title=f"{title}{n}" if title else
                "", text="0123456789", start=100, end=110)
        for n in (1, 2)
    )  # fmt: skip
    citations = tuple(
        Citation(passage=n, chunk_id=f"c{n}", document_id=f"d{n}", page=page, start=102, end=105,
                 answer_start=0, answer_end=3, support=1.0)
        for n, page in cited
    )  # fmt: skip
    return Answer(
        candidate_id="c", exam_digest="", question_id="q", text="三百万", passages=passages,
        citations=citations, prompt_sha256="0", hash_kind="tokens",
        decoding=Decoding(method="text"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("language", "said"),
    [("ja", "\n\n[1] 規程1、3ページ\n[2] 規程2"), ("en", "\n\n[1] 規程1, p. 3\n[2] 規程2")],
)
def test_each_cited_place_is_one_line_in_the_releases_language(language, said):
    assert footnotes(answer((2, None), (1, 3), (1, 3)), language) == said


def test_a_title_of_several_lines_is_one_note():
    noted = footnotes(answer((1, None), title="a\n[9] b"), "en")
    assert noted == "\n\n[1] a [9] b1"


def test_a_document_without_a_title_is_named_by_its_id():
    assert footnotes(answer((1, None), title=""), "en") == "\n\n[1] d1"


def test_the_quote_is_what_stands_in_the_document():
    (row,) = citations_of(answer((1, 3)))
    assert (row["quote"], row["start"], row["end"]) == ("234", 102, 105)
    (note,) = annotations_of(answer((1, 3)))
    assert note["url_citation"]["end_index"] == 3


@given(st.text(max_size=40), st.lists(st.sampled_from([(1, 3), (2, None), (1, None)]), max_size=3))
def test_what_was_added_comes_off_and_nothing_else(text, cited):
    text = without_footnotes(text)  # a text that ends in such lines by itself
    assert without_footnotes(text + footnotes(answer(*cited), "ja")) == text


def test_no_text_takes_longer_than_its_length():
    text = "\n\n[1] " + " " * 300_000 + "\nx"
    started = time.perf_counter()
    assert without_footnotes(text) == text
    assert time.perf_counter() - started < 5  # tried from each place: minutes
