"""Sentence spans cover the text; their borders fall where a reader would put them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokka.corpus.sentences import sentences

PIECES = st.sampled_from(
    ["。", "！", "?", ".", " ", "\n", "\n\n", "「", "」", "（", "）", "(", ")", "1.5", "Mr.",
     "・", "# ", "|", "第3条", "融資", "とする",
     "The", "limit", "\u3000", "\x0b", "\u2028", "1. ", "㈱", "𠮷"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=120), st.lists(PIECES, max_size=60).map("".join)))
def test_spans_are_disjoint_and_cover_the_text(text: str) -> None:
    spans = sentences(text)
    assert "".join(text[span.start : span.end] for span in spans) == text
    assert all(span.start < span.end for span in spans)
    if text.strip():
        assert all(text[span.start : span.end].strip() for span in spans)


@pytest.mark.parametrize(
    "expected",
    [
        ["上限は1.5万円である。", "「異議はない。」と答えた。", "次は？ ", "はい！"],
        ["当金庫（以下「金庫」という。）を定める。", "「よい。」", "「だめだ。」", "終わり。"],
        ["金利は１．５％。", "Yahoo!ニュースを見た。", "版は3.0です."],
        [
            "# 見出し\n",
            "第1条 目的。",
            "本規程は\n",
            "・一つ目\n",
            "・二つ目。",
            "三つ目\n\n",
            "段落",
        ],
        ["融資限度額\n", "300万円\n", "承認者\n", "理事長"],
        ["区分: 窓口 | 額: 330円\n", "区分: ATM | 額: 110円\n"],
        [
            "Mr. Smith gave 3.5 mg. ",
            "Then Dr. J. Doe left. ",
            "See Fig. 2, e.g. here. ",
            "Ok? ",
            "No.",
        ],
        ["モーニング娘。の新曲である。", "のちに娘。を見た。", "この娘。は人気だ。", "はじめに。"],
        ["『よい（よ。）。』と言った。", "［注。］を見る。", "〈終わり。〉"],
        [
            "２\n\n",
            "　前項の規定による。",
            "この場合も同じ。\n",
            "三の二\n",
            "その他\n",
            "四　書面",
        ],
        ["1. Do this now.\n", "2. Do that. ", "Then go."],
        ["(See this. It works.) ", "Next one. ", "“Quoted.” ", "More at example.com today."],
        [
            "This long line was wrapped at about seventy columns because it is\nplain text. ",
            "Go on.",
        ],
    ],
)
def test_sentences_end_where_a_reader_would_end_them(expected: list[str]) -> None:
    text = "".join(expected)
    assert [text[span.start : span.end] for span in sentences(text)] == expected


def test_a_bracket_that_never_closes_doesnt_swallow_the_text() -> None:
    assert len(sentences("（注意。" + "文である。" * 50)) == 51
