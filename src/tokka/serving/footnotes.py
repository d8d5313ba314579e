"""What an answer rests on, as a reader sees it and as a program reads it.

Answer with citations → footnotes under the text, OpenAI's annotations, and fields of our own.

>>> footnotes(answer, "ja")
'\\n\\n[1] 融資規程、2ページ'

A chat's history comes back with the footnotes in it: `without_footnotes` takes them off, so that
the model reads its earlier answers as it gave them.
"""

from __future__ import annotations

import re
from typing import Any

from tokka.records import Answer, Citation, Passage

# Only what stands at the very end, line by line, in the form that `footnotes` writes. Possessive: a
# caller's line of spaces would otherwise be tried from each of its places.
_FOOT = re.compile(r"\n\n\[\d{1,3}\] [^\n]++(?:\n\[\d{1,3}\] [^\n]++)*+\s*+\Z")
_TITLE_CHARACTERS = 200


def footnotes(answer: Answer, language: str) -> str:
    """One line for each cited passage and page, in the order of their numbers; empty where nothing
    is cited."""
    seen: dict[tuple[int, int | None], str] = {}
    for citation in answer.citations:
        at = (citation.passage, citation.page)
        if at not in seen:
            seen[at] = _line(citation, _passage(answer, citation), language)
    lines = [seen[at] for at in sorted(seen, key=lambda at: (at[0], at[1] or 0))]
    return "\n\n" + "\n".join(lines) if lines else ""


def without_footnotes(text: str) -> str:
    return _FOOT.sub("", text)


def citations_of(answer: Answer) -> list[dict[str, Any]]:
    """`start` and `end` are places in the document, `answer_start` and `answer_end` in the text."""
    rows = []
    for one in answer.citations:
        passage = _passage(answer, one)
        rows.append(
            {
                "number": one.passage,
                "document_id": one.document_id,
                "title": passage.title if passage else "",
                "page": one.page,
                "start": one.start,
                "end": one.end,
                "quote": _quote(one, passage),
                "answer_start": one.answer_start,
                "answer_end": one.answer_end,
                "support": round(one.support, 6),
            }
        )
    return rows


def annotations_of(answer: Answer) -> list[dict[str, Any]]:
    """OpenAI's shape. A document has no address on the web, so its id stands in place of a URL."""
    rows = []
    for one in answer.citations:
        passage = _passage(answer, one)
        rows.append(
            {
                "type": "url_citation",
                "url_citation": {
                    "url": one.document_id,
                    "title": passage.title if passage and passage.title else one.document_id,
                    "start_index": one.answer_start,
                    "end_index": one.answer_end,
                },
            }
        )
    return rows


def passages_of(answer: Answer) -> list[dict[str, Any]]:
    """What stood in the prompt, without its text: the citations quote what counts."""
    return [
        {
            "number": p.number,
            "document_id": p.document_id,
            "title": p.title,
            "page": p.page,
            "start": p.start,
            "end": p.end,
        }
        for p in answer.passages
    ]


def _passage(answer: Answer, citation: Citation) -> Passage | None:
    return next((p for p in answer.passages if p.number == citation.passage), None)


def _quote(citation: Citation, passage: Passage | None) -> str:
    if passage is None:
        return ""
    return passage.text[citation.start - passage.start : citation.end - passage.start]


def _line(citation: Citation, passage: Passage | None, language: str) -> str:
    title = (passage.title if passage else "") or citation.document_id
    title = " ".join(title.split())[:_TITLE_CHARACTERS]  # a title with a line break isn't two notes
    if citation.page is None:
        return f"[{citation.passage}] {title}"
    if language.startswith("ja"):
        return f"[{citation.passage}] {title}、{citation.page}ページ"
    return f"[{citation.passage}] {title}, p. {citation.page}"
