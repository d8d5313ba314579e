"""On real Japanese passages the index finds the right one."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tokka.records import Chunk, RetrievalSpec
from tokka.retrieval.citations import attribute
from tokka.retrieval.hybrid import build_index, open_index

DATA = Path(os.environ.get("TOKKA_DATA") or Path(__file__).parents[3] / "shared" / "data")
SOURCE = DATA / "jaquad" / "dev.jsonl.gz"
SPEC = RetrievalSpec(dense=False, top_k=10)


@pytest.mark.skipif(not SOURCE.is_file(), reason="no JaQuAD; set TOKKA_DATA to a folder with it")
def test_jaquad_questions_find_their_passage_and_answers_cite_it(tmp_path: Path) -> None:
    with gzip.open(SOURCE, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(500), strict=False)]
    chunks = [
        Chunk(
            id=f"p{i}", document_id=f"p{i}", text=row["context"], start=0, end=len(row["context"])
        )
        for i, row in enumerate(rows)
    ]
    build_index(chunks, tmp_path, SPEC, "ja", None)
    asked = [(i, row["questions"][0]) for i, row in enumerate(rows) if row["questions"]][::5]
    found = right = cited = 0
    with open_index(tmp_path, None) as index:
        for i, question in asked:
            passages = index.search(question["question"], 10, SPEC)
            if f"p{i}" not in {passage.document_id for passage in passages}:
                continue
            found += 1
            citations = attribute(question["answers"][0], passages[:4], "ja", question["question"])
            cited += bool(citations)
            right += any(citation.document_id == f"p{i}" for citation in citations)
    assert len(asked) >= 90
    assert found / len(asked) >= 0.95
    assert right / cited >= 0.8
