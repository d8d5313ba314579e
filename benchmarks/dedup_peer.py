"""datasketch, and the method of text-dedup, on the same documents and shingles: a contestant.

Job: `documents`, `threshold`, `units` (the pattern of a unit), `size`, `ignored`. The shingles are
made the quickest way that Python has; hashes are xxHash's, which is quicker than both peers' SHA-1.

datasketch: MinHash(128), MinHashLSH, and one that has a candidate is not inserted; also with the
candidate's estimated similarity at the threshold or above. text-dedup (minhash, its defaults:
(a·x + b) mod 2^61 - 1, bands by its optimal_param, union of all that share a band, no comparison)
is done with its own formulas here: its package needs Spark and TensorFlow's family.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasketch import MinHash, MinHashLSH
from measuring import Facts, contestant, tell, timed

PERMUTATIONS = 128
_PRIME = np.uint64((1 << 61) - 1)
_MOST = np.uint64((1 << 32) - 1)


def work(job: Facts) -> Facts:
    with Path(job["documents"]).open(encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    units, size = re.compile(job["units"]), job["size"]
    ignored = dict.fromkeys(job["ignored"])
    counts: list[int] = []

    def shingled(text: str) -> set[str]:
        text = unicodedata.normalize("NFKC", text).translate(ignored).casefold()
        found = units.findall(text)
        if len(found) < size:
            return {"\x1f".join(found)} if found else set()
        return set(map("\x1f".join, zip(*(found[i:] for i in range(size)), strict=False)))

    def sets() -> Iterator[tuple[str, set[str]]]:
        counts.clear()
        for at, one in enumerate(documents):
            own = shingled(one["text"])
            counts.append(len(own))
            yield one["id"], own
            if at % 4000 == 3999:
                tell(f"{at + 1:,} documents")

    ways: dict[str, Callable[[], list[str]]] = {
        "datasketch": lambda: with_datasketch(sets(), job["threshold"], verify=False),
        "datasketch, estimate checked": lambda: with_datasketch(
            sets(), job["threshold"], verify=True
        ),
        "text-dedup's method": lambda: as_text_dedup(sets(), job["threshold"]),
    }
    runs = {}
    peak = 0
    for name, way in ways.items():
        tell(name)
        used = time.process_time()
        measured = timed(way)
        used = time.process_time() - used
        peak = max(peak, measured.peak_bytes)
        runs[name] = {
            "seconds": measured.seconds,
            "cpu_seconds": used,
            "duplicates": measured.value,
        }
    return {"runs": runs, "peak_bytes": peak, "shingles": counts}


def with_datasketch(
    sets: Iterator[tuple[str, set[str]]], threshold: float, verify: bool
) -> list[str]:
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    kept: dict[str, Any] = {}
    duplicates = []
    for name, own in sets:
        sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch([shingle.encode() for shingle in own])
        candidates = index.query(sketch) if own else []
        if any(not verify or kept[one].jaccard(sketch) >= threshold for one in candidates):
            duplicates.append(name)
            continue
        index.insert(name, sketch)
        if verify:
            kept[name] = sketch
    return duplicates


def as_text_dedup(sets: Iterator[tuple[str, set[str]]], threshold: float) -> list[str]:
    bands, rows = optimal_bands(threshold)
    rng = np.random.RandomState(42)
    a = rng.randint(1, int(_PRIME), PERMUTATIONS, dtype=np.uint64)
    b = rng.randint(0, int(_PRIME), PERMUTATIONS, dtype=np.uint64)
    names: list[str] = []
    tables: list[dict[bytes, int]] = [{} for _ in range(bands)]
    parents: list[int] = []

    def root(of: int) -> int:
        while parents[of] != of:
            parents[of] = of = parents[parents[of]]
        return of

    for name, own in sets:
        at = len(names)
        names.append(name)
        parents.append(at)
        if not own:
            continue
        hashes = np.array([xxhash.xxh32_intdigest(one.encode()) for one in own], dtype=np.uint64)
        least = ((hashes[:, None] * a + b) % _PRIME & _MOST).min(axis=0)
        for band, table in enumerate(tables):
            first = table.setdefault(least[band * rows : (band + 1) * rows].tobytes(), at)
            if first != at:
                one, other = sorted((root(first), root(at)))
                parents[other] = one
    return [name for at, name in enumerate(names) if root(at) != at]


def optimal_bands(threshold: float) -> tuple[int, int]:
    """The bands and rows whose false candidates and misses, integrated over all similarities, are
    least in sum: both peers choose like this."""
    steps = np.linspace(0, 1, 2001)
    below, above = steps[steps < threshold], steps[steps >= threshold]
    best = (float("inf"), 1, 1)
    for bands in range(1, PERMUTATIONS + 1):
        for rows in range(1, PERMUTATIONS // bands + 1):
            wrong = (1 - (1 - below**rows) ** bands).sum() + ((1 - above**rows) ** bands).sum()
            best = min(best, (float(wrong), bands, rows))
    return best[1], best[2]


if __name__ == "__main__":
    contestant(work)
