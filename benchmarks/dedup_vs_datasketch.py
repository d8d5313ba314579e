"""tokka's duplicates against datasketch 2.0.0 and the method of text-dedup 0.4.0.

    python benchmarks/dedup_vs_datasketch.py --data FOLDER [--quick] [--out results.json]

Work: the public laws, encyclopaedia passages and manuals of the data folder, with a tenth as many
planted copies (`dedup_work`), streamed once; shingles, threshold and number of permutations are the
same. Reading files is not counted; normalising, shingling, hashing and comparing are. All run in
one thread, twice, in new processes; the ratio is of processor time, which other programs on the
machine disturb least. `--quick` takes a tenth of the documents. `--million` instead streams a
million short documents through tokka, for its memory.

`f1` is of the documents found, against an exact comparison of all shingles. A ratio above 1 says
that tokka is faster than the fastest way of the peers. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from dedup_work import corpus, exact
from measuring import Facts, environment, machine, run, say, table
from peer_environment import DATASKETCH, python_of_the_peer
from public_data import add_data_option, data_folder

HERE = Path(__file__).parent
THRESHOLD = 0.9
ROUNDS = 2


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_option(options)
    options.add_argument("--quick", action="store_true", help="a tenth of the documents")
    options.add_argument("--million", action="store_true", help="tokka alone, 1,000,000 documents")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    given = options.parse_args()
    folder = data_folder(given.data)
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    if given.million:
        print(json.dumps(million(folder)))
        return
    python = python_of_the_peer(DATASKETCH)
    say("making the corpus")
    documents = corpus(folder, 0.1 if given.quick else 1.0)
    say("comparing all documents exactly")
    truth = exact(documents, THRESHOLD)
    measured = compare(documents, truth, python)
    found = summary(measured)
    print(report(documents, truth, measured))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"summary": found, "quick": given.quick, "machine": facts, **measured}
        given.out.write_text(json.dumps(whole, ensure_ascii=False, indent=1), encoding="utf-8")
    print(json.dumps(found))


def compare(documents: list[dict[str, str]], truth: Facts, python: str) -> Facts:
    """Seconds and F1 by way; ends the program where both sides' shingles are not the same."""
    alone = environment(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")
    ways: dict[str, Facts] = {}
    sides: Facts = {}
    with tempfile.TemporaryDirectory(prefix="tokka-dedup-") as place:
        path = Path(place, "documents.jsonl")
        with path.open("w", encoding="utf-8") as file:
            for one in documents:
                file.write(json.dumps(one, ensure_ascii=False) + "\n")
        units, ignored = _patterns()
        job = {"documents": str(path), "threshold": THRESHOLD, "size": 5, "units": units}
        job["ignored"] = ignored
        for number in range(1, ROUNDS + 1):
            say(f"round {number} of {ROUNDS}: the peers")
            peer = run([python, str(HERE / "dedup_peer.py")], job, alone)
            check_same_work(truth["shingles"], peer["shingles"])
            say(f"round {number} of {ROUNDS}: tokka")
            own = run([sys.executable, str(HERE / "dedup_own.py")], job, alone)
            sides = {"peer": _without_runs(peer), "own": _without_runs(own)}
            for name, one in {**peer["runs"], **own["runs"]}.items():
                scores = f1(one["duplicates"], truth["duplicates"])
                way = ways.setdefault(name, {"seconds": [], "cpu_seconds": [], **scores})
                way["seconds"].append(one["seconds"])
                way["cpu_seconds"].append(one["cpu_seconds"])
    return {"ways": ways, "sides": sides}


def check_same_work(own: Sequence[int], peer: Sequence[int]) -> None:
    """Both must have seen the same number of different shingles in each document."""
    wrong = [at for at, (a, b) in enumerate(zip(own, peer, strict=True)) if a != b]
    if wrong:
        at = wrong[0]
        sys.exit(
            f"{len(wrong)} documents have other shingles for the peers (document {at}: {own[at]} "
            f"and {peer[at]}), so there is no ratio"
        )


def f1(found: Collection[str], wanted: Collection[str]) -> Facts:
    right = len(set(found) & set(wanted))
    precision, recall = right / max(1, len(found)), right / max(1, len(wanted))
    return {
        "found": len(found),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
    }


def _patterns() -> tuple[str, list[int]]:
    """The units of `tokka.corpus.shingles` as a regular expression, and what it passes over."""
    from tokka.corpus import shingles

    classes = shingles._tables().classes

    def ranges(kind: int) -> str:
        codes = np.flatnonzero(classes == kind)
        breaks = np.flatnonzero(np.diff(codes) > 1) + 1
        spans = ((int(part[0]), int(part[-1])) for part in np.split(codes, breaks))
        return "".join(re.escape(chr(a)) + "-" + re.escape(chr(b)) for a, b in spans)

    pattern = f"[{ranges(shingles._SINGLE)}]|[{ranges(shingles._WORD)}]+"
    return pattern, np.flatnonzero(classes == shingles._IGNORED).tolist()


def _without_runs(side: Facts) -> Facts:
    return {name: value for name, value in side.items() if name not in ("runs", "shingles")}


# ---- the figures --------------------------------------------------------------------------------


def summary(measured: Facts) -> dict[str, float]:
    """Against the peers' fastest way, and their best F1, which may be another."""
    ways = measured["ways"]
    own = ways["tokka"]
    peers = [way for name, way in ways.items() if name != "tokka"]
    fastest = min(sum(way["cpu_seconds"]) for way in peers)
    return {
        "ratio": round(fastest / sum(own["cpu_seconds"]), 2),
        "f1_ours": round(own["f1"], 4),
        "f1_peer": round(max(way["f1"] for way in peers), 4),
    }


def report(documents: list[dict[str, str]], truth: Facts, measured: Facts) -> str:
    characters = sum(len(one["text"]) for one in documents)
    rows: list[Sequence[object]] = [
        (
            "",
            "seconds",
            "processor s",
            "documents/s",
            "M characters/s",
            "found",
            "precision",
            "recall",
            "F1",
        )
    ]
    for name, way in measured["ways"].items():
        mean = sum(way["cpu_seconds"]) / len(way["cpu_seconds"])
        rows.append(
            (
                name,
                *(" ".join(f"{t:.2f}" for t in way[key]) for key in ("seconds", "cpu_seconds")),
                f"{len(documents) / mean:,.0f}",
                characters / mean / 1e6,
                way["found"],
                *(f"{way[key]:.4f}" for key in ("precision", "recall", "f1")),
            )
        )
    own, peer = measured["sides"]["own"], measured["sides"]["peer"]
    each = own["memory_bytes"] / own["kept"]
    differ = len(set(truth["connected"]) ^ set(truth["duplicates"]))
    return "\n".join(
        [
            f"{len(documents):,} documents, {characters:,} characters, "
            f"{len(truth['duplicates']):,} duplicates ({differ} more only through one left out)",
            "",
            table(rows),
            "",
            f"peak memory, documents included: tokka {own['peak_bytes'] >> 20} MiB, the peers "
            f"{peer['peak_bytes'] >> 20} MiB",
            f"kept for each document by tokka: {each:.0f} bytes in memory, "
            f"{own['file_bytes'] / own['kept']:,.0f} in a file; for a million such documents "
            f"{each * 1e6 / 2**20:,.0f} MiB and "
            f"{own['file_bytes'] / own['kept'] * 1e6 / 2**30:,.1f} GiB",
        ]
    )


def million(folder: Path) -> Facts:
    """A million documents of 300 characters, cut at random from the corpus, and their memory."""
    import random

    from measuring import peak_bytes, timed

    from tokka.corpus.duplicates import Duplicates, in_batches

    rng = random.Random(0)
    text = "".join(one["text"] for one in corpus(folder, 0.3))
    before = peak_bytes()

    def items():  # type: ignore[no-untyped-def]
        for number in range(1_000_000):
            if number % 100_000 == 0:
                say(f"{number:,} documents")
            parts = (rng.randrange(len(text) - 60) for _ in range(5))
            yield (f"documents/{number:07}", " ".join(text[at : at + 60] for at in parts), "")

    with Duplicates(THRESHOLD, keep_versions=False) as seen:
        measured = timed(
            lambda: sum(
                one is not None
                for batch in in_batches(items(), lambda item: len(item[1]))
                for one in seen.add_all(batch)
            )
        )
        return {
            "documents": 1_000_000,
            "seconds": round(measured.seconds, 1),
            "found": measured.value,
            "memory_mib": seen.memory_bytes >> 20,
            "peak_growth_mib": (measured.peak_bytes - before) >> 20,
            "file_mib": seen.file_bytes >> 20,
        }


if __name__ == "__main__":
    main()
