"""Among the first hits, texts that keep the query's words together come first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokka.records import Caller, RetrievalSpec
from tokka.retrieval import building
from tokka.retrieval.hybrid import Index
from tokka.retrieval.pairs import pairs_in
from tokka.retrieval.tokenise import tokens

TEXTS = ("期限の融資と窓口", "融資の期限と窓口", "融資期限", "窓口")
SPEC = RetrievalSpec(dense=False)


@pytest.fixture(params=[1, 100])
def index(
    built: Any, new_piece: Any, tmp_path: Path, request: Any, monkeypatch: pytest.MonkeyPatch
) -> Index:
    monkeypatch.setattr(building, "_ROWS_OF_A_PART", request.param)
    opened: Index = built(tmp_path, [new_piece(f"d{i}", text) for i, text in enumerate(TEXTS)])
    return opened


def test_a_pair_is_counted_among_the_rows_that_were_found(index: Index) -> None:
    view = index._rows().view(Caller(), {})
    assert tokens("融資の期限と窓口", "ja") == ["融資", "期限", "窓口"]
    found = pairs_in(["融資", "期限", "窓口", "期限", "無い"], np.array([2, 1, 0]), view)
    assert found.pairs == (
        ("融資", "期限"), ("期限", "窓口"),
        ("窓口", "期限"), # the end of one row and the beginning of the next
        ("期限", "無い"),
    )  # fmt: skip
    assert found.holds.tolist() == [
        [True, False, False, False], [True, True, False, False], [False] * 4,
    ]  # fmt: skip
    assert found.rarity[:2] == pytest.approx([math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)])
    sums = found.sums()
    assert sums == pytest.approx([found.rarity[0], found.rarity[:2].sum(), 0.0])


def test_words_that_stay_together_come_first(index: Index) -> None:
    found = index.search("融資の期限と窓口", 2, SPEC)
    assert found[0].document_id == "d1"
    plain = index.search("融資の期限と窓口", 2, SPEC.model_copy(update={"pairs": 0.0}))
    assert [p.document_id for p in plain] == ["d0", "d1"]  # equal but for their order
    assert plain[0].lexical == plain[1].lexical


def test_rows_beyond_the_candidates_stay_behind(index: Index) -> None:
    few = SPEC.model_copy(update={"candidates": 1})
    assert [p.document_id for p in index.search("融資の期限と窓口", 4, few)] == [
        p.document_id
        for p in index.search("融資の期限と窓口", 4, few.model_copy(update={"pairs": 0.0}))
    ]


def test_an_explanation_names_the_pairs(index: Index) -> None:
    best = index.explain("融資の期限と窓口", 1, SPEC)[0]
    assert [term.words for term in best.terms][-2:] == [("融資", "期限"), ("期限", "窓口")]
    assert sum(term.score for term in best.terms) == pytest.approx(best.lexical, abs=1e-3)
