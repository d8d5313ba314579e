"""The corpus that the contestants look for duplicates in: public documents with planted copies.

Folder → documents in a fixed order, and which of them an exact comparison calls duplicates. A
planted copy is equal but for white space and full-width letters, or has single characters exchanged
at random places, as many as bring the Jaccard similarity of shingles to a figure drawn evenly from
0.7 to 1.

>>> documents = corpus(data_folder(None), share=0.1)
>>> truth = exact(documents, threshold=0.9)
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tokka.corpus.shingles import SIZE, shingles

SOURCES = {
    "jaquad": ("jaquad", ("dev.jsonl.gz", "train.jsonl.gz"), "context"),
    "laws": ("japanese_laws_2013", ("laws.jsonl.gz",), "text"),
    "manuals": (
        "debian_docs",
        (
            "debian-reference-en.jsonl.gz",
            "debian-reference-ja.jsonl.gz",
            "manpages-ja.jsonl.gz",
            "postgresql-doc-15.jsonl.gz",
        ),
        "text",
    ),
}
PLANTED_SHARE = 0.1
_LOWEST_SIMILARITY = 0.7
_SKETCH = 32  # smallest shingles of each document; two near duplicates share most of them
_SHARED = 6


def corpus(folder: Path, share: float = 1.0, seed: int = 0) -> list[dict[str, str]]:
    """`share` of each source, and a tenth as many planted copies, shuffled."""
    rng = random.Random(seed)
    documents = []
    for name, (place, files, field) in SOURCES.items():
        texts = [row[field] for file in files for row in _rows(folder / place / file)]
        texts = [text for text in texts if text.strip()]
        if share < 1:
            texts = rng.sample(texts, int(len(texts) * share))
        documents += [{"id": f"{name}-{at}", "text": text} for at, text in enumerate(texts)]
    planted = rng.sample(documents, int(len(documents) * PLANTED_SHARE))
    letters = sorted({c for one in documents[::50] for c in one["text"] if c.isalnum()})
    for at, source in enumerate(planted):
        if at % 3 == 0:
            text = source["text"].replace("\n", "\n\n").replace("a", "ａ")
        else:
            similarity = rng.uniform(_LOWEST_SIMILARITY, 1)
            text = edited(source["text"], similarity, letters, rng)
        documents.append({"id": f"planted-{at}", "text": text})
    rng.shuffle(documents)
    return documents


def edited(text: str, similarity: float, letters: list[str], rng: random.Random) -> str:
    """An exchanged unit takes SIZE shingles away and brings as many: with e of them in S shingles
    the similarity is (S - SIZE·e) ÷ (S + SIZE·e)."""
    different = len(np.unique(shingles([text]).hashes))
    edits = round(different * (1 - similarity) / (1 + similarity) / SIZE)
    written = list(text)
    places = [at for at, character in enumerate(written) if character.isalnum()]
    for at in rng.sample(places, min(edits, len(places))):
        written[at] = rng.choice(letters)
    return "".join(written)


def exact(documents: list[dict[str, str]], threshold: float) -> dict[str, Any]:
    """What an exact comparison finds, without MinHash or bands.

    `duplicates`: ids of documents to which an earlier, kept one is at least as similar as the
    threshold; `connected`: those that a chain of similar ones connects to an earlier one.
    `shingles` counts each document's different shingles.
    """
    sets = [np.unique(shingles([one["text"]]).hashes) for one in documents]
    holders: dict[int, list[int]] = defaultdict(list)
    for at, own in enumerate(sets):
        for value in own[:_SKETCH].tolist():
            holders[value].append(at)
    shared: Counter[tuple[int, int]] = Counter()
    for many in holders.values():
        if len(many) <= 300:
            shared.update(combinations(many, 2))
    similar: dict[int, list[int]] = defaultdict(list)
    for (one, other), count in shared.items():
        least = min(_SHARED, len(sets[one]), len(sets[other]))
        if count >= least and _jaccard(sets[one], sets[other]) >= threshold:
            similar[other].append(one)
    kept_out: set[int] = set()
    for at in sorted(similar):
        if any(earlier not in kept_out for earlier in similar[at]):
            kept_out.add(at)
    return {
        "duplicates": [documents[at]["id"] for at in sorted(kept_out)],
        "connected": [documents[at]["id"] for at in sorted(similar)],
        "shingles": [len(own) for own in sets],
    }


def _jaccard(one: Any, other: Any) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
